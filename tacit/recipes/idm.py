"""Inverse dynamics from the labels, then cloning of everything it labels."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.latents.supervised import Supervised, relabel
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.parts.outputs import Head
from tacit.policies.cloning import Cloning
from tacit.recipes.bc import bc
from tacit.train import Plan, fit

TINY = {"past": 1, "hidden": 16}


def idm(
    data: Episodes,
    out: Path | None,
    *,
    encoder: Part | None = None,
    hidden: int = 128,
    past: int = 1,
    source: str = "",
    plan: Plan = Plan(rate=2e-3),
) -> Cloning:
    """Learns from the labels which action lies between two frames, labels all the video with it, and clones that.

    Paper: Torabi et al. 2018 (arXiv 1805.01954); at scale, Baker et al. 2022, VPT (arXiv 2206.11795).
    Differs: the inverse model shares the architecture of ours, so that only the training differs; with ``encoder`` it
        starts from a pretrained one; ``source`` names the episodes worth cloning.
    Published: VPT's inverse model is right in 90.6 % of key presses after 1,962 labelled hours.
    Ours: 0.01 of the noiseless expert's return in the demo with 16 labels
        (results/demo.json: normalised[method=idm,labels=16].mean);
        0.26 with 64 (results/demo.json: normalised[method=idm,labels=64].mean).
    """
    torch.manual_seed(plan.seed)
    frame = data.spec.pictures  # asked for though an encoder be given: without pictures it sees nothing
    eyes = encoder or Keypoints(frame=frame, points=16)
    head = Head(features=eyes.dim * (past + 2), space=data.spec.actions, width=hidden)  # type: ignore[operator]
    inverse = Supervised(encoder=eyes, features=eyes.dim, head=head, past=past)  # type: ignore[arg-type]
    fit(inverse, data.clips(past + 2, labelled=1.0), out and out / "inverse", plan, about={"recipe": "idm"})
    told = relabel(inverse, data.select(source) if source else data)
    policy = bc(told, out and out / "policy", past=past, plan=plan)
    policy.remember(inverse.seen)  # all of the data; `told` is labelled anew, and no longer known as what it was
    if out is not None:
        policy.save(out / "policy")
    return policy
