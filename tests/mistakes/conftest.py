"""What the mistakes are planted in: a toy with known actions, a small sound model, and the recipes' own, made tiny."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board
from tacit.latents.forward import Moved
from tacit.latents.inverse import Pair
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.parts.quantize import Free
from tacit.recipes import laom, lapo
from tacit.recipes import tacit as ours
from tacit.train import Plan

BOARD = Board(size=16, goal=False, discrete=True, stride=3.0)

RECIPES: dict[str, Callable[..., LatentActions]] = {
    "tacit": lambda data, plan, **more: ours.tacit(data, None, plan=plan, **{**ours.TINY, **more}),
    "lapo": lambda data, plan, **more: lapo.lapo(data, None, plan=plan, **{**lapo.TINY, **more}),
    "laom": lambda data, plan, **more: laom.laom(data, None, plan=plan, labelled=0.5, **{**laom.TINY, **more}),
}


@pytest.fixture(scope="session")
def data() -> Episodes:
    """Dots that do as they are told, and may do any of five things."""
    return toys.dots(BOARD, episodes=100, length=14).episodes


@pytest.fixture(scope="session")
def train(data: Episodes) -> Episodes:
    return data.split(0.3)[0]


@pytest.fixture(scope="session")
def held(data: Episodes) -> Episodes:
    return data.split(0.3)[1]


@pytest.fixture
def eyes() -> Callable[[], Keypoints]:
    """Builds the encoder of ``sound``."""
    return lambda: Keypoints(frame=(16, 16), points=4, width=16)


@pytest.fixture
def sound() -> Callable[..., LatentActions]:
    """Builds a sound model, of which a test may replace a part, or the class."""

    def build(kind: type[LatentActions] = LatentActions, **parts: Part) -> LatentActions:
        whole: dict[str, Any] = {
            "encoder": Keypoints(frame=(16, 16), points=4, width=16),
            "inverse": Pair(features=8, dim=8, width=16, blocks=1),
            "bottleneck": Free(8),
            "forward": Moved(frame=(16, 16), points=4, width=16),
        }
        return kind(**{**whole, **parts})

    return build


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest, train: Episodes) -> Callable[..., LatentActions]:
    """Each recipe that finds latent actions, tiny; called with a plan it trains, and ``name`` says which it is."""

    def run(plan: Plan, **more: Any) -> LatentActions:
        return RECIPES[request.param](train, plan, **more)

    run.name = request.param  # type: ignore[attr-defined]
    return run
