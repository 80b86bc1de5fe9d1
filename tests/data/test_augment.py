"""Augmentation: pixels land exactly where they should, whatever the layout, and the draws are as random as said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.data.augment import jitter, moved, shift, turn, turned


def noise(batch: int = 6, time: int = 3, size: int = 16, *, last: bool = False, floats: bool = False) -> Tensor:
    frames = torch.randint(0, 256, (batch, time, size, size, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    frames = frames if last else frames.contiguous()
    return frames.float().div(255) if floats else frames


def cropped(frames: Tensor, offsets: Tensor, pad: int) -> Tensor:
    """The same by padding and cutting, one frame at a time."""
    batch, time, _, height, width = frames.shape
    wide = F.pad(frames.flatten(0, 1).double(), (pad,) * 4, mode="replicate").view(batch, time, 3, height + 2 * pad, -1)
    out = torch.empty_like(frames)
    for b in range(batch):
        for t in range(time):
            down, right = offsets[b, t if offsets.shape[1] > 1 else 0].tolist()
            out[b, t] = wide[b, t, :, pad - down : pad - down + height, pad - right : pad - right + width]
    return out


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("offset", [(0, 0), (3, -2), (-1, 4), (4, 4)])
def test_one_bright_pixel_moves_exactly(offset: tuple[int, int], last: bool) -> None:
    frames = torch.zeros(1, 2, 12, 12, 3, dtype=torch.uint8)
    frames[:, :, 5, 6] = 255
    frames = frames.permute(0, 1, 4, 2, 3) if last else frames.permute(0, 1, 4, 2, 3).contiguous()
    for cyclic in (False, True):
        out = moved(frames, torch.tensor([[offset]]), cyclic=cyclic)
        assert (out > 0).nonzero().tolist() == [
            [0, t, c, 5 + offset[0], 6 + offset[1]] for t in (0, 1) for c in range(3)
        ]


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
@pytest.mark.parametrize("each", [False, True], ids=["shared", "each"])
def test_moved_is_padding_and_cutting(last: bool, floats: bool, each: bool) -> None:
    frames = noise(last=last, floats=floats)
    before = frames.clone()
    offsets = torch.randint(-4, 5, (6, 3 if each else 1, 2))
    out = moved(frames, offsets, reach=4)
    assert torch.equal(out, cropped(frames, offsets, 4))
    assert torch.equal(frames, before)
    assert (out.dtype, out.stride()) == (frames.dtype, frames.stride())


@pytest.mark.parametrize("offset", [(2, -3), (0, 16), (-21, 40)])
def test_cyclic_is_a_roll(offset: tuple[int, int]) -> None:
    frames = noise(last=True)
    out = moved(frames, torch.tensor(offset).expand(6, 1, 2), cyclic=True)
    assert torch.equal(out, frames.roll(offset, (-2, -1)))


def test_a_part_of_a_clip_moves_as_the_whole_does() -> None:
    frames, offsets = noise(last=True), torch.randint(-2, 3, (6, 1, 2))
    assert torch.equal(moved(frames[:, 1:], offsets, reach=2), moved(frames, offsets, reach=2)[:, 1:])


def test_frames_of_a_sample_share_their_shift_unless_told_otherwise() -> None:
    still = noise(batch=64, time=1).expand(-1, 3, -1, -1, -1)
    together, apart = shift(still, 4), shift(still, 4, shared=False)
    assert torch.equal(together[:, 0], together[:, 1])
    assert torch.equal(together[:, 0], together[:, 2])
    assert (apart[:, 0] != apart[:, 1]).flatten(1).any(1).float().mean() > 0.9


def whereabouts(frames: Tensor) -> Tensor:
    """(B, T, 2): where the one bright pixel is."""
    flat = frames[:, :, 0].flatten(2).float().argmax(-1)
    return torch.stack([flat // frames.shape[-1], flat % frames.shape[-1]], -1)


def test_shifts_are_even_and_two_calls_independent() -> None:
    frames = torch.zeros(20000, 1, 1, 16, 16, dtype=torch.uint8)
    frames[..., 8, 8] = 255
    for shared in (True, False):
        one, two = (whereabouts(shift(frames, 2, shared=shared))[:, 0] - 8 for _ in range(2))
        counts = torch.bincount(one[:, 0] * 5 + one[:, 1] + 12, minlength=25)  # 25 places, 800 times each
        assert len(counts) == 25
        assert counts.min() > 650
        assert counts.max() < 950
        both = torch.cat([one, two], 1).double().T
        across = torch.corrcoef(both)[:2, 2:]
        assert across.abs().max() < 0.03


def test_a_generator_decides_the_draws() -> None:
    frames = noise(batch=32)
    for change in (shift, jitter, turn):
        made = [change(frames, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        assert torch.equal(made[0], made[1])
        assert not torch.equal(made[0], made[2])


def test_no_shift_is_none() -> None:
    frames = noise(last=True)
    assert torch.equal(shift(frames, 0), frames)


def test_jitter_changes_light_and_contrast_by_no_more_than_said() -> None:
    grey = torch.full((4000, 2, 3, 2, 2), 128, dtype=torch.uint8)
    light = jitter(grey, brightness=0.1, contrast=0.5)[:, :, 0, 0, 0].int() - 128
    assert torch.equal(light[:, 0], light[:, 1])
    assert light.abs().max() <= 26
    assert light.float().std() == pytest.approx(25.5 / 3**0.5, rel=0.05)
    ends = torch.tensor([77, 179], dtype=torch.uint8).view(1, 1, 1, 1, 2).expand(4000, 2, 3, 2, 2)
    gain = jitter(ends, brightness=0.0, contrast=0.4).float().diff(dim=-1)[:, 0, 0, 0, 0] / 102
    assert 0.59 < gain.min() < 0.62
    assert 1.38 < gain.max() < 1.41


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_jitter_keeps_kind_and_range(last: bool) -> None:
    for floats in (False, True):
        frames = noise(last=last, floats=floats)
        assert torch.equal(jitter(frames, brightness=0, contrast=0), frames)
        out = jitter(frames, brightness=0.9, contrast=0.9)
        assert (out.dtype, out.stride()) == (frames.dtype, frames.stride())
        assert float(out.max()) <= (1 if floats else 255)
        assert float(out.min()) >= 0
    frames = noise(batch=64)
    pair = [jitter(f, generator=torch.Generator().manual_seed(3)) for f in (frames, frames.float() / 255)]
    assert (pair[0].float() / 255 - pair[1]).abs().max() < 1 / 255


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("each", [False, True], ids=["shared", "each"])
def test_turns_are_quarter_turns(last: bool, each: bool) -> None:
    frames = noise(last=last)
    quarters = torch.randint(4, (6, 3 if each else 1))
    out = turned(frames, quarters)
    for b in range(6):
        for t in range(3):
            k = int(quarters[b, t if each else 0])
            assert torch.equal(out[b, t], frames[b, t].rot90(k, (-2, -1)))
    assert torch.equal(turned(out, (4 - quarters) % 4), frames)
    assert out.stride() == frames.stride()


def test_all_four_turns_come_and_a_clip_turns_as_one() -> None:
    still = noise(batch=1, time=1).expand(400, 2, -1, -1, -1)
    out = turn(still)
    assert torch.equal(out[:, 0], out[:, 1])
    shares = [(out == still.rot90(k, (-2, -1))).flatten(1).all(1).sum().item() for k in range(4)]
    assert sum(shares) == 400
    assert min(shares) > 60
    assert not torch.equal(*turn(still, shared=False).unbind(1))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: shift(torch.zeros(2, 3, 8, 8)), "\\(B, T, C, H, W\\)"),
        (lambda: shift(noise(), -1), "pad is -1"),
        (lambda: turn(torch.zeros(2, 2, 3, 8, 9)), "square"),
        (lambda: moved(noise(), torch.zeros(5, 1, 2)), "wanted \\(6, 3, 2\\)"),
    ],
)
def test_what_cannot_be_is_refused(wrong: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()  # type: ignore[operator]
