"""Any Gymnasium environment behind the face of ``Simulator``: it has pictures and actions, and no expert."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from tacit.clip import Space
from tacit.envs.simulator import Play, Simulator, whole

ENDLESS = 1_000_000  # decisions, where an environment sets no limit of its own


class Plain(Simulator):
    """A Gymnasium environment whose frames are what ``render`` draws, or what it observes where that is a picture."""

    def __init__(self, env: gymnasium.Env[Any, Any], *, size: int = 64, name: str = "") -> None:
        self.env, self.size = env, size
        self.name = name or (env.spec.id if env.spec is not None else type(env.unwrapped).__name__)
        self.space, self._low, self._high = _space(env.action_space)
        self.fps = whole(env.metadata.get("render_fps") or 10)
        self.horizon = (env.spec.max_episode_steps if env.spec is not None else None) or ENDLESS
        self._cut, self._verdict = False, True
        self._seed, self._taken = 0, list[np.ndarray]()
        self.start(0)

    def start(self, seed: int) -> None:
        self._seen, info = self.env.reset(seed=seed)
        self._seed, self._taken = seed, []
        self._told(info)

    def _told(self, info: dict[str, Any]) -> None:
        said = info.get("success", info.get("is_success"))
        self._verdict, self._success = said is not None, bool(said)
        text = self._seen.get("mission") if isinstance(self._seen, dict) else None
        self.text = text if isinstance(text, str) else None

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self._taken.append(np.array(action))
        if self.space.discrete:
            inside: Any = int(action) + int(self._low)
        else:
            share = (np.asarray(action) - self.space.low) / (self.space.high - self.space.low)
            inside = (self._low + share * (self._high - self._low)).astype(self.env.action_space.dtype)
            inside = inside.reshape(self.env.action_space.shape)
        self._seen, reward, terminated, self._cut, info = self.env.step(inside)
        self._told(info)
        return float(reward), bool(terminated), self._success

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, bool(truncated or self._cut), info if self._verdict else {}

    def frame(self) -> np.ndarray:
        picture = np.asarray(self.env.render() if self.env.render_mode == "rgb_array" else _picture(self._seen))
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(
                f"{self.name} shows {picture.dtype} {picture.shape}; wanted uint8 (H, W, 3). "
                'Open it with render_mode="rgb_array".'
            )
        if picture.shape[:2] == (self.size, self.size):
            return picture
        return np.asarray(Image.fromarray(picture).resize((self.size, self.size), Image.Resampling.BOX))

    def state(self) -> np.ndarray:
        """What is observed, where that is a list of numbers; else nothing."""
        seen = self._seen.get("state", self._seen.get("observation")) if isinstance(self._seen, dict) else self._seen
        seen = np.asarray(seen) if seen is not None else np.zeros(0)
        return seen.astype(np.float32) if seen.ndim == 1 and seen.dtype.kind in "fiu" else np.zeros(0, np.float32)

    def rule(self) -> np.ndarray:
        raise ValueError(f"{self.name} has no expert of its own: collect from 'play', or from a policy.")

    def snapshot(self) -> Any:
        """The seed and what was done since: few environments can be copied, but all can be played again."""
        return self.steps, self._seed, tuple(self._taken)

    def restore(self, snapshot: Any) -> None:
        steps, seed, taken = snapshot
        self.start(seed)
        for action in taken:
            self.apply(action)
        self.steps = steps

    def play(self, *, seed: int = 0) -> Play:
        return Play(seed=seed, guided=0.0)

    def close(self) -> None:
        self.env.close()


def _picture(seen: Any) -> Any:
    parts = seen.values() if isinstance(seen, dict) else [seen]
    return next((p for p in parts if isinstance(p, np.ndarray) and p.dtype == np.uint8 and p.ndim == 3), 0)


def _space(space: gymnasium.Space[Any]) -> tuple[Space, np.ndarray, np.ndarray]:
    """Our space, and the bounds that its own are stretched to on the way in."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return Space("discrete", int(space.n)), np.array(space.start), np.array(space.start + space.n - 1)
    if isinstance(space, gymnasium.spaces.Box) and np.dtype(space.dtype).kind == "f" and space.is_bounded():
        low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
        even = (low == low[0]).all() and (high == high[0]).all()
        ours = (float(low[0]), float(high[0])) if even else (-1.0, 1.0)
        return Space("continuous", low.size, *ours), low, high
    raise ValueError(f"The actions are {space}; wanted Discrete or a bounded Box of floats. Wrap the environment.")
