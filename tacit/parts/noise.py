"""Noise on pictures and the way back: how much there is at each level, and how a denoiser is asked for a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["cosine", "linear"]


def mixed(level: Tensor, schedule: Schedule = "cosine") -> tuple[Tensor, Tensor]:
    """How much of a picture and how much noise there is at levels from 0, where all is picture, to 1, all noise.

    A cosine keeps their squares together at one; linear is the straight way of flow matching.
    """
    if schedule not in ("cosine", "linear"):
        raise ValueError(f"schedule is {schedule!r}; it must be 'cosine' or 'linear'.")
    if schedule == "linear":
        return 1 - level, level
    # by the other's complement both ends are exact, where a float's pi / 2 has a cosine that is not nought
    return torch.sin((1 - level) * (math.pi / 2)), torch.sin(level * (math.pi / 2))


def spoilt(clean: Tensor, noise: Tensor, *, level: Tensor, schedule: Schedule = "cosine") -> Tensor:
    """Pictures (N, ...) under noise, each at its own ``level`` (N,)."""
    share, rest = (x.view(-1, *[1] * (clean.ndim - 1)) for x in mixed(level, schedule))
    return share * clean + rest * noise


def denoised(
    ask: Callable[[Tensor, Tensor], Tensor], noise: Tensor, *, steps: int, schedule: Schedule = "cosine"
) -> Tensor:
    """The picture that ``ask``, given (N, ...) and levels (N,), sees behind ``noise`` in so many equal steps.

    No noise is added on the way (DDIM; Song et al. 2021, arXiv 2010.02502): equal noise gives equal pictures.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; wanted at least 1.")
    x, levels = noise, torch.linspace(1, 0, steps + 1, device=noise.device)
    for now, then in zip(levels[:-1], levels[1:], strict=True):
        clean = ask(x, now.expand(len(x)))
        (share, rest), (less, more) = mixed(now, schedule), mixed(then, schedule)
        x = less * clean + more * (x - share * clean) / rest
    return x
