"""Readers of every kind keep their promises, and a double that breaks one is refused by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tacit.check import Broken, check_reader
from tacit.clip import Episode, Space
from tacit.data import Memory, cache, open, save, toys
from tacit.data.episodes import Episodes
from tacit.data.reader import Joined, Reader
from tacit.envs.dots import Board


def dots(seed: int = 0, **board: Any) -> Episodes:
    """A few episodes of unequal length, as a goal ends them early."""
    return toys.dots(Board(size=16, **board), episodes=8, length=14, determinism=0.7, seed=seed).episodes


def stored(folder: Path) -> Episodes:
    save(dots(), folder)
    return open(folder)


READERS: dict[str, Callable[[Path], Reader | Episodes]] = {
    "memory": lambda folder: dots().reader,
    "discrete": lambda folder: dots(discrete=True),
    "state alone": lambda folder: toys.linear(episodes=5, length=9, size=20).episodes,
    "joined": lambda folder: Joined([dots().reader, dots(1).reader]),
    "stored": stored,
    "cached": lambda folder: cache(stored(folder), size=8),
    "some": lambda folder: dots().select([5, 2, 3]),
    "with few labels": lambda folder: dots().keep_labels(20),
    "with latents": lambda folder: dots().with_latents([np.ones((n - 1, 3), np.float32) for n in dots().lengths]),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("length", [2, 5])
def test_a_reader_keeps_its_promises(kind: str, length: int, tmp_path: Path) -> None:
    check_reader(READERS[kind](tmp_path / "data"), length=length)


class Spoilt(Reader):
    """Gives dots, and lies about one thing."""

    def __init__(self, lie: str) -> None:
        self.inner, self.lie, self.times = dots().reader, lie, 0
        self.spec, self.lengths = self.inner.spec, self.inner.lengths.copy()
        if lie == "length":
            self.lengths[3] -= 1
        if lie == "space":
            self.spec = dataclasses.replace(self.spec, space=Space("discrete", 5))
        if lie == "width":
            self.spec = dataclasses.replace(self.spec, state=7)

    def episode(self, number: int) -> Episode:
        episode, self.times = self.inner.episode(number), self.times + 1
        assert episode.state is not None and episode.actions is not None and episode.frames is not None
        if self.lie == "each time":
            return episode.replace(state=episode.state + np.float32(self.times))
        if self.lie == "type":
            return episode.replace(state=episode.state.astype(np.float64))
        if self.lie == "absent":
            return episode.replace(state=None)
        if self.lie == "unasked":
            return episode.replace(latents=np.ones((len(episode) - 1, 2), np.float32))
        return episode

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        rows = self.inner.flat(column)
        return tuple(np.roll(r, 1, 0) for r in rows) if self.lie == "row" and column == "actions" else rows


class Renamed(Spoilt):
    """Tells recordings apart by their place and not by what they show."""

    prints = tuple(f"{number:032x}" for number in range(8))

    def episode(self, number: int) -> Episode:
        return self.inner.episode(0 if self.lengths[number] == self.lengths[0] else number)


@pytest.mark.parametrize(
    ("reader", "promise"),
    [
        (lambda: Spoilt("length"), "an episode is what the reader says of it, each time: episode 3: it has"),
        (lambda: Spoilt("space"), "an episode is what the reader says .*a discrete space of 5 wants"),
        (lambda: Spoilt("width"), "an episode is what the reader says .*its state are float32"),
        (lambda: Spoilt("each time"), "an episode is what the reader says .*read twice it was not the same"),
        (lambda: Spoilt("type"), "an episode is what the reader says .*its state are float64"),
        (lambda: Spoilt("absent"), "an episode is what the reader says .*it lacks state"),
        (lambda: Spoilt("unasked"), "an episode is what the reader says .*it has latents"),
        (lambda: Renamed(""), "an episode is what the reader says .*it shows what another shows"),
        (lambda: Spoilt("row"), "a column is its episodes end to end.*column 'actions' does not hold episode 0"),
    ],
)
def test_a_reader_that_breaks_a_promise_is_named(reader: Callable[[], Reader], promise: str) -> None:
    with pytest.raises(Broken, match=promise):
        check_reader(reader())


def test_a_sound_double_passes() -> None:
    check_reader(Spoilt(""))
    check_reader(Memory([dots().episode(0)], space=dots().spec.space))
