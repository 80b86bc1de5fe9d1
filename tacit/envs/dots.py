"""The smallest world with a body, a goal and a distractor, with nothing to install; ``tacit.data.toys`` films it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tacit.clip import Space
from tacit.envs.simulator import Play, Simulator

WIDE = 12.0  # a board's side in its own units, whatever its size in pixels
NEAR = 0.75  # closer than this to the goal is there
APART = 2.5  # a goal is at least this far from the start
FLOORS = {"dot": 0.055, "pair": 0.03}  # success of random actions over 2,000 episodes of 20 decisions
COMPASS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)  # the discrete actions, as (right, down)


@dataclass(frozen=True)
class Board:
    """The rules and the picture of a dot world, over any number of dots at once.

    Positions are (right, down) in units of a twelfth of the side. The body is bright, the distractor dark and wide, the
    goal blue. Without a goal the demonstrator heads for the middle and no episode ends early.
    """

    size: int = 12
    discrete: bool = False
    body: Literal["dot", "pair"] = "dot"  # a pair is a second embodiment: motor command turned by 90 degrees, times 0.8
    stride: float = 1.0  # the longest step, in units
    distractor: float = 0.0  # strength beside the body's; 0 is none
    drift: Literal["free", "momentum"] = "free"  # the distractor's steps: independent, or each like the last
    haste: float = 2.0  # deviation of the distractor's steps, in those of a random body's
    goal: bool = True
    wrap: bool = True  # edges join, so that an action does the same everywhere
    room: float = WIDE  # side of the square in the middle in which everything starts

    def __post_init__(self) -> None:
        for name, value, allowed in (("body", self.body, ("dot", "pair")), ("drift", self.drift, ("free", "momentum"))):
            if value not in allowed:
                raise ValueError(f"Board {name} is {value!r}; it must be one of {allowed}.")
        if self.size < 4 or self.stride <= 0 or self.distractor < 0:
            raise ValueError(
                f"Board has size {self.size}, stride {self.stride}, distractor {self.distractor}; "
                "wanted size at least 4, stride above 0, distractor at least 0."
            )

    @property
    def space(self) -> Space:
        names = ("stay", "right", "left", "down", "up") if self.discrete else ("right", "down")
        return Space("discrete", 5, names=names) if self.discrete else Space("continuous", 2, names=names)

    @property
    def motor(self) -> np.ndarray:
        """The matrix that turns a command (a row) into a displacement (a row)."""
        turned = [[1.0, 0.0], [0.0, 1.0]] if self.body == "dot" else [[0.0, 0.8], [-0.8, 0.0]]
        return self.stride * np.array(turned, np.float32)

    def effect(self, actions: np.ndarray) -> np.ndarray:
        """How far ``actions`` move the body where nothing is in the way: (..., 2)."""
        return (COMPASS[actions] if self.discrete else np.clip(actions, -1, 1)) @ self.motor

    def move(self, positions: np.ndarray, actions: np.ndarray) -> np.ndarray:
        moved = positions + self.effect(actions)
        return np.mod(moved, WIDE) if self.wrap else np.clip(moved, 1.0, WIDE - 1.0)

    def between(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """The shortest way from ``start`` to ``stop``, over the edges where they join."""
        way = stop - start
        return np.mod(way + WIDE / 2, WIDE) - WIDE / 2 if self.wrap else way

    def expert(self, positions: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The action that brings each body nearest to its goal."""
        way = self.between(positions, goals)
        if self.discrete:
            left = np.square(way[..., None, :] - self.effect(np.arange(5))).sum(-1)
            return np.asarray(left.argmin(-1))
        return np.clip(way @ np.linalg.inv(self.motor), -1, 1).astype(np.float32)

    def arrived(self, positions: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.between(positions, goals), axis=-1) < NEAR

    def begin(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Starts and goals, (count, 2) each; a drawn goal is never where the body already is."""
        starts, tries = self._somewhere((count, 2), random), self._somewhere((count, 16, 2), random)
        if not self.goal:
            return starts, np.full((count, 2), WIDE / 2)
        far = np.linalg.norm(self.between(starts[:, None], tries), axis=-1) >= APART
        return starts, tries[np.arange(count), far.argmax(1)]

    def wander(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Where the distractors begin, (count, E): position and velocity, or nothing where there is no distractor."""
        if not self.distractor:
            return np.zeros((count, 0))
        return np.concatenate([self._somewhere((count, 2), random), self._pace * random.normal(size=(count, 2))], 1)

    def drifted(self, exogenous: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The distractors one step on, from unit ``noise`` (count, 2); no action enters, and positions do not wrap."""
        if not self.distractor:
            return exogenous
        keep = 0.9 if self.drift == "momentum" else 0.0
        velocity = keep * exogenous[:, 2:] + np.sqrt(1 - keep**2) * self._pace * noise
        return np.concatenate([exogenous[:, :2] + velocity, velocity], 1)

    def _somewhere(self, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        reach = min(self.room, WIDE if self.wrap else WIDE - 2) / 2
        return random.uniform(WIDE / 2 - reach, WIDE / 2 + reach, shape)

    @property
    def _pace(self) -> float:
        return float(self.haste * self.stride / np.sqrt(3))  # a uniform command in [-1, 1] has deviation 1 / sqrt(3)

    def draw(self, positions: np.ndarray, *, goals: np.ndarray, exogenous: np.ndarray) -> np.ndarray:
        """The pictures, (N, size, size, 3) uint8: grey 128 plus the body, less the distractor, plus a blue goal."""
        if self.body == "dot":
            canvas = 100 * self._blob(positions, 1.0)
        else:
            left, right = (self._blob(positions + side * np.array([1.5, 0]), 1.0) for side in (-1, 1))
            canvas = 100 * (left + right)
        if self.distractor:
            canvas -= 100 * self.distractor * self._blob(np.mod(exogenous[:, :2], WIDE), 1.6, joined=True)
        canvas += 128.5
        frames = np.empty((*canvas.shape, 3), np.uint8)
        frames[..., :] = np.clip(canvas, 0, 255, out=None if self.goal else canvas).astype(np.uint8)[..., None]
        if self.goal:
            canvas += 90 * self._blob(goals, 1.0)
            frames[..., 2] = np.clip(canvas, 0, 255, out=canvas)
        return frames

    def _blob(self, centres: np.ndarray, width: float, *, joined: bool = False) -> np.ndarray:
        pixels = ((np.arange(self.size) + 0.5) * (WIDE / self.size)).astype(np.float32)
        gap = np.abs(pixels - centres.astype(np.float32)[..., None])  # (N, 2, size)
        if self.wrap or joined:
            gap = np.mod(gap, WIDE)
            gap = np.minimum(gap, WIDE - gap)
        ridge = np.exp(-(gap**2) / (2 * width**2))
        return np.asarray(ridge[:, 1, :, None] * ridge[:, 0, None, :])  # (N, down, right)


class Dots(Simulator):
    """Bring the body to the goal: solved from the picture, not without acting, at thousands of frames a second."""

    horizon = 20

    def __init__(self, board: Board | None = None, *, name: str = "dots/plain") -> None:
        self.board, self.name = board or Board(), name
        self.space, self.size = self.board.space, self.board.size
        self.floor, self.ceiling = FLOORS[self.board.body], 1.0
        self.start(0)

    def start(self, seed: int) -> None:
        self._random = np.random.default_rng([seed, 12])
        self._position, self._goal = self.board.begin(1, self._random)
        self._exogenous = self.board.wander(1, self._random)

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self._position = self.board.move(self._position, np.asarray(action)[None])
        self._exogenous = self.board.drifted(self._exogenous, self._random.normal(size=(1, 2)))
        there = self.board.goal and bool(self.board.arrived(self._position, self._goal)[0])
        return float(there), there, there

    def frame(self) -> np.ndarray:
        return np.asarray(self.board.draw(self._position, goals=self._goal, exogenous=self._exogenous)[0])

    def state(self) -> np.ndarray:
        return np.concatenate([self._position[0], self._goal[0]]).astype(np.float32)

    def rule(self) -> np.ndarray:
        return np.asarray(self.board.expert(self._position, self._goal)[0])

    def exogenous(self) -> np.ndarray | None:
        return self._exogenous[0].astype(np.float32) if self.board.distractor else None

    def snapshot(self) -> Any:
        return self.steps, self._position, self._goal, self._exogenous, self._random.bit_generator.state

    def restore(self, snapshot: Any) -> None:
        self.steps, self._position, self._goal, self._exogenous, self._random.bit_generator.state = snapshot

    def stir(self, seed: int) -> bool:
        self._random = np.random.default_rng([seed, 15])
        return bool(self.board.distractor)

    def play(self, *, seed: int = 0) -> Play:
        return Play(seed=seed, hold=1.0, guided=0.0)
