"""Features taught by their own dynamics (DynaMo): what keeps them from all becoming one, measured by taking it away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.data.clips import Clips
from tacit.data.toys import linear
from tacit.latents.foresight import Rolled
from tacit.latents.hindsight import Window
from tacit.latents.model import LatentActions
from tacit.latents.signals import Covariance
from tacit.part import Part
from tacit.parts.mlp import Layers
from tacit.parts.quantize import Free
from tacit.train import Plan, fit

SIZE: dict[str, Any] = {"features": 16, "dim": 4, "width": 16, "layers": 1, "heads": 2}


class Open(Rolled):
    """The target learns too: features are drawn to what is easily predicted."""

    def __init__(self, *, encoder: Part, **size: Any) -> None:
        super().__init__(encoder=encoder, **size)
        self.live = [encoder]  # a list, or its weights would be here twice

    def wanted(self, frames: Tensor) -> Tensor:
        return F.normalize(self.live[0](frames), dim=-1)


def features(kind: type[Rolled], *, covariance: float = 0.04, **more: Any) -> Tensor:
    """What the encoder makes of states in which eight numbers vary, after a short training."""
    torch.manual_seed(0)
    states = linear(episodes=100, length=20, size=12, actions=4, exogenous=4).episodes
    eyes = Layers(inputs=12, dim=16, width=32, depth=1)
    model = LatentActions(
        encoder=eyes, inverse=Window(**SIZE), bottleneck=Free(4), forward=kind(encoder=eyes, **SIZE, **more),
        signals=(Covariance(covariance),), of="state", along=True, past=3,
    )  # fmt: skip
    plan = Plan(steps=120, batch=64, rate=3e-3, seed=0, log_every=1000, device="cpu")
    fit(model, Clips(states, 5), None, plan)
    with torch.no_grad():
        return model.features(Clips(states, 5).batch(np.arange(0, 900, 3)))[:, -1]


def rank(x: Tensor) -> float:
    """How many directions features truly have: the exponential of their spectrum's entropy."""
    power = torch.linalg.svdvals(x - x.mean(0)).square()
    return float(torch.special.entr(power / power.sum()).sum().exp())


@pytest.mark.parametrize("memory", [0.0, 0.99])
def test_without_a_gradient_into_the_target_features_keep_what_there_is_to_see(memory: float) -> None:
    assert rank(features(Rolled, memory=memory)) > 6


def test_with_it_they_collapse() -> None:
    assert rank(features(Open)) < 3.5


def test_the_covariance_term_parts_the_features() -> None:
    def shared(x: Tensor) -> float:
        squares = torch.cov(x.T).square()
        return float((squares.sum() - squares.diagonal().sum()) / squares.sum())

    assert shared(features(Rolled, covariance=4.0)) < 0.8 * shared(features(Rolled, covariance=0.0))
