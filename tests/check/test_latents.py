"""What a latent action model promises beside what ``tests/test_mistakes.py`` plants: shapes, steps, own frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.check import Broken, check_latents
from tacit.clip import Clip
from tacit.data import toys
from tacit.envs.dots import WIDE, Board

DATA = toys.dots(Board(size=16, goal=False), episodes=10, length=12).episodes
CLIP = DATA.clips(5).batch(np.arange(0, 64, 8))


class Tracking:
    """Any object will do: this one is no part, reads the body's place from the state, and predicts the next place."""

    seen = frozenset[str]()
    past, dim = 0, 2

    def infer(self, clip: Clip) -> Tensor:
        way = torch.diff(self.places(clip), dim=1)
        return torch.remainder(way + 0.5, 1) - 0.5

    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        return self.places(clip)[:, :-1] + latents

    def targets(self, clip: Clip) -> Tensor:
        return self.places(clip)[:, 1:]

    def places(self, clip: Clip) -> Tensor:
        assert clip.state is not None
        return clip.state[:, :, :2] / WIDE


class Long(Tracking):
    def infer(self, clip: Clip) -> Tensor:
        return torch.cat([super().infer(clip)[:, :1], super().infer(clip)], 1)


class Narrow(Tracking):
    dim = 3


class Late(Tracking):
    """Predicts the next frame, and compares it with the present one."""

    def targets(self, clip: Clip) -> Tensor:
        return self.places(clip)[:, :-1]


class Deaf(Tracking):
    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        return self.places(clip)[:, :-1]


class Numbered(Tracking):
    """Knows how far into the clip it is, so that long episodes labelled in stretches come out otherwise."""

    def infer(self, clip: Clip) -> Tensor:
        return super().infer(clip) * torch.arange(1, clip.time)[:, None]


class Crowded(Tracking):
    def infer(self, clip: Clip) -> Tensor:
        z = super().infer(clip)
        return z - z.mean(0)


def test_any_object_with_the_three_answers_can_be_checked() -> None:
    check_latents(Tracking(), CLIP)


SPOILT: dict[type[Any], str] = {
    Long: "T frames have T - 1 latents, predictions and targets: .*infer gave",
    Narrow: "T frames have T - 1 latents, predictions and targets",
    Late: r"target t is what frame t \+ 1 shows: altering frame 1 moved targets \[1\]",
    Deaf: "its predictions hear the latent",
    Numbered: "a latent depends on its own frames only",
    Crowded: "a latent depends on its own frames only",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_model_that_breaks_a_promise_is_named(kind: type[Any]) -> None:
    with pytest.raises(Broken, match=SPOILT[kind]):
        check_latents(kind(), CLIP)
