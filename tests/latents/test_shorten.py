"""Budgets of a nested latent: the smallest that tells the labels, found on labels held out, in a copy."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.latents.inverse import Difference
from tacit.latents.model import LatentActions
from tacit.latents.shorten import shortened
from tacit.part import Part
from tacit.parts.nested import Nested
from tacit.parts.quantize import Bottleneck, Free


def moving(slot: int, *, seed: int = 0) -> Episodes:
    """Four numbers that wander, of which one is moved by the action alone."""
    random, made = np.random.default_rng(seed), []
    for _ in range(12):
        steps = random.normal(size=(20, 4)).astype(np.float32)
        actions = steps[:, [slot]] + 0.05 * random.normal(size=(20, 1)).astype(np.float32)
        state = np.concatenate([np.zeros((1, 4), np.float32), np.cumsum(steps, 0)])
        made.append(Episode(state=state, actions=np.clip(actions, -4, 4)))
    return Episodes.of(made, space=Space("continuous", 1, low=-4.0, high=4.0))


class Going(Part):
    """A forward model that goes as far as the latent says."""

    heeds = denoises = False

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        return features[:, -1] + z


def ordered(bottleneck: Bottleneck) -> LatentActions:
    """A model whose latent is how far each number went."""
    return LatentActions(inverse=Difference(features=4), bottleneck=bottleneck, of="state", forward=Going())


@pytest.mark.parametrize("slot", [0, 2])
def test_labels_held_out_choose_as_many_slots_as_the_action_takes(slot: int, caplog: pytest.LogCaptureFixture) -> None:
    model = ordered(Nested(Free(4), slots=4)).eval()
    with caplog.at_level(logging.WARNING, "tacit"):
        short = shortened(model, moving(slot), budget=0)
    assert short.bottleneck.budget == slot + 1
    assert f"{slot + 1} of 4 slots are kept" in caplog.text and f"1.00 with {slot + 1}" in caplog.text
    assert model.bottleneck.budget is None, "what was given stays as it is"


def test_a_budget_that_is_given_is_kept_and_saved(tmp_path: Path) -> None:
    model = ordered(Nested(Free(4), slots=4)).eval()
    short = shortened(model, moving(0), budget=3)
    again = Part.load(short.save(tmp_path), classes=[Going])
    assert short.bottleneck.budget == again.bottleneck.budget == 3
    with pytest.raises(ValueError, match="wants 1 to 4 slots"):
        shortened(model, moving(0), budget=5)


def test_a_latent_without_slots_has_no_budget() -> None:
    with pytest.raises(ValueError, match="budget of 2 slots.*Free has no slots; train flexlam"):
        shortened(ordered(Free(4)), moving(0), budget=2)


def test_where_no_label_can_be_held_out_no_budget_is_chosen() -> None:
    with pytest.raises(ValueError, match="1 labels are too few for some to be held out"):
        shortened(ordered(Nested(Free(4), slots=4)).eval(), moving(0).keep_labels(1), budget=0)
