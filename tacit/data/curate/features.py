"""What a score sees of an episode: a few numbers a frame, from its state or, where it has none, from its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tacit.data.curate.pictures import small
from tacit.data.episodes import Episodes

Features = Callable[[Episodes], list[np.ndarray]]  # (T, F) an episode


def seen(episodes: Episodes, *, dim: int = 16, side: int = 12) -> list[np.ndarray]:
    """The state, each number in its deviation over the set; without state, small pictures; at most ``dim`` axes.

    The axes are the principal ones, so that near and far are told by few numbers that say much.
    """
    state = episodes.column("state")
    if state is not None:
        whole = scaled(state.astype(np.float64))
    else:
        pictures = [small(episodes, i, side=side).reshape(-1, 3 * side * side) for i in range(len(episodes))]
        whole = np.concatenate(pictures).astype(np.float32) / 255
    return np.split(projected(whole, dim), np.cumsum(episodes.lengths)[:-1])


def scaled(rows: np.ndarray) -> np.ndarray:
    """Columns in their deviation around their mean; those that never change say nothing and are left out."""
    centre, spread = rows.mean(0), rows.std(0)
    told = spread > 1e-6 * (1 + np.abs(centre))
    return np.asarray((rows[:, told] - centre[told]) / spread[told])


def projected(rows: np.ndarray, dim: int) -> np.ndarray:
    """Rows on their ``dim`` principal axes, in units in which the whole set has one deviation a column on average."""
    if not rows.shape[1]:
        return np.zeros((len(rows), 1))
    rows = rows - rows.mean(0)
    if rows.shape[1] > dim:
        _, axes = np.linalg.eigh(rows.T @ rows)
        rows = rows @ axes[:, : -dim - 1 : -1]
    return np.asarray(rows / (np.sqrt((rows**2).mean()) or 1.0), np.float64)


@dataclass(frozen=True)
class Points:
    """Every labelled transition of a set: what was seen, what was done, and in which episode."""

    owner: np.ndarray  # (N,)
    view: np.ndarray  # (N, F): what was seen
    done: np.ndarray  # (N, A): discrete actions as one-hot rows, continuous ones in their deviation over the set

    @classmethod
    def of(cls, episodes: Episodes, *, features: Features = seen) -> Points:
        """Take the points of the set, or say that it has no labels."""
        done, known = np.concatenate(acts(episodes)), np.flatnonzero(episodes.mask)
        owner = np.repeat(np.arange(len(episodes)), episodes.lengths)[known]
        return cls(owner, np.concatenate(features(episodes))[known], done)

    def mean(self, values: np.ndarray, *, count: int) -> np.ndarray:
        """The mean of one value a point for each of ``count`` episodes; NaN where an episode has none."""
        return means(values, self.owner, count=count)


def means(values: np.ndarray, owner: np.ndarray, *, count: int) -> np.ndarray:
    """The mean of the values of each of ``count`` owners; NaN where one has none."""
    total, held = np.bincount(owner, values, minlength=count), np.bincount(owner, minlength=count)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / held)


def acts(episodes: Episodes) -> list[np.ndarray]:
    """The labelled actions of each episode, (N, A): one-hot rows, or numbers in their deviation over the set."""
    space = episodes.spec.space
    if space is None or not episodes.labelled:
        raise ValueError(
            f"The data {episodes.spec.name!r} holds no action, and this score looks at actions: it needs labels. Use "
            f"one that needs none: {'typical_states, typical_ends, ' if episodes.spec.state else ''}typical_length."
        )
    actions, mask = episodes.column("actions"), episodes.mask
    assert actions is not None
    done = np.eye(space.size)[actions[mask]] if space.discrete else actions[mask].astype(np.float64)
    if not space.discrete:
        spread = done.std(0)
        done = (done - done.mean(0)) / np.where(spread > 0, spread, 1)
    counts = np.add.reduceat(mask.astype(np.int64), episodes.starts)
    return np.split(done, np.cumsum(counts)[:-1])


def runs(episodes: Episodes) -> list[list[np.ndarray]]:
    """The labelled actions of each episode in unbroken runs, for what compares an action with the next."""
    mask, found = episodes.mask, []
    for done, start, length in zip(acts(episodes), episodes.starts, episodes.lengths, strict=True):
        at = np.flatnonzero(mask[start : start + length])
        found.append(np.split(done, np.flatnonzero(np.diff(at) > 1) + 1))
    return found
