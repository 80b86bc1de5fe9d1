"""GROOT-2: instructions by video or by word, most of them never labelled."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.policies.instructed import Instructed
from tacit.train import Plan, fit

TINY = {"points": 4, "channels": 16, "hidden": 64, "dim": 4, "window": 8}


def groot2(
    data: Episodes,
    out: Path | None,
    *,
    language: Part | None = None,
    window: int = 32,
    dim: int = 16,
    points: int = 16,
    channels: int = 32,
    hidden: int = 256,
    past: int = 1,
    beta: float = 1e-2,
    aligned: float = 0.1,
    plan: Plan = Plan(rate=1e-3),
) -> Instructed:
    """Learns from all windows a latent that says what was done there, and from the few with a text what texts ask for.

    Paper: Cai et al. 2024, GROOT-2 (arXiv 2412.10410).
    Differs: convolutions and attention pooling in place of a Transformer-XL and pretrained vision; ``past`` frames of
        memory; texts only, no wished returns; a text's Gaussian is matched to that of its window, and does not itself
        act in training. Episodes without a text are the unlabelled ones.
    Published: none as one number: success by task in four environments, as figures and tables.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    look = Keypoints(frame=data.spec.pictures, points=points, width=channels)
    told = 0 if language is None else language.dim
    policy = Instructed(
        encoder=look, features=look.dim, space=data.spec.actions, window=window, language=language, told=told,
        dim=dim, past=past, width=hidden, beta=beta, aligned=aligned,
    )  # fmt: skip
    return fit(policy, data.clips(window), out, plan, about={"recipe": "groot2"})
