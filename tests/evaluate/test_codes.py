"""Codes and latents, alive and dead, against distributions whose numbers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from tacit.clip import Clip, Episode
from tacit.data.episodes import Episodes
from tacit.evaluate.codes import codes, counts, merged, perplexity, rank, variances
from tacit.evaluate.report import Value
from tacit.parts.quantize import Bottled

COUNT, LENGTH = 30, 21


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def recorded(values: np.ndarray) -> Episodes:
    """Episodes whose state holds, in each frame, what the doubles will say of the transition that leads to it."""
    return Episodes.of([Episode(state=v.astype(np.float32)) for v in values])


class Told:
    """A model whose latents are written in the state."""

    seen = frozenset[str]()

    def infer(self, clip: Clip) -> Tensor:
        assert clip.state is not None
        return clip.state[:, 1:]


@dataclass
class Book:
    codes: int
    groups: int = 1


class Quantised(Told):
    """The same, as codes of ``groups`` books; a latent is its code plus the rounding that a straight-through leaves."""

    def __init__(self, size: int, groups: int = 1) -> None:
        self.bottleneck = Book(size, groups)

    def infer(self, clip: Clip) -> Tensor:
        return super().infer(clip) + 1 + 1e-7 * torch.randn(len(clip), clip.time - 1, 1)

    def found(self, clip: Clip) -> Bottled:
        assert clip.state is not None
        codes = clip.state[:, 1:].flatten(0, 1).long()
        return Bottled(self.infer(clip).flatten(0, 1), torch.zeros(()), {}, codes)


def measured(model: Any, episodes: Episodes) -> dict[str, Value]:
    return {v.name: v for v in codes(model, episodes)}


def test_even_codes_are_all_alive_and_collapsed_ones_are_not(random: np.random.Generator) -> None:
    even = measured(Quantised(8), recorded(random.integers(8, size=(COUNT, LENGTH, 1))))
    assert even["codes in use"].value == 1 and even["dead codes"].value == 0
    found = even["perplexity"]
    assert found.value is not None and found.low is not None and found.value > 7.8 and found.low > 7.5
    assert found.n == COUNT and "of 8" in found.note and "30 held-out episodes" in found.data
    collapsed = measured(Quantised(8), recorded(np.full((COUNT, LENGTH, 1), 3)))
    assert collapsed["codes in use"].value == 1 / 8 and collapsed["dead codes"].value == 7
    assert collapsed["perplexity"].value == pytest.approx(1)
    assert collapsed["effective rank"].value == 0  # what rounding leaves of a constant is no direction
    assert collapsed["dead dimensions"].value == 1


def test_each_book_is_judged_by_itself(random: np.random.Generator) -> None:
    # two books of 4, read by 2 tokens each: the first even over its codes, the second always code 1
    values = np.concatenate([random.integers(4, size=(COUNT, LENGTH, 2)), np.ones((COUNT, LENGTH, 2), int)], -1)
    found = measured(Quantised(4, groups=2), recorded(values))
    assert found["codes in use"].value == 5 / 8 and found["dead codes"].value == 3
    assert found["perplexity"].value == pytest.approx((4 + 1) / 2, abs=0.05)


def test_uneven_episodes_widen_the_interval(random: np.random.Generator) -> None:
    mixed = recorded(random.integers(8, size=(COUNT, LENGTH, 1)))
    apart = recorded(np.broadcast_to(random.integers(8, size=(COUNT, 1, 1)), (COUNT, LENGTH, 1)))
    wide, narrow = (measured(Quantised(8), e)["perplexity"] for e in (apart, mixed))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)  # type: ignore[operator]


def test_perplexity_is_scipys(random: np.random.Generator) -> None:
    hits = random.integers(0, 50, size=(3, 16)) * (random.random((3, 16)) < 0.7)
    assert perplexity(hits) == pytest.approx(np.exp([entropy(h) for h in hits]).mean())
    assert perplexity([5, 0, 0]) == 1 and perplexity(np.ones(64)) == pytest.approx(64)


def test_counts_are_of_codes_that_can_be() -> None:
    assert counts([[0, 1, 2, 2], [0, 0, 2, 1]], 3, groups=2).tolist() == [[3, 1, 0], [0, 1, 3]]
    for wrong in ([[0, 3]], [[-1, 0]], [0, 1]):
        with pytest.raises(ValueError, match=r"wanted \(N, K\) of 0 to 2"):
            counts(wrong, 3)
    with pytest.raises(ValueError, match="multiple of the 2 books"):
        counts([[0, 1, 2]], 3, groups=2)


def test_rank_counts_directions_not_numbers(random: np.random.Generator) -> None:
    z = random.normal(size=(4000, 3))
    turned = z @ np.linalg.qr(random.normal(size=(12, 12)))[0][:3]
    assert rank(turned) == pytest.approx(3, abs=0.02)
    assert rank(turned + 50) == pytest.approx(rank(turned))  # where they lie does not matter
    assert 1 < rank(z * [1, 0.3, 0.01]) < 1.6
    assert rank(np.full((50, 4), 0.7)) == 0
    wide = random.normal(size=(20, 500))
    assert rank(wide) == pytest.approx(rank(wide @ np.linalg.qr(random.normal(size=(500, 500)))[0])) and rank(wide) < 20
    assert variances(z * [1, 2, 0]) == pytest.approx([1, 4, 0], abs=0.2)


def test_continuous_latents_have_no_codes_but_a_rank(random: np.random.Generator) -> None:
    values = random.normal(size=(COUNT, LENGTH, 4)) * [1, 1, 1, 0] + 3
    found = measured(Told(), recorded(values))
    assert all(
        found[n].value is None and "no codes" in found[n].note for n in ("codes in use", "dead codes", "perplexity")
    )
    live = found["effective rank"]
    assert live.value == pytest.approx(3, abs=0.05) and live.low is not None and live.low > 2.9 and live.n == COUNT
    assert live.value == pytest.approx(rank(values[:, 1:].reshape(-1, 4)))
    assert found["dead dimensions"].value == 1 and "4 numbers" in found["dead dimensions"].note


def test_a_wide_latent_is_measured_without_an_interval(random: np.random.Generator) -> None:
    found = measured(Told(), recorded(random.normal(size=(4, LENGTH, 300))))["effective rank"]
    assert found.value is not None and 40 < found.value < 80 and found.low is None and found.n == 4


def test_copies_in_a_book_are_one_code(random: np.random.Generator) -> None:
    """Two books of four codes: in the first three are copies of one another, in the second all differ."""
    first = np.array([[0.0, 0], [1e-4, 0], [0, 1e-4], [3, 3]])
    second = np.array([[0.0], [1], [2], [3]])
    chosen = random.integers(4, size=(500, 2))
    latents = np.concatenate([first[chosen[:, 0]], second[chosen[:, 1]]], 1)
    found = merged(chosen, latents, starts=(0, 2), groups=2)
    assert set(found[:, 0]) == {0, 3} and (found[:, 1] == chosen[:, 1]).all()
    assert ((found[:, 0] == 3) == (chosen[:, 0] == 3)).all()
    assert (merged(chosen, latents, starts=(), groups=2) == chosen).all(), "whose numbers are whose is not known"
