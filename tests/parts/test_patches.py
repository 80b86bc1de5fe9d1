"""Patches: each token is its own piece of the picture, in its place, and pictures come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.parts.patches import Patches, PatchTransformer, Pictures, cut, grid, joined, waves

FRAMES = [((8, 12), 4), ((12, 8), 2), ((6, 6), 6), ((5, 3), 1)]


def same(layer: nn.Linear) -> None:
    """A map that changes nothing."""
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)


@pytest.mark.parametrize(("frame", "patch"), FRAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_cut_comes_back_exactly(frame: tuple[int, int], patch: int, channels: int) -> None:
    x, dim = torch.randn(2, channels, *frame), channels * patch * patch
    first = Patches(frame=frame, patch=patch, dim=dim, channels=channels)
    last = Pictures(frame=frame, patch=patch, dim=dim, channels=channels)
    same(first.first)
    same(last.last)
    nn.init.zeros_(first.places)
    assert torch.equal(last(first(x)), x)
    assert torch.equal(last(first(x.contiguous(memory_format=torch.channels_last))), x)


@pytest.mark.parametrize(("frame", "patch"), FRAMES)
def test_each_token_is_one_square_of_the_picture(frame: tuple[int, int], patch: int) -> None:
    x, (high, wide) = torch.randn(2, 3, *frame), grid(frame, patch)
    pieces = cut(x, patch)
    for row in range(high):
        for column in range(wide):
            square = x[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            assert torch.equal(pieces[:, row * wide + column], square.flatten(1))
    assert torch.equal(pieces, F.unfold(x, patch, stride=patch).transpose(1, 2))  # as torch cuts
    assert torch.equal(joined(pieces, (high, wide), patch=patch), x)


def test_cutting_without_moving_axes_is_seen() -> None:
    x = torch.randn(2, 3, 8, 12)
    muddled = x.reshape(2, 6, 48)
    assert not torch.equal(muddled, cut(x, 4))
    assert not torch.equal(joined(muddled, (2, 3), patch=4), x)


def test_patches_are_a_convolution_with_strides() -> None:
    part = Patches(frame=(8, 12), patch=4, dim=10)
    x = torch.randn(2, 3, 8, 12)
    map_ = F.conv2d(x, part.first.weight.view(10, 3, 4, 4), part.first.bias, stride=4)
    torch.testing.assert_close(part(x), map_.flatten(2).transpose(1, 2) + part.places)


def test_a_painted_token_touches_its_own_square_alone() -> None:
    part, tokens = Pictures(frame=(8, 12), patch=4, dim=5), torch.randn(1, 6, 5)
    other = tokens.clone()
    other[:, 4] += 1
    moved = (part(other) - part(tokens)).abs().amax((0, 1)) > 0
    wanted = torch.zeros(8, 12, dtype=torch.bool)
    wanted[4:, 4:8] = True
    assert torch.equal(moved, wanted)


def test_waves_tell_every_place_from_every_other() -> None:
    places = waves((7, 9), 16)
    apart = torch.cdist(places, places) + torch.eye(63) * 9
    assert places.shape == (63, 16) and apart.min() > 0.1
    rows = places.view(7, 9, 16)
    assert (rows[:, :, :8] == rows[:, :1, :8]).all() and (rows[:, :, 8:] == rows[:1, :, 8:]).all()
    gaps = [(rows[0, i] - rows[0, 0]).norm() for i in range(4)]
    assert gaps == sorted(gaps)  # near places look alike


@pytest.mark.parametrize("learned", [True, False])
def test_the_same_piece_elsewhere_is_another_token(learned: bool) -> None:
    part = Patches(frame=(8, 8), patch=4, dim=8, learned=learned)
    tokens = part(torch.ones(1, 3, 8, 8))[0]
    assert torch.cdist(tokens, tokens)[~torch.eye(4, dtype=torch.bool)].min() > 0
    assert ("places" in dict(part.named_parameters())) == learned


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_the_encoder_sees_all_of_one_picture_and_none_of_another(pooled: bool, learned: bool, tmp_path: Path) -> None:
    part = PatchTransformer(frame=(8, 8), patch=4, dim=16, layers=2, learned=learned, pooled=pooled)
    x = torch.randn(3, 3, 8, 8)
    said = part(x)
    assert said.shape == ((3, 16) if pooled else (3, 4, 16)) and part.dim == 16
    other = x.clone()
    other[1, :, 7, 7] += 1
    moved = (part(other) - said).abs().flatten(1)
    assert (moved[[0, 2]] == 0).all() and (moved[1].view(-1, 16).amax(1) > 1e-6).all()
    swapped = part(x.unflatten(3, (2, 4)).flip(3).flatten(3))  # left for right: the same patches in other places
    swapped = swapped if pooled else swapped[:, [1, 0, 3, 2]]
    assert (swapped - said).abs().max() > 1e-3
    (said * torch.randn_like(said)).sum().backward()
    assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert torch.equal(PatchTransformer.load(part.save(tmp_path))(x), said)


def compiled(part: nn.Module, x: Tensor) -> Tensor:
    return torch.compile(part, fullgraph=True, backend="aot_eager")(x)


def test_it_compiles_in_one_piece_and_runs_in_half_precision() -> None:
    part, x = PatchTransformer(frame=(8, 8), patch=4, dim=16, layers=1, pooled=True), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(compiled(part, x), part(x))
    with torch.autocast("cpu", torch.bfloat16):
        half = part(x)
    assert 0 < (half - part(x)).abs().max() < 0.15


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Patches of 5 pixels do not fill a frame of \(8, 12\)"):
        Patches(frame=(8, 12), patch=5, dim=4)
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        Patches(frame=(8, 12), patch=4, dim=6, learned=False)
    with pytest.raises(ValueError, match=r"\(N, 3, 8, 12\) was wanted"):
        Patches(frame=(8, 12), patch=4, dim=4)(torch.randn(1, 3, 12, 8))
    with pytest.raises(ValueError, match=r"Tokens of shape \(1, 5, 4\)"):
        Pictures(frame=(8, 12), patch=4, dim=4)(torch.randn(1, 5, 4))
