"""Masks: where in a picture the thing is that matters, from motion alone, with nothing to download."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.part import Part
from tacit.parts.flow import flow, warp


class Moving(Part):
    """Where two pictures (N, 2, C, H, W) differ once the backdrop's own motion is taken out: (N, 1, H, W), 0 or 1.

    The backdrop moves as the middle pixel does: a camera may pan slowly. What changes by more than ``least`` of full
    brightness has moved, where it was and where it is, and ``around`` pixels about it count too. Whoever has a
    segmenter gives that in place of this.
    """

    def __init__(self, *, least: float = 0.05, around: int = 1, pans: bool = True) -> None:
        if not 0 < least < 1 or around < 0:
            raise ValueError(f"Given {least=} and {around=}; wanted a share of brightness, and pixels.")
        self.least, self.around, self.pans = least, around, pans

    @torch.no_grad()
    def forward(self, pair: Tensor) -> Tensor:  # type: ignore[override]
        before, after = pair[:, 0].float(), pair[:, 1].float()
        if self.pans:
            middle = flow(after, before).flatten(2).median(2).values[..., None, None]
            before = warp(before, middle.expand(-1, -1, *before.shape[-2:]))
        moved = ((after - before).abs().amax(1, keepdim=True) > self.least).float()
        return F.max_pool2d(moved, 2 * self.around + 1, 1, self.around)
