"""Retrieval finds what was planted in a library, and nothing else first."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.clip import Episode
from tacit.data.curate import keep, likeness, retrieve
from tacit.data.episodes import Episodes


def wandering(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, 3)).cumsum(0).astype(np.float32)


def turn(length: int) -> np.ndarray:
    """What is demonstrated: half a circle far from where anything else happens."""
    angle = np.linspace(0, np.pi, length)
    return np.stack([20 + np.cos(angle), 20 + np.sin(angle), angle], 1).astype(np.float32)


def library() -> Episodes:
    planted = wandering(40, 2)
    planted[12:24] = turn(12)
    whole = turn(12) + 0.02
    return Episodes.of(
        [Episode(state=s) for s in (wandering(40, 0), wandering(40, 1), planted, whole, wandering(5, 4))]
    )


def test_the_planted_stretches_are_the_nearest() -> None:
    found, dropped = retrieve(library(), Episodes.of([Episode(state=turn(12))]), count=2, length=12)
    assert found.names == ("episode 2 12-23", "episode 3")
    assert dropped.numbers == (0, 1, 4)
    assert [row.why for row in dropped] == ["no stretch of it is among the nearest"] * 2 + ["too short"]


def test_stretches_do_not_overlap() -> None:
    found, _ = retrieve(library(), Episodes.of([Episode(state=turn(12))]), count=4, length=6, stride=1)
    held = [(int(n), *map(int, name.split()[-1].split("-"))) for n, name in enumerate(found.names) if "-" in name]
    places = [(span.number, t) for span in found.reader.spans for t in range(span.start, span.stop)]
    assert len(found) == 4 and held
    assert len(set(places)) == len(places) == 24


def test_whole_episodes_are_retrieved_by_likeness() -> None:
    kept, dropped = keep(library(), likeness(Episodes.of([Episode(state=turn(12))])), share=0.25)
    assert kept.rows.tolist() == [3, 4]  # one of the four that can be judged, and the one that is too short
    assert dropped.rows[0].why.startswith("likeness")


def test_pictures_are_compared_by_what_moves_where() -> None:
    def film(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        frames = np.zeros((len(rows), 16, 16, 3), np.uint8)
        for t, (r, c) in enumerate(zip(rows, columns, strict=True)):
            frames[t, r : r + 4, c : c + 4] = 255
        return frames

    there, fixed = np.arange(12), np.full(12, 6)
    right, left, down = film(fixed, there), film(fixed, there[::-1]), film(there, fixed)
    data = Episodes.of([Episode(frames=f) for f in (left, down, right, np.roll(left, 1, 0))])
    score = likeness(Episodes.of([Episode(frames=right)]), length=8)(data)
    assert int(np.argmax(score)) == 2 and np.isclose(score[2], 0)


def test_an_own_look_decides_what_is_near() -> None:
    """Seen by its third number alone, an episode that is elsewhere in the others is the same."""
    far = turn(12) + np.array([300, -300, 0], np.float32)
    near = turn(12) + np.array([0, 0, 5], np.float32)
    data, demonstration = Episodes.of([Episode(state=s) for s in (near, far)]), Episodes.of([Episode(state=turn(12))])

    def third(episodes: Episodes, number: int) -> np.ndarray:
        return np.asarray(episodes.episode(number).state)[:, 2:]

    assert int(np.argmax(likeness(demonstration, look=third)(data))) == 1
    assert int(np.argmax(likeness(demonstration)(data))) == 0


def test_too_much_is_refused_with_what_there_is() -> None:
    demonstration = Episodes.of([Episode(state=turn(12))])
    with pytest.raises(ValueError, match="100 stretches were asked for; the library holds"):
        retrieve(library(), demonstration, count=100, length=12)
    with pytest.raises(ValueError, match="No demonstration holds a stretch of 13"):
        retrieve(library(), demonstration, count=1, length=13)
