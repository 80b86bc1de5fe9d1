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
from tacit.recipes import (
    adaworld_actions,
    clam,
    dynamo,
    flexlam,
    genie_actions,
    igor,
    laom,
    laom_labels,
    lapa,
    lapo,
    lapo_fsq,
    stamo,
    univla,
    vipra_actions,
)
from tacit.recipes import tacit as ours
from tacit.train import Plan

BOARD = Board(size=16, goal=False, discrete=True, stride=3.0)


def tiny(module: Any, **given: Any) -> Callable[..., LatentActions]:
    """The recipe of a module, made tiny: called with data and a plan it trains."""
    recipe = getattr(module, module.__name__.rpartition(".")[2])
    return lambda data, plan, **more: recipe(data, None, plan=plan, **{**module.TINY, **given, **more})


RECIPES: dict[str, Callable[..., LatentActions]] = {
    "tacit": tiny(ours),
    "lapo": tiny(lapo),
    "lapo_fsq": tiny(lapo_fsq),
    "laom": tiny(laom, labelled=0.5, reach=3, shift=2),
    "laom_labels": tiny(laom_labels, labelled=0.5),
    "lapa": tiny(lapa),
    "genie_actions": tiny(genie_actions),
    "adaworld_actions": tiny(adaworld_actions),
    "igor": tiny(igor, shift=2),
    "vipra_actions": tiny(vipra_actions),
    "flexlam": tiny(flexlam),
    "univla": tiny(univla),
    "dynamo": tiny(dynamo),
    "clam": tiny(clam),
    "stamo": tiny(stamo),
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
