"""The one batch type, the one episode type, and the one time convention.

Action ``t`` leads from frame ``t`` to frame ``t + 1``. ``T`` frames therefore have ``T - 1`` actions,
``T - 1`` latents and ``T - 1`` rewards. Nothing else in tacit re-states or bends this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

# What an absent action looks like inside an otherwise labelled array. It is never a number an agent could take.
UNLABELLED = {"discrete": -1, "continuous": float("nan")}


@dataclass(frozen=True)
class Space:
    """What an action may be: one of ``size`` choices, or a vector of ``size`` numbers in ``[low, high]``."""

    kind: Literal["discrete", "continuous"]
    size: int
    low: float = -1.0
    high: float = 1.0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in UNLABELLED:
            raise ValueError(f"Space kind is {self.kind!r}; it must be 'discrete' or 'continuous'.")
        if self.size < 1 or self.size != int(self.size):
            raise ValueError(f"Space size is {self.size}; it must be a whole number of at least 1.")
        object.__setattr__(self, "size", int(self.size))
        if not self.low < self.high:
            raise ValueError(f"Space bounds are [{self.low}, {self.high}]; low must lie below high.")
        object.__setattr__(self, "names", tuple(self.names))

    @property
    def discrete(self) -> bool:
        return self.kind == "discrete"

    @property
    def dtype(self) -> type[np.generic]:
        return np.int64 if self.discrete else np.float32

    def blank(self, count: int) -> np.ndarray:
        """``count`` actions that nobody recorded: the honest content of an unlabelled stretch."""
        shape = (count,) if self.discrete else (count, self.size)
        return np.full(shape, UNLABELLED[self.kind], dtype=self.dtype)

    def labelled(self, actions: Any) -> Any:
        """True where an action was recorded; works on arrays and tensors alike."""
        if self.discrete:
            return actions >= 0
        finite = torch.isfinite if isinstance(actions, Tensor) else np.isfinite
        return finite(actions).all(-1)

    def sample(self, random: np.random.Generator) -> np.ndarray:
        if self.discrete:
            return np.asarray(random.integers(self.size))
        return random.uniform(self.low, self.high, self.size).astype(np.float32)

    def check(self, actions: np.ndarray, count: int) -> np.ndarray:
        """Return ``actions`` as this space's array, or say what was given and what was wanted."""
        actions = np.asarray(actions)
        want = (count,) if self.discrete else (count, self.size)
        if actions.shape != want:
            raise ValueError(f"Actions have shape {actions.shape}; a {self.kind} space of {self.size} wants {want}.")
        if self.discrete and actions.dtype.kind not in "iu":
            raise ValueError(f"Actions have dtype {actions.dtype}; a discrete space wants integers.")
        if self.discrete and actions.size and not (actions.min() >= -1 and actions.max() < self.size):
            raise ValueError(f"Actions lie in [{actions.min()}, {actions.max()}]; wanted 0 to {self.size - 1}, or -1.")
        return actions.astype(self.dtype)


