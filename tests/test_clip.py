"""The one batch type and the one time convention: what fits together, what is refused, and what slicing keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.clip import Clip, Episode, Space, floats


def clip(batch: int = 4, time: int = 5, **changes: Any) -> Clip:
    """A clip whose every number says where it belongs: 100 b + t."""
    grid = 100 * torch.arange(batch)[:, None] + torch.arange(time)
    values: dict[str, Any] = {
        "frames": (grid % 256).to(torch.uint8)[..., None, None, None].expand(-1, -1, 3, 2, 2),
        "state": grid[..., None].float(),
        "actions": grid[:, :-1],
        "latents": grid[:, :-1, None].float(),
        "rewards": grid[:, :-1].float(),
        "mask": grid[:, :-1] % 2 == 0,
        "ends": torch.arange(batch) % 2 == 0,
        "text": tuple(f"say {b}" for b in range(batch)),
    }
    return Clip(**{**values, **changes})


def test_t_frames_have_one_action_fewer() -> None:
    whole = clip()
    assert (len(whole), whole.time) == (4, 5)
    for name in ("actions", "latents", "rewards", "mask"):
        value = getattr(whole, name)
        assert value.shape[:2] == (4, 4)
        with pytest.raises(ValueError, match=rf"Clip.{name} leads with \(4, 5\); 5 frames want \(4, 4\)"):
            clip(**{name: torch.cat([value, value[:, :1]], 1)})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"frames": None, "state": None}, "needs frames or state"),
        ({"state": torch.zeros(4, 6, 1)}, "Clip.state leads with"),
        ({"ends": torch.zeros(3, dtype=torch.bool)}, "Clip.ends has 3 entries; a batch of 4"),
        ({"text": ("one",)}, "Clip.text has 1 entries"),
    ],
)
def test_a_clip_that_does_not_fit_together_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        clip(**changes)


def test_what_is_absent_stays_absent() -> None:
    bare = Clip(state=torch.zeros(2, 3, 1))
    for part in (bare[:1], bare.steps(0, 2), bare.to("cpu"), bare.map(torch.clone)):
        assert part.frames is part.actions is part.latents is part.mask is part.text is None


@given(st.data())
def test_steps_keep_each_action_between_its_frames(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 4))
    stop = data.draw(st.integers(start + 1, 5))
    part = clip().steps(start, stop)
    assert part.state is not None and part.actions is not None and part.latents is not None
    assert part.time == stop - start
    assert torch.equal(part.actions, part.state[:, :-1, 0].long())  # action t leaves from frame t
    assert torch.equal(part.latents[..., 0], part.state[:, :-1, 0])
    assert (part.ends is None) == (stop != 5)  # the clip's end is no longer the episode's


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (2, 2), (3, 2), (0, 6)])
def test_steps_beyond_the_clip_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="of a clip of 5"):
        clip().steps(start, stop)


@pytest.mark.parametrize(
    "rows",
    [slice(1, 3), torch.tensor([2, 0, 2]), torch.tensor([True, False, False, True])],
    ids=["slice", "rows", "mask"],
)
def test_rows_keep_everything_of_a_sample_together(rows: Any) -> None:
    part = clip()[rows]
    assert part.state is not None and part.actions is not None and part.text is not None and part.ends is not None
    first = (part.state[:, 0, 0] // 100).long()
    assert [f"say {b}" for b in first.tolist()] == list(part.text)
    assert torch.equal(part.actions[:, 0] // 100, first)
    assert torch.equal(part.ends, first % 2 == 0)


def test_bytes_and_floats_say_the_same() -> None:
    frames = torch.arange(256, dtype=torch.uint8)
    assert torch.allclose(floats(frames), floats(frames.float() / 255), atol=1e-7)
    assert floats(frames).min() == -0.5 and floats(frames).max() == 0.5


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "both are None"),
        ({"state": np.zeros((0, 2), np.float32)}, "at least 1"),
        ({"state": np.zeros((3, 2)), "frames": np.zeros((4, 2, 2, 3), np.uint8)}, "one equal length"),
        ({"frames": np.zeros((3, 2, 2, 3), np.float32)}, "wanted uint8"),
        ({"frames": np.zeros((3, 3, 2, 2), np.uint8)}, "wanted uint8"),
        ({"state": np.zeros((3, 2)), "actions": np.zeros(3, np.int64)}, "An Episode of 3 frames has 2 actions, not 3"),
        ({"state": np.zeros((3, 2)), "codes": np.zeros((3, 1), np.int64)}, "2 codes, not 3"),
        ({"state": np.zeros(3)}, r"state has shape \(3,\); wanted \(T, S\)"),
        ({"state": np.zeros((3, 2)), "latents": np.zeros(2)}, r"latents has shape \(2,\); wanted \(T-1, D\)"),
        ({"state": np.zeros((3, 2)), "codes": np.zeros((2, 1, 1), np.int64)}, r"\(2, 1, 1\); wanted \(T-1, K\)"),
    ],
)
def test_an_episode_that_does_not_fit_together_is_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Episode(**values)


@pytest.mark.parametrize("space", [Space("discrete", 4), Space("continuous", 2, -2.0, 2.0)], ids=["choices", "numbers"])
def test_a_blank_is_no_action(space: Space) -> None:
    random = np.random.default_rng(0)
    taken = np.stack([space.sample(random) for _ in range(50)])
    assert space.labelled(taken).all() and not space.labelled(space.blank(50)).any()
    assert space.labelled(torch.from_numpy(taken)).all() and not space.labelled(torch.from_numpy(space.blank(9))).any()
    assert np.array_equal(space.check(taken, 50), taken)
    assert space.check(space.blank(3), 3).dtype == space.dtype


@pytest.mark.parametrize(
    ("space", "actions", "why"),
    [
        (Space("discrete", 4), np.zeros((3, 1), np.int64), r"shape \(3, 1\); a discrete space of 4 wants \(3,\)"),
        (Space("discrete", 4), np.zeros(3), "wants integers"),
        (Space("discrete", 4), np.array([0, 4, 1]), r"lie in \[0, 4\]; wanted 0 to 3"),
        (Space("discrete", 4), np.array([0, -2, 1]), r"lie in \[-2, 1\]"),
        (Space("continuous", 2), np.zeros((3, 3)), r"wants \(3, 2\)"),
    ],
)
def test_actions_of_another_space_are_refused(space: Space, actions: np.ndarray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        space.check(actions, 3)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(("other", 2), "kind is 'other'"), (("discrete", 0), "size is 0"), (("continuous", 1, 1.0, 1.0), "low must lie")],
)
def test_a_space_that_is_none_is_refused(arguments: tuple[Any, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Space(*arguments)
