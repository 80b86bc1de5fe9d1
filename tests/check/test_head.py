"""Heads of both kinds keep their promises, and a double that breaks one is refused by its name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tacit.check import Broken, check_head
from tacit.clip import Space
from tacit.parts.outputs import Head

PLANE, FIVE = Space("continuous", 2), Space("discrete", 5)


@pytest.mark.parametrize("space", [FIVE, PLANE, Space("continuous", 1, low=0, high=40)], ids=["five", "plane", "wide"])
@pytest.mark.parametrize("width", [0, 16])
def test_a_head_keeps_its_promises(space: Space, width: int) -> None:
    check_head(Head(features=8, space=space, width=width), features=8)


class Guessing(Head):
    """Takes what is unknown for the first choice, as a table of zeros would."""

    def cost(self, features: Tensor, actions: Tensor, known: Tensor) -> Tensor:
        return super().cost(features, actions.clamp(min=0), known=known | True)


class Silent(Head):
    """Answers with a bare zero where nothing is known: other processes wait for a gradient that never comes."""

    def cost(self, features: Tensor, actions: Tensor, known: Tensor) -> Tensor:
        return super().cost(features, actions, known=known) if known.any() else torch.zeros((), requires_grad=True)


class Contrary(Head):
    def decide(self, features: Tensor) -> Tensor:
        return self(features).argmin(-1)


class Loose(Head):
    def decide(self, features: Tensor) -> Tensor:
        return self(features)


@pytest.mark.parametrize(
    ("kind", "space", "promise"),
    [
        (Guessing, FIVE, "what nobody labelled teaches nothing"),
        (Silent, FIVE, "what nobody labelled teaches nothing"),
        (Contrary, FIVE, "what it decides is what costs it least"),
        (Loose, PLANE, "its actions are actions of the space"),
        (Loose, FIVE, "its actions are actions of the space"),
    ],
)
def test_a_head_that_breaks_a_promise_is_named(kind: type[Head], space: Space, promise: str) -> None:
    with pytest.raises(Broken, match=promise):
        check_head(kind(features=8, space=space), features=8)
