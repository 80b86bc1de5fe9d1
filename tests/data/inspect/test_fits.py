"""The fits: labels shifted by a known number of frames, and demonstrators of whom it is known how settled they are."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.inspect import PASS, WARN, Inspection, inspect
from tacit.data.toys import dots, linear
from tacit.envs.dots import Board
from tests.data.inspect.planted import clean, fired


def shifted(episodes: Episodes, by: int) -> Episodes:
    """Each label stored ``by`` places after the transition that it made."""
    assert episodes.spec.space is not None
    made = []
    for i in range(len(episodes)):
        episode = episodes.episode(i)
        blank = episodes.spec.space.blank(len(episode) - 1)
        at = np.arange(len(blank)) - by
        there = (at >= 0) & (at < len(blank))
        blank[there] = episode.actions[at[there]]
        made.append(episode.replace(actions=blank))
    return Episodes.of(made, space=episodes.spec.space, fps=episodes.spec.fps)


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("by", [-3, -1, 1, 2])
def test_shifted_labels_are_found_with_their_sign(by: int, discrete: bool) -> None:
    found = inspect(shifted(clean(30, board=Board(size=32, goal=False, discrete=discrete, wrap=False)), by))
    assert set(fired(found)) == {"offset"}
    assert found["offset"].facts["best"] == by
    frames = f"{abs(by)} frame" + ("s" if abs(by) > 1 else "")
    assert f"{frames} too {'late' if by > 0 else 'early'}" in found["offset"].words


def test_labels_in_place_pass_and_the_fit_of_each_offset_is_told() -> None:
    offset = inspect(clean(30, board=Board(size=32, goal=False, wrap=False)))["offset"]
    assert offset.grade == PASS and offset.facts["best"] == 0
    assert offset.facts["r2"]["0"] > 0.35 and max(v for k, v in offset.facts["r2"].items() if k != "0") < 0.1
    assert offset.facts["n"] == 30 * (40 - 6) and "+1:" in offset.words


def test_labels_that_have_nothing_to_do_with_the_pictures_cannot_be_placed() -> None:
    random, whole = np.random.default_rng(0), clean(20)
    made = [whole.episode(i) for i in range(20)]
    noise = [e.replace(actions=random.uniform(-1, 1, e.actions.shape).astype(np.float32)) for e in made]
    offset = inspect(Episodes.of(noise, space=whole.spec.space))["offset"]
    assert offset.grade == PASS and offset.words.startswith("cannot tell")


def test_few_labels_cannot_be_placed() -> None:
    offset = inspect(clean(20).keep_labels(32))["offset"]
    assert offset.grade == PASS and offset.words.startswith("cannot tell: ") and "wanted 200" in offset.words


def test_actions_that_hardly_change_suit_every_offset() -> None:
    found = inspect(linear(episodes=40, determinism=1.0).episodes)["offset"]
    assert found.grade == PASS and "suit every offset" in found.words


@pytest.mark.parametrize("chi", [0.0, 0.5, 0.75, 1.0])
def test_how_settled_a_linear_demonstrator_is_comes_out_as_theory_says(chi: float) -> None:
    found = inspect(linear(episodes=80, determinism=chi).episodes)["demonstrator"]
    share = chi**2 / (chi**2 + (1 - chi) ** 2)  # of the action's variance, two parts of unit deviation
    assert found.facts["r2"] == pytest.approx(share, abs=0.04)
    assert found.grade == (WARN if share > 0.7 else PASS)
    assert found.facts["n"] == 80 * 50


def test_an_expert_in_pictures_is_told_from_play() -> None:
    def seen(chi: float) -> Inspection:
        return inspect(dots(Board(size=32, wrap=False), episodes=100, determinism=chi, seed=1).episodes, horizon=0.1)

    expert, play = seen(1.0), seen(0.0)
    assert "demonstrator" in fired(expert) and "not identifiable" in expert["demonstrator"].words
    assert "demonstrator" not in fired(play) and play["demonstrator"].facts["r2"] < 0.05


def test_positions_to_go_to_are_judged_by_the_moves_they_ask_for() -> None:
    random = np.random.default_rng(0)
    made = []
    for _ in range(20):
        moves = random.normal(size=(40, 2))
        state = np.concatenate([np.zeros((1, 2)), moves.cumsum(0)]).astype(np.float32)
        made.append(Episode(state=state, actions=state[1:]))
    found = inspect(Episodes.of(made, space=Space("continuous", 2, -60, 60)))["demonstrator"]
    assert found.facts["positions"] == 2
    assert found.grade == PASS and found.facts["r2"] < 0.05
