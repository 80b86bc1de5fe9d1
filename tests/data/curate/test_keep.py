"""Keeping by a score, the table of what was dropped, and returns as weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tacit.clip import Episode
from tacit.data.curate import Dropped, keep, returns, sample, weights
from tacit.data.curate.dropped import Drop
from tacit.data.episodes import Episodes


def earned(*returns: float | None, marks: tuple[bool | None, ...] = ()) -> Episodes:
    """Episodes of three frames that earned so much, half in each transition."""
    told = marks or (None,) * len(returns)
    return Episodes.of(
        Episode(
            state=np.full((3, 1), i, np.float32),
            rewards=None if r is None else np.full(2, r / 2, np.float32),
            success=mark,
        )
        for i, (r, mark) in enumerate(zip(returns, told, strict=True))
    )


def test_the_worst_are_dropped_and_named_with_the_reason() -> None:
    data = earned(3, 1, 4, 1.5)
    kept, dropped = keep(data, returns, share=0.5)
    assert kept.rows.tolist() == [0, 2]
    assert dropped.plain() == [
        {"name": "episode 1", "number": 1, "score": 1.0, "why": "returns is not among the best 50%", "part": False},
        {"name": "episode 3", "number": 3, "score": 1.5, "why": "returns is not among the best 50%", "part": False},
    ]
    assert keep(data, returns, above=1.5)[1].numbers == (1,)


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(-5, 5)), st.floats(0.01, 1))
def test_what_is_kept_is_never_worse_than_what_is_dropped(score: np.ndarray, share: float) -> None:
    kept, dropped = keep(earned(*score), score, share=share)
    assert len(kept) == max(1, round(share * len(score)))
    assert sorted([*kept.rows.tolist(), *dropped.numbers]) == list(range(len(score)))
    assert max((row.score for row in dropped), default=-np.inf) <= score[kept.rows].min()


def test_what_cannot_be_judged_is_not_condemned() -> None:
    kept, dropped = keep(earned(1, None, 2, 3), returns, share=0.34)
    assert kept.rows.tolist() == [1, 3]
    assert dropped.numbers == (0, 2)


@pytest.mark.parametrize("asked", [{}, {"share": 0.5, "above": 1.0}, {"share": 0.0}, {"share": 1.5}])
def test_keep_wants_one_line(asked: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted one"):
        keep(earned(1, 2), returns, **asked)


def test_a_score_of_another_length_and_an_empty_rest_are_refused() -> None:
    with pytest.raises(ValueError, match="one number for each of 2"):
        keep(earned(1, 2), np.zeros(3), share=0.5)
    with pytest.raises(ValueError, match="All 2 episodes would be dropped"):
        keep(earned(1, 2), returns, above=7)


def test_the_table_prints_what_its_json_says() -> None:
    table = Dropped((Drop("a.mp4 3-9", 0, float("nan"), "a still end"), Drop("b.mp4", 4, 0.25, "odd")), of=9)
    assert json.loads(json.dumps(table.plain()))[0]["score"] is None
    shown = str(table)
    for word in ("2 dropped of 9 episodes", "a.mp4 3-9", "a still end", "b.mp4", "0.25"):
        assert word in shown
    many = Dropped(tuple(Drop(f"x{i}", i, 0.0, "odd") for i in range(100)), of=100)
    assert "and 92 more" in str(many)
    assert len(many.plain()) == 100


def test_weights_are_a_distribution_that_favours_high_return() -> None:
    weight = weights(earned(0, 1, 2), temperature=0.5)
    wanted = np.exp([0.0, 1.0, 2.0])  # returns scaled to 0, 1/2, 1, over one half
    assert np.allclose(weight, wanted / wanted.sum())
    assert np.allclose(weights(earned(2, 2, 2)), 1 / 3)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.floats(0.05, 10))
def test_weights_sum_to_one_and_rise_with_return(earnings: list[float], temperature: float) -> None:
    data = earned(*earnings)
    weight = weights(data, temperature=temperature)
    assert np.isclose(weight.sum(), 1)
    assert (np.diff(weight[np.argsort(returns(data))]) >= -1e-12).all()


def test_success_stands_in_for_rewards_and_silence_is_an_error() -> None:
    marked = earned(None, None, marks=(True, False))
    assert returns(marked).tolist() == [1, 0]
    assert weights(marked)[0] > 0.99
    with pytest.raises(ValueError, match="1 of 2 episodes tell neither"):
        weights(earned(None, None, marks=(True, None)))


def test_sampling_repeats_the_good_and_tells_what_was_not_drawn() -> None:
    data = earned(0, 10, 0, 9.9)
    drawn, dropped = sample(data, 40, seed=3)
    assert len(drawn) == 40
    assert set(drawn.rows.tolist()) == {1, 3}
    assert dropped.numbers == (0, 2)
    assert {row.why for row in dropped} == {"not drawn"}
    assert sample(data, 40, seed=3)[0].rows.tolist() == drawn.rows.tolist()
    even, _ = sample(data, 4000, weight=np.ones(4), seed=1)
    assert np.allclose(np.bincount(even.rows) / 4000, 0.25, atol=0.03)
    assert len(drawn.clips(3)) == 40
