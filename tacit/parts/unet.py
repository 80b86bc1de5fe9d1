"""``UNet``: predicts a picture from pictures and a latent action, as LAPO's forward model does."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.part import Part
from tacit.parts.conv import fits, laid


class UNet(Part):
    """Halves the picture down to one cell and doubles it back, with the latent shown at both ends of the way down."""

    def __init__(self, *, channels: int, frame: tuple[int, int], base: int = 24, dim: int, out: int = 3) -> None:
        self.channels, self.frame, self.dim = channels, (frame[0], frame[1]), dim
        if min(self.frame) < 1 or max(self.frame) < 2:
            raise ValueError(f"UNet was given frames of {frame}; it needs two pixels or more one way, to halve them.")
        sizes = [_Way.of(self.frame)]
        while sizes[-1].small != (1, 1):
            sizes.append(_Way.of(sizes[-1].small))
        wide = [base * 2**i for i in range(len(sizes))]
        self.first = _Shown(channels, dim, wide[0], way=sizes[0])
        self.downs = nn.ModuleList(
            nn.Conv2d(a, b, way.kernel, way.stride, way.pad)
            for a, b, way in zip(wide[:-1], wide[1:], sizes[1:], strict=True)
        )
        skips = [*wide[:-1], dim]  # at the innermost cell the latent takes the place of the skip
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(a + skip, b, way.kernel, way.stride, way.pad, way.odd)
            for a, skip, b, way in reversed(list(zip(wide, skips, [base, *wide[:-1]], sizes, strict=True)))
        )
        self.last = nn.Conv2d(base + channels, out, 3, padding=1)
        if out <= channels:  # what is seen last is the best first guess: start near it, and learn the change
            with torch.no_grad():
                self.last.weight.mul_(0.1)
                self.last.weight[:, -out:, 1, 1] += 2 * torch.eye(out)

    def forward(self, frames: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]  # (B, C, H, W), (B, dim) -> (B, out, H, W)
        fits(frames, self.channels, frame=self.frame)
        if tuple(z.shape) != (len(frames), self.dim):
            raise ValueError(
                f"Latents of shape {tuple(z.shape)} were given where {(len(frames), self.dim)} was wanted."
            )
        frames = laid(frames, self.first.weight)
        x = F.relu(self.first(frames, z), inplace=True)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = F.relu(down(x), inplace=True)
        skips.append(z[:, :, None, None])
        for up in self.ups:
            x = F.relu(up(torch.cat([x, skips.pop().to(x.dtype)], 1)), inplace=True)
        x = self.last(torch.cat([x, frames.to(x.dtype)], 1))
        return torch.tanh(x) / 2


class _Way(NamedTuple):
    """How one halving of a map goes; an axis of length one stays as it is."""

    large: tuple[int, int]
    small: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    odd: tuple[int, int]  # what the way back must add at the end to come out at ``large``

    @classmethod
    def of(cls, large: tuple[int, int]) -> _Way:
        axes = [(n // 2, 4, 2, 1, n % 2) if n > 2 else (1, n, n, 0, 0) for n in large]
        small, kernel, stride, pad, odd = ((a, b) for a, b in zip(*axes, strict=True))
        return cls(large, small, kernel, stride, pad, odd)

    def taps(self, axis: int) -> list[tuple[list[int], int]]:
        """Which taps of the kernel lie inside the map, and for how many places in a row that is so."""
        within = [
            [t for t in range(self.kernel[axis]) if 0 <= start + t < self.large[axis]]
            for start in range(
                -self.pad[axis], self.small[axis] * self.stride[axis] - self.pad[axis], self.stride[axis]
            )
        ]
        return [(taps, len(list(run))) for taps, run in groupby(within)]


class _Shown(nn.Conv2d):
    """A convolution of the frames with the latent spread over every pixel, without ever spreading it.

    A map that is the same everywhere gives the same sum at every place, save where the kernel hangs over the border.
    So the latent's share is a handful of numbers a channel: one for each way of hanging over.
    """

    def __init__(self, channels: int, dim: int, width: int, *, way: _Way) -> None:
        super().__init__(channels + dim, width, way.kernel, way.stride, way.pad)
        self.channels = channels
        self.rows, self.columns = way.taps(0), way.taps(1)

    def forward(self, frames: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        seen, felt = self.weight.split([self.channels, z.shape[1]], 1)
        share = torch.stack([felt[:, :, rows].sum(2) for rows, _ in self.rows], -1)  # (O, Z, Kw, R)
        share = torch.stack([share[:, :, columns].sum(2) for columns, _ in self.columns], -1)  # (O, Z, R, C)
        bias = torch.einsum("bz,ozrc->brco", z, share)
        bias = torch.cat([bias[:, i : i + 1].expand(-1, n, -1, -1) for i, (_, n) in enumerate(self.rows)], 1)
        bias = torch.cat([bias[:, :, i : i + 1].expand(-1, -1, n, -1) for i, (_, n) in enumerate(self.columns)], 2)
        return F.conv2d(frames, seen, self.bias, self.stride, self.padding) + bias.permute(0, 3, 1, 2)
