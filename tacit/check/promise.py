"""What all checks share: how a broken promise is told, and how two answers are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.clip import Clip, Space

SAME, ALIKE = 1e-6, 1e-4  # how far equal sums may lie apart: in batches of one size, and of two sizes


class Broken(AssertionError):
    """A promise that does not hold."""

    def __init__(self, who: Any, promise: str, *, seen: str, look: str) -> None:
        super().__init__(f"{type(who).__name__} breaks the promise that {promise}: {seen}. {look}")


def not_causal(who: Any, seen: str) -> Broken:
    """The promise that several contracts share."""
    look = "Look for attention without a mask, windows that reach too far, and norms over time."
    return Broken(who, "what comes later changes nothing before", seen=seen, look=look)


def accept(who: Any, said: Tensor, *, count: int, space: Space) -> None:
    """Refuse what is no batch of ``count`` actions of ``space``."""
    try:
        space.check(said.detach().cpu().numpy(), count)
        fine = bool(space.labelled(said).all())
        if not space.discrete:
            fine = fine and space.low - ALIKE <= said.min().item() and said.max().item() <= space.high + ALIKE
        seen = f"they lie in [{said.min().item():.4g}, {said.max().item():.4g}]"
    except ValueError as error:
        fine, seen = False, str(error)
    if not fine:
        raise Broken(who, "its actions are actions of the space", seen=seen, look=f"The space is {space}.")


@contextmanager
def seeded(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Torch's generator at a known place, and where it was afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def altered(clip: Clip, when: slice) -> Clip:
    """The clip with noise in place of what was seen then: random, as a norm would remove what is constant."""

    def noisy(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        x = x.clone()
        old = x[:, when]
        if x.dtype == torch.uint8:
            x[:, when] = torch.randint_like(old, 256)
        else:
            x[:, when] = torch.rand_like(old) if x.ndim > 3 else old + x.std() * torch.randn_like(old)
        return x

    with seeded(clip.device, seed=1):
        return clip.replace(frames=noisy(clip.frames), state=noisy(clip.state))


def apart(one: Tensor, other: Tensor, *, by: float = SAME) -> Tensor:
    """Which rows (B,) differ by more than sums of floats do."""
    one, other = one.detach().float(), other.detach().float()
    if not one.numel():
        return torch.zeros(len(one), dtype=torch.bool)
    size = float(torch.maximum(one.abs().amax(), other.abs().amax()))
    far = (one - other).abs().flatten(1).amax(1) if one.ndim > 1 else (one - other).abs()
    return ~(far <= by * size)  # what is not a number differs from everything


def equal(one: Any, other: Any) -> bool:
    """Whether two nestings of tensors and arrays hold the same; NaN, which stands for what is absent, equals NaN."""
    here, there = leaves(one), leaves(other)
    return len(here) == len(there) and all(_alike(a, b) for a, b in zip(here, there, strict=True))


def leaves(tree: Any) -> list[Any]:
    """What lies at the ends of any nesting of mappings, sequences and dataclasses."""
    if isinstance(tree, Mapping):
        return [leaf for key in tree for leaf in [key, *leaves(tree[key])]]
    if isinstance(tree, list | tuple):
        return [leaf for item in tree for leaf in leaves(item)]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [leaf for field in dataclasses.fields(tree) for leaf in leaves(getattr(tree, field.name))]
    return [tree]


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor | np.ndarray):
        return type(one) is type(other) and bool(one == other)
    a, b = (x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in (one, other))
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def differing(one: torch.nn.Module, other: torch.nn.Module) -> list[str]:
    """The names of weights and buffers in which two modules are not the same bit for bit."""
    here, there = one.state_dict(), other.state_dict()
    return [n for n in {**here, **there} if n not in here or n not in there or not _alike(here[n], there[n])]


def few(numbers: list[float]) -> str:
    """The first numbers of a list, to be read."""
    return ", ".join(f"{x:.6g}" for x in numbers[:4])
