"""Episodes: split, select, label, join; what is hidden stays hidden and what is held out stays out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.clip import Episode, Space
from tacit.data.cache import cache
from tacit.data.episodes import Episodes
from tacit.data.lerobot import LeRobot
from tacit.data.reader import Joined, Reader, Spec, content
from tacit.data.record import save
from tacit.data.video import Damaged

FIVE = Space("discrete", 5)


def recorded(length: int, number: int, *, labels: bool = True, source: str = "play") -> Episode:
    """An episode whose state says which episode and which frame it is, so that any mixing shows."""
    random = np.random.default_rng([7, number])
    count = np.arange(length, dtype=np.float32)
    return Episode(
        frames=random.integers(0, 256, (length, 4, 6, 3), dtype=np.uint8),
        state=np.stack([np.full(length, number, np.float32), count], 1),
        actions=random.integers(0, 5, length - 1) if labels else None,
        source=source,
        text=f"task {number % 2}",
    )


def several(lengths: list[int], **options: bool) -> Episodes:
    parts = [recorded(n, i, source="expert" if i % 3 else "play", **options) for i, n in enumerate(lengths)]  # type: ignore[arg-type]
    return Episodes.of(parts, space=FIVE, fps=10, name="made")


LENGTHS = st.lists(st.integers(1, 40), min_size=2, max_size=12)


def test_the_spec_says_what_is_there_and_survives_json() -> None:
    made = several([5, 9])
    assert made.spec == Spec(frame=(4, 6), state=2, space=FIVE, fps=10, text=True, name="made")
    named = Spec(space=Space("continuous", 3, -2, 2, ("x", "y", "z")), latent=4, codes=2, rewards=True)
    for spec in (made.spec, named, Spec()):
        assert Spec.of(json.loads(json.dumps(spec.json()))) == spec


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (Episode(frames=np.zeros((3, 8, 8, 3), np.uint8), state=np.zeros((3, 2), np.float32)), "Episode 1 has"),
        (recorded(4, 1).replace(actions=np.array([0, 9, 0])), "wanted 0 to 4"),
    ],
)
def test_episodes_that_do_not_belong_together_are_named(odd: Episode, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Episodes.of([recorded(4, 0), odd], space=FIVE)


def test_actions_without_a_space_and_no_episodes_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="space=Space"):
        Episodes.of([recorded(4, 0)])
    with pytest.raises(ValueError, match="no episodes"):
        Episodes.of([])


def test_a_single_episode_is_found_by_number_and_by_number_from_the_end() -> None:
    made = several([5, 9, 3])
    assert (made.episode(-1).state == made.episode(2).state).all()
    with pytest.raises(IndexError, match="there are 3"):
        made.episode(3)


# -- splitting ----------------------------------------------------------------------------------------------------


@given(LENGTHS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_split_shares_no_episode_and_loses_none(lengths: list[int], held: float, seed: int) -> None:
    made = several(lengths)
    train, test = made.split(held, seed=seed)
    assert len(train)
    assert len(test)
    assert not train.overlap(test.prints)
    assert sorted(train.prints + test.prints) == sorted(made.prints)


def test_appending_episodes_moves_none_across_the_split() -> None:
    few, many = several([6] * 60), several([6] * 200)
    before, after = few.split(0.2), many.split(0.2)
    for old, new in zip(before, after, strict=True):
        assert set(old.prints) <= set(new.prints)
    assert 0.1 < len(after[1]) / 200 < 0.3


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    made = several([6] * 60)
    shuffled = made.select(np.random.default_rng(0).permutation(60))
    assert set(made.split(0.2)[1].prints) == set(shuffled.split(0.2)[1].prints)
    assert set(made.split(0.2)[1].prints) != set(made.split(0.2, seed=1)[1].prints)


def test_the_same_recording_twice_falls_on_one_side() -> None:
    made = several([6] * 40)
    train, held = (made + several([6] * 40)).split(0.3)
    assert not train.overlap(held.prints)
    with pytest.raises(ValueError, match="same thing"):
        Episodes.of([recorded(5, 1), recorded(5, 1)], space=FIVE).split()


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"within \(0, 1\)"):
        several([5, 5]).split(share)


def test_a_split_that_shares_an_episode_would_be_caught() -> None:
    """The planted mistake: train and validation with an episode in common, under other numbers and other labels."""
    made = several([30] * 10)
    train, held = made.select([0, 1, 2]).keep_labels(3), made.select([9, 2, 8]).unlabelled()
    assert held.overlap(train.prints) == 1


# -- selecting ----------------------------------------------------------------------------------------------------


def test_episodes_are_selected_by_source_predicate_number_and_mask() -> None:
    made = several([4, 5, 6, 7])
    assert made.select("play").lengths.tolist() == [4, 7]
    assert made.select(lambda source: source != "play").lengths.tolist() == [5, 6]
    assert made.select([2, 0]).lengths.tolist() == [6, 4]
    assert made.select(made.lengths > 5).lengths.tolist() == [6, 7]
    assert made.select([2, 0]).select([1]).lengths.tolist() == [4]
    with pytest.raises(ValueError, match=r"sources are \['expert', 'play'\]"):
        made.select("robot")


# -- labels -------------------------------------------------------------------------------------------------------


@given(LENGTHS, st.integers(0, 200), st.integers(1, 20), st.integers(0, 3))
def test_exactly_so_many_labels_are_kept_in_whole_stretches_and_are_true(
    lengths: list[int], count: int, stretch: int, seed: int
) -> None:
    made = several(lengths)
    count = min(count, made.labelled)
    kept = made.keep_labels(count, stretch=stretch, seed=seed)
    assert kept.labelled == count
    runs = 0
    for number in range(len(made)):
        was, now = made.episode(number).actions, kept.episode(number).actions
        assert was is not None
        assert now is not None
        seen = FIVE.labelled(now)
        assert (now[seen] == was[seen]).all()
        assert (now[~seen] == -1).all()
        runs += int((np.diff(np.concatenate([[0], seen.astype(int)])) == 1).sum())
    # Near-equal stretches of at most `stretch`: as few runs as the budget allows, give or take halves and the cut.
    assert runs <= count // max(1, stretch // 2) + len(lengths)


@given(LENGTHS, st.integers(0, 60), st.integers(0, 60), st.integers(0, 3))
def test_a_smaller_budget_lies_within_a_larger(lengths: list[int], one: int, two: int, seed: int) -> None:
    made = several(lengths)
    small, large = sorted(min(n, made.labelled) for n in (one, two))
    assert not (made.keep_labels(small, seed=seed).mask & ~made.keep_labels(large, seed=seed).mask).any()


def test_labels_differ_by_seed_can_be_of_one_source_and_cannot_exceed_what_there_is() -> None:
    made = several([20] * 12)
    assert (made.keep_labels(64).mask != made.keep_labels(64, seed=1).mask).any()
    played = made.keep_labels(32, source="play")
    assert played.select("play").labelled == 32
    assert played.select("expert").labelled == 0
    with pytest.raises(ValueError, match="only 228 transitions are labelled"):
        made.keep_labels(229)
    with pytest.raises(ValueError, match="only 64 transitions are labelled"):
        made.keep_labels(64).keep_labels(65)
    with pytest.raises(ValueError, match="of source 'nobody'"):
        made.keep_labels(1, source="nobody")


def test_long_episodes_are_not_preferred() -> None:
    """Every transition is about as likely to be labelled, whatever the length of its episode."""
    made = several([9, 41] * 20)
    share = np.mean([made.keep_labels(100, seed=s).select(np.arange(40) % 2 == 0).labelled for s in range(60)]) / 100
    assert abs(share - 8 / 48) < 0.04


def test_hidden_labels_are_hidden_everywhere_and_the_recording_is_untouched() -> None:
    made = several([20] * 6)
    kept = made.keep_labels(10)
    for view in (kept, kept.select(np.arange(6)), kept + several([3]).unlabelled()):
        column = view.column("actions")
        assert column is not None
        assert (column >= 0).sum() == view.labelled == 10
        assert sum((a >= 0).sum() for a in (view.episode(i).actions for i in range(len(view))) if a is not None) == 10
    assert made.labelled == 6 * 19
    assert made.unlabelled().labelled == 0


def test_vectors_are_blank_where_hidden() -> None:
    space = Space("continuous", 3)
    parts = [recorded(9, i).replace(actions=np.full((8, 3), 0.5, np.float32)) for i in range(4)]
    kept = Episodes.of(parts, space=space).keep_labels(7)
    stacked = kept.stack()["actions"]
    assert np.isfinite(stacked).all(1).sum() == 7
    assert np.isnan(stacked[~np.isfinite(stacked).all(1)]).all()


# -- latents, joining, columns ------------------------------------------------------------------------------------


def test_inferred_latents_travel_with_their_transitions() -> None:
    made = several([5, 7, 4])
    latents = [np.full((n - 1, 2), i, np.float32) + np.arange(n - 1)[:, None] for i, n in enumerate((5, 7, 4))]
    codes = [np.full((n - 1, 1), i) for i, n in enumerate((5, 7, 4))]
    marked = made.with_latents(latents, codes)
    assert (marked.spec.latent, marked.spec.codes, made.spec.latent) == (2, 1, 0)
    for view, order in (
        (marked, [0, 1, 2]),
        (marked.select([2, 0]), [2, 0]),
        (marked.select([1]) + marked.select([0]), [1, 0]),
    ):
        for place, number in enumerate(order):
            episode = view.episode(place)
            np.testing.assert_array_equal(episode.latents, latents[number])
            np.testing.assert_array_equal(episode.codes, codes[number])
            assert episode.state is not None
            assert episode.state[0, 0] == number
    with pytest.raises(ValueError, match="rows"):
        made.with_latents(latents[:2])
    with pytest.raises(ValueError, match="with_latents"):
        marked + several([3])


def test_video_without_actions_joins_labelled_video() -> None:
    free = Episodes.of([recorded(6, i, labels=False) for i in range(3)])
    both = free + several([5, 5])
    assert (len(both), both.labelled, both.spec.space) == (5, 8, FIVE)
    assert both.episode(0).actions is None
    assert isinstance(both.reader, Joined)
    again = both + free.select([0]) + both.select([4])
    assert len(again.reader.readers) == 2  # type: ignore[attr-defined]
    assert again.prints == (*both.prints, free.prints[0], both.prints[4])


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Episodes.of([Episode(frames=np.zeros((3, 8, 8, 3), np.uint8))]), "frame"),
        (Episodes.of([recorded(4, 0)], space=Space("discrete", 6)), "space"),
        (Episodes.of([recorded(4, 0)], space=FIVE, fps=30), "fps"),
    ],
)
def test_sets_that_cannot_be_joined_say_why(other: Episodes, what: str) -> None:
    with pytest.raises(ValueError, match=f"whose {what} differs"):
        several([5, 5]) + other


def test_stacked_transitions_keep_the_time_convention() -> None:
    made = several([5, 1, 7])
    stacked = made.stack()
    assert len(stacked["step"]) == 4 + 0 + 6
    for row, (number, step) in enumerate(zip(stacked["episode"], stacked["step"], strict=True)):
        episode = made.episode(number)
        assert episode.actions is not None
        assert stacked["actions"][row] == episode.actions[step]
        assert stacked["state"][row].tolist() == [number, step]
        assert stacked["next_state"][row].tolist() == [number, step + 1]


# -- who is who ---------------------------------------------------------------------------------------------------


def test_a_recording_is_known_again_without_its_labels_and_a_set_by_what_it_shows() -> None:
    made = several([20] * 4)
    bare = Episodes.of([recorded(20, i, labels=False) for i in range(4)])
    assert made.prints == bare.prints
    assert made.overlap(bare.select([1]).prints) == 1
    assert several([21, 21]).overlap(made.prints) == 0
    views = [made, made.keep_labels(16), made.keep_labels(16, seed=1), made.select([0, 1]), made.select([1, 0])]
    assert len({v.fingerprint for v in views}) == len(views)
    assert made.fingerprint == several([20] * 4).fingerprint


def test_two_shapes_of_the_same_bytes_are_two_contents() -> None:
    frames = np.zeros((4, 2, 6, 3), np.uint8)
    assert content(Episode(frames=frames)) != content(Episode(frames=frames.reshape(4, 6, 2, 3)))


class Counting(Reader):
    """A reader that counts what it reads: asking for sizes must read nothing."""

    def __init__(self) -> None:
        self.inner = several([5, 6, 7])
        self.spec, self.lengths, self.reads = self.inner.spec, self.inner.lengths, 0

    def episode(self, number: int) -> Episode:
        self.reads += 1
        return self.inner.episode(number)


def test_nothing_is_read_before_it_is_needed_and_defaults_fill_what_a_reader_leaves_out() -> None:
    reader = Counting()
    view = Episodes(reader).select([2, 0])
    assert (len(view), view.lengths.tolist(), view.spec, reader.reads) == (2, [7, 5], reader.spec, 0)
    assert view.prints == several([5, 6, 7]).select([2, 0]).prints
    np.testing.assert_array_equal(view.column("frames"), several([5, 6, 7]).select([2, 0]).column("frames"))
    assert view.fingerprint == several([5, 6, 7]).select([2, 0]).fingerprint


def test_memory_holds_each_picture_once() -> None:
    made = several([5, 6])
    (flat,) = made.reader.flat("frames")
    assert np.shares_memory(made.episode(1).frames, flat)


@pytest.mark.parametrize(
    "file", ["videos/observation.images.main/chunk-000/file-001.mp4", "data/chunk-000/file-001.parquet"]
)
@pytest.mark.parametrize("ours", [True, False])
def test_a_damaged_episode_is_named_and_can_be_left_out(tmp_path: Path, file: str, ours: bool) -> None:
    made = several([5, 6, 7, 8])
    save(made, tmp_path, group=1)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:300])
    if not ours:
        (tmp_path / "meta" / "tacit.json").unlink()
    held = Episodes(LeRobot(tmp_path))
    assert list(held.damaged()) == [1] and file in held.damaged()[1]
    rest, true = held.select([3, 0, 2]), made.select([3, 0, 2])
    both = rest + several([9])
    for view, wanted in ((rest, true), (both, true + several([9])), (both.select([3, 1]), true.select([1]))):
        clips, expected = view.clips(3, stride=2), wanted.clips(3, stride=2)
        clip, true_clip = clips.batch(np.arange(len(clips))[-len(expected) :]), expected.batch(np.arange(len(expected)))
        for name in ("frames", "state", "actions"):
            np.testing.assert_array_equal(getattr(clip, name), getattr(true_clip, name))
    assert len(rest.fingerprint) == 32 and len(cache(rest)) == 3
    with pytest.raises(Damaged, match="file-001"):
        held.clips(3)


def test_states_of_which_one_file_is_damaged_can_do_without_it(tmp_path: Path) -> None:
    made = Episodes.of([recorded(5 + i, i).replace(frames=None) for i in range(3)], space=FIVE)
    save(made, tmp_path, group=1)
    (tmp_path / "data/chunk-000/file-001.parquet").unlink()
    rest = Episodes(LeRobot(tmp_path)).select([2, 0])
    np.testing.assert_array_equal(rest.stack()["state"], made.select([2, 0]).stack()["state"])
    assert len(rest.clips(2)) == 4 + 6 and not (tmp_path / "cache").exists()
    assert rest.select([]).column("state").shape == (0, made.spec.state)  # type: ignore[union-attr]
