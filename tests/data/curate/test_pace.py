"""Re-timing, worked out by hand: which frames are seen, which actions lead from one to the next, and how fast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.check import check_reader
from tacit.clip import Episode, Space
from tacit.data.curate import retime
from tacit.data.episodes import Episodes

SPACE = Space("continuous", 1, -4.0, 4.0)


def recorded(length: int = 6, **changes: object) -> Episodes:
    at = np.arange(length, dtype=np.float32)
    values: dict[str, object] = {
        "frames": np.broadcast_to(np.arange(length, dtype=np.uint8)[:, None, None, None], (length, 2, 2, 3)).copy(),
        "state": 10 * at[:, None],
        "actions": at[:-1, None] / 2,
        "rewards": np.ones(length - 1, np.float32),
        "source": "expert",
        "success": True,
    }
    return Episodes.of([Episode(**(values | changes))], space=SPACE, fps=5.0)


def test_twice_as_fast_keeps_every_second_frame_counted_from_the_end() -> None:
    fast, _ = retime(recorded(), 2)
    e = fast.episode(0)
    assert e.frames[:, 0, 0, 0].tolist() == [1, 3, 5]
    assert e.state.tolist() == [[10, 2], [30, 2], [50, 2]]
    assert e.actions[:, 0].tolist() == [0.75, 1.75]  # means of 0.5 and 1, and of 1.5 and 2
    assert e.rewards.tolist() == [2, 2]
    assert (e.source, e.success, fast.names, fast.spec.fps) == ("expert @2x", True, ("episode 0 @2x",), 5.0)


def test_steps_are_summed_and_shared_out() -> None:
    assert retime(recorded(), 2, together="sum")[0].episode(0).actions[:, 0].tolist() == [1.5, 3.5]
    slow = retime(recorded(3), 0.5, together="sum")[0].episode(0)
    assert slow.actions[:, 0].tolist() == [0, 0, 0.25, 0.25]


def test_half_as_fast_stands_between_the_frames() -> None:
    e = retime(recorded(3), 0.5)[0].episode(0)
    assert e.state.tolist() == [[0, 0.5], [5, 0.5], [10, 0.5], [15, 0.5], [20, 0.5]]
    assert e.actions[:, 0].tolist() == [0, 0, 0.5, 0.5]
    assert e.rewards.tolist() == [0.5] * 4
    assert e.frames[:, 0, 0, 0].tolist() == [0, 1, 1, 2, 2]


def test_a_speed_that_is_no_whole_number_weighs_by_time() -> None:
    e = retime(recorded(4), 1.5)[0].episode(0)  # places 0, 1.5, 3
    assert np.allclose(e.actions[:, 0], [(0 + 0.5 * 0.5) / 1.5, (0.5 * 0.5 + 1) / 1.5])


def test_a_choice_is_the_one_that_was_in_force_longest() -> None:
    data = Episodes.of(
        [Episode(state=np.zeros((7, 1), np.float32), actions=np.array([1, 1, 2, 0, 2, 2]))], space=Space("discrete", 3)
    )
    assert retime(data, 3)[0].episode(0).actions.tolist() == [1, 2]


def test_what_was_partly_unlabelled_is_unlabelled() -> None:
    actions = np.array([[0.5], [np.nan], [1], [1]], np.float32)
    e = retime(recorded(5, actions=actions), 2)[0].episode(0)
    assert np.isnan(e.actions[0, 0]) and e.actions[1, 0] == 1
    discrete = Episodes.of(
        [Episode(state=np.zeros((5, 1), np.float32), actions=np.array([-1, 1, 0, 0]))], space=Space("discrete", 2)
    )
    assert retime(discrete, 2)[0].episode(0).actions.tolist() == [-1, 0]


def test_several_speeds_are_one_set_told_apart_by_their_column() -> None:
    many, dropped = retime(recorded(), [1, 2, 7])
    assert many.sources == ("expert", "expert @2x")
    assert [many.episode(i).state[0, -1] for i in range(2)] == [1, 2]
    assert dropped.names == ("episode 0 @7x",)
    assert "too short" in dropped.rows[0].why
    check_reader(many, length=2)


def test_without_the_column_and_at_its_own_speed_nothing_changes() -> None:
    data = recorded()
    same = retime(data, 1, column=False)[0]
    assert same.prints == data.prints
    assert same.fingerprint == data.fingerprint


@given(st.integers(2, 40), st.floats(0.2, 6))
def test_reward_and_steps_are_neither_made_nor_lost_in_what_is_left(length: int, speed: float) -> None:
    data = recorded(length, actions=np.full((length - 1, 1), 0.1, np.float32))
    if (length - 1) / speed < 1:
        with pytest.raises(ValueError, match="no episode has two frames"):
            retime(data, speed)
        return
    e = retime(data, speed, together="sum")[0].episode(0)
    spanned = speed * (len(e) - 1)
    assert length - 1 - speed < spanned + 1e-6 and spanned <= length - 1 + 1e-6
    assert np.isclose(e.rewards.sum(), spanned, rtol=1e-4)
    assert np.isclose(e.actions.sum(), 0.1 * spanned, rtol=1e-4)
    assert e.state[-1, 0] == 10 * (length - 1)
    mean = retime(data, speed)[0].episode(0)
    assert np.allclose(mean.actions, 0.1)


@pytest.mark.parametrize("speeds", [0, -1, [], [1, float("inf")]])
def test_a_speed_is_above_zero(speeds: object) -> None:
    with pytest.raises(ValueError, match="numbers above 0"):
        retime(recorded(), speeds)  # type: ignore[arg-type]
