"""Keypoints are the middles of sharpened maps, written again in numpy, and no coarser in half precision."""

import numpy as np
import pytest
import torch
from torch import nn

from tacit.part import Part
from tacit.parts.keypoints import Keypoints, Repaint


def middles(maps: np.ndarray, sharpness: float) -> np.ndarray:
    """(N, P, H, W) to (N, P, 2), one map at a time and by the definition."""
    found = np.empty((*maps.shape[:2], 2))
    height, across = maps.shape[2:]
    for n, p in np.ndindex(maps.shape[:2]):
        one = maps[n, p].astype(np.float64)
        weight = np.exp((one - one.mean()) / np.sqrt(one.var() + 1e-6) * np.exp(sharpness))
        weight /= weight.sum()
        x, y = ((np.arange(count) + 0.5) / count * 2 - 1 for count in (across, height))
        found[n, p] = weight.sum(0) @ x, weight.sum(1) @ y
    return found


@pytest.mark.parametrize("frame", [(32, 32), (32, 48), (64, 32)])
def test_a_keypoint_is_the_middle_of_its_sharpened_map(frame):
    torch.manual_seed(0)
    eyes = Keypoints(frame=frame, points=3, width=8, sharpness=0.7)
    frames = torch.rand(4, 3, *frame) - 0.5
    with torch.no_grad():
        wanted = middles(eyes.maps(frames).numpy(), 0.7)
        assert np.allclose(eyes(frames).view(4, 3, 2).numpy(), wanted, atol=1e-5)


def test_half_precision_does_not_round_a_place():
    class Given(nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return frames[:, :1]

    eyes = Keypoints(frame=(32, 32), points=1, sharpness=2.0)
    eyes.maps = Given()  # type: ignore[assignment]
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    spots = torch.stack([-((x - at) ** 2) - (y - 5.3) ** 2 for at in np.linspace(4, 10, 60)])[:, None] / 8
    exact = eyes(spots)
    with torch.autocast("cpu", torch.bfloat16):
        seen = eyes(spots)
    assert (seen - exact).abs().max() < 1e-6
    assert (exact[:, 0].diff() > 0).all(), "a spot that moves right by a tenth of a cell is seen to move right"


@pytest.mark.parametrize("side", [16, 32, 48, 64, 80, 84, 96, 128])
def test_pictures_of_any_common_size_are_seen_and_repainted(side: int) -> None:
    pictures = torch.rand(2, 3, side, side)
    found = Keypoints(frame=(side, side), points=3, width=4)(pictures)
    painted = Repaint(frame=(side, side), points=3, width=4)(pictures[:, None], found[:, None], torch.zeros(2, 6))
    assert found.shape == (2, 6) and painted.shape == pictures.shape


@pytest.mark.parametrize("part", [Keypoints, Repaint])
def test_a_size_that_no_cell_divides_is_refused_with_one_that_will_do(part: type[Part]) -> None:
    with pytest.raises(ValueError, match="6 divides.*64 will do"):
        part(frame=(112, 112), points=3)  # type: ignore[call-arg]


def test_no_keypoints_at_all_are_refused():
    with pytest.raises(ValueError, match="points=0"):
        Keypoints(frame=(16, 16), points=0)
