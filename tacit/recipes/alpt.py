"""ALPT: an inverse model of many worlds, which a few labels of a new one make at home there."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.latents.supervised import Supervised, relabel
from tacit.parts.keypoints import Keypoints
from tacit.parts.outputs import Head
from tacit.policies.cloning import Cloning
from tacit.recipes.bc import bc
from tacit.train import Plan, fit

TINY = {"points": 4, "channels": 16, "hidden": 64}


def alpt(
    data: Episodes,
    out: Path | None,
    *,
    target: str = "",
    points: int = 16,
    channels: int = 32,
    hidden: int = 128,
    plan: Plan = Plan(rate=2e-3),
) -> Cloning:
    """Learns inverse dynamics from all sources, then from the target's few labels, labels the target and clones it.

    Paper: Venuto et al. 2022, Multi-Environment Pretraining Enables Transfer to Action Limited Datasets
        (arXiv 2211.13337).
    Differs: convolutions and one action space in place of a transformer over several; only the inverse model is
        pretrained, the policy begins afresh; ``target`` names the source that is labelled and cloned.
    Published: none as one number: scores of five Atari games, with 10,000 labels (12 minutes) of each, as a table.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    home = data.select(target) if target else data
    sees = Keypoints(frame=data.spec.pictures, points=points, width=channels)
    says = Head(features=3 * sees.dim, space=data.spec.actions, width=hidden)
    knows = Supervised(encoder=sees, features=sees.dim, head=says)
    stages = {"everywhere": data, "home": home}
    for stage, shown in stages.items():
        fit(knows, shown.clips(knows.past + 2, labelled=1.0), out and out / stage, plan, about={"recipe": "alpt"})
    cloned = bc(relabel(knows, home), out and out / "policy", points=points, width=channels, plan=plan)
    cloned.remember(knows.seen)  # what was labelled anew is no longer known as what it was
    _ = out and cloned.save(out / "policy")
    return cloned
