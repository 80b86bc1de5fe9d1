"""How much of a nested latent is kept: so many slots, or as few as labels held out find good enough."""

from __future__ import annotations

import copy
import logging

import numpy as np

from tacit.data.episodes import Episodes
from tacit.latents.decode import decoder
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
        scores = {slots: _told(_cut(model, slots), data) for slots in range(1, model.bottleneck.slots + 1)}
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


def _cut(model: LatentActions, slots: int) -> LatentActions:
    made = copy.deepcopy(model)
    made.bottleneck.budget = slots  # type: ignore[assignment]
    return made


def _told(model: LatentActions, data: Episodes) -> float:
    """R2 of labels held out, by the best decoder of the others."""
    _, errors = decoder(model, data)
    actions, space = data.column("actions"), data.spec.actions
    assert actions is not None
    known = actions[data.mask]
    rows = np.eye(space.size)[known] if space.discrete else known
    return 1 - min(errors.values()) / max(float(rows.var(0).mean()), 1e-12)
