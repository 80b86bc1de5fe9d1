"""Convolutional encoders of pictures, and the residual head that reads their features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.part import Part


class Impala(Part):
    """The residual encoder that LAPO reads stacked frames with: strong on pictures, and dear at full size."""

    def __init__(
        self,
        *,
        channels: int,
        frame: tuple[int, int],
        width: int = 4,
        dim: int = 256,
        stages: Sequence[int] = (16, 32, 32),
    ) -> None:
        self.channels, self.frame, self.dim = channels, (frame[0], frame[1]), dim
        wide = [width * stage for stage in stages]
        height, across = self.frame
        for _ in wide:
            height, across = (height + 1) // 2, (across + 1) // 2
        self.stages = nn.ModuleList(_Pooled(a, b) for a, b in zip([channels, *wide[:-1]], wide, strict=True))
        self.out = nn.Linear(height * across * wide[-1], dim)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # (N, C, H, W) -> (N, dim)
        fits(x, self.channels, frame=self.frame)
        for stage in self.stages:
            x = stage(x)
        return self.out(flat(F.relu(x)))


class Strided(Part):
    """A small, fast encoder for shared features: strides instead of pooling, features of a fixed scale."""

    def __init__(
        self,
        *,
        channels: int,
        frame: tuple[int, int],
        width: int = 32,
        dim: int = 256,
        stages: Sequence[int] = (1, 2, 2),
    ) -> None:
        self.channels, self.frame, self.dim = channels, (frame[0], frame[1]), dim
        wide = [width * stage for stage in stages]
        height, across = self.frame
        for _ in wide:
            height, across = (height + 1) // 2, (across + 1) // 2
        self.downs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip([channels, *wide[:-1]], wide, strict=True)
        )
        self.blocks = nn.ModuleList(Residual(b, bounded=True) for b in wide)
        self.out = nn.Linear(height * across * wide[-1], dim)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # (N, C, H, W) -> (N, dim)
        fits(x, self.channels, frame=self.frame)
        for down, block in zip(self.downs, self.blocks, strict=True):
            x = block(down(x))
        return F.layer_norm(self.out(flat(F.relu6(x))), (self.dim,))  # no affine: the scale is not for learning


class Mlp(Part):
    """A residual head that is shown the last ``again`` of its inputs anew before each block; all of them by default."""

    def __init__(self, *, inputs: int, dim: int, width: int = 1024, depth: int = 3, again: int | None = None) -> None:
        self.inputs, self.dim, self.again = inputs, dim, inputs if again is None else again
        if not 0 <= self.again <= inputs:
            raise ValueError(f"again is {again}; it must lie between 0 and the {inputs} inputs.")
        self.first = nn.Linear(inputs, width)
        self.spread = nn.ModuleList(nn.Linear(width + self.again, width) for _ in range(depth))
        self.gather = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # (..., inputs) -> (..., dim)
        if x.shape[-1] != self.inputs:
            raise ValueError(
                f"Mlp was given {x.shape[-1]} inputs and was built for {self.inputs}; "
                f"build it with inputs={x.shape[-1]}."
            )
        shown = x[..., self.inputs - self.again :]
        h = self.first(x)
        for spread, gather, norm in zip(self.spread, self.gather, self.norms, strict=True):
            h = norm(h + gather(F.gelu(spread(torch.cat([h, shown.to(h.dtype)], -1)))))
        return self.out(h)


class Residual(nn.Module):
    """Two convolutions that add to what they are given."""

    def __init__(self, width: int, *, bounded: bool = False) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.bounded = bounded

    def forward(self, x: Tensor) -> Tensor:
        act = F.relu6 if self.bounded else F.relu
        return x + self.two(act(self.one(act(x)), inplace=True))


class _Pooled(nn.Module):
    """One stage of IMPALA: widen, halve, refine twice."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(Residual(width), Residual(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.max_pool2d(self.widen(x), 3, stride=2, padding=1))


def flat(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H*W*C): in this order a channels-last picture is already flat, and nothing is copied."""
    return x.permute(0, 2, 3, 1).flatten(1)


def laid(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` in the memory order of the weights that will read it, converted once and not at every use."""
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last) if last else x


def fits(x: Tensor, channels: int, *, frame: tuple[int, int]) -> None:
    """Refuse pictures of another size than the network was built for."""
    if tuple(x.shape[1:]) != (channels, *frame):
        raise ValueError(
            f"Pictures of shape {tuple(x.shape)} were given where (N, {channels}, {frame[0]}, {frame[1]}) was wanted; "
            "build the network with the channels and the frame of the data."
        )
