"""LAPO: latent actions from convolutions and a codebook."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.latents.forward import Onward, Painted
from tacit.latents.inverse import Stacked
from tacit.latents.model import LatentActions
from tacit.latents.signals import Signal
from tacit.parts.books import VQ
from tacit.parts.quantize import Bottleneck
from tacit.train import Plan, fit

TINY = {"codes": 8, "width": 1, "base": 8}


def lapo(
    data: Episodes,
    out: Path | None,
    *,
    codes: int = 64,
    width: int = 4,
    base: int = 24,
    bottleneck: Bottleneck | None = None,
    onward: Onward | None = None,
    signals: tuple[Signal, ...] = (),
    plan: Plan = Plan(steps=50_000, batch=128, precision="bfloat16"),
) -> LatentActions:
    """Finds the action as the few codes that a U-Net must be told to paint the next frame.

    Paper: Schmidt and Jiang 2024, Learning to Act without Actions (arXiv 2312.10812).
    Differs: the loss is divided by the error of copying the last frame; dead codes are redrawn from recent encoder
        outputs throughout the run, where the original redraws none; cosine decay, not linear.
    Published: expert level on average over 16 Procgen games within 4 M online frames.
    Ours: 0.01 of the noiseless expert's return in the demo (width=1, base=8, 1,000 steps), with 16 labels
        (results/demo.json: normalised[method=lapo,labels=16].mean);
        0.09 with 64 (results/demo.json: normalised[method=lapo,labels=64].mean).
    """
    torch.manual_seed(plan.seed)
    short = bottleneck or VQ(codes=codes)
    latents = LatentActions(
        inverse=Stacked(frame=data.spec.pictures, frames=3, dim=short.width, width=width),
        bottleneck=short,
        forward=onward or Painted(frame=data.spec.pictures, frames=2, dim=short.dim, base=base),
        signals=signals,
        past=1,
    )
    return fit(latents, data.clips(latents.length), out, plan, about={"recipe": "lapo"})
