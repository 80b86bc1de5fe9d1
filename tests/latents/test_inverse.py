"""Inverse models in training: they look as many steps ahead as they are told to, and labels are of one step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tacit.clip import Clip, Space
from tacit.latents.inverse import Difference
from tacit.latents.model import LatentActions
from tacit.latents.signals import Signal
from tacit.latents.step import Step
from tacit.part import Part
from tacit.parts.outputs import Head
from tacit.parts.quantize import Free


class Still(Part):
    """A forward model that waits: what is looked at is the latents."""

    heeds = denoises = False

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        return features[:, -1]

    def wanted(self, x: Tensor) -> Tensor:
        return x

    def cost(self, guess: Tensor, wanted: Tensor) -> Tensor:
        return (guess - wanted).square().mean()


def drifting(*, batch: int, reach: int) -> tuple[LatentActions, Clip, list[tuple[Tensor, ...]]]:
    """A world that goes on by one a step, a model whose latent is how far it went, and what its label head is told."""
    told: list[tuple[Tensor, ...]] = []

    class Listening(Head):
        def cost(self, features: Tensor, actions: Tensor, *, known: Tensor) -> Tensor:
            told.append((features, actions, known))
            return super().cost(features, actions, known=known)

    model = LatentActions(
        inverse=Difference(features=1), bottleneck=Free(1), forward=Still(), past=1, reach=reach, of="state",
        label=Listening(features=1, space=Space("discrete", 9)),
    )  # fmt: skip
    return model, Clip(state=torch.arange(model.length + 0.0).expand(batch, -1)[..., None]), told


def test_the_inverse_looks_every_number_of_steps_ahead_up_to_the_reach() -> None:
    model, clip, _ = drifting(batch=4000, reach=4)
    step = model._pair(clip, None)
    steps = step.ends[:, 1] - step.ends[:, 0]
    assert torch.equal(step.found.z[:, 0], steps.float()), "the latent is of just so many steps"
    assert steps.unique().tolist() == [1, 2, 3, 4]
    shares = steps.bincount()[1:] / len(steps)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_a_label_teaches_a_single_step_whatever_the_reach() -> None:
    model, clip, told = drifting(batch=2000, reach=4)
    mask = torch.zeros(2000, clip.time - 1, dtype=torch.bool)
    mask[::4, 1], mask[1::4, 3] = True, True  # where the transition begins, and later in the clip
    actions = torch.arange(clip.time - 1).expand(2000, -1)
    model.loss(clip.replace(actions=actions, mask=mask))
    [(z, taught, known)] = told
    assert torch.equal(known, mask.any(1))
    assert (z[known] == 1).all() and taught[::4].unique().tolist() == [1] and taught[1::4].unique().tolist() == [3]
    assert z[~known].unique().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("share", "matched"), [(0.25, True), (1.0, True), (0.25, False), (0.0, True)])
def test_labels_that_are_matched_weigh_their_share_of_the_batch_and_signals_the_rest(
    share: float, matched: bool
) -> None:
    class Dear(Signal):
        weight = 2.0

        def cost(self, model: LatentActions, step: Step) -> Tensor:
            return step.found.z.new_tensor(5.0)

    class Wrong(Head):
        def cost(self, features: Tensor, actions: Tensor, *, known: Tensor) -> Tensor:
            return features.new_tensor(3.0)

    model = LatentActions(
        inverse=Difference(features=1), bottleneck=Free(1), forward=Still(), of="state", weight=4.0, matched=matched,
        label=Wrong(features=1, space=Space("discrete", 9)), signals=(Dear(),),
    )  # fmt: skip
    mask = torch.zeros(8, 1, dtype=torch.bool)
    mask[: int(8 * share)] = True
    clip = Clip(
        state=torch.arange(2.0).expand(8, -1)[..., None], actions=torch.zeros(8, 1, dtype=torch.int64), mask=mask
    )
    cost, told = model.loss(clip)
    assert told["label"] == 3.0 and told["dear"] == 5.0, "what is told is not weighed"
    wanted = (4.0 * share * 3.0 + (1 - share) * 2.0 * 5.0) if matched else 4.0 * 3.0 + 2.0 * 5.0
    assert float(cost) == pytest.approx(1.0 + wanted), "waiting costs 1"
