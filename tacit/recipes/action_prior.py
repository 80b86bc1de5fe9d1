"""Latent action priors: one demonstration says in which few directions actions are worth varying."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tacit.data.episodes import Episodes
from tacit.parts.keypoints import Keypoints
from tacit.parts.manifold import Manifold
from tacit.policies.led import Led
from tacit.train import Plan, fit

TINY = {"points": 4, "channels": 16, "dim": 2}


def action_prior(
    data: Episodes,
    out: Path | None,
    *,
    dim: int = 2,
    depth: int = 1,
    apart: float = 0.1,
    points: int = 16,
    channels: int = 32,
    past: int = 1,
    plan: Plan = Plan(rate=2e-3),
) -> Led:
    """Finds the few directions in which one demonstration's actions vary, and clones all labels in these coordinates.

    Paper: Hausdörfer et al. 2024, Latent Action Priors (arXiv 2410.03246).
    Differs: the policy clones labels in place of learning by reward (PPO) and a reward for style; the decoder is frozen
        and what is added to it bounded by ``apart``, as there. The demonstration is the episode with most labels.
    Published: none as one number: returns of six locomotion tasks, as learning curves.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    most = int(np.add.reduceat(data.mask, data.starts).argmax())
    prior = Manifold(space=data.spec.actions, dim=dim, depth=depth)
    fit(
        prior, data.select([most]).clips(2, labelled=1.0), out and out / "prior", plan, about={"recipe": "action_prior"}
    )
    sees = Keypoints(frame=data.spec.pictures, points=points, width=channels)
    led = Led(encoder=sees, features=sees.dim, prior=prior, past=past, apart=apart)
    led.remember(prior.seen)
    return fit(led, data.clips(past + 2, labelled=1.0), out and out / "policy", plan, about={"recipe": "action_prior"})
