"""Toys: what must come out of a world in which everything is known, by closed form and by looking at the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.data.toys import Toy, dots, linear
from tacit.envs.dots import WIDE, Board


def explained(inputs: np.ndarray, targets: np.ndarray) -> float:
    """R2 on the second half of a linear fit on the first."""
    half, inputs = len(inputs) // 2, np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    weights = np.linalg.lstsq(inputs[:half], targets[:half], rcond=None)[0]
    left = targets[half:] - inputs[half:] @ weights
    return float(1 - (left**2).sum() / ((targets[half:] - targets[half:].mean(0)) ** 2).sum())


def probed(toy: Toy, width: int) -> tuple[float, float]:
    """R2 of actions and of exogenous changes from the principal components of what the observation leaves open."""
    flat = toy.episodes.stack()
    seen = np.concatenate([flat["state"], np.ones((len(flat["state"]), 1))], 1)
    change = flat["next_state"] - flat["state"]
    change = change - seen @ np.linalg.lstsq(seen, change, rcond=None)[0]
    latents = change @ np.linalg.eigh(np.cov(change.T))[1][:, -width:]
    return explained(latents, flat["actions"]), explained(latents, moved(toy))


def moved(toy: Toy) -> np.ndarray:
    return np.concatenate([np.diff(track, axis=0) for track in toy.exogenous])


SMALL = {"episodes": 600, "length": 31}  # 18,000 transitions


@pytest.mark.parametrize("spread", [0.1, 0.5, 0.9])
def test_below_the_transition_the_principal_changes_are_the_actions(spread: float) -> None:
    actions, foreign = probed(linear(spread=spread, **SMALL), width=8)
    assert actions > 0.97
    assert foreign < 0.05


@pytest.mark.parametrize("spread", [1.1, 2.0])
def test_above_the_transition_they_are_the_noise(spread: float) -> None:
    actions, foreign = probed(linear(spread=spread, **SMALL), width=8)
    assert actions < 0.1
    assert foreign > 0.95


def test_twice_the_width_holds_both() -> None:
    half, whole = (probed(linear(spread=2.0, **SMALL), width=width)[0] for width in (12, 16))
    assert 0.4 < half < 0.6
    assert whole > 0.97


def test_a_determined_demonstrator_moves_the_transition() -> None:
    # what the observation leaves open of the action has deviation 1 - chi; it meets the noise's 0.5 at chi = 0.5
    found = {chi: probed(linear(spread=0.5, determinism=chi, **SMALL), width=8) for chi in (0.25, 0.75)}
    assert found[0.25][0] == pytest.approx(0.75**2 / (0.25**2 + 0.75**2), abs=0.03)
    assert found[0.25][1] < 0.05
    assert found[0.75][0] < 0.05
    assert found[0.75][1] > 0.9


@pytest.mark.parametrize("chi", [0.0, 0.5, 1.0])
def test_determinism_is_how_much_of_the_action_the_observation_tells(chi: float) -> None:
    flat = linear(determinism=chi, **SMALL).episodes.stack()
    told = chi**2 / (chi**2 + (1 - chi) ** 2)
    assert explained(flat["state"], flat["actions"]) == pytest.approx(told, abs=0.03)
    for step in (0, 29):  # and it neither grows nor dies away
        assert flat["actions"][flat["step"] == step].std() == pytest.approx(np.hypot(chi, 1 - chi), rel=0.06)


@pytest.mark.parametrize("world", ["linear", "dots"])
def test_no_action_moves_the_exogenous_state(world: str) -> None:
    board = Board(distractor=0.8, goal=False)
    made = [linear(determinism=c) if world == "linear" else dots(board, determinism=c) for c in (0.0, 0.9)]
    assert not np.array_equal(made[0].episodes.column("actions"), made[1].episodes.column("actions"), equal_nan=True)
    for calm, driven in zip(made[0].exogenous, made[1].exogenous, strict=True):
        np.testing.assert_array_equal(calm, driven)
    # nor does it tell the action: 20,000 steps, so that chance stays within a hundredth
    assert abs(explained(moved(made[0]), made[0].episodes.stack()["actions"])) < 0.01


def test_a_seed_decides_everything() -> None:
    for film in (linear, dots):
        marks = [film(episodes=20, length=11, seed=seed).episodes.fingerprint for seed in (0, 0, 1)]
        assert marks[0] == marks[1] != marks[2]


BOARDS = [Board(), Board(discrete=True), Board(body="pair"), Board(body="pair", discrete=True)]


@pytest.mark.parametrize("board", BOARDS, ids=["dot", "dot 5", "pair", "pair 5"])
def test_an_action_is_the_displacement_it_causes(board: Board) -> None:
    flat = dots(board, episodes=50).episodes.stack()
    way = board.between(flat["state"][:, :2], flat["next_state"][:, :2])
    np.testing.assert_allclose(way, board.effect(flat["actions"]), atol=1e-5)


def test_actions_lie_at_offset_nought() -> None:
    board = Board(goal=False)
    episodes = dots(board, episodes=100).episodes
    fits = {}
    for offset in range(-3, 4):
        acts, ways = [], []
        for number in range(len(episodes)):
            episode = episodes.episode(number)
            way, act = board.between(episode.state[:-1, :2], episode.state[1:, :2]), episode.actions
            start, stop = max(0, -offset), len(act) - max(0, offset)
            acts.append(act[start + offset : stop + offset])
            ways.append(way[start:stop])
        fits[offset] = explained(np.concatenate(ways), np.concatenate(acts))
    assert fits[0] > 0.999
    assert max(fit for offset, fit in fits.items() if offset) < 0.02


def centre(light: np.ndarray) -> np.ndarray:
    """(right, down) of the middle of some light on a board whose edges join, in its units."""
    angle = 2 * np.pi * (np.arange(light.shape[1]) + 0.5) / light.shape[1]
    sums = [np.exp(1j * angle) @ light.sum(0), np.exp(1j * angle) @ light.sum(1)]
    return np.mod(np.angle(sums), 2 * np.pi) * WIDE / (2 * np.pi)


@pytest.mark.parametrize("size", [12, 32])
def test_frames_show_the_state_they_stand_beside(size: int) -> None:
    board = Board(size=size)
    toy = dots(board, episodes=5, length=21)
    for number in range(5):
        episode = toy.episodes.episode(number)
        for frame, state in zip(episode.frames, episode.state, strict=True):
            light = frame.astype(float) - 128
            assert np.abs(board.between(centre(light[..., 0]), state[:2])).max() < 0.1
            assert np.abs(board.between(centre((light[..., 2] - light[..., 0]).clip(0)), state[2:])).max() < 0.3


def test_the_distractor_is_where_the_exogenous_state_says() -> None:
    board = Board(size=24, distractor=0.8, goal=False)
    toy, plain = dots(board, episodes=5), dots(Board(size=24, goal=False), episodes=5)
    for number, track in enumerate(toy.exogenous):
        with_, without = (t.episodes.episode(number).frames[..., 0].astype(float) for t in (toy, plain))
        for shade, place in zip(without - with_, track, strict=True):
            assert np.abs(board.between(centre(shade), np.mod(place[:2], WIDE))).max() < 0.2


def test_drift_is_free_or_has_momentum() -> None:
    def echo(drift: str) -> float:
        toy = dots(Board(distractor=0.8, drift=drift, goal=False), episodes=200)
        steps = np.stack([np.diff(track[:, :2], axis=0) for track in toy.exogenous])
        assert steps.std() == pytest.approx(2 / np.sqrt(3), rel=0.05)  # twice a random body's
        return float((steps[:, 1:] * steps[:, :-1]).mean() / (steps**2).mean())

    assert abs(echo("free")) < 0.02
    assert echo("momentum") == pytest.approx(0.9, abs=0.02)


def test_the_expert_arrives_and_play_seldom_does() -> None:
    expert, play = dots(determinism=1.0, length=21), dots(determinism=0.0, length=21)
    assert all(expert.episodes.episode(i).success for i in range(400))
    assert np.mean([bool(play.episodes.episode(i).success) for i in range(400)]) < 0.15
    episode, board = expert.episodes.episode(0), Board()
    np.testing.assert_allclose(episode.actions, board.expert(episode.state[:-1, :2], episode.state[:-1, 2:]), atol=1e-4)
    assert board.arrived(episode.state[:, :2], episode.state[:, 2:]).tolist() == [False] * (len(episode) - 1) + [True]
    assert episode.rewards.tolist() == [0.0] * (len(episode) - 2) + [1.0]
    assert (set(expert.episodes.sources), set(play.episodes.sources)) == ({"expert"}, {"play"})


@pytest.mark.parametrize("chi", [0.2, 0.8])
def test_choices_are_the_experts_as_often_as_said(chi: float) -> None:
    board = Board(discrete=True, goal=False)
    flat = dots(board, determinism=chi).episodes.stack()
    same = board.expert(flat["state"][:, :2], flat["state"][:, 2:]) == flat["actions"]
    assert same.mean() == pytest.approx(chi + (1 - chi) / 5, abs=0.015)


def test_a_room_holds_the_starts() -> None:
    episodes = dots(Board(room=6), length=2).episodes
    starts = episodes.column("state")[episodes.starts]
    assert np.abs(starts[:, :2] - WIDE / 2).max() <= 3
    assert np.abs(starts[:, :2] - WIDE / 2).max() > 2.8


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: dots(determinism=1.5), "determinism 1.5"),
        (lambda: dots(length=1), "at least 2 frames"),
        (lambda: linear(size=10), "8 \\+ 8 directions"),
        (lambda: Board(body="cat"), "'dot', 'pair'"),  # type: ignore[arg-type]
        (lambda: Board(distractor=-1), "distractor -1"),
    ],
)
def test_what_cannot_be_is_refused(wrong: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()  # type: ignore[operator]
