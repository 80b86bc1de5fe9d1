"""Flow is what was done to the picture: shifts, turns and things that part, known by construction to a fraction."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.check import check_part
from tacit.parts.flow import Flow, flow, warp

Picture = Callable[[Tensor, Tensor], Tensor]


def places(side: int = 64) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    return x, y


def texture(seed: int = 0, *, scale: float = 0.35) -> Picture:
    """A picture given everywhere, also between pixels: waves of several directions, (3, H, W)."""
    random = torch.Generator().manual_seed(seed)
    waves, phases = torch.randn(3, 8, 2, generator=random) * scale, torch.rand(3, 8, generator=random) * 2 * math.pi

    def at(x: Tensor, y: Tensor) -> Tensor:
        turn = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y + phases[..., None, None]
        return turn.sin().mean(1) * 0.5

    return at


def shifted(dx: float, dy: float, *, side: int = 64, seeds: int = 3) -> tuple[Tensor, Tensor]:
    """Pictures and the same moved; a large one is a small one seen larger, with no finer pattern than that has."""
    x, y = places(side)
    shown = [texture(seed, scale=0.35 * min(1, 64 / side)) for seed in range(seeds)]
    pairs = [(picture(x, y), picture(x - dx, y - dy)) for picture in shown]
    before, after = (torch.stack(each) for each in zip(*pairs, strict=True))
    return before, after


def miss(found: Tensor, wanted: Tensor, inside: Tensor) -> float:
    """The mean distance between two flows, in pixels, where ``inside`` says."""
    return float((found - wanted).norm(dim=-3)[..., inside].mean())


def within(border: float, side: int = 64) -> Tensor:
    x, y = places(side)
    return torch.maximum((x - (side - 1) / 2).abs(), (y - (side - 1) / 2).abs()) < side / 2 - border


@pytest.mark.parametrize("move", [(0.3, -0.7), (0.5, 0.5), (1, 0), (-2.4, 1.7), (3.5, 2.0), (6, 0), (0, -6), (-6, 5)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(move: tuple[float, float]) -> None:
    before, after = shifted(*move)
    wanted = torch.tensor(move).view(2, 1, 1).float()
    assert miss(flow(before, after), wanted, within(8)) < 0.08
    assert miss(flow(after, before), -wanted, within(8)) < 0.08


@pytest.mark.parametrize("side", [32, 48, 84, 128])
def test_moves_may_be_an_eighth_of_the_picture(side: int) -> None:
    move = (side * 0.11, -side * 0.08)
    before, after = shifted(*move, side=side)
    wanted = torch.tensor(move).view(2, 1, 1)
    assert miss(flow(before, after), wanted, within(side / 8, side)) < 0.2
    assert miss(flow(before, after, reach=1), wanted, within(side / 8, side)) > 1, (
        "and what is out of reach is not found"
    )


def turned(degrees: float, *, zoom: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """A picture, the same turned and enlarged about its middle, and where each pixel went."""
    x, y = places()
    middle, angle = 31.5, math.radians(degrees)

    def spun(x: Tensor, y: Tensor, angle: float, zoom: float) -> tuple[Tensor, Tensor]:
        x, y = x - middle, y - middle
        across, down = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
        return zoom * across + middle, zoom * down + middle

    there = torch.stack(spun(x, y, angle, zoom))
    return texture()(x, y), texture()(*spun(x, y, -angle, 1 / zoom)), there - torch.stack([x, y])


@pytest.mark.parametrize(("degrees", "zoom"), [(4, 1.0), (-8, 1.0), (0, 1.1), (5, 0.95)])
def test_a_turn_and_an_approach_are_found(degrees: float, zoom: float) -> None:
    before, after, wanted = turned(degrees, zoom=zoom)
    x, y = places()
    disc = (x - 31.5) ** 2 + (y - 31.5) ** 2 < 26**2
    assert wanted.norm(dim=0)[disc].max() > 1.5
    assert miss(flow(before[None], after[None])[0], wanted, disc) < 0.12


def discs(moves: list[tuple[float, float]], *, size: float = 9, ground: float = 0.0) -> tuple[Tensor, ...]:
    """Discs on a plain or patterned ground, one above the other: two pictures, the flow, and where the discs were."""
    x, y = places()
    pictures = [texture(9)(x, y) * ground for _ in range(2)]
    wanted, on = torch.zeros(2, 64, 64), torch.zeros(64, 64, dtype=torch.bool)
    for row, move in enumerate(moves):
        for time, (dx, dy) in enumerate([(0.0, 0.0), move]):
            across, down = x - 31.3 - dx, y - 16.6 - 32 * row - dy
            cover = (size / 2 + 0.5 - (across**2 + down**2).sqrt()).clamp(0, 1)
            pictures[time] = pictures[time] * (1 - cover) + cover * (texture(row + 1, scale=0.6)(across, down) + 0.2)
            if not time:
                on |= cover > 0.5
                wanted = torch.where(cover > 0.5, torch.tensor(move).view(2, 1, 1).float(), wanted)
    return pictures[0][None], pictures[1][None], wanted, on


@pytest.mark.parametrize("size", [5, 9, 13])
@pytest.mark.parametrize("moves", [[(5.0, 0.0), (-5.0, 0.0)], [(1.4, -2.3), (-0.6, 3.2)], [(6.0, 0.0), (0.0, 0.0)]])
def test_two_things_part_and_the_ground_stays(moves: list[tuple[float, float]], size: float) -> None:
    before, after, wanted, on = discs(moves, size=size)
    found = flow(before, after)[0]
    assert miss(found, wanted, on) < 0.35
    far = F.max_pool2d(on[None].float(), 19, 1, 9)[0] == 0
    assert found.norm(dim=0)[far].max() < 0.05 and far.float().mean() > 0.5
    assert miss(found, torch.zeros(2, 1, 1), on) > 3 * miss(found, wanted, on)


def test_a_thing_is_found_on_a_patterned_ground() -> None:
    before, after, wanted, on = discs([(3.0, 1.0), (-3.0, -1.0)], size=13, ground=1.0)
    found = flow(before, after)[0]
    assert miss(found, wanted, on) < 0.4 * float(wanted.norm(dim=0)[on].mean())
    assert miss(found, wanted, F.max_pool2d(on[None].float(), 19, 1, 9)[0] == 0) < 0.05


def test_equal_pictures_have_none_and_flat_ones_neither() -> None:
    noise = torch.rand(2, 3, 64, 64) - 0.5
    assert not flow(noise, noise).any()
    for value in (-0.5, 0.0, 0.5):
        flat = torch.full((1, 3, 40, 24), value)
        assert not flow(flat, flat).any()
        assert flow(flat, -flat).abs().max() < 1e-6, "a light that goes on moves nothing"
    appeared = flow(torch.zeros(1, 3, 64, 64), discs([(0.0, 0.0)])[0])
    assert appeared.isfinite().all()


def test_the_noise_of_a_camera_moves_little() -> None:
    before, after, wanted, on = discs([(3.0, 1.0), (-3.0, -1.0)])
    noisy = [each + torch.randn_like(each) * 2 / 255 for each in (before, after)]
    found = flow(noisy[0], noisy[1])[0]
    assert miss(found, wanted, on) < 0.3
    assert miss(found, torch.zeros(2, 1, 1), F.max_pool2d(on[None].float(), 19, 1, 9)[0] == 0) < 0.25


def test_company_changes_nothing() -> None:
    pairs = [shifted(2, 1, seeds=1), discs([(4.0, 0.0), (0.0, 2.0)])[:2], shifted(0.4, -3, seeds=1)]
    before, after = (torch.cat(each) for each in zip(*pairs, strict=True))
    together = flow(before, after)
    for found, (one, two) in zip(together, pairs, strict=True):
        torch.testing.assert_close(flow(one, two)[0], found, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("frame", "channels"), [((33, 50), 3), ((64, 40), 1), ((7, 9), 3), ((3, 20), 4), ((1, 1), 3)])
def test_pictures_of_any_shape_and_kind_have_a_flow(frame: tuple[int, int], channels: int) -> None:
    before = torch.rand(2, channels, *frame) - 0.5
    if max(frame) == 1:
        with pytest.raises(ValueError, match="must lie between 0 and the side"):
            flow(before, before, reach=1)
        return
    found = flow(before, before.roll(1, 3))
    assert found.shape == (2, 2, *frame) and found.isfinite().all()
    half = flow(before.bfloat16(), before.roll(1, 3).bfloat16())
    assert half.dtype == torch.float32 and half.isfinite().all()


def looked_up(frames: np.ndarray, move: np.ndarray) -> np.ndarray:
    """``warp`` by its definition, one pixel at a time: between four neighbours, at the border the nearest."""
    count, channels, height, across = frames.shape
    out = np.empty_like(frames)
    for n, y, x in np.ndindex(count, height, across):
        at_x, at_y = np.clip(x + move[n, 0, y, x], 0, across - 1), np.clip(y + move[n, 1, y, x], 0, height - 1)
        left, top = min(int(at_x), across - 2), min(int(at_y), height - 2)
        right, low = at_x - left, at_y - top
        four = frames[n, :, top : top + 2, left : left + 2]
        out[n, :, y, x] = np.array([1 - low, low]) @ four @ np.array([1 - right, right])
    return out


def test_warping_looks_up_where_the_flow_points() -> None:
    frames, move = torch.randn(2, 3, 8, 11), torch.randn(2, 2, 8, 11) * 3
    torch.testing.assert_close(
        warp(frames, move), torch.from_numpy(looked_up(frames.numpy(), move.numpy())), rtol=1e-4, atol=1e-4
    )
    assert torch.allclose(warp(frames, torch.zeros_like(move)), frames, atol=1e-5)
    move.requires_grad_()
    warp(frames, move).sum().backward()
    assert move.grad is not None and move.grad.any()


def test_warping_back_undoes_the_move() -> None:
    for before, after in (shifted(3.5, -2), turned(6)[:2], discs([(4.0, 1.0), (-2.0, 0.5)])[:2]):
        before, after = (x if x.ndim == 4 else x[None] for x in (before, after))
        back, inside = warp(after, flow(before, after)), within(6)
        assert (back - before).abs()[..., inside].mean() < 0.15 * (after - before).abs()[..., inside].mean()


def test_as_a_part() -> None:
    before, after = shifted(2, 1)
    part = Flow(reach=4)
    assert torch.equal(part(before, after), flow(before, after, reach=4)) and not [*part.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(part(before, after), flow(before, after, reach=4))
    check_part(part, inputs=(before, after))


def test_wrong_pictures_are_refused() -> None:
    frames = torch.zeros(2, 3, 16, 16)
    for other in (frames[:1], frames[0], frames[..., :8]):
        with pytest.raises(ValueError, match="wanted two batches of floats"):
            flow(frames, other)
    with pytest.raises(ValueError, match="torch.uint8"):
        flow(frames.byte(), frames.byte())
    for reach in (0, -1, 16):
        with pytest.raises(ValueError, match="must lie between 0 and the side"):
            flow(frames, frames, reach=reach)
