"""Knobs of recipes that cannot be: refused by name, before anything is trained, and never blamed on the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tacit.data.episodes import Episodes
from tacit.recipes import adaworld_actions, dynamo, genie_actions, laom, vipra_actions
from tacit.recipes import tacit as ours

WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no places": (ours, {"points": 0}, "points=0"),
    "noise below nought": (ours, {"noise": -1.0}, "noise=-1.0"),
    "no reach": (ours, {"reach": 0}, "reach=0"),
    "a wide latent of nothing": (laom, {"dim": 0}, "width=0"),
    "a small latent of nothing": (dynamo, {"dim": 0}, "width=0"),
    "clips of one frame, for features": (dynamo, {"frames": 1}, "past=-1"),
    "clips of one frame, for codes": (genie_actions, {"frames": 1}, "past=-1"),
    "clips of one frame, for motion": (vipra_actions, {"length": 1}, "past=-1"),
    "no price": (adaworld_actions, {"beta": math.nan}, "beta=nan"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_by_name(
    case: str, dots: Callable[..., tuple[Episodes, Episodes]], planned: Callable[..., Any]
) -> None:
    module, knobs, named = WRONG[case]
    recipe = getattr(module, module.__name__.rpartition(".")[2])
    with pytest.raises(ValueError, match=named):
        recipe(dots(episodes=5)[0], None, plan=planned(2), **{**module.TINY, **knobs})
