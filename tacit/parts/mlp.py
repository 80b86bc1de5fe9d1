"""Plain networks for states and for pictures so small that their pixels are as good as features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tacit.part import Part


class Layers(Part):
    """A stack of layers with nothing clever in it; with ``depth=0`` it is a linear map."""

    def __init__(self, *, inputs: int, dim: int, width: int = 192, depth: int = 2) -> None:
        self.inputs, self.dim = inputs, dim
        sizes = [inputs, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.GELU())]
        self.net = nn.Sequential(*hidden, nn.Linear(sizes[-1], dim))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # (..., inputs) -> (..., dim)
        if x.shape[-1] != self.inputs:
            raise ValueError(
                f"Layers was given {x.shape[-1]} inputs and was built for {self.inputs}; "
                f"build it with inputs={x.shape[-1]}."
            )
        return self.net(x)


class Flat(Part):
    """An encoder that learns nothing: the grey of a tiny picture, pixel by pixel."""

    def __init__(self, *, frame: Sequence[int]) -> None:
        self.frame, self.dim = tuple(frame), frame[0] * frame[1]

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]  # (N, C, H, W) -> (N, H*W)
        if tuple(frames.shape[-2:]) != self.frame:
            raise ValueError(
                f"Pictures of {tuple(frames.shape[-2:])} pixels were given where {self.frame} were wanted."
            )
        return frames.mean(-3).flatten(-2)


class Between(Part):
    """An inverse model of features that need no further look: a plain network on those of now and of then."""

    def __init__(self, *, features: int, dim: int, width: int = 192, depth: int = 2) -> None:
        self.net = Layers(inputs=2 * features, dim=dim, width=width, depth=depth)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(torch.cat([seen[:, -1], goal], -1))


class Change(Part):
    """A forward model of features that do not learn: the present ones and what a latent adds to them."""

    def __init__(self, *, encoder: Part, features: int, dim: int, width: int = 192, depth: int = 2) -> None:
        if any(p.requires_grad for p in encoder.parameters()):
            raise ValueError(
                f"{type(encoder).__name__} learns, and what it learns would be to see nothing; predict what a slow "
                "copy of it sees (latents.forward.Ahead), or give an encoder that is frozen."
            )
        self.encoder = encoder
        self.net = Layers(inputs=features + dim, dim=features, width=width, depth=depth)

    def wanted(self, frames: Tensor) -> Tensor:
        """What this is to predict of the next pictures (N, C, H, W)."""
        return self.encoder(frames)

    def follow(self, encoder: Part) -> None:
        """Nothing here lags behind the encoder, which stands still."""

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        now = features[:, -1]
        return now + self.net(torch.cat([now, z], -1))
