"""Twins: one moment of a simulator lived through several times, with other actions, or with other chance alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.clip import Clip, Space
from tacit.data.collect import World, opened
from tacit.envs.simulator import Simulator

APART = 0.5  # how far from what was done another continuous action is at least, of half the range of one number
TRIES = 64  # actions drawn in search of one so far away


@dataclass(frozen=True)
class Twins:
    """``N`` moments, and what came of each by ``K`` actions under the same chance; the first was really taken.

    ``frames`` and ``state`` are ``(N, P + 1 + K, ...)``: what led to the moment, the moment, and the ``K`` outcomes.
    ``stirred`` is what came of the first action under other chance, ``None`` where nothing moves by chance.
    """

    frames: Tensor  # (N, P + 1 + K, C, H, W) uint8
    state: Tensor  # (N, P + 1 + K, S)
    actions: Tensor  # (N, K) or (N, K, A)
    stirred_frames: Tensor | None  # (N, C, H, W)
    stirred_state: Tensor | None  # (N, S)
    owner: np.ndarray  # (N,) the episode of each moment
    space: Space

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def ways(self) -> int:
        """How many actions were tried in each moment."""
        return self.actions.shape[1]

    def clip(self, way: int) -> Clip:
        """What led to each moment, the moment, and what one of the actions made of it."""
        return self._ending(self.frames[:, self._at(way)], self.state[:, self._at(way)])

    @property
    def stirred(self) -> Clip | None:
        """The clip of the first action under other chance."""
        if self.stirred_frames is None or self.stirred_state is None:
            return None
        return self._ending(self.stirred_frames, self.stirred_state)

    def _at(self, way: int) -> int:
        if not 0 <= way < self.ways:
            raise IndexError(f"Way {way} of {self.ways}.")
        return self.frames.shape[1] - self.ways + way

    def _ending(self, frames: Tensor, state: Tensor) -> Clip:
        led = self.frames.shape[1] - self.ways
        return Clip(
            frames=torch.cat([self.frames[:, :led], frames[:, None]], 1),
            state=torch.cat([self.state[:, :led], state[:, None]], 1),
        )


def twins(
    env: World,
    *,
    count: int = 256,
    ways: int = 4,
    past: int = 0,
    apart: int = 5,
    demonstrator: str = "play",
    noise: float = 0.0,
    seed: int = 0,
    size: int = 64,
    options: Mapping[str, Any] | None = None,
) -> Twins:
    """Play ``env`` and, every ``apart`` decisions, try ``ways`` actions from the same state with the same chance.

    What moves by itself (a distractor's noise) draws the same numbers in each of them; in one more future the action is
    the first one's and only those numbers are others.
    """
    if min(count, ways, apart) < 1 or past < 0:
        raise ValueError(f"Given {count=}, {ways=}, {apart=}, {past=}; wanted at least 1 of each, and a past of 0 up.")
    world = opened(env, size=size, options=options)
    if world.space.discrete and ways > world.space.size:
        raise ValueError(f"{world.name} has {world.space.size} actions; it cannot go {ways} ways.")
    random, rows, episode = np.random.default_rng([seed, 13]), list[_Moment](), 0
    try:
        while len(rows) < count:
            began = len(rows)
            rows += _lived(world, episode, random, count - began, ways=ways, past=past, apart=apart,
                           demonstrator=demonstrator, noise=noise, seed=seed)  # fmt: skip
            episode += 1
            if len(rows) == began and episode > 20 and not rows:
                raise ValueError(
                    f"20 episodes of {world.name} were over before decision {past}; give a shorter past or "
                    "another demonstrator."
                )
    finally:
        world.close()
    known = all(row.stirred is not None for row in rows)
    chance = [row.stirred for row in rows if row.stirred is not None] if known else []
    return Twins(
        frames=torch.stack([_pictures([o["frame"] for o in row.seen]) for row in rows]),
        state=torch.from_numpy(np.stack([[o["state"] for o in row.seen] for row in rows])),
        actions=torch.from_numpy(np.stack([row.actions for row in rows])),
        stirred_frames=_pictures([o["frame"] for o in chance]) if known else None,
        stirred_state=torch.from_numpy(np.stack([o["state"] for o in chance])) if known else None,
        owner=np.array([row.episode for row in rows]),
        space=world.space,
    )


@dataclass(frozen=True)
class _Moment:
    seen: list[dict[str, np.ndarray]]
    actions: np.ndarray
    stirred: dict[str, np.ndarray] | None
    episode: int


def _lived(
    world: Simulator,
    episode: int,
    random: np.random.Generator,
    most: int,
    *,
    ways: int,
    past: int,
    apart: int,
    demonstrator: str,
    noise: float,
    seed: int,
) -> list[_Moment]:
    """The moments of one episode, which goes on after each as if nothing had been tried."""
    start = int(np.random.SeedSequence([seed, episode, 14]).generate_state(1)[0]) >> 1
    who = world.expert(noise=noise, seed=start) if demonstrator == "expert" else world.play(seed=start)
    observation, _ = world.reset(seed=start)
    who.begin(world)
    seen, found, over = [observation], list[_Moment](), False
    while not over and len(found) < most:
        action = np.asarray(who.act(world))
        if (world.steps - past) % apart == 0 and world.steps >= past:
            tried = _others(action, world.space, ways, random)
            now, ends = world.snapshot(), list[dict[str, np.ndarray]]()
            for other in tried:
                world.restore(now)
                ends.append(world.step(other)[0])
            world.restore(now)
            known = world.stir(int(random.integers(2**31)))
            stirred = world.step(action)[0] if known else None
            world.restore(now)
            found.append(_Moment([*seen[len(seen) - past - 1 :], *ends], tried, stirred, episode))
        observation, _, terminated, truncated, _ = world.step(action)
        seen, over = [*seen, observation][-past - 1 :], terminated or truncated
    return found


def _others(action: np.ndarray, space: Space, ways: int, random: np.random.Generator) -> np.ndarray:
    """What is done, and other actions that are plainly others."""
    if space.discrete:
        rest = random.permutation([a for a in range(space.size) if a != int(action)])[: ways - 1]
        return np.array([int(action), *rest.tolist()], np.int64)
    chosen, least = [np.asarray(action, np.float32)], APART * (space.high - space.low) / 2
    for _ in range(ways - 1):
        drawn = [space.sample(random) for _ in range(TRIES)]
        gaps = [min(float(np.abs(d - c).max()) for c in chosen) for d in drawn]
        far = [d for d, gap in zip(drawn, gaps, strict=True) if gap >= least]
        chosen.append(far[0] if far else drawn[int(np.argmax(gaps))])
    return np.stack(chosen)


def _pictures(frames: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
