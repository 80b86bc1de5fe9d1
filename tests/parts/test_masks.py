"""Where something moved of itself: found before a still backdrop and a panning one, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tacit.parts.masks import Moving


def scene(*, pan: int = 0, moved: int = 3) -> Tensor:
    """Two pictures of a square before waves, which a camera may pan over: (1, 2, 3, 32, 32)."""
    x = torch.arange(40.0)
    wide = 0.2 * torch.sin(x / 3)[:, None] * torch.cos(x / 4)
    shown = [wide[:32, :32].clone(), wide[:32, pan : pan + 32].clone()]
    for i, picture in enumerate(shown):
        picture[10:15, 8 + i * moved : 13 + i * moved] = 0.5
    return torch.stack(shown).expand(3, -1, -1, -1).movedim(0, 1)[None]


@pytest.mark.parametrize("pan", [0, 2])
def test_what_moved_is_where_it_was_and_where_it_is(pan: int) -> None:
    mask = Moving(around=0)(scene(pan=pan))[0, 0]
    assert mask.shape == (32, 32) and set(mask.unique().tolist()) <= {0.0, 1.0}
    assert mask[11:14, 13 - 1 - pan if pan else 9].any() and mask[10:15, 13:16].float().mean() > 0.8
    far = mask.clone()
    far[7:18, 3:20] = 0
    far[:, -4:] = 0  # what a pan brings in at the border was not seen before
    assert far.mean() < 0.01


def test_without_panning_a_moving_camera_marks_all() -> None:
    assert Moving(pans=False)(scene(pan=2)).mean() > 0.5 > 0.3 > Moving()(scene(pan=2)).mean()


def test_nothing_moves_in_a_still_picture_and_more_is_taken_around() -> None:
    assert not Moving()(scene(moved=0)).any()
    assert Moving(around=2)(scene()).sum() > 1.5 * Moving(around=0)(scene()).sum()
    with pytest.raises(ValueError, match="a share of brightness"):
        Moving(least=0.0)
