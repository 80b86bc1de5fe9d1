"""How much of a nested latent is kept: so many slots, or as few as labels held out find good enough."""

from __future__ import annotations

import copy
import logging

import numpy as np
import torch

from tacit.data.episodes import Episodes
from tacit.latents.decode import decoder, spoken
from tacit.latents.model import LatentActions
from tacit.parts.nested import Nested, shortest

log = logging.getLogger("tacit")


def shortened(model: LatentActions, data: Episodes, *, budget: int) -> LatentActions:
    """The same model, of whose nested latent ``budget`` slots are kept; the one given stays as it is.

    A budget of 0 is left to the labels of ``data``: the smallest at which a decoder tells those that were held out from
    it within two hundredths of their variance as well as at any.
    """
    if not isinstance(model.bottleneck, Nested):
        raise ValueError(
            f"A budget of {budget} slots was given, and this model's {type(model.bottleneck).__name__} has no slots; "
            "train flexlam, or give a recipe a Nested bottleneck."
        )
    if not budget:
        scores = _scores(model, data, slots=model.bottleneck.slots)
        if not np.isfinite(list(scores.values())).any():
            raise ValueError(
                f"{data.labelled} labels are too few for some to be held out, by which a budget could be chosen; give "
                "more, or a budget from 1."
            )
        budget = shortest(scores)
        found = ", ".join(f"{score:.2f} with {slots}" for slots, score in scores.items())
        doubt = "" if max(scores.values()) > 0 else " None tells anything of them: give more labels, or a budget."
        log.warning("%d of %d slots are kept: R2 of labels held out is %s.%s", budget, len(scores), found, doubt)
    return _cut(model, budget)


def _scores(model: LatentActions, data: Episodes, *, slots: int) -> dict[int, float]:
    """R2 of labels held out, by the best decoder of the others, for every number of slots."""
    every, space = data.column("actions"), data.spec.actions
    assert every is not None
    whole = max(float(spoken(torch.from_numpy(every[data.mask]), space).var(0, correction=0).mean()), 1e-12)
    errors = {count: decoder(_cut(model, count), data)[1] for count in range(1, slots + 1)}
    return {count: 1 - min(by.values()) / whole for count, by in errors.items()}


def _cut(model: LatentActions, slots: int) -> LatentActions:
    made = copy.deepcopy(model)
    made.bottleneck.budget = slots  # type: ignore[assignment]
    return made
