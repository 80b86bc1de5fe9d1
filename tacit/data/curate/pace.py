"""Pace: the same recording faster or slower, with a column that says how fast, so that a policy can be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, final

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.curate.dropped import Drop, Dropped
from tacit.data.episodes import Episodes
from tacit.data.reader import Reader

Together = Literal["mean", "sum"]


def retime(
    episodes: Episodes, speeds: Sequence[float] | float, *, together: Together = "mean", column: bool = True
) -> tuple[Episodes, Dropped]:
    """The episodes at other speeds (2: twice as fast), those of each speed in turn, at the rate they had.

    Time is counted back from the last frame, where success and the last reward lie. Pictures are the nearest ones,
    states lie on the line between two. An action is the ``mean`` over the time it now spans, or their ``sum`` where
    actions are steps to be taken; a choice is the one that was in force longest. Rewards are summed. With ``column``
    the speed is the state's last number; the source says it too, "expert @2x". Latents are not carried over.
    """
    many = [float(speeds)] if isinstance(speeds, int | float) else [float(s) for s in speeds]
    if not many or not all(0 < s < np.inf for s in many):
        raise ValueError(f"The speeds are {speeds}; wanted numbers above 0, 1 being the speed of the recording.")
    told = [(i, s) for s in many for i in range(len(episodes))]
    held = [(i, s) for i, s in told if _count(int(episodes.lengths[i]), s) >= 2]
    if not held:
        raise ValueError(f"At the speeds {many} no episode has two frames; ask for slower ones.")
    names, lost = episodes.names, sorted(set(told) - set(held))
    gone = tuple(
        Drop(_at(names[i], s), i, float(episodes.lengths[i]), f"too short to be seen {s:g} times as fast")
        for i, s in lost
    )
    return Episodes(Paced(episodes, held, together=together, column=column)), Dropped(gone, len(episodes))


@final
class Paced(Reader):
    """Views episodes of a set at given speeds, re-timed when they are asked for."""

    def __init__(
        self,
        episodes: Episodes,
        pairs: Sequence[tuple[int, float]],
        *,
        together: Together = "mean",
        column: bool = True,
    ) -> None:
        self._whole, self.pairs, self.together, self.column = episodes, tuple(pairs), together, column
        self.lengths = np.array([_count(int(episodes.lengths[i]), s) for i, s in self.pairs], np.int64)
        self.spec = dataclasses.replace(episodes.spec, state=episodes.spec.state + column, latent=0, codes=0)
        self.faults = episodes.reader.faults

    @property
    def origin(self) -> Any:
        return [self._whole.origin, self.pairs, self.together, self.column]

    def episode(self, number: int) -> Episode:
        which, speed = self.pairs[number]
        episode, space = self._whole.episode(which), self._whole.spec.space
        places = len(episode) - 1 - speed * np.arange(int(self.lengths[number]))[::-1]
        nearest = np.floor(places + 0.5).astype(int)
        state = None if episode.state is None else _between(episode.state, places)
        if self.column:
            told = np.full((len(places), 1), speed, np.float32)
            state = told if state is None else np.concatenate([state, told], 1)
        share = shares(places, len(episode) - 1)
        actions = None
        if episode.actions is not None and space is not None:
            actions = _gathered(episode.actions, share, space=space, together=self.together)
        rewards = None if episode.rewards is None else (share @ np.nan_to_num(episode.rewards)).astype(np.float32)
        if rewards is not None and episode.rewards is not None:
            rewards[(share @ np.isnan(episode.rewards)) > 0] = np.nan
        return episode.replace(
            frames=None if episode.frames is None else episode.frames[nearest], state=state, actions=actions,
            rewards=rewards, latents=None, codes=None, source=self.sources[number],
        )  # fmt: skip

    @cached_property
    def sources(self) -> tuple[str, ...]:
        whole = self._whole.sources
        return tuple(_at(whole[i], s) for i, s in self.pairs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        whole = self._whole.names
        return tuple(_at(whole[i], s) for i, s in self.pairs)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        whole = self._whole.texts
        return tuple(whole[i] for i, _ in self.pairs)

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        whole = self._whole.successes
        return tuple(whole[i] for i, _ in self.pairs)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        whole = self._whole.splits
        return tuple(whole[i] for i, _ in self.pairs)


def _at(name: str, speed: float) -> str:
    return name if speed == 1 else f"{name} @{speed:g}x".strip()


def _count(length: int, speed: float) -> int:
    return int((length - 1) / speed + 1e-9) + 1


def _between(state: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows on the straight line between the two that lie around each place."""
    low = np.clip(np.floor(places).astype(int), 0, max(0, len(state) - 2))
    part = np.clip(places - low, 0, 1)[:, None]
    high = np.minimum(low + 1, len(state) - 1)
    return ((1 - part) * state[low] + part * state[high]).astype(np.float32)


def shares(places: np.ndarray, count: int) -> np.ndarray:
    """How much of each of ``count`` steps of time lies between each place and the next, (places - 1, count)."""
    old = np.arange(count)
    covered = np.minimum(places[1:, None], old + 1) - np.maximum(places[:-1, None], old)
    return np.clip(covered, 0, None)


def _gathered(actions: np.ndarray, share: np.ndarray, *, space: Space, together: Together) -> np.ndarray:
    """The action of each new transition; blank where a part of it was not labelled."""
    known = space.labelled(actions)
    if space.discrete:
        force = share @ (np.eye(space.size)[np.maximum(actions, 0)] * known[:, None])
        done = np.where(force.any(1), force.argmax(1), -1)
    else:
        done = share @ np.where(known[:, None], actions, 0)
        if together == "mean":
            done = done / share.sum(1, keepdims=True)
        else:
            done = np.clip(done, space.low, space.high)
    done = done.astype(space.dtype)
    done[(share @ ~known) > 1e-9] = space.blank(1)[0]
    return done
