"""Plain networks for states and for pictures so small that their pixels are as good as features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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
