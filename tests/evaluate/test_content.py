"""How many bits a latent takes, against what theory says; and what of it is about what no action moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.clip import Clip, Episode, Space
from tacit.data.episodes import Episodes
from tacit.evaluate.content import bits, nuisance, rate
from tacit.parts.quantize import Bottled


@dataclasses.dataclass
class Reading:
    """A model whose latent is some function of what it sees before and after."""

    read: Callable[[Clip], Tensor]
    books: bool = False
    seen: frozenset[str] = frozenset()

    def infer(self, clip: Clip) -> Tensor:
        return self.read(clip)

    def found(self, clip: Clip) -> Bottled:
        z = self.read(clip).flatten(0, 1)
        return Bottled(z, torch.zeros(()), {}, z.long() if self.books else None)


def recorded(*, frames: bool = False, count: int = 40, length: int = 30) -> tuple[Episodes, list[np.ndarray]]:
    """States of two numbers: what the action moves, and what goes on by itself; on request with a picture of it."""
    random = np.random.default_rng(0)
    episodes, tracks = [], []
    for _ in range(count):
        steps = random.normal(size=(length - 1, 2)).astype(np.float32)
        state = np.concatenate([np.zeros((1, 2), np.float32), np.cumsum(steps, 0)])
        pictures = None
        if frames:  # the middle brightens as the actor goes, the edge as the other thing does
            pictures = np.full((length, 16, 16, 3), 0, np.uint8)
            pictures[:] = np.clip(128 + 8 * state[:, 1], 0, 255).astype(np.uint8)[:, None, None, None]
            pictures[:, 4:12, 4:12] = np.clip(128 + 8 * state[:, 0], 0, 255).astype(np.uint8)[:, None, None, None]
        episodes.append(Episode(frames=pictures, state=state, actions=steps[:, :1]))
        tracks.append(state[:, 1:])
    return Episodes.of(episodes, space=Space("continuous", 1, low=-9.0, high=9.0)), tracks


def change(column: int) -> Callable[[Clip], Tensor]:
    def read(clip: Clip) -> Tensor:
        assert clip.state is not None
        return clip.state[:, 1:, [column]] - clip.state[:, :-1, [column]]

    return read


@pytest.mark.parametrize("wide", [1, 4])
def test_a_gaussian_takes_the_bits_that_theory_gives_it(wide: int) -> None:
    z = np.random.default_rng(0).normal(size=(20_000, wide))
    assert rate(z) == pytest.approx(wide * np.log2(1 / 0.05) / 2, rel=0.02)
    assert rate(z, lost=0.2) == pytest.approx(wide * np.log2(1 / 0.2) / 2, rel=0.02)


def test_bits_do_not_change_with_unit_or_rotation_and_weak_directions_cost_nothing() -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=(5000, 3)) * [1.0, 0.5, 0.01]
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    assert rate(7 * z @ turn + 3) == pytest.approx(rate(z))
    assert rate(z) == pytest.approx(rate(z[:, :2]), rel=0.01)  # what is weaker than what may be lost is not said


def test_wide_latents_of_few_rows_are_told_as_narrow_ones_are() -> None:
    z = np.random.default_rng(0).normal(size=(50, 2))
    wide = z @ np.random.default_rng(1).normal(size=(2, 300))
    assert rate(wide) == pytest.approx(rate(wide @ np.linalg.svd(wide - wide.mean(0))[2][:2].T))


def test_what_never_varies_takes_no_bits() -> None:
    assert rate(np.full((100, 3), 5.0)) == 0.0


def test_codes_take_the_entropy_of_each_symbol() -> None:
    episodes, _ = recorded(length=101)

    def symbols(clip: Clip) -> Tensor:
        """One symbol of about four equally likely values, and one that is always the same."""
        assert clip.state is not None
        first = torch.bucketize(clip.state[:, 1:, 0] - clip.state[:, :-1, 0], torch.tensor([-0.6745, 0.0, 0.6745]))
        return torch.stack([first, torch.full_like(first, 3)], -1).float()

    value = bits(Reading(symbols, books=True), episodes)
    assert value.value == pytest.approx(2.0, abs=0.02)
    assert "2 symbols" in value.note
    assert "Gaussian" in bits(Reading(change(0)), episodes).note


@pytest.mark.parametrize(("column", "low", "high"), [(0, -0.1, 0.1), (1, 0.99, 1.0)])
def test_the_nuisance_probe_reads_what_no_action_moves_and_nothing_else(column: int, low: float, high: float) -> None:
    episodes, tracks = recorded()
    value = nuisance(Reading(change(column)), episodes, tracks=tracks)
    assert value.value is not None and low <= value.value <= high
    assert value.low is not None and value.high is not None and value.low <= value.value <= value.high
    assert "exogenous" in value.note


def test_tracks_go_with_their_episodes_whatever_was_selected() -> None:
    episodes, tracks = recorded()
    chosen = np.random.default_rng(3).permutation(len(episodes))[:25]
    value = nuisance(Reading(change(1)), episodes.select(chosen), tracks=[tracks[i] for i in chosen])
    assert value.value is not None and value.value > 0.99


@pytest.mark.parametrize(("column", "low", "high"), [(0, -0.2, 0.2), (1, 0.9, 1.0)])
def test_without_an_exogenous_state_the_rim_of_the_picture_stands_for_it(column: int, low: float, high: float) -> None:
    value = nuisance(Reading(change(column)), recorded(frames=True)[0])
    assert value.value is not None and low <= value.value <= high
    assert "rim" in value.note


def test_a_number_that_hardly_ever_moves_does_not_drown_the_others() -> None:
    """A cell that an actor touches once in the tested episodes, and never in the fitted ones, has no R2 of its own."""
    episodes, _ = recorded(frames=True)
    seen = [episodes.episode(i) for i in range(len(episodes))]
    for number, one in enumerate(seen):
        assert one.frames is not None
        one.frames[number % 29, 0, 0] = 255 - one.frames[number % 29, 0, 0]  # a flicker in one corner
    value = nuisance(Reading(change(1)), Episodes.of(seen, space=episodes.spec.space))
    assert value.value is not None and value.value > 0.8


def test_where_nothing_can_be_asked_the_value_says_so() -> None:
    assert nuisance(Reading(change(0)), recorded()[0]).value is None  # neither pictures nor tracks
    assert nuisance(Reading(change(0)), recorded(frames=True, count=1)[0]).value is None


def test_episodes_that_were_trained_on_are_refused() -> None:
    episodes, tracks = recorded()
    model: Any = Reading(change(0), seen=frozenset(episodes.prints[:1]))
    for asked in (lambda: bits(model, episodes), lambda: nuisance(model, episodes, tracks=tracks)):
        with pytest.raises(ValueError, match="were used to train"):
            asked()
