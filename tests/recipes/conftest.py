"""What the tests of recipes share: a toy that a few labels are enough for, a short plan, and how a policy is judged."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tacit.clip import Clip
from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board
from tacit.part import Part
from tacit.policies.policy import Policy
from tacit.train import Plan


class Words(Part):
    """A stand-in for a model of language: for each text a vector of its own, which means nothing."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, texts: tuple[str, ...]) -> Tensor:  # type: ignore[override]
        seeds = (torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts)
        return torch.stack([torch.randn(self.dim, generator=seed) for seed in seeds])


@pytest.fixture(scope="session")
def words() -> Words:
    return Words()


@pytest.fixture(scope="session")
def planned() -> Callable[..., Plan]:
    def plan(steps: int, **changes: Any) -> Plan:
        return Plan(**{"steps": steps, "batch": 64, "rate": 3e-3, "device": "cpu", **changes})

    return plan


@pytest.fixture
def dots() -> Callable[..., tuple[Episodes, Episodes]]:
    """Dots that head for the middle, or for a goal: a training set with so many labels, and what is held out of it."""

    def made(
        labels: int | None = None, *, episodes: int = 150, seed: int = 0, **board: Any
    ) -> tuple[Episodes, Episodes]:
        rules = Board(**{"size": 16, "goal": False, "wrap": False, **board})
        data = toys.dots(rules, episodes=episodes, length=12, determinism=0.7, seed=seed).episodes
        train, held = data.split(0.2)
        return (train if labels is None else train.keep_labels(labels)), held

    return made


@pytest.fixture
def missed() -> Callable[..., float]:
    """A policy's mean squared error on held-out clips as a share of the actions' variance, ``steps`` long."""

    def measure(policy: Policy, held: Episodes, *, steps: int = 2) -> float:
        clip = held.clips(steps + 1).batch(range(120))
        memory, errors = policy.start(120), []
        assert clip.actions is not None
        with torch.no_grad():
            for step in range(steps):
                now = (None if x is None else x[:, step : step + 1] for x in (clip.frames, clip.state))
                said, memory = policy.act(Clip(*now), memory)
                errors.append((said - clip.actions[:, step]).square().mean())
        return float(torch.stack(errors[1:]).mean() / clip.actions[:, 1:].flatten(0, 1).var(0).mean())

    return measure
