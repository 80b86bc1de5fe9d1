"""DynaMo: an encoder taught by the dynamics of what it sees; the latent action is a means to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tacit.data.episodes import Episodes
from tacit.latents.foresight import Rolled
from tacit.latents.hindsight import Window
from tacit.latents.model import LatentActions
from tacit.latents.signals import Covariance
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.parts.quantize import Free
from tacit.train import Plan, fit

TINY = {"points": 8, "channels": 16, "width": 32, "layers": 1, "heads": 4}


def dynamo(
    data: Episodes,
    out: Path | None,
    *,
    encoder: Part | None = None,
    frames: int = 5,
    dim: int = 8,
    points: int = 32,
    channels: int = 32,
    width: int = 120,
    layers: int = 6,
    heads: int = 6,
    memory: float = 0.99,
    covariance: float = 0.04,
    plan: Plan = Plan(steps=40_000, batch=64, rate=1e-4, clip=0.1),
) -> LatentActions:
    """Learns to see, from few recordings of one place: features that a small latent leads from one frame to the next.

    Paper: Cui et al. 2024, DynaMo: In-Domain Dynamics Pretraining for Visuo-Motor Control (arXiv 2409.12192).
    Differs: one camera; keypoints in place of a ResNet-18; the loss is divided by the cost of copying, so that
        ``covariance`` weighs less beside it than there. ``memory=0`` is the SimSiam variant, whose target is the
        encoder as it is.
    Published: 0.66 of Push-T covered and 3.64 of 4 tasks done in Franka Kitchen, by policies on its features.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    eyes: Any = encoder or Keypoints(frame=data.spec.pictures, points=points, width=channels)
    size: dict[str, Any] = {"features": eyes.dim, "dim": dim, "width": width, "layers": layers, "heads": heads}
    latents = LatentActions(
        encoder=eyes, inverse=Window(**size), bottleneck=Free(dim), along=True, past=frames - 2,
        forward=Rolled(encoder=eyes, memory=memory, **size), signals=(Covariance(covariance),),
    )  # fmt: skip
    return fit(latents, data.clips(frames), out, plan, about={"recipe": "dynamo"})