@dataclass(frozen=True)
class Episode:
    """One recording from its first frame to its last, on the CPU: what readers give and writers take."""

    frames: np.ndarray | None = None  # (T, H, W, 3) uint8
    state: np.ndarray | None = None  # (T, S) float32
    actions: np.ndarray | None = None  # (T-1,) int64 or (T-1, A) float32; UNLABELLED where nobody recorded one
    latents: np.ndarray | None = None  # (T-1, D) float32
    codes: np.ndarray | None = None  # (T-1, K) int64
    rewards: np.ndarray | None = None  # (T-1,) float32
    text: str | None = None  # the instruction, where there is one
    source: str = ""  # who or what was recorded: "expert", "play", a camera, a game
    success: bool | None = None
    split: str = ""  # the part of its dataset it was assigned to ("train", "valid"), where somebody assigned it

    def __post_init__(self) -> None:
        sized = {"frames": self.frames, "state": self.state}
        lengths = {name: len(value) for name, value in sized.items() if value is not None}
        if not lengths:
            raise ValueError("An Episode needs frames or state; both are None.")
        count = next(iter(lengths.values()))
        if count < 1 or any(n != count for n in lengths.values()):
            raise ValueError(f"An Episode's frames and state must have one equal length of at least 1, not {lengths}.")
        seen = self.frames
        if seen is not None and (seen.dtype != np.uint8 or seen.ndim != 4 or seen.shape[-1] != 3):
            raise ValueError(f"Frames are {seen.dtype} {seen.shape}; wanted uint8 (T, H, W, 3).")
        for name in ("actions", "latents", "codes", "rewards"):
            value = getattr(self, name)
            if value is not None and len(value) != count - 1:
                raise ValueError(f"An Episode of {count} frames has {count - 1} {name}, not {len(value)}.")
        for name, wanted in (("state", "(T, S)"), ("latents", "(T-1, D)"), ("codes", "(T-1, K)")):
            value = getattr(self, name)
            if value is not None and value.ndim != 2:
                raise ValueError(
                    f"An Episode's {name} has shape {value.shape}; wanted {wanted}: a column for one number."
                )

    def __len__(self) -> int:
        return len(self.frames) if self.frames is not None else len(self.state)  # type: ignore[arg-type]

    def replace(self, **changes: Any) -> Episode:
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Clip:
    """A batch of stretches of equal length: the only thing that training and inference pass around.

    What is absent is ``None``, never zeros. ``mask`` says which actions somebody recorded; being action-free is a
    state of the data, not another kind of dataset.
    """

    frames: Tensor | None = None  # (B, T, C, H, W) uint8, or float in [0, 1]
    state: Tensor | None = None  # (B, T, S)
    actions: Tensor | None = None  # (B, T-1) int64 or (B, T-1, A) float
    latents: Tensor | None = None  # (B, T-1, D)
    rewards: Tensor | None = None  # (B, T-1)
    ends: Tensor | None = None  # (B,) bool: the clip's last frame is its episode's last
    text: tuple[str, ...] | None = None
    mask: Tensor | None = None  # (B, T-1) bool: True where ``actions`` holds a recorded action

    def __post_init__(self) -> None:
        if self.frames is None and self.state is None:
            raise ValueError("A Clip needs frames or state; both are None.")
        batch, time = len(self), self.time
        for name in ("frames", "state"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != (batch, time):
                raise ValueError(f"Clip.{name} leads with {tuple(value.shape[:2])}; wanted (B, T) = {(batch, time)}.")
        for name in ("actions", "latents", "rewards", "mask"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != (batch, time - 1):
                raise ValueError(
                    f"Clip.{name} leads with {tuple(value.shape[:2])}; {time} frames want {(batch, time - 1)}."
                )
        for name in ("ends", "text"):
            value = getattr(self, name)
            if value is not None and len(value) != batch:
                raise ValueError(f"Clip.{name} has {len(value)} entries; a batch of {batch} wants one each.")

    @property
    def _first(self) -> Tensor:
        return self.frames if self.frames is not None else self.state  # type: ignore[return-value]

    def __len__(self) -> int:
        return self._first.shape[0]

    @property
    def time(self) -> int:
        return self._first.shape[1]

    @property
    def device(self) -> torch.device:
        return self._first.device

    def replace(self, **changes: Any) -> Clip:
        return dataclasses.replace(self, **changes)

    def map(self, function: Any) -> Clip:
        """Apply ``function`` to every tensor present."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Clip(**{k: function(v) if isinstance(v, Tensor) else v for k, v in values.items()})

    def to(self, device: torch.device | str) -> Clip:
        ahead = torch.device(device).type == "cuda"  # the other way, the CPU could read what has not arrived
        return self.map(lambda x: x.to(device, non_blocking=ahead))

    def __getitem__(self, rows: slice | Tensor) -> Clip:
        """Some of the batch: a slice, or a tensor of row numbers."""
        part = self.replace(text=None).map(lambda x: x[rows])
        if self.text is None:
            return part
        picked = range(len(self))[rows] if isinstance(rows, slice) else torch.arange(len(self))[rows.cpu()].tolist()
        return part.replace(text=tuple(self.text[i] for i in picked))

    def steps(self, start: int, stop: int) -> Clip:
        """The same batch between two frames, ``start`` to ``stop`` exclusive, with the actions that lie between."""
        if not 0 <= start < stop <= self.time:
            raise ValueError(f"Frames {start} to {stop} were asked of a clip of {self.time}; wanted 0 <= start < stop.")
        between = {"actions", "latents", "rewards", "mask"}
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and value.ndim > 1:
                value = value[:, start : stop - 1] if field.name in between else value[:, start:stop]
            values[field.name] = value
        if stop != self.time:
            values["ends"] = None
        return Clip(**values)


def each(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What ``function`` makes of every frame of ``x`` (B, T, ...), as (B, T, ...) again."""
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def pasts(time: int, past: int, *, device: torch.device | None = None) -> Tensor:
    """For each of ``time`` moments, its number and the ``past`` before; before the first there is only the first."""
    index = torch.arange(time, device=device)[:, None] + torch.arange(-past, 1, device=device)
    return index.clamp(min=0)


def stacked(frames: Tensor, count: int) -> Tensor:
    """Each of ``frames`` (B, T, C, ...) and those before it, ``count`` in all, as one of more channels, itself last."""
    return frames if count == 1 else frames[:, pasts(frames.shape[1], count - 1, device=frames.device)].flatten(2, 3)


def floats(frames: Tensor) -> Tensor:
    """Frames as floats in [-0.5, 0.5]: bytes stay bytes until the device, and this is where they stop being bytes."""
    return frames.float().div(255).sub(0.5) if frames.dtype == torch.uint8 else frames.sub(0.5)
