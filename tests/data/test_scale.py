"""The same answers from one process, several or Ray; and what kills whoever is asked it harms no other answer."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.scale import Engine, Fault, spread
from tacit.data.video import Damaged


@dataclass(frozen=True)
class Squares:
    """Answers squares, but is killed by 3 and finds 5 damaged."""

    deadly: bool = True
    ours = True

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], int]]:
        yield self._answer

    def _answer(self, number: int) -> int:
        if number == 3 and self.deadly:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 5:
            raise Damaged("five is damaged", good=2)
        return number**2


def test_what_kills_a_process_is_named_and_the_others_are_answered() -> None:
    answers = list(spread(Squares(), stop=8, workers=2))
    assert [a for a in answers if not isinstance(a, Fault)] == [0, 1, 4, 16, 36, 49]
    assert "exit code -11 at number 3" in answers[3].why
    assert answers[5] == Fault("five is damaged", 2)


def test_an_error_that_is_nobodys_data_is_raised() -> None:
    with pytest.raises(TypeError), contextlib.closing(spread(Wrong(), stop=2, workers=1)) as answers:
        list(answers)


class Wrong(Squares):
    """A task with a fault of its own."""

    def _answer(self, number: int) -> int:
        return len(number)  # type: ignore[arg-type]


def recorded(path: Path) -> Episodes:
    random = np.random.default_rng(0)
    episodes = [
        Episode(frames=random.integers(0, 256, (300, 24, 24, 3), dtype=np.uint8), actions=random.integers(0, 3, 299))
        for _ in range(5)
    ]
    data.save(Episodes.of(episodes, space=Space("discrete", 3), fps=5), path)
    return data.open(path)


def bytes_of(folder: Path, *patterns: str) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for p in patterns for f in sorted(folder.rglob(p))}


@pytest.mark.slow
def test_ray_gives_the_same_bytes_as_processes(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    ray.shutdown()  # one that another test began in another folder would not find this module
    source = recorded(tmp_path / "d")
    made: dict[str, Any] = {}
    ways: list[tuple[int, Engine]] = [(1, "local"), (2, "ray")]
    for workers, engine in ways:
        home = tmp_path / engine
        data.transfer(source, home / "brought", workers=workers, engine=engine)
        data.cache(source, size=12, path=home / "cached", workers=workers, engine=engine)
        made[engine] = bytes_of(home, "*.mp4", "*.parquet", "frames.npy", "actions.npy")
    assert len(made["local"]) >= 5 and made["local"] == made["ray"]
    assert list(spread(Squares(deadly=False), stop=6, workers=2, engine="ray")) == [
        0,
        1,
        4,
        9,
        16,
        Fault("five is damaged", 2),
    ]


def test_nothing_left_to_ask_starts_nothing() -> None:
    assert list(spread(Squares(), first=3, stop=3, engine="ray")) == list(spread(Squares(), first=3, stop=3)) == []
