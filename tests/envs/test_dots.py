"""Dots in closed loop: the world of the toy videos, won by its expert, restored exactly, its distractor untouched."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tacit.data.toys import dots
from tacit.envs import simulator
from tacit.envs.dots import FLOORS, Board, Dots
from tacit.evaluate.rollout import Chance, rollout, summary

BOARDS = {
    "plain": Board(),
    "discrete": Board(discrete=True),
    "pair": Board(body="pair"),
    "walls": Board(wrap=False),
    "large": Board(size=32, distractor=0.8, drift="momentum"),
}


def played(simulator: Dots, seed: int, *, chance: bool = False) -> tuple[bool, int]:
    simulator.reset(seed=seed)
    while True:
        action = simulator.space.sample(simulator.np_random) if chance else simulator.rule()
        _, reward, terminated, truncated, info = simulator.step(action)
        assert info["success"] == terminated == bool(reward)
        if terminated or truncated:
            return terminated, simulator.steps


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_the_expert_always_arrives(board: Board) -> None:
    outcomes = [played(Dots(board), seed) for seed in range(100)]
    assert all(won for won, _ in outcomes)
    assert max(steps for _, steps in outcomes) <= 14


@pytest.mark.parametrize("body", ["dot", "pair"])
def test_chance_arrives_as_seldom_as_the_floor_says(body: str) -> None:
    simulator = Dots(Board(size=4, body=body))
    won = [played(simulator, seed, chance=True)[0] for seed in range(500)]
    assert np.mean(won) == pytest.approx(FLOORS[body], abs=0.03)


def test_the_simulator_moves_and_looks_as_the_toy_does() -> None:
    board = Board(size=16, goal=False)
    episode, simulator = dots(board, episodes=1, length=11).episodes.episode(0), Dots(board)
    simulator.start(0)
    simulator.restore((0, episode.state[:1, :2].astype(float), *simulator.snapshot()[2:]))
    for frame, state, action in zip(episode.frames, episode.state, [*episode.actions, None], strict=True):
        assert np.abs(simulator.frame().astype(int) - frame).max() <= 1  # the state was rounded to float32 on its way
        np.testing.assert_allclose(simulator.state(), state, atol=1e-4)
        if action is not None:
            simulator.apply(action)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_restored_world_goes_on_as_it_would_have(board: Board) -> None:
    simulator, random = Dots(board), np.random.default_rng(0)
    simulator.reset(seed=3)
    simulator.step(simulator.space.sample(random))
    moment, films = simulator.snapshot(), []
    for _ in range(2):
        simulator.restore(moment)
        assert simulator.steps == 1
        random = np.random.default_rng(1)
        films.append([simulator.step(simulator.space.sample(random))[0]["frame"] for _ in range(8)])
    np.testing.assert_array_equal(films[0], films[1])
    assert not np.array_equal(films[0][0], films[0][-1])


def test_what_is_done_moves_no_distractor() -> None:
    tracks = []
    for action in ([1.0, 0.0], [-1.0, 0.5]):
        simulator = Dots(Board(distractor=0.8))
        simulator.reset(seed=5)
        track = [simulator.exogenous()]
        for _ in range(5):
            simulator.step(np.array(action))
            track.append(simulator.exogenous())
        tracks.append(np.stack(track))  # type: ignore[arg-type]
    np.testing.assert_array_equal(*tracks)
    assert np.abs(np.diff(tracks[0][:, :2], axis=0)).min() > 0
    assert Dots().exogenous() is None


def test_an_episode_follows_from_its_seed() -> None:
    simulator = Dots(Board(distractor=0.8))
    first, again, other = (simulator.reset(seed=seed)[0]["frame"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_walls_hold_and_edges_join() -> None:
    for wrap in (True, False):
        simulator = Dots(Board(wrap=wrap, goal=False))
        simulator.reset(seed=0)
        for _ in range(15):
            _, _, terminated, _, _ = simulator.step(np.array([1.0, 0.0]))
            assert not terminated
        right = float(simulator.state()[0])
        assert (right < 11) if wrap else (right == 11)


def test_the_ends_of_the_scale_are_told_only_where_they_were_measured() -> None:
    """Normalised by another setting's expert, a policy that reaches the expert may seem better or worse than it."""
    assert simulator("dots/plain", size=16).floor < simulator("dots/plain", size=16).ceiling
    slow = simulator("dots/plain", size=16, stride=0.5)
    assert math.isnan(slow.floor) and math.isnan(slow.ceiling)
    names = {value.name for value in summary(rollout(Chance(), [slow], episodes=2, seed=0), slow)}
    assert "return" in names and "normalised return" not in names
