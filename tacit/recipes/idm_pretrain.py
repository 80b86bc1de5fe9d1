"""Pretraining by inverse dynamics: an encoder that knows what actions bring about, for a policy with few labels."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.latents.supervised import Multistep
from tacit.parts.keypoints import Keypoints
from tacit.policies.cloning import Cloning
from tacit.train import Plan, fit

TINY = {"points": 4, "channels": 16, "hidden": 64, "reach": 3}


def idm_pretrain(
    data: Episodes,
    out: Path | None,
    *,
    points: int = 16,
    channels: int = 32,
    hidden: int = 256,
    reach: int = 4,
    tuned: bool = False,
    others: str = "",
    source: str = "",
    plan: Plan = Plan(rate=2e-3),
) -> Cloning:
    """Learns to see by telling which action leads to a later frame, then clones few labels with what it has learnt.

    Paper: Brandfonbrener et al. 2023 (arXiv 2305.16985); over several steps, as in Lamb et al. 2022 (arXiv 2207.08229).
    Differs: the later frame lies up to ``reach`` steps ahead and not one; ``others`` names the labelled episodes to
        learn to see from, ``source`` those to clone; the encoder is small, and stays as it is unless ``tuned``.
    Published: none as one number that could be compared: success averaged over six sets, shown as figures.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    pretrained, cloned = (data.select(name) if name else data for name in (others, source))
    look = Keypoints(frame=data.spec.pictures, points=points, width=channels)
    inverse = Multistep(encoder=look, features=look.dim, space=data.spec.actions, reach=reach, width=hidden)
    clips = pretrained.clips(inverse.length, labelled=1.0)
    fit(inverse, clips, out and out / "inverse", plan, about={"recipe": "idm_pretrain"})
    sees = inverse.encoder
    policy = Cloning(encoder=sees, features=look.dim, space=data.spec.actions, width=hidden, tuned=tuned)
    policy.remember(inverse.seen)
    known = cloned.clips(policy.past + 2, labelled=1.0)
    return fit(policy, known, out and out / "policy", plan, about={"recipe": "idm_pretrain"})
