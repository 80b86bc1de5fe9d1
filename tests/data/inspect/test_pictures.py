"""Pictures and labels: a planted defect fires its own check on its own episode, and clean recordings fire none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.inspect import FAIL, PASS, WARN, inspect
from tests.data.inspect.planted import LENGTH, black, changed, clean, cut, fired, framed


def frozen(frames: np.ndarray) -> None:
    frames[10:22] = frames[10]


def still(frames: np.ndarray) -> None:
    frames[5:] = frames[5]


PICTURES = {"cuts": cut, "black": black, "frozen": frozen, "still": still}


def test_clean_recordings_pass_every_check() -> None:
    found = inspect(clean())
    assert (found.code, fired(found)) == (0, {})
    assert len(found.findings) == 16


@pytest.mark.parametrize("check", PICTURES)
def test_a_planted_defect_of_pictures_fires_its_own_check_on_its_own_episode(check: str) -> None:
    found = inspect(changed(clean(), _4=framed(PICTURES[check])))
    assert fired(found) == {check: (4,)}
    assert "episode 4" in found[check].words
    assert found.code == 1


@pytest.mark.parametrize("discrete", [True, False])
def test_choosing_to_stay_is_not_frozen(discrete: bool) -> None:
    from tacit.envs.dots import Board

    found = inspect(clean(40, board=Board(size=32, goal=False, discrete=discrete)))
    assert found["frozen"].grade == PASS


def test_the_places_of_defects_are_told() -> None:
    found = inspect(changed(clean(), _1=framed(cut), _2=framed(black), _3=framed(frozen)))
    assert found["cuts"].facts["cuts"] == {"1": [20]}
    assert found["black"].facts["at"] == {"2": [[12, 15]]}
    assert found["frozen"].facts["at"] == {"3": [[10, 21]]}


def test_a_moving_background_is_told_from_one_body() -> None:
    from tacit.envs.dots import Board

    alone = inspect(clean(20))["background"]
    beside = inspect(clean(20, board=Board(size=32, goal=False, distractor=1.0)))["background"]
    rolled = inspect(changed(clean(20), **{f"_{i}": framed(rolling) for i in range(20)}))["background"]
    assert alone.grade == PASS and alone.facts["share"] < 0.02
    assert beside.grade == WARN and beside.facts["share"] > 0.17
    assert rolled.grade == WARN and rolled.facts["share"] > 0.4  # the whole picture moves, as before a moving camera
    assert beside.facts["n"] == 20 * (LENGTH - 1)
    assert "background" not in {f.check for f in inspect(clean(4), background=False).findings}


@pytest.mark.parametrize("level", [0, 2, 4, 8, 12])
@pytest.mark.parametrize("size", [32, 64])
def test_the_noise_of_a_camera_is_no_background_and_hides_none(level: float, size: int) -> None:
    from tacit.envs.dots import Board

    def filmed(episode: Episode) -> Episode:
        random = np.random.default_rng(level)
        noisy = episode.frames // 2 + 60 + random.normal(0, level, episode.frames.shape)
        return episode.replace(frames=np.clip(noisy, 0, 255).round().astype(np.uint8))

    every = {f"_{i}": filmed for i in range(8)}
    alone = inspect(changed(clean(8, board=Board(size=size, goal=False)), **every))["background"]
    beside = inspect(changed(clean(8, board=Board(size=size, goal=False, distractor=1.0)), **every))["background"]
    assert alone.grade == PASS and alone.facts["share"] < 0.03
    assert beside.grade == WARN and beside.facts["share"] > 0.17


def rolling(frames: np.ndarray) -> None:
    random = np.random.default_rng(0)
    texture = np.kron(random.integers(0, 80, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    for t in range(len(frames)):
        frames[t] = frames[t] // 2 + np.roll(texture, 2 * t, 1)


# -- copies and overlap -------------------------------------------------------------------------------------------


def noisy(episode: Episode) -> Episode:
    random = np.random.default_rng(5)
    frames = np.clip(episode.frames.astype(int) + random.integers(-4, 5, episode.frames.shape), 0, 255)
    return episode.replace(frames=frames.astype(np.uint8))


def test_exact_and_near_copies_are_found() -> None:
    whole = clean()
    found = inspect(changed(whole, _7=lambda _: whole.episode(2), _9=lambda _: noisy(whole.episode(0))))
    assert fired(found) == {"duplicates": (0, 2, 7, 9)}
    assert found["duplicates"].facts["exact"] == [[2, 7]]
    assert found["duplicates"].facts["near"] == [[0, 9]]


def test_overlap_with_a_held_out_set_fails_if_exact_and_warns_if_near() -> None:
    whole, apart = clean(), clean(4, seed=11)
    assert inspect(whole, held=apart)["overlap"].grade == PASS
    exact = inspect(whole, held=changed(apart, _1=lambda _: whole.episode(3)))
    assert fired(exact) == {"overlap": (3,)} and exact["overlap"].grade == FAIL and exact.code == 2
    assert "episode 3 = held-out episode 1" in exact["overlap"].words
    near = inspect(whole, held=changed(apart, _1=lambda _: noisy(whole.episode(3))))
    assert fired(near) == {"overlap": (3,)} and near["overlap"].grade == WARN


def test_overlap_between_the_parts_of_a_dataset_is_found() -> None:
    whole = clean()
    parts = {f"_{i}": (lambda e, i=i: e.replace(split="valid" if i > 8 else "train")) for i in range(12)}
    assert inspect(changed(whole, **parts))["overlap"].grade == PASS
    parts["_10"] = lambda _: whole.episode(1).replace(split="valid")
    found = inspect(changed(whole, **parts))
    assert fired(found) == {"overlap": (1, 10)}
    assert "train and valid share" in found["overlap"].words
    assert "told under overlap" in found["duplicates"].words


# -- labels -------------------------------------------------------------------------------------------------------


def relabelled(change: Callable[[np.ndarray], None]) -> Callable[[Episode], Episode]:
    def plant(episode: Episode) -> Episode:
        actions = episode.actions.copy()
        change(actions)
        return episode.replace(actions=actions)

    return plant


def hole(actions: np.ndarray) -> None:
    actions[7:9] = np.nan


def half(actions: np.ndarray) -> None:
    actions[30:, 1] = np.nan


def wide(actions: np.ndarray) -> None:
    actions[3] = 1.7


@pytest.mark.parametrize(("plant", "check"), [(hole, "labels"), (half, "labels"), (wide, "range")])
def test_a_planted_defect_of_labels_fires_its_own_check(plant: Callable[[np.ndarray], None], check: str) -> None:
    assert fired(inspect(changed(clean(), _6=relabelled(plant)))) == {check: (6,)}


def test_a_number_that_never_changes_is_named() -> None:
    def flat(actions: np.ndarray) -> None:
        actions[:, 1] = 0.25

    found = inspect(changed(clean(), **{f"_{i}": relabelled(flat) for i in range(12)}))
    assert fired(found) == {"constant": ()}
    assert "down (always 0.25)" in found["constant"].words


def test_labels_hidden_on_purpose_are_no_defect() -> None:
    whole = clean()
    found = inspect(whole.keep_labels(whole.labelled // 3))
    assert fired(found) == {}
    assert found["labels"].facts["labelled"] == whole.labelled // 3


def test_without_labels_nothing_warns_and_the_checks_say_so() -> None:
    whole = clean()
    bare = Episodes.of([whole.episode(i).replace(actions=None) for i in range(len(whole))])
    for episodes in (bare, whole.unlabelled()):
        found = inspect(episodes)
        assert fired(found) == {}
        assert found["labels"].words.startswith("no labels: ")
    assert "no labels" in inspect(bare)["offset"].words and "no labels" in inspect(bare)["demonstrator"].words
