"""Noise: both ends of a schedule are exact, and a denoiser that knows the picture is brought to it in any steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tacit.parts.noise import Schedule, denoised, mixed, spoilt

SCHEDULES: tuple[Schedule, ...] = ("cosine", "linear")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_one_end_is_the_picture_and_at_the_other_nothing_of_it(schedule: Schedule) -> None:
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(spoilt(clean, noise, level=torch.zeros(2), schedule=schedule), clean)
    assert torch.equal(spoilt(clean, noise, level=torch.ones(2), schedule=schedule), noise)
    share, rest = mixed(torch.linspace(0, 1, 50), schedule)
    assert (share.diff() < 0).all() and (rest.diff() > 0).all()
    level = torch.tensor(1 / 3)
    wanted = (math.sqrt(3) / 2, 0.5) if schedule == "cosine" else (2 / 3, 1 / 3)
    assert [float(x) for x in mixed(level, schedule)] == pytest.approx(wanted, abs=1e-6)


def test_a_cosine_keeps_the_size_of_what_has_the_size_of_noise() -> None:
    share, rest = mixed(torch.linspace(0, 1, 21))
    assert torch.allclose(share**2 + rest**2, torch.ones(21), atol=1e-6)


def test_each_picture_has_its_own_level() -> None:
    clean, noise = torch.randn(2, 3), torch.randn(2, 3)
    mix = spoilt(clean, noise, level=torch.tensor([0.0, 0.5]), schedule="linear")
    assert torch.equal(mix[0], clean[0])
    torch.testing.assert_close(mix[1], (clean[1] + noise[1]) / 2)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_perfect_denoiser_is_brought_to_the_picture_along_the_schedule(schedule: Schedule, steps: int) -> None:
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    shown: list[tuple[Tensor, Tensor]] = []

    def knows(x: Tensor, level: Tensor) -> Tensor:
        shown.append((x, level))
        return clean

    assert torch.equal(denoised(knows, noise, steps=steps, schedule=schedule), clean)
    assert [float(level[0]) for _, level in shown] == pytest.approx([1 - i / steps for i in range(steps)])
    for x, level in shown:  # it is asked what lies between the picture and this noise, and nothing else
        torch.testing.assert_close(x, spoilt(clean, noise, level=level, schedule=schedule), rtol=1e-4, atol=1e-4)


def test_the_best_denoiser_of_a_bell_makes_a_bell() -> None:
    """Numbers of mean 1 and deviation 0.5, of which only the best guess is known: the sampler must give them both."""
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))

    def mean(x: Tensor, level: Tensor) -> Tensor:
        share, rest = mixed(level[:1])
        return 1 + 0.25 * share / (0.25 * share**2 + rest**2) * (x - share)

    found = denoised(mean, noise, steps=100)
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert float(found.std()) == pytest.approx(0.5, abs=0.02)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        denoised(lambda x, _: x, torch.zeros(1, 1), steps=0)
    with pytest.raises(ValueError, match="must be 'cosine' or 'linear'"):
        mixed(torch.zeros(1), "square")  # type: ignore[arg-type]
