"""Streaming: every window once an epoch, never more held than the buffer, and any step entered at once."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import tacit.data as data
from tacit.clip import Clip, Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.stream import Streamed


def numbered(count: int = 20, length: int = 12) -> Episodes:
    """Every pixel of frame t of episode i is 12 i + t, and its action too."""
    episodes = [
        Episode(
            frames=np.broadcast_to(
                (length * i + np.arange(length, dtype=np.uint8))[:, None, None, None], (length, 8, 8, 3)
            ).copy(),
            actions=length * i + np.arange(length - 1),
        )
        for i in range(count)
    ]
    return Episodes.of(episodes, space=Space("discrete", 256), fps=5)


def seen(clip: Clip) -> list[tuple[int, ...]]:
    assert clip.frames is not None
    return [tuple(row) for row in clip.frames[:, :, 0, 0, 0].tolist()]


def test_an_epoch_shows_every_window_once_in_no_order() -> None:
    streamed = Streamed(numbered(), 3, buffer=5 * 12 * 8 * 8 * 3)
    assert [len(g) for g in streamed.groups(0, seed=0)] == [5, 5, 5, 5]
    clips = [row for clip in islice(streamed.stream(10), 20) for row in seen(clip)]
    assert Counter(clips) == Counter((s, s + 1, s + 2) for i in range(20) for s in range(12 * i, 12 * i + 10))
    assert clips != sorted(clips) and len({row[0] // 12 for row in clips[:50]}) == 5, "shuffled within the buffer"
    second = [row for clip in islice(streamed.stream(10, start=20), 20) for row in seen(clip)]
    assert set(second) == set(clips) and second != clips


def test_any_step_is_entered_at_once_and_ranks_share_it() -> None:
    streamed = Streamed(numbered(), 3, buffer=5 * 12 * 8 * 8 * 3)
    whole = [seen(clip) for clip in islice(streamed.stream(10, seed=3), 30)]
    for start in (0, 4, 5, 19, 27):
        assert seen(next(streamed.stream(10, seed=3, start=start))) == whole[start]
    halves = [seen(next(streamed.stream(10, seed=3, start=7, rank=rank, world=2))) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(whole[7])


def test_what_is_streamed_is_what_a_cache_would_give(tmp_path: Path) -> None:
    data.save(numbered(), tmp_path / "d", group=40)
    clip = next(Streamed(data.open(tmp_path / "d"), 4, size=(4, 4), buffer=10_000).stream(16))
    assert clip.frames is not None and clip.actions is not None and clip.frames.shape == (16, 4, 3, 4, 4)
    assert torch.equal(clip.frames[:, :-1, 0, 0, 0].long(), clip.actions), "frames and actions are in step"


def test_no_more_is_decoded_than_the_buffer_holds_and_the_next_one(tmp_path: Path) -> None:
    read: list[int] = []

    class Counting(data.Reader):
        def __init__(self) -> None:
            self.inner = numbered().reader
            self.spec, self.lengths, self.prints = self.inner.spec, self.inner.lengths, self.inner.prints

        def episode(self, number: int) -> Episode:
            read.append(number)
            return self.inner.episode(number)

        def flat(self, column: str) -> tuple[np.ndarray, ...]:
            return self.inner.flat(column)

    streamed = Streamed(Episodes(Counting()), 3, buffer=4 * 12 * 8 * 8 * 3)
    stream = streamed.stream(10)
    for _ in range(4):  # the first group's four batches
        next(stream)
    assert len(read) <= 8


def test_clips_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="longest has 12"):
        Streamed(numbered(), 13)
    with pytest.raises(ValueError, match="cannot be shared"):
        next(Streamed(numbered(), 3).stream(9, world=2))
