"""LILA: two axes of a joystick, which mean what the sentence says."""

from __future__ import annotations

from pathlib import Path

import torch

from tacit.data.episodes import Episodes
from tacit.part import Part
from tacit.policies.joystick import Joystick
from tacit.train import Plan, fit

TINY = {"hidden": 64}


def lila(
    data: Episodes,
    out: Path | None,
    *,
    language: Part,
    encoder: Part | None = None,
    dim: int = 2,
    hidden: int = 128,
    neutral: float = 1e-3,
    plan: Plan = Plan(rate=2e-3),
) -> Joystick:
    """Gives a person who has a stick of two axes all the joints that a sentence and the scene leave open.

    Paper: Karamcheti et al. 2021, LILA: Language-Informed Latent Actions (arXiv 2111.03205); without language, Losey et
        al. 2020 (arXiv 1909.09674).
    Differs: no nearest known sentence in place of a new one; the scene is the state, or an ``encoder`` of frames; a
        small cost holds the stick near its middle.
    Published: none as one number: success of ten people with a 7-joint arm on five tasks, as a figure.
    Ours: not measured.
    """
    torch.manual_seed(plan.seed)
    features = data.spec.state if encoder is None else encoder.dim
    stick = Joystick(
        language=language, told=language.dim, space=data.spec.actions, features=features, encoder=encoder,
        dim=dim, width=hidden, neutral=neutral,
    )  # fmt: skip
    return fit(stick, data.clips(2, labelled=1.0), out, plan, about={"recipe": "lila"})
