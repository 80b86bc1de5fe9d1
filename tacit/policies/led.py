"""Cloning in the coordinates of a prior."""

from __future__ import annotations

from tacit.part import Part
from tacit.parts.manifold import Manifold, Within
from tacit.policies.cloning import Cloning


class Led(Cloning):
    """Clones few labels in the coordinates of a prior of actions, from which it may stray ``apart`` in half ranges."""

    def __init__(
        self, *, encoder: Part, features: int, prior: Manifold, past: int = 1, width: int = 256, apart: float = 0.0
    ) -> None:
        super().__init__(encoder=encoder, features=features, space=prior.space, past=past, width=width)
        self.head = Within(features=features * (past + 1), prior=prior, width=width, apart=apart)
