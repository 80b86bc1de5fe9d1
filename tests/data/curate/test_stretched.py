"""Stretches of episodes: what they show is what the recording shows there, and they say where they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.check import check_reader
from tacit.clip import Episode, Space
from tacit.data.curate import Stretched, stretches
from tacit.data.episodes import Episodes


def recorded(*lengths: int, frames: bool = True) -> Episodes:
    random = np.random.default_rng(0)
    return Episodes.of(
        [
            Episode(
                frames=random.integers(256, size=(n, 6, 8, 3), dtype=np.uint8) if frames else None,
                state=random.normal(size=(n, 3)).astype(np.float32),
                actions=random.integers(4, size=n - 1),
                rewards=np.arange(n - 1, dtype=np.float32),
                source=f"camera {i}",
                success=True,
                text="go",
            )
            for i, n in enumerate(lengths)
        ],
        space=Space("discrete", 4),
        name="toy",
    )


def test_a_stretch_holds_the_frames_and_what_lies_between_them() -> None:
    whole = recorded(10, 7)
    part = stretches(whole, [(0, 2, 6), (0, 6, 10), (1, 0, 7)])
    assert part.names == ("episode 0 2-5", "episode 0 6-9", "episode 1")
    assert part.successes == (None, True, True)
    assert part.lengths.tolist() == [4, 4, 7]
    first, source = part.episode(0), whole.episode(0)
    assert np.array_equal(first.frames, source.frames[2:6])
    assert np.array_equal(first.actions, source.actions[2:5])
    assert first.rewards.tolist() == [2, 3, 4]
    assert part.prints[2] == whole.prints[1]
    assert len(set(part.prints)) == 3


def test_stretches_keep_the_promise_of_a_reader() -> None:
    check_reader(Stretched(recorded(12, 9, 5), [(2, 0, 5), (0, 0, 4), (0, 4, 12), (1, 3, 9), (0, 5, 6)]))


def test_hidden_labels_stay_hidden_and_latents_come_along() -> None:
    whole = recorded(10, 8).keep_labels(5, stretch=5)
    whole = whole.with_latents([np.full((n - 1, 2), i, np.float32) for i, n in enumerate(whole.lengths)])
    part = stretches(whole, [(0, 0, 5), (0, 4, 10), (1, 0, 5), (1, 4, 8)])
    assert part.labelled == 5
    assert [float(part.episode(i).latents.mean()) for i in range(4)] == [0, 0, 1, 1]


def test_stretches_that_are_whole_episodes_are_those_episodes() -> None:
    whole = recorded(5, 6, 7)
    same = stretches(whole, [(2, 0, 7), (0, 0, 5)])
    assert same.reader is whole.reader
    assert same.rows.tolist() == [2, 0]


@given(st.integers(1, 9), st.integers(1, 5), st.data())
def test_blocks_are_the_frames_in_order(count: int, many: int, data: st.DataObject) -> None:
    whole = recorded(11, 13)
    spans = []
    for _ in range(many):
        number = data.draw(st.integers(0, 1))
        start = data.draw(st.integers(0, 9))
        spans.append((number, start, data.draw(st.integers(start + 1, 11))))
    reader = Stretched(whole, spans)
    for i, (number, start, stop) in enumerate(spans):
        seen = np.concatenate(list(reader.blocks(i, count=count)))
        assert np.array_equal(seen, whole.episode(number).frames[start:stop])


@pytest.mark.parametrize("span", [(0, 3, 3), (0, 0, 6), (2, 0, 1), (0, -1, 2), (-1, 0, 2)])
def test_a_stretch_that_is_not_there_is_refused(span: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="wanted 0 <= start < stop"):
        Stretched(recorded(5, 5), [span])
