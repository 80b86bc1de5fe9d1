"""Behavioural cloning: what the labels alone give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tacit.data.episodes import Episodes
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.policies.cloning import Cloning
from tacit.train import Plan, fit

TINY = {"points": 4, "width": 16}


def bc(
    data: Episodes,
    out: Path | None,
    *,
    points: int = 16,
    width: int = 32,
    past: int = 1,
    encoder: Part | None = None,
    plan: Plan = Plan(steps=1000, rate=2e-3),
) -> Cloning:
    """Clones the labelled actions and leaves the other video alone: what every claim is held against.

    Paper: Pomerleau 1988; the network with spatial soft-argmax is that of Levine et al. 2016 (arXiv 1504.00702).
    Differs: small, the maps standardised before the soft-argmax; no pretrained weights but those of an ``encoder``.
    Published: none on these data.
    Ours: 0.01 of the noiseless expert's return in the demo with 16 labels
        (results/demo.json: normalised[method=bc,labels=16].mean);
        0.18 with 64 (results/demo.json: normalised[method=bc,labels=64].mean).
    """
    torch.manual_seed(plan.seed)
    frame = data.spec.pictures  # asked for though an encoder be given: without pictures it sees nothing
    look: Any = encoder or Keypoints(frame=frame, points=points, width=width)
    policy = Cloning(
        encoder=look,
        features=look.dim,
        space=data.spec.actions,
        past=past,
    )
    return fit(policy, data.clips(past + 2, labelled=1.0), out, plan, about={"recipe": "bc"})
