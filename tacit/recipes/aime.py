"""AIME: learn how one's own body moves, then what others must have done for what was seen to come about."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.parts.keypoints import Keypoints
from tacit.policies.inferring import Inferring
from tacit.train import Plan, fit
from tacit.worlds.belief import Belief

TINY = {"points": 4, "channels": 16, "hidden": 64, "unsure": 8}


def aime(
    data: Episodes,
    out: Path | None,
    *,
    play: str = "",
    source: str = "",
    points: int = 16,
    channels: int = 32,
    hidden: int = 256,
    unsure: int = 30,
    length: int = 8,
    weight: float = 1e-3,
    plan: Plan = Plan(rate=1e-3),
) -> Inferring:
    """Learns a world model from labelled play, then a policy whose actions best explain demonstrations without labels.

    Paper: Zhang et al. 2023, Action Inference by Maximising Evidence (arXiv 2312.02019).
    Differs: a small model, of states where the data hold no frames; what is seen is weighed by the number, not summed;
        proposals are held to a prior by a small cost (``weight``); choices by Gumbel. ``play`` names the labelled
        episodes of one's own, ``source`` the others'.
    Published: none as one number: scores of Walker and Cheetah by embodiment data and demonstration, as figures.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    own, shown = (data.select(name) if name else data for name in (play, source))
    frame = data.spec.frame
    look = None if frame is None else Keypoints(frame=frame, points=points, width=channels)
    world = Belief(
        space=data.spec.actions,
        features=data.spec.state if look is None else look.dim,
        seen=data.spec.state if frame is None else 3 * prod(frame),
        encoder=look,
        of="state" if look is None else "frames",
        hidden=hidden,
        unsure=unsure,
    )
    fit(world, own.clips(length, labelled=1.0), out and out / "world", plan, about={"recipe": "aime"})
    policy = Inferring(world=world, width=hidden, weight=weight)
    policy.remember(world.seen)
    return fit(policy, shown.unlabelled().clips(length), out and out / "policy", plan, about={"recipe": "aime"})
