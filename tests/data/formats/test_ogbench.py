"""OGBench: what is written is read again, and trajectories are cut as OGBench itself cuts them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tacit.check import check_reader
from tacit.clip import Space
from tacit.data import Damaged, Episodes
from tacit.data.formats import arrays, ogbench
from tests.data.formats.several import FIVE, VECTOR, recorded, unlike


@pytest.mark.parametrize("space", [FIVE, VECTOR], ids=str)
@pytest.mark.parametrize(("frames", "state"), [(True, False), (False, True), (True, True)])
def test_what_is_written_is_read_again(tmp_path: Path, space: Space | None, frames: bool, state: bool) -> None:
    episodes = recorded(space, frames=frames, state=state)
    given = Episodes.of(episodes, space=space, fps=12.5, name="kept")
    path = tmp_path / "kept.npz"
    ogbench.write(given, path)
    reader = ogbench.read(path)
    assert reader.spec == given.spec and ogbench.recognises(path)
    assert [unlike(a, reader.episode(i)) for i, a in enumerate(episodes)] == [[]] * 5
    assert reader.splits == given.splits and reader.prints == given.prints
    assert reader.opening == {"path": str(path.absolute()), "camera": None}
    check_reader(reader)


def trajectories(path: Path, *, pictures: bool = False, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """Three trajectories of 4, 3 and 5 rows as OGBench stores them: each action is the number of its row."""
    rows = np.arange(12)
    seen = np.zeros((12, 8, 8, 3), np.uint8) + rows[:, None, None, None] if pictures else rows[:, None] * np.ones(4)
    held = {
        "observations": seen.astype(np.uint8 if pictures else np.float32),
        "actions": np.stack([rows, -rows], 1).astype(np.float32),
        "terminals": np.isin(rows, (3, 6, 11)).astype(np.float32),
        "qpos": np.zeros((12, 9), np.float32),
        "qvel": np.zeros((12, 9), np.float32),
    }
    held |= changes
    np.savez_compressed(path, **{k: v for k, v in held.items() if v is not None})
    return held


@pytest.mark.parametrize("pictures", [True, False])
def test_trajectories_are_cut_as_ogbench_cuts_them(tmp_path: Path, pictures: bool) -> None:
    held = trajectories(tmp_path / "cube-v0.npz", pictures=pictures)
    reader = ogbench.read(tmp_path / "cube-v0.npz")
    assert ogbench.recognises(tmp_path / "cube-v0.npz") and reader.spec.name == "cube-v0"
    assert reader.lengths.tolist() == [4, 3, 5] and reader.spec.space == Space("continuous", 2, -10.0, 10.0)
    # OGBench's own loader: rows whose terminal is not set, each followed by the next.
    kept = held["terminals"] == 0
    theirs = held["observations"][kept], held["actions"][kept], held["observations"][1:][kept[:-1]]
    episodes = [reader.episode(i) for i in range(3)]
    seen = [e.frames if pictures else e.state for e in episodes]
    assert np.array_equal(theirs[0], np.concatenate([s[:-1] for s in seen]))
    assert np.array_equal(theirs[1], np.concatenate([e.actions for e in episodes]))
    assert np.array_equal(theirs[2], np.concatenate([s[1:] for s in seen]))
    assert all((e.frames is None) != (e.state is None) for e in episodes)  # qpos is what a simulator is set to
    check_reader(reader)


def test_what_is_written_is_read_by_numpy_as_ogbench_reads_it(tmp_path: Path) -> None:
    given = Episodes.of(recorded(VECTOR), space=VECTOR)
    ogbench.write(given, tmp_path / "a.npz")
    held = dict(np.load(tmp_path / "a.npz", allow_pickle=False))
    assert np.array_equal(held["observations"], np.concatenate([e.frames for e in recorded(VECTOR)]))
    assert np.flatnonzero(held["terminals"]).tolist() == (np.cumsum(given.lengths) - 1).tolist()
    assert len(held["actions"]) == len(held["observations"]) == given.lengths.sum()


def test_choices_are_whole_numbers(tmp_path: Path) -> None:
    trajectories(tmp_path / "a.npz", actions=np.arange(12))
    reader = ogbench.read(tmp_path / "a.npz")
    assert reader.spec.space == Space("discrete", 11) and reader.episode(1).actions.tolist() == [4, 5]


def test_recordings_without_an_action_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no action"):
        ogbench.write(Episodes.of(recorded(None)), tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"actions": np.zeros((11, 2))},
        {"actions": np.zeros((12, 2, 2))},
        {"terminals": np.zeros(11)},
        {"terminals": np.zeros((12, 2))},
        {"observations": np.zeros((12, 4, 4))},
        {"observations": np.zeros((0, 4))},
        {"actions": np.array([None] * 12)},
        {"tacit": np.array("{")},
        {"tacit": np.array('{"texts": ["a"]}')},
        {"tacit": np.array('{"space": {"kind": "discrete", "size": 3}}')},
    ],
    ids=str,
)
def test_what_does_not_agree_is_refused_by_name(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w"):
        trajectories(tmp_path / "a.npz", **changes)
    with pytest.raises(Damaged, match="a.npz") as caught:
        ogbench.read(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_only_one_file_with_its_three_arrays_is_recognised(tmp_path: Path) -> None:
    trajectories(tmp_path / "a.npz", episode_ends=np.array([12]))
    assert not ogbench.recognises(tmp_path / "a.npz") and arrays.recognises(tmp_path / "a.npz")
    assert not ogbench.recognises(tmp_path) and not ogbench.recognises(Path("a\0b.npz"))
    (tmp_path / "b.npz").write_bytes(b"PK not a zip")
    assert not ogbench.recognises(tmp_path / "b.npz")


def test_an_unknown_camera_is_refused(tmp_path: Path) -> None:
    trajectories(tmp_path / "a.npz", pictures=True)
    assert ogbench.read(tmp_path / "a.npz", camera="observations").spec.frame == (8, 8)
    with pytest.raises(ValueError, match="only camera"):
        ogbench.read(tmp_path / "a.npz", camera="wrist")
