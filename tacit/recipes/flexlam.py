"""FlexLAM: latent actions of any length, in one model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from tacit.data.episodes import Episodes
from tacit.latents.forward import Painted
from tacit.latents.inverse import Pair
from tacit.latents.model import LatentActions
from tacit.parts.conv import Strided
from tacit.parts.nested import Nested
from tacit.parts.quantize import FSQ, Bottleneck
from tacit.train import Plan, fit

TINY = {"slots": 4, "levels": (2, 2, 2), "features": 32, "channels": 8, "neurons": 32, "base": 8}


def flexlam(
    data: Episodes,
    out: Path | None,
    *,
    slots: int = 8,  # pieces of the latent, in order
    whole: float = 0.1,  # odds of keeping all of them in training
    draw: Literal["even", "powers"] = "even",  # how else their number is drawn
    settle: int = 0,  # steps in which the order is found, after which nearly all samples keep all; 0 is never
    levels: tuple[int, ...] = (5, 5, 5),  # values that each number of a slot is rounded to
    bottleneck: Bottleneck | None = None,
    features: int = 256,
    channels: int = 32,
    neurons: int = 1024,  # neurons of the inverse model
    base: int = 24,  # channels of the U-Net
    plan: Plan = Plan(steps=50_000, batch=128, precision="bfloat16"),
) -> LatentActions:
    """Finds an ordered list of codes of which the first few are an action too, so that few labels may go with few.

    Paper: FlexLAM 2026 (arXiv 2606.19408); nested dropout is Rippel et al. 2014 (arXiv 1402.0915).
    Differs: the networks are plain ones of ours; the loss is divided by the error of copying the last frame; how many
        slots there are and how a sample's number is drawn are knobs, as the paper's own could not be read.
    Published: none that we could read; one model at least as good as those of fixed size at every budget.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    frame, inner = data.spec.pictures, bottleneck or FSQ(levels, groups=slots)
    nested = Nested(inner, slots=slots, draw=draw, whole=whole, settle=settle)
    latents = LatentActions(
        encoder=Strided(channels=3, frame=frame, width=channels, dim=features),
        inverse=Pair(features=features, dim=nested.width, width=neurons),
        bottleneck=nested,
        forward=Painted(frame=frame, frames=1, dim=nested.dim, base=base),
    )
    return fit(latents, data.clips(2), out, plan, about={"recipe": "flexlam"})
