"""What every environment gives: frames, state, success, an expert, a play policy, and its state saved and restored."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np

from tacit.clip import Space


class Demonstrator(Protocol):
    """Anything that can be recorded: it looks at a simulator and answers with an action."""

    source: str

    def begin(self, simulator: Simulator) -> None: ...
    def act(self, simulator: Simulator) -> np.ndarray: ...


class Simulator(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One real environment behind one face; a subclass fills in the five abstract methods and nothing else."""

    name: str  # "babyai/GoToRedBall": what `tacit.envs.simulator` opens
    space: Space  # what an action may be
    size: int  # frames are (size, size, 3) uint8
    fps: float = 10.0  # decisions a second of recorded video, a whole number
    horizon: int  # decisions until the episode is cut
    text: str | None = None  # the instruction, where there is one
    floor: float = math.nan  # mean return of uniformly random actions, to normalise returns by; NaN: nobody measured it
    ceiling: float = math.nan  # mean return of the noiseless expert, likewise

    steps: int = 0

    @abstractmethod
    def start(self, seed: int) -> None:
        """Begin a new episode, wholly determined by ``seed``."""

    @abstractmethod
    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Take one decision and return ``(reward, terminated, success)``."""

    @abstractmethod
    def frame(self) -> np.ndarray:
        """The picture now, (size, size, 3) uint8: a function of the simulator's state alone."""

    @abstractmethod
    def state(self) -> np.ndarray:
        """The low-dimensional state now, float32 (S,): enough to act well on."""

    @abstractmethod
    def rule(self) -> np.ndarray:
        """What the noiseless expert does now."""

    @abstractmethod
    def snapshot(self) -> Any:
        """Everything that decides the future, so that ``restore`` followed by equal actions gives equal frames."""

    @abstractmethod
    def restore(self, snapshot: Any) -> None: ...

    def exogenous(self) -> np.ndarray | None:
        """The state no action can move (a distractor's), where it is known."""
        return None

    def stir(self, seed: int) -> bool:
        """Let what no action moves draw other numbers from here on; False where there is no such thing to stir."""
        return False

    @property
    def action_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        if self.space.discrete:
            return gymnasium.spaces.Discrete(self.space.size)
        return gymnasium.spaces.Box(self.space.low, self.space.high, (self.space.size,), np.float32)

    @property
    def observation_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        frame = gymnasium.spaces.Box(0, 255, (self.size, self.size, 3), np.uint8)
        state = gymnasium.spaces.Box(-np.inf, np.inf, self.state().shape, np.float32)
        return gymnasium.spaces.Dict({"frame": frame, "state": state})

    def observe(self) -> dict[str, np.ndarray]:
        return {"frame": self.frame(), "state": self.state()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.start(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action)
        if not self.space.discrete:
            action = np.clip(action.astype(np.float32), self.space.low, self.space.high)
        reward, terminated, success = self.apply(action)
        self.steps += 1
        truncated = not terminated and self.steps >= self.horizon
        return self.observe(), float(reward), terminated, truncated, {"success": bool(success)}

    def expert(self, *, noise: float = 0.0, seed: int = 0) -> Expert:
        return Expert(noise=noise, seed=seed)

    def play(self, *, seed: int = 0) -> Demonstrator:
        """Somebody trying things out: every action, in varied states. The default holds random actions for a while."""
        return Play(seed=seed)


def whole(rate: float) -> float:
    """A rate as datasets can hold it: at least one frame a second, and no fraction of one."""
    return float(max(1, round(rate)))


@dataclass
class Expert:
    """The simulator's own rule, with adjustable noise.

    ``noise`` is the chance of a uniformly random action (discrete), or the deviation of Gaussian noise as a share of
    half the action range (continuous).
    """

    noise: float = 0.0
    seed: int = 0
    source: str = "expert"

    def begin(self, simulator: Simulator) -> None:
        self._random = np.random.default_rng([self.seed, 1])
        self.seed += 1

    def act(self, simulator: Simulator) -> np.ndarray:
        action, space = simulator.rule(), simulator.space
        if space.discrete:
            return space.sample(self._random) if self._random.random() < self.noise else action
        spread = self.noise * (space.high - space.low) / 2
        return np.clip(action + self._random.normal(0, spread, space.size), space.low, space.high).astype(np.float32)


@dataclass
class Play:
    """Random actions, each held for a random while, now and then the expert's, so that varied places are reached."""

    seed: int = 0
    hold: float = 3.0
    guided: float = 0.25
    source: str = "play"

    def begin(self, simulator: Simulator) -> None:
        self._random = np.random.default_rng([self.seed, 2])
        self.seed += 1
        self._left, self._action, self._expert = 0, simulator.space.sample(self._random), False

    def act(self, simulator: Simulator) -> np.ndarray:
        if self._left <= 0:
            self._left = int(self._random.geometric(1 / self.hold))
            self._action, self._expert = simulator.space.sample(self._random), self._random.random() < self.guided
        self._left -= 1
        return simulator.rule() if self._expert else self._action
