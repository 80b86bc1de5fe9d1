"""DreamGen: new video from a small generator, labelled by an inverse model, cloned beside what is real."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.latents.dream import Dreamer, dream
from tacit.latents.model import LatentActions
from tacit.latents.supervised import Supervised, relabel
from tacit.parts.keypoints import Keypoints
from tacit.parts.outputs import Head
from tacit.policies.cloning import Cloning
from tacit.recipes.bc import bc
from tacit.train import Plan, fit

TINY = {"count": 100, "length": 10, "hidden": 64, "points": 4, "channels": 16}


def dreamgen(
    latents: LatentActions,
    data: Episodes,
    out: Path | None,
    *,
    count: int = 1000,
    length: int = 16,
    borrowed: bool = False,
    hidden: int = 128,
    points: int = 16,
    channels: int = 32,
    source: str = "",
    plan: Plan = Plan(rate=2e-3),
) -> Cloning:
    """Dreams video with a latent action model that paints, labels it with an inverse model, clones it and the labels.

    Paper: Jang et al. 2025, DreamGen (arXiv 2505.12705).
    Differs: the generator is small and knows these data only: a latent action model of theirs, driven by a Gaussian
        prior of its latents; no pretrained video model, no language, and so no new verbs or places. The inverse model
        says one action and not a chunk.
    Published: none that this could reach: 22 new behaviours of a humanoid from one task's labels, success as tables.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    shown = data.select(source) if source else data
    seen = latents.features(shown.clips(1).batch([0]).to(latents.device)).shape[-1]  # type: ignore[union-attr]
    dreamer = Dreamer(latents=latents, features=seen, width=hidden)
    fit(
        dreamer, shown.unlabelled().clips(latents.past + 2), out and out / "dreamer", plan, about={"recipe": "dreamgen"}
    )
    dreams = dream(dreamer, shown, count=count, length=length, seed=plan.seed, borrowed=borrowed)
    look = Keypoints(frame=data.spec.pictures, points=points, width=channels)
    told = Head(features=3 * look.dim, space=data.spec.actions, width=hidden)
    labeller = Supervised(encoder=look, features=look.dim, head=told)
    fit(
        labeller,
        data.clips(labeller.past + 2, labelled=1.0),
        out and out / "inverse",
        plan,
        about={"recipe": "dreamgen"},
    )
    both = relabel(labeller, dreams) + data
    awake = bc(both, out and out / "policy", points=points, width=channels, plan=plan)
    awake.remember(dreamer.seen | labeller.seen | latents.seen)
    _ = out and awake.save(out / "policy")
    return awake
