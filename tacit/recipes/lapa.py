"""LAPA: latent actions from what changed in the patches, as tokens that a language model could say."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.latents.foresight import Patched
from tacit.latents.hindsight import Contrast
from tacit.latents.model import LatentActions
from tacit.parts.books import NSVQ
from tacit.parts.patches import Patches
from tacit.parts.quantize import Bottleneck
from tacit.train import Plan, fit

TINY = {"codes": 32, "patch": 4, "width": 32, "layers": 1, "heads": 4}


def lapa(
    data: Episodes,
    out: Path | None,
    *,
    patch: int = 32,
    side: int = 2,  # tokens of the latent are side by side
    codes: int = 8,
    width: int = 1024,
    layers: int = 8,
    heads: int = 16,
    reach: int = 1,
    bottleneck: Bottleneck | None = None,
    plan: Plan = Plan(steps=100_000, batch=64, rate=1e-4, clip=0.5, precision="bfloat16"),
) -> LatentActions:
    """Finds the action in the difference of two frames' patches, and paints the second frame by asking its tokens.

    Paper: Ye et al. 2024, Latent Action Pretraining from Videos (arXiv 2410.11758).
    Differs: dead codes are redrawn from recent encoder outputs for the whole run, where the original copies living ones
        and stops after 5,000 steps; the loss is divided by the error of copying; the goal lies up to ``reach`` steps
        ahead, where the original's lies a fixed time ahead; the past is the present frame alone.
    Published: 50.1 % on three real tasks, OpenVLA 43.9 %; 57.3 % in SIMPLER with 100 labelled trajectories.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    frame, tokens = data.spec.pictures, side * side
    encoder, short = Patches(frame=frame, patch=patch, dim=width), bottleneck or NSVQ(tokens=tokens, codes=codes)
    inverse = Contrast(
        features=width, grid=encoder.grid, dim=short.width, side=side,
        width=width, spatial=layers, layers=layers, heads=heads,
    )  # fmt: skip
    forward = Patched(
        frame=frame, patch=patch, features=width, dim=short.dim, tokens=tokens, width=width, layers=layers, heads=heads
    )
    latents = LatentActions(encoder=encoder, inverse=inverse, bottleneck=short, forward=forward, reach=reach)
    return fit(latents, data.clips(latents.length), out, plan, about={"recipe": "lapa"})
