"""UniVLA's latent actions: in two stages, of which the first takes up what instructions do not explain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tacit.data.episodes import Episodes
from tacit.latents.foresight import Features
from tacit.latents.hindsight import Reader
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.parts.beside import Beside
from tacit.parts.books import Learnt
from tacit.parts.patches import PatchTransformer
from tacit.train import Plan, fit

TINY = {"patch": 4, "dim": 8, "width": 32, "layers": 1, "heads": 4}


def univla(
    data: Episodes,
    out: Path | None,
    *,
    encoder: Part | None = None,
    language: Part | None = None,
    codes: int = 16,
    tokens: int = 4,
    dim: int = 128,
    patch: int = 16,
    width: int = 768,
    layers: int = 12,
    heads: int = 12,
    plan: Plan = Plan(steps=100_000, batch=512, rate=1e-4, decay=1e-2, clip=0.1, precision="bfloat16"),
) -> LatentActions:
    """Finds codes of what the task changes, by first finding others of all that its instruction does not explain.

    Paper: Bu et al. 2025, UniVLA: Learning to Act Anywhere with Task-centric Latent Actions (arXiv 2505.06111).
    Differs: pairs are neighbouring frames, so bring data at about the rate of one a second; dead codes of the book
        that learns are set down anew, and of no other; the first codes are withheld from a tenth of the samples, so
        that the second can predict alone; the first reader goes without words in half of them, lest it lose its
        meaning when they are dropped; the second stage's forward model starts afresh; the loss is divided by the
        error of copying. Without ``encoder``, a ``Frozen`` DINOv2, one learns along and is taught by a slow copy of
        itself. Without ``language`` nothing makes the first codes those that the task does not need: they are then
        only the first.
    Published: 95.2 % success, the mean of four LIBERO suites; 86.3 % on LIBERO-Goal with a tenth of the demonstrations.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    eyes: Any = encoder or PatchTransformer(
        frame=data.spec.pictures, patch=patch, dim=width, layers=max(1, layers // 3), heads=heads
    )
    size: dict[str, Any] = {"features": eyes.dim, "tokens": eyes.tokens, "width": width, "layers": layers}
    size |= {"heads": heads}
    told: dict[str, Any] = {"told": getattr(language, "dim", 0)}
    book = Learnt(tokens=tokens, dim=dim, codes=codes, cosine=False)
    first = LatentActions(
        encoder=eyes, inverse=Reader(dim=book.width, queries=tokens, deaf=0.5, **told, **size), bottleneck=book,
        forward=Features(encoder=eyes, dim=book.dim, codes=tokens, **told, **size), language=language,
    )  # fmt: skip
    first = fit(first, data.clips(first.length), out and out / "first", plan, about={"recipe": "univla"})
    short = Beside(book, Learnt(tokens=tokens, dim=dim, codes=codes, cosine=False))
    forward = Features(encoder=eyes, dim=2 * book.dim, codes=2 * tokens, **size)
    latents = LatentActions(
        encoder=eyes, inverse=first.inverse.further(tokens), bottleneck=short, forward=forward
    )  # fmt: skip
    return fit(latents, data.clips(latents.length), out, plan, about={"recipe": "univla"})
