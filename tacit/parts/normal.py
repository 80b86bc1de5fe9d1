"""Gaussians told as means and log deviations side by side: what is drawn from them, and how far apart two are."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST, MOST = -5.0, 2.0  # what a log deviation may be


def parted(said: Tensor) -> tuple[Tensor, Tensor]:
    """The means and the log deviations (..., D) of what a network says (..., 2 D)."""
    mean, spread = said.chunk(2, -1)
    return mean, spread.clamp(LEAST, MOST)


def drawn(said: Tensor) -> Tensor:
    """A sample (..., D), with a gradient to both."""
    mean, spread = parted(said)
    return mean + spread.exp() * torch.randn_like(mean)


def nats(one: Tensor, other: Tensor | None = None) -> Tensor:
    """The divergence KL(one, other) of Gaussians (..., 2 D), (...): without another, from the unit Gaussian."""
    (mean, spread), (far, wide) = parted(one), parted(torch.zeros_like(one) if other is None else other)
    ratio = (2 * (spread - wide)).exp() + ((mean - far) / wide.exp()).square()
    return 0.5 * (ratio - 1 - 2 * (spread - wide)).sum(-1)
