"""Chunks: stretches of actions that occur again and again, each said at once."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.parts.keypoints import Keypoints
from tacit.parts.units import Units
from tacit.policies.chunked import Chunked, vocabulary
from tacit.train import Plan, fit

TINY = {"points": 4, "channels": 16, "size": 24, "letters": 9, "longest": 3}


def chunks(
    data: Episodes,
    out: Path | None,
    *,
    size: int = 256,
    letters: int = 32,
    longest: int = 8,
    sights: int = 0,
    sure: float | None = None,
    points: int = 16,
    channels: int = 32,
    past: int = 1,
    plan: Plan = Plan(rate=2e-3),
) -> Chunked:
    """Merges actions that follow one another into units, as text is made tokens, and clones the units.

    Paper: Zheng et al. 2024, PRISE (arXiv 2402.10450).
    Differs: letters are choices as they are, or the nearest of k-means centres of vectors, where PRISE learns codes
        that depend on what is seen; an episode is read as the longest units that fit, not by the order of merges.
        With ``sights``, a pair is merged only where the second can be told from the first and the kind of view.
    Published: none as one number: success by task on MetaWorld MT50 and LIBERO-90, as figures and tables.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    units = Units(space=data.spec.actions, size=size, letters=letters, longest=longest)
    words = vocabulary(units, data, sights=sights, sure=sure)
    look = Keypoints(frame=data.spec.pictures, points=points, width=channels)
    policy = Chunked(encoder=look, features=look.dim, units=words, past=past)
    return fit(policy, data.clips(policy.length, labelled=1.0), out, plan, about={"recipe": "chunks"})
