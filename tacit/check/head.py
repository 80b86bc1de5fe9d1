"""What a head promises: it costs and decides in one language, and learns nothing from what nobody labelled."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.check.part import check_part
from tacit.check.promise import Broken, accept, seeded
from tacit.clip import Space
from tacit.part import Part


def check_head(head: Part, *, features: int) -> None:
    """Hold a head of ``features`` inputs to ``cost`` and ``decide``: one language, and no lesson without a label."""
    space: Space | None = getattr(head, "space", None)
    if not isinstance(space, Space):
        raise Broken(head, "it says what actions it speaks of", seen=f"its space is {space!r}", look="Set self.space.")
    with seeded(head.device), torch.enable_grad():
        told, random = torch.randn(8, features), np.random.default_rng(0)
        check_part(head, inputs=(told,))
        head = copy.deepcopy(head).cpu().train()
        actions = torch.from_numpy(np.stack([space.sample(random) for _ in range(8)]))
        known = torch.arange(8) < 5
        hidden = torch.where(known.view(-1, *[1] * (actions.ndim - 1)), actions, torch.from_numpy(space.blank(8)))
        full, blind = head.cost(told, actions, known=known), head.cost(told, hidden, known=known)  # type: ignore[operator]
        nothing = head.cost(told, torch.from_numpy(space.blank(8)), known=~known & known)  # type: ignore[operator]
        nothing.backward()
        slopes = [p.grad for p in head.parameters() if p.requires_grad]
        taught = nothing.item() != 0 or any(g is None or g.any() or not g.isfinite().all() for g in slopes)
        if full.item() != blind.item() or not full.isfinite() or taught:
            raise Broken(
                head,
                "what nobody labelled teaches nothing",
                seen=f"the cost is {full.item():.4g} with the unknown actions, {blind.item():.4g} without; where none "
                f"is known it is {nothing.item():.4g}, or has a gradient that is absent or not zero",
                look="Pick the rows of `known` before the sum; with none of them return 0 times the output.",
            )
    with torch.no_grad():
        said, far = head.eval().decide(told), head.decide(100 * told)  # type: ignore[operator]
    accept(head, said, count=8, space=space)
    accept(head, far, count=8, space=space)
    dearer = _dearer(head, told, said)
    if dearer > 0.25:
        raise Broken(
            head,
            "what it decides is what costs it least",
            seen=f"of actions drawn at random {dearer:.0%} cost less than the one it decided on",
            look="Compare the units and the sign of what `cost` compares with those of what `decide` gives.",
        )


@torch.no_grad()
def _dearer(head: Any, told: Tensor, said: Tensor) -> float:
    """How often another action would have cost less than the one decided on."""
    random, lost = np.random.default_rng(1), []
    for row in range(len(told)):
        known = torch.arange(len(told)) == row
        own = head.cost(told, said, known=known)
        for _ in range(4):
            other = said.clone()
            other[row] = torch.from_numpy(head.space.sample(random))
            lost.append(float(head.cost(told, other, known=known) < own))
    return float(np.mean(lost))
