"""Twins share a past and their chance, and differ by their action alone; the stirred one the other way round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tacit.clip import Space
from tacit.data.twins import twins
from tacit.envs.dots import Board, Dots
from tacit.envs.simulator import Simulator


class Counter(Simulator):
    """Adds its action to a sum and draws a number at each step; both stand in the picture."""

    name, horizon, size = "count/plain", 9, 4
    space = Space("continuous", 1)

    def start(self, seed: int) -> None:
        self.random, self.sum, self.drawn = np.random.default_rng(seed), 100.0, 0

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self.sum, self.drawn = self.sum + 10 * float(action[0]), int(self.random.integers(256))
        return 0.0, False, False

    def frame(self) -> np.ndarray:
        frame = np.zeros((4, 4, 3), np.uint8)
        frame[0, 0], frame[0, 1], frame[0, 2] = round(self.sum), self.drawn, self.steps
        return frame

    def state(self) -> np.ndarray:
        return np.array([self.sum], np.float32)

    def rule(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def snapshot(self) -> Any:
        return self.sum, self.drawn, self.steps, self.random.bit_generator.state

    def restore(self, snapshot: Any) -> None:
        self.sum, self.drawn, self.steps, self.random.bit_generator.state = snapshot

    def stir(self, seed: int) -> bool:
        self.random = np.random.default_rng(seed)
        return True


def test_twins_differ_by_their_action_and_stirred_ones_by_their_chance() -> None:
    found = twins(Counter, count=12, ways=3, past=1, apart=2)
    sums, drawn = found.frames[:, :, 0, 0, 0].float(), found.frames[:, :, 0, 0, 1]
    assert found.frames.shape == (12, 5, 3, 4, 4) and found.clip(2).frames.shape == (12, 3, 3, 4, 4)
    torch.testing.assert_close(found.state[:, 2:, 0] - found.state[:, 1:2, 0], 10 * found.actions[..., 0])
    assert (sums[:, 2:] - found.state[:, 2:, 0]).abs().max() <= 0.5
    assert (drawn[:, 2:] == drawn[:, 2:3]).all(), "one chance for all ways"
    assert ((found.actions[:, 1:] - found.actions[:, :1]).abs() >= 0.5).all(), "plainly other actions"
    other = found.stirred
    assert other is not None and torch.equal(other.state[:, -1], found.state[:, 2]), "its action is the first way's"
    assert (other.frames[:, -1, 0, 0, 1] != drawn[:, 2]).float().mean() > 0.9
    steps = found.frames[:, :, 0, 0, 2]
    assert (steps[:, 1] - steps[:, 0] == 1).all() and (steps[:, 2:] == steps[:, 1:2] + 1).all(), "lived once"
    again, other_seed = (twins(Counter, count=12, ways=3, past=1, apart=2, seed=seed) for seed in (0, 1))
    assert torch.equal(found.frames, again.frames) and not torch.equal(found.frames, other_seed.frames)


def test_an_episode_goes_on_as_if_nothing_had_been_tried() -> None:
    few, many = (twins(Counter, count=6, ways=k, past=0, apart=1) for k in (1, 4))
    assert torch.equal(few.frames[:, :2], many.frames[:, :2]), "what was done and what came of it"


def test_every_discrete_action_is_tried_once_and_without_chance_nothing_is_stirred() -> None:
    found = twins(lambda: Dots(Board(discrete=True)), count=10, ways=5)
    assert (found.actions.sort(1).values == torch.arange(5)).all()
    assert found.stirred is None
    assert twins(lambda: Dots(Board(distractor=0.8)), count=4, ways=2).stirred is not None


def test_what_cannot_be_tried_is_refused() -> None:
    with pytest.raises(ValueError, match="has 5 actions; it cannot go 6 ways"):
        twins(lambda: Dots(Board(discrete=True)), ways=6)
    with pytest.raises(ValueError, match="wanted at least 1"):
        twins("dots/plain", count=0)
    with pytest.raises(ValueError, match="were over before decision 50"):
        twins("dots/plain", past=50)
    with pytest.raises(IndexError):
        twins("dots/plain", count=1, ways=1).clip(1)
