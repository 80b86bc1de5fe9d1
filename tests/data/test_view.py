"""Seeing a recording another way: the right frame at the right time, what lies between summed or averaged, shapes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.check.reader import check_reader
from tacit.clip import Episode, Space
from tacit.data.cache import cache
from tacit.data.episodes import Episodes
from tacit.data.reader import Memory, Reader, Spec
from tacit.data.video import Damaged
from tacit.data.view import View, Viewed, carried, framed, kept, pace, shaped


def test_a_lower_rate_takes_every_nth_frame_and_an_odd_one_the_nearest() -> None:
    times = np.arange(31) / 30
    assert kept(times, 10).tolist() == list(range(0, 31, 3))
    assert kept(times, None).tolist() == list(range(31))
    # 4 a second of 10: at 0, .25, .5, .75, 1.0; .25 lies as near to .2 as to .3, and the earlier is taken
    assert kept(np.arange(11) / 10, 4).tolist() == [0, 2, 5, 7, 10]
    assert kept(np.arange(11) / 10 + 1e6, 4).tolist() == [0, 2, 5, 7, 10]


def test_no_frame_is_made_up_but_a_rate_off_by_a_hair_keeps_them_all() -> None:
    ntsc = np.arange(3000) * 1001 / 30000
    assert kept(ntsc, 30).tolist() == list(range(3000))
    assert kept(np.round(ntsc, 3), 30).tolist() == list(range(3000)), "as Matroska rounds them"
    with pytest.raises(ValueError, match=r"clip.mp4 has 29\.97 frames a second; 31 were asked for"):
        kept(ntsc, 31, where="clip.mp4")


def test_in_a_gap_the_frame_before_stays_until_the_next_was_recorded() -> None:
    times = np.array([0, 0.1, 0.2, 0.3, 1.0, 1.1, 1.2])  # nothing moved from 0.3 to 1.0
    assert pace(times) == pytest.approx(10)
    assert kept(times, 10).tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, 6]
    assert kept(times, 5).tolist() == [0, 2, 3, 3, 3, 4, 6]


def test_times_that_cannot_be_are_refused_before_memory_is_asked_for() -> None:
    with pytest.raises(ValueError, match="run backwards"):
        kept(np.array([0, 2, 1]), 1)
    with pytest.raises(ValueError, match="missing"):
        kept(np.array([]), 1)
    with pytest.raises(ValueError, match="its timestamps are damaged"):
        kept(np.array([0, 0.1, 0.2, 1e15]), 10)
    assert kept(np.array([3.0]), 10).tolist() == [0]


@given(
    st.lists(st.floats(0.01, 0.5), min_size=1, max_size=60).map(lambda gaps: np.concatenate([[0], np.cumsum(gaps)])),
    st.floats(0.05, 1.0),
)
def test_each_target_shows_the_nearest_frame_never_one_from_far_ahead(times: np.ndarray, share: float) -> None:
    own = pace(times)
    assert own is not None
    fps = own * share
    rows = kept(times, fps)
    step = 1 / own if abs(share - 1) <= 0.01 else 1 / fps
    assert rows[0] == 0
    assert (np.diff(rows) >= 0).all()
    for k, row in enumerate(rows):
        at = k * step
        near = np.abs(times - at)
        allowed = near[times <= at + 0.5 / own + 1e-6]
        assert near[row] <= allowed.min() + 1e-5


def test_what_lies_between_is_summed_averaged_or_counted() -> None:
    rows = np.array([0, 3, 6])
    assert carried(np.array([1, 2, 3, 4, 5, 6], np.float32), rows, how="sum").tolist() == [6, 15]
    actions = np.array([[1, 0], [3, 0], [np.nan, 9], [np.nan, 1], [np.nan, 2], [np.nan, 3]], np.float32)
    means = carried(actions, rows, how="mean")
    assert means[0].tolist() == [2, 0]
    assert np.isnan(means[1]).all()
    assert carried(np.array([4, 2, 4, 7, 1, 1]), rows, how="most").tolist() == [4, 1]
    assert carried(np.array([5, 3, -1, -1, -1, -1]), rows, how="most").tolist() == [5, -1], "the first of equals"
    assert carried(np.array([-1, -1, 8, -1, 0, -1]), rows, how="most").tolist() == [8, 0]
    rewards = carried(np.array([1, np.nan, 2, np.nan, np.nan, np.nan], np.float32), rows, how="sum")
    assert rewards[0] == 3
    assert np.isnan(rewards[1])


def test_between_two_showings_of_one_frame_nothing_was_done() -> None:
    rows = np.array([0, 1, 1, 2])
    assert carried(np.array([1, 2], np.float32), rows, how="sum").tolist() == [1, 0, 2]
    assert carried(np.array([1, 2]), rows, how="most").tolist() == [1, -1, 2]
    assert np.isnan(carried(np.array([[1.0], [2.0]]), rows, how="mean")[:, 0]).tolist() == [False, True, False]


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=30), st.integers(1, 5))
def test_rewards_are_neither_lost_nor_doubled(values: list[int], stride: int) -> None:
    rows = np.unique(np.concatenate([np.arange(0, len(values) + 1, stride), [len(values)]]))
    rewards = np.array(values, np.float32)
    assert carried(rewards, rows, how="sum").sum() == rewards.sum()


def test_crop_fit_pad_and_stretch() -> None:
    frames = np.zeros((2, 4, 8, 3), np.uint8)
    frames[:, :, :2], frames[:, :, 2:6], frames[:, :, 6:] = 10, 100, 200
    assert shaped(frames, View()) is frames
    middle = shaped(frames, View(size=(2, 2)))
    assert middle.shape == (2, 2, 2, 3)
    assert (middle == 100).all(), "the middle square alone"
    padded = shaped(frames, View(size=(4, 4), fit="pad"))
    assert (padded[:, [0, 3]] == 0).all()
    assert padded[0, 1, :, 0].tolist() == padded[0, 2, :, 0].tolist() == [10, 100, 100, 200]
    assert shaped(frames, View(size=(4, 4), fit="stretch"))[0, 0, :, 0].tolist() == [10, 100, 100, 200]
    assert (shaped(frames, View(crop=(1, 6, 2, 2))) == 200).all()
    assert framed((4, 8), View(crop=(1, 6, 2, 2))) == (2, 2)
    with pytest.raises(ValueError, match=r"clip is 8 wide 4 high; .* 3 wide 2 high, leads out of it"):
        framed((4, 8), View(crop=(0, 6, 2, 3)), where="clip")


@pytest.mark.parametrize(
    "asked", [{"fps": 0}, {"fps": math.nan}, {"size": (0, 4)}, {"crop": (0, 0, 4)}, {"fit": "zoom"}, {"longest": 0}]
)
def test_a_view_that_cannot_be_is_refused(asked: Any) -> None:
    with pytest.raises(ValueError, match=rf"View\.{next(iter(asked))}"):
        View(**asked)


@pytest.mark.parametrize("view", [View(), View(5, (8, 9), (0, 1, 2, 3), "pad", 7), View(longest=math.inf)])
def test_a_view_goes_through_json(view: View) -> None:
    assert View.of(json.loads(json.dumps(view.plain(), allow_nan=False))) == view


def recordings(space: Space, *, count: int = 4) -> list[Episode]:
    random, out = np.random.default_rng(0), []
    for length in (13, 1, 2, 20)[:count]:
        actions = np.stack([space.sample(random) for _ in range(length)])[: length - 1]
        out.append(
            Episode(
                frames=random.integers(0, 256, (length, 12, 16, 3), dtype=np.uint8),
                state=random.normal(size=(length, 2)).astype(np.float32),
                actions=actions,
                rewards=random.normal(size=length - 1).astype(np.float32),
                latents=np.zeros((length - 1, 3), np.float32),
                text=f"task {length}",
                source="play",
                success=length > 5,
                split="train",
            )
        )
    return out


@pytest.mark.parametrize("space", [Space("discrete", 4), Space("continuous", 3)])
@pytest.mark.parametrize("view", [View(5, (6, 6)), View(4, crop=(2, 2, 8, 8)), View(size=(5, 7), fit="pad"), View()])
def test_any_reader_can_be_seen_another_way(space: Space, view: View) -> None:
    inner = Memory(recordings(space), space=space, fps=10)
    seen = Viewed(inner, view)
    check_reader(seen)
    for number in range(4):
        episode, own = seen.episode(number), inner.episode(number)
        rows = kept(np.arange(len(own)) / 10, view.fps)
        assert own.frames is not None and own.state is not None and episode.frames is not None
        assert (episode.frames == shaped(own.frames[rows], view)).all()
        assert episode.state is not None and (episode.state == own.state[rows]).all()
        assert (np.concatenate([*seen.blocks(number, count=3)]) == episode.frames).all()
        assert all(len(b) == 3 for b in list(seen.blocks(number, count=3))[:-1])
        assert (episode.text, episode.success, episode.split) == (own.text, own.success, "train")
        assert (episode.latents is None) == (view.fps is not None)


def test_prints_outlive_another_size_and_tell_another_crop_apart() -> None:
    inner = Memory(recordings(Space("discrete", 4)), space=Space("discrete", 4), fps=10)
    assert Viewed(inner, View(size=(6, 6))).prints == inner.prints
    others = [Viewed(inner, v).prints for v in (View(crop=(0, 0, 4, 4)), View(crop=(1, 0, 4, 4)), View(fps=5))]
    assert len({p for prints in (inner.prints, *others) for p in prints}) == 16


def test_more_than_was_recorded_is_refused_and_a_hair_more_is_not() -> None:
    inner = Memory(recordings(Space("discrete", 4)), space=Space("discrete", 4), fps=10)
    with pytest.raises(ValueError, match="11 were asked for"):
        Viewed(inner, View(fps=11))
    same = Viewed(inner, View(fps=10.05))
    assert (same.spec.fps, same.lengths.tolist()) == (10, inner.lengths.tolist())
    with pytest.raises(ValueError, match="leads out of it"):
        Viewed(inner, View(crop=(0, 0, 13, 4)))


def test_the_view_is_told_to_other_processes_where_the_reader_can_be_opened_there() -> None:
    inner: Reader = Memory(recordings(Space("discrete", 4)), space=Space("discrete", 4), fps=10)
    assert Viewed(inner, View(fps=5)).opening is None
    inner.opening = {"path": "somewhere", "camera": None}
    opening = Viewed(inner, View(fps=5)).opening
    assert opening is not None
    assert View.of(json.loads(json.dumps(opening))["view"]) == View(fps=5)


def test_what_is_cut_short_is_counted_and_kept_as_it_is_seen() -> None:
    class Cut(Reader):
        """Ten frames, of which the first seven are whole."""

        spec, lengths = Spec(frame=(4, 4), state=1, space=Space("continuous", 1), fps=10), np.array([10])

        def episode(self, number: int) -> Episode:
            raise Damaged("it breaks off", good=7)

        def prefix(self, number: int, count: int) -> Episode:
            told = np.arange(count, dtype=np.float32)[:, None]
            return Episode(frames=np.zeros((count, 4, 4, 3), np.uint8), state=told, actions=told[:-1] / 10)

    for view, good, last in ((View(fps=5), 4, 6), (View(size=(2, 2)), 7, 6)):
        with pytest.raises(Damaged) as found:
            Viewed(Cut(), view).episode(0)
        assert found.value.good == good
        prefix = Viewed(Cut(), view).prefix(0, good)
        assert prefix.state is not None and prefix.actions is not None
        assert len(prefix) == good and len(prefix.actions) == good - 1 and prefix.state[-1] == last


def test_stretched_pictures_are_those_of_a_cache_and_are_known_as_the_same(tmp_path: Path) -> None:
    inner = Memory(recordings(Space("discrete", 4)), space=Space("discrete", 4), fps=10)
    wide, other = Viewed(inner, View(size=(6, 9), fit="stretch")), Viewed(inner, View(size=(6, 9)))
    cached = cache(Episodes(inner), size=(6, 9), path=tmp_path / "c")
    assert all(np.array_equal(wide.episode(i).frames, cached.episode(i).frames) for i in range(4))  # type: ignore[arg-type]
    assert wide.prints == inner.prints  # a split, or what was trained on, means the same with and without --stream
    assert Episodes(wide).fingerprint != Episodes(other).fingerprint


def test_a_view_of_a_view_is_not_told_as_one_of_them() -> None:
    inner: Reader = Memory(recordings(Space("discrete", 4)), space=Space("discrete", 4), fps=10)
    inner.opening = {"path": "somewhere", "camera": None}
    assert Viewed(Viewed(inner, View(crop=(0, 0, 4, 4))), View(fps=5)).opening is None
