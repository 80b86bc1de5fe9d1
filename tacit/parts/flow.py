"""Optical flow: how far each pixel of one picture has moved in the next, found without weights of any kind."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.part import Part

NEAR = 4  # how many cells away a patch is looked for; what moves farther is looked for in a smaller picture
PRICE = 2e-3  # what a cell of distance must gain in brightness (0 to 1): where nothing is to be seen, nothing moves
DAMP, ROUNDS, LEASH = 1e-3, 3, 1.5  # of the refinement: what holds it where it is, how often, and how far it may go


class Flow(Part):
    """The flow between two pictures as a part: what moved, as a target or an input that wants no training."""

    def __init__(self, *, reach: float | None = None) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, before: Tensor, after: Tensor) -> Tensor:  # type: ignore[override]  # 2 x (N, C, H, W) -> (N, 2, H, W)
        return flow(before, after, reach=self.reach)


@torch.no_grad()
def flow(before: Tensor, after: Tensor, *, reach: float | None = None) -> Tensor:
    """Where each pixel of ``before`` is in ``after``: (N, 2, H, W), so many pixels to the right and so many down.

    Moves of up to ``reach`` pixels are found, by default an eighth of the longer side. Patches are searched for in a
    small picture, so that small things may move by more than their size; from there the move is refined at every size
    by least squares over a window (Lucas and Kanade 1981). Where a picture is flat nothing moves.
    """
    if before.shape != after.shape or before.ndim != 4 or not before.is_floating_point():
        raise ValueError(
            f"Pictures are {before.dtype} {tuple(before.shape)} and {tuple(after.shape)}; wanted two batches of floats "
            "(N, C, H, W) of one shape."
        )
    reach = max(before.shape[-2:]) / 8 if reach is None else reach
    if not 0 < reach < max(before.shape[-2:]):
        raise ValueError(f"reach is {reach}; it must lie between 0 and the side of the pictures, in pixels.")
    with torch.autocast(before.device.type, enabled=False):  # small differences of large numbers
        return _found(before.float(), after.float(), reach)


def warp(frames: Tensor, move: Tensor) -> Tensor:
    """Each pixel from where ``move`` (N, 2, H, W) points: ``warp(after, flow(before, after))`` is ``before`` again."""
    (height, across), place = move.shape[-2:], torch.arange(max(move.shape[-2:]), device=move.device) + 0.5
    x = (place[:across] + move[:, 0]) * (2 / across) - 1
    y = (place[:height, None] + move[:, 1]) * (2 / height) - 1
    grid = torch.stack([x, y], -1).type_as(frames)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def _found(before: Tensor, after: Tensor, reach: float) -> Tensor:
    """The flow by way of a picture of half the size, where moves are half as long, unless they are short already."""
    if reach <= NEAR or min(before.shape[-2:]) < 4:
        return _refined(before, after, _searched(before, after, math.ceil(reach)))
    small = 2 * _found(_half(before), _half(after), reach / 2)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : before.shape[-2], : before.shape[-1]]
    # a small picture smears what moves over what does not: each pixel may say that it stands still after all
    still, price = _miss(before, after), PRICE * NEAR / reach
    moved = _miss(before, warp(after, large)) + price * large.norm(dim=1, keepdim=True)
    return _refined(before, after, torch.where(moved < still, large, 0))


def _searched(before: Tensor, after: Tensor, reach: int) -> Tensor:
    """For each pixel the whole-numbered move whose patch fits best, of all within ``reach``; of equals the shortest."""
    height, across = before.shape[-2:]
    around, span = F.pad(after, (reach,) * 4, mode="replicate"), range(-reach, reach + 1)
    least = before.new_full((len(before), 1, height, across), math.inf)
    found = [torch.zeros_like(least), torch.zeros_like(least)]
    for dx, dy in sorted(((dx, dy) for dy in span for dx in span), key=lambda d: math.hypot(*d)):
        there = around[..., reach + dy : reach + dy + height, reach + dx : reach + dx + across]
        cost = _miss(before, there) + PRICE * math.hypot(dx, dy)
        better = cost < least
        least = torch.where(better, cost, least)
        for moved, by in zip(found, (dx, dy), strict=True):
            moved.masked_fill_(better, by)
    return torch.cat(found, 1)


def _refined(before: Tensor, after: Tensor, start: Tensor) -> Tensor:
    """The move that explains a window's change best, to a fraction of a pixel; never far from ``start``.

    The equations are for the whole move and not for what is still lacking, so that pixels of one window may start from
    different moves; the slopes are the first picture's, which no warping has torn.
    """
    slopes, move = _slopes(before), start
    (xx, xy), (_, yy) = ([_window((a * b).mean(1)) for b in slopes] for a in slopes)
    xx, yy = xx + DAMP, yy + DAMP
    scale = xx * yy - xy * xy
    for _ in range(ROUNDS):
        lacking = slopes[0] * move[:, :1] + slopes[1] * move[:, 1:] + before - warp(after, move)
        x, y = (_window((s * lacking).mean(1)) + DAMP * move[:, i] for i, s in enumerate(slopes))
        better = torch.stack([yy * x - xy * y, xx * y - xy * x], 1) / scale[:, None]
        move = start + (better - start).clamp(-LEASH, LEASH)
    return move


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """How brightness changes to the right and down."""
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (p[..., 1:-1, 2:] - p[..., 1:-1, :-2]) / 2, (p[..., 2:, 1:-1] - p[..., :-2, 1:-1]) / 2


def _miss(one: Tensor, other: Tensor) -> Tensor:
    """How unlike two pictures are around each pixel: (N, 1, H, W)."""
    return _smooth((one - other).abs_().mean(1, keepdim=True), 2)


def _window(x: Tensor) -> Tensor:
    return _smooth(x[:, None], 3)[:, 0]


def _smooth(x: Tensor, times: int) -> Tensor:
    """A bell of ``2 * times + 1`` pixels; at the border, of those that there are."""
    for _ in range(times):
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return x


def _half(x: Tensor) -> Tensor:
    height, across = x.shape[-2:]
    return F.avg_pool2d(F.pad(x, (0, across % 2, 0, height % 2), mode="replicate"), 2)
