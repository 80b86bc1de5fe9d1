"""Cuts, stillness and duplicates on toy films whose every cut, wait and copy was planted."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.clip import Episode, Space
from tacit.data.curate import cut, distinct, scenes, trim
from tacit.data.episodes import Episodes
from tacit.data.video import resize


def film(scene: int, length: int, *, size: int = 32, start: int = 0, step: float = 0.35) -> np.ndarray:
    """A bright square that wanders over a background of its own."""
    random = np.random.default_rng(scene)
    ground = np.kron(random.integers(0, 160, (4, 4, 3)), np.ones((size // 4, size // 4, 1))).astype(np.uint8)
    turn, frames = random.uniform(0, 6), np.stack([ground] * length)
    for t in range(length):
        angle = turn + step * (start + t)
        y, x = (int(size * (0.5 + 0.35 * f(angle))) - 3 for f in (np.sin, np.cos))
        frames[t, y : y + 6, x : x + 6] = 255
    return frames


def films(*parts: np.ndarray, space: Space | None = None) -> Episodes:
    return Episodes.of([Episode(frames=p) for p in parts], space=space)


def test_an_episode_is_cut_exactly_where_the_scene_changes() -> None:
    joined = np.concatenate([film(0, 12), film(1, 9), film(2, 20)])
    data = films(joined, film(3, 10))
    assert scenes(data, 0).tolist() == [12, 21]
    pieces, dropped = cut(data)
    assert pieces.names == ("episode 0 0-11", "episode 0 12-20", "episode 0 21-40", "episode 1")
    assert np.array_equal(pieces.episode(1).frames, film(1, 9))
    assert len(dropped) == 0


def test_scenes_too_short_are_dropped_and_named() -> None:
    data = films(np.concatenate([film(0, 12), film(1, 1), film(2, 9)]))
    pieces, dropped = cut(data, shortest=3)
    assert pieces.names == ("episode 0 0-11", "episode 0 13-21")
    assert dropped.names == ("episode 0 12-12",)
    assert "fewer than 3 frames" in dropped.rows[0].why
    with pytest.raises(ValueError, match="No scene"):
        cut(data, shortest=50)


def test_a_game_that_changes_much_in_every_frame_is_not_cut() -> None:
    random = np.random.default_rng(0)
    stormy = random.integers(256, size=(30, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    assert len(scenes(films(stormy), 0)) == 0


def test_still_ends_are_cut_away_to_the_margin() -> None:
    moving = film(0, 10)
    waits = np.concatenate([moving[:1].repeat(6, 0), moving, moving[-1:].repeat(4, 0)])  # it moves from 6 on, to 15
    kept, dropped = trim(films(waits, moving), margin=0)
    assert kept.names == ("episode 0 6-15", "episode 1")
    assert np.array_equal(kept.episode(0).frames, moving)
    assert dropped.names == ("episode 0 0-5", "episode 0 16-19")
    assert {row.why for row in dropped} == {"a still end"}
    assert trim(films(waits), margin=2)[0].names == ("episode 0 4-17",)


def test_an_episode_in_which_nothing_moves_is_dropped() -> None:
    flicker = film(0, 1).repeat(50, 0) // 2 + np.random.default_rng(0).integers(2, size=(50, 32, 32, 3), dtype=np.uint8)
    kept, dropped = trim(films(film(1, 12), flicker))
    assert kept.names == ("episode 0",)
    assert dropped.numbers == (1,)
    with pytest.raises(ValueError, match="Nothing moves"):
        trim(films(flicker))


def test_stillness_is_seen_in_the_state_where_there_are_no_pictures() -> None:
    ramp = np.concatenate([np.zeros(5), np.arange(1, 8), np.full(3, 7.0)])[:, None].astype(np.float32)
    kept, _ = trim(Episodes.of([Episode(state=ramp)]), margin=0)
    assert kept.episode(0).state[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_one_of_each_group_of_duplicates_stays() -> None:
    original = film(0, 24)
    noisy = np.clip(original.astype(int) + np.random.default_rng(0).integers(-4, 5, original.shape), 0, 255)
    data = films(original, film(1, 24), original.copy(), noisy.astype(np.uint8), film(0, 24, start=7))
    kept, dropped = distinct(data)
    assert kept.rows.tolist() == [0, 1, 4]
    assert dropped.numbers == (2, 3)
    assert dropped.rows[0].why == "shows the same as episode 0"
    assert dropped.rows[1].why == "shows nearly the same as episode 0"
    assert distinct(data, near=0)[1].numbers == (2,)


def test_a_blurred_copy_and_a_faster_one_are_duplicates_and_the_longest_stays() -> None:
    original = film(0, 95, step=0.05)
    blurred = resize(resize(original, (16, 16)), (32, 32))
    longer = np.concatenate([original, original[-1:]])
    kept, dropped = distinct(films(blurred, film(0, 95, step=0.05, start=30), longer, original[::2]))
    assert kept.rows.tolist() == [1, 2]
    assert dropped.numbers == (0, 3)
    assert {row.why for row in dropped} == {"shows nearly the same as episode 2"}


def test_episodes_before_one_background_are_no_duplicates() -> None:
    """What moves is little of the picture, and all that tells two demonstrations of one camera apart."""
    whole = film(0, 60)
    assert len(distinct(films(whole[:20], whole[20:40], whole[40:]))[1]) == 0


def test_of_duplicates_the_one_with_labels_stays() -> None:
    space, frames = Space("discrete", 3), film(0, 10)
    bare = Episode(frames=frames, actions=space.blank(9))
    data = Episodes.of([bare, Episode(frames=frames, actions=np.ones(9, np.int64))], space=space)
    assert distinct(data)[1].numbers == (0,)


def test_without_pictures_what_looks_at_pictures_says_so() -> None:
    data = Episodes.of([Episode(state=np.zeros((4, 2), np.float32))], name="states")
    with pytest.raises(ValueError, match="holds no frames"):
        cut(data)
