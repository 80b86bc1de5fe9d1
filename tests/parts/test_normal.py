"""Gaussians: what is drawn has the mean and the spread that were said, and divergences are those of the books."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tacit.parts.normal import drawn, nats


def test_divergences_are_those_of_torch() -> None:
    one, other = torch.randn(5, 6).tanh(), torch.randn(5, 6).tanh()
    p, q = (Normal(x[:, :3], x[:, 3:].exp()) for x in (one, other))
    assert nats(one, other) == pytest.approx(kl_divergence(p, q).sum(1), rel=1e-4)
    assert nats(one) == pytest.approx(kl_divergence(p, Normal(0.0, 1.0)).sum(1), rel=1e-4)
    assert nats(torch.tensor([[2.0, 0.0]])).item() == pytest.approx(2.0)


def test_draws_are_spread_as_they_were_said() -> None:
    said = torch.tensor([[3.0, math.log(0.5)]]).expand(20_000, -1)
    found = drawn(said)
    assert found.mean().item() == pytest.approx(3.0, abs=0.02)
    assert found.std().item() == pytest.approx(0.5, abs=0.02)
