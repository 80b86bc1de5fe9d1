"""Demonstrations with a known defect: recorded in real simulators, by experts that are led astray as people are.

- noise: Ornstein-Uhlenbeck noise on every action; the expert, who sees where it led, still succeeds
- tremor: every second action pushed one way, every other the opposite way; the expert still succeeds
- truncation: the recording ends on the way, before the success
- wrong move: past the middle of the way the expert does the opposite for some decisions, then recovers and succeeds
- mislabelled: the demonstrator aims beside the goal, fails, stops as if done, and is marked a success
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.envs.simulator import Simulator

SHARE = 0.3  # of the episodes that get a defect, and that each score drops
NATURAL = 0.05  # noise of a clean demonstrator, a share of half the action range: nobody repeats himself exactly
HOLD = 5  # decisions that are recorded after a success that does not end the episode
TRIES = 50  # starts that are tried for an episode that must succeed, or fail


@dataclass(frozen=True)
class Place:
    """One environment: how it is opened, how much is recorded and trained, and how strong its defects are."""

    options: Mapping[str, Any]
    episodes: int
    steps: int  # of training
    tries: int  # episodes by which a policy is judged
    noise: float
    tremor: float
    wrong: int  # decisions
    shift: Callable[[Any, np.ndarray], Callable[[], None]]  # make the expert believe the goal elsewhere, until undone


def _mass(simulator: Any, way: np.ndarray) -> Callable[[], None]:
    place, real = simulator._data.qpos, simulator._data.qpos.copy()
    place += 0.08 * way[:2] / np.linalg.norm(way[:2])
    return lambda: place.__setitem__(slice(None), real)


def _seen(offset: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any, np.ndarray], Callable[[], None]]:
    def shift(simulator: Any, way: np.ndarray) -> Callable[[], None]:
        real = simulator._seen
        simulator._seen = np.asarray(real, np.float64) + offset(way)[: len(real)]
        return lambda: setattr(simulator, "_seen", real)

    return shift


def _aside(way: np.ndarray) -> np.ndarray:
    """The craft believes itself half a screen to one side."""
    return np.array([0.5 * np.sign(way[0]), 0, 0, 0, 0, 0, 0, 0])


def _beside(way: np.ndarray) -> np.ndarray:
    """The puck seems to lie a hand's breadth away."""
    moved = np.zeros(39)
    moved[[4, 5]] = 0.1 * way[:2] / np.linalg.norm(way[:2])
    return moved


PLACES: dict[str, Place] = {
    "control/point_mass": Place({"repeat": 10, "horizon": 50}, 40, 400, 50, 0.5, 0.5, 4, _mass),
    "lander/continuous": Place({}, 30, 500, 40, 0.5, 0.25, 12, _seen(_aside)),
    "metaworld/push": Place({"repeat": 4, "horizon": 40}, 40, 500, 24, 0.2, 0.2, 3, _seen(_beside)),
}
DEFECTS = ("noise", "tremor", "truncation", "wrong move", "mislabelled")
STRUCTURAL = ("truncation", "wrong move", "mislabelled")


class Demonstrator:
    """The simulator's expert with natural noise, and with a defect where one is named."""

    def __init__(self, place: Place, defect: str, *, key: int, random: np.random.Generator) -> None:
        self.place, self.defect, self.key, self.random = place, defect, key, random
        self.step, self.drift, self.way = 0, 0.0, random.normal(size=8)

    def act(self, simulator: Simulator) -> np.ndarray:
        undo = self.place.shift(simulator, self.way) if self.defect == "mislabelled" else None
        action, space = simulator.rule().astype(np.float64), simulator.space
        if undo is not None:
            undo()
        half, step = (space.high - space.low) / 2, self.step
        self.step += 1
        if self.defect == "wrong move" and self.key <= step < self.key + self.place.wrong:
            action = -action
        action = action + half * NATURAL * self.random.normal(size=space.size)
        if self.defect == "noise":
            self.drift = 0.9 * self.drift + np.sqrt(1 - 0.81) * self.place.noise * self.random.normal(size=space.size)
            action = action + half * self.drift
        if self.defect == "tremor":
            push = self.random.uniform(0.5, 1.5, space.size) * np.sign(self.way[: space.size])
            action = action + half * self.place.tremor * push * (-1) ** step
        return np.clip(action, space.low, space.high).astype(np.float32)


def played(simulator: Simulator, demonstrator: Demonstrator, *, seed: int, stop: int = 10**6) -> tuple[Episode, int]:
    """One recording, and the decision that brought success (0: none). It ends ``HOLD`` decisions after that."""
    observation, _ = simulator.reset(seed=seed)
    states, actions, won = [observation["state"].copy()], [], 0
    while True:
        actions.append(demonstrator.act(simulator))
        observation, _, terminated, truncated, info = simulator.step(actions[-1])
        states.append(observation["state"].copy())
        won = won or len(actions) * bool(info["success"])
        if terminated or truncated or len(actions) >= stop or (won and len(actions) >= won + HOLD):
            break
    return Episode(state=np.stack(states), actions=np.stack(actions), source="demonstration", success=True), won


def recorded(simulator: Simulator, place: Place, *, defect: str, seed: int) -> tuple[Episodes, np.ndarray]:
    """The demonstrations of one cell, and which of them are defective; clean ones are the same for every defect."""
    episodes = []
    flawed = np.random.default_rng([seed, 1]).permutation(place.episodes) < round(SHARE * place.episodes)
    for number in range(place.episodes):
        for attempt in range(TRIES):
            start = int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0] >> 1)
            random = np.random.default_rng([seed, number, attempt])
            clean = Demonstrator(place, "", key=0, random=random)
            episode, won = played(simulator, clean, seed=start)
            if won and flawed[number]:
                lengths = won, len(episode) - 1
                episode, won = spoilt(simulator, place, defect=defect, start=start, lengths=lengths, random=random)
            if won:
                episodes.append(episode)
                break
        else:
            raise RuntimeError(
                f"{simulator.name}: no start of {TRIES} gave an episode with {defect!r} as it should be."
            )
    return Episodes.of(episodes, space=simulator.space, fps=simulator.fps, name=simulator.name), flawed


def spoilt(
    simulator: Simulator,
    place: Place,
    *,
    defect: str,
    start: int,
    lengths: tuple[int, int],
    random: np.random.Generator,
) -> tuple[Episode, int]:
    """The defective recording from a start at which a clean one has won and ended so late; 0: not as it should be."""
    won, whole = lengths
    key = max(1, round(random.uniform(0.5, 0.7) * won))
    demonstrator = Demonstrator(place, "" if defect == "truncation" else defect, key=key, random=random)
    if defect == "truncation":
        return played(simulator, demonstrator, seed=start, stop=max(2, round(random.uniform(0.3, 0.8) * won)))[0], 1
    if defect == "mislabelled":
        stop = round(random.uniform(0.9, 1.1) * whole)
        episode, lucky = played(simulator, demonstrator, seed=start, stop=stop)
        return episode, int(not lucky)
    return played(simulator, demonstrator, seed=start)
