"""npz and npy: what is written is read again, an action is where it belongs, and no file can do harm."""

from __future__ import annotations

import gc
import io
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tacit.check import check_reader
from tacit.clip import Space
from tacit.data import Damaged, Episodes
from tacit.data.formats import arrays
from tacit.data.formats.archive import Archive
from tests.data.formats.several import FIVE, VECTOR, recorded, unlike


@pytest.mark.parametrize("space", [None, FIVE, VECTOR], ids=str)
@pytest.mark.parametrize(("frames", "state"), [(True, False), (False, True), (True, True)])
def test_what_is_written_is_read_again(tmp_path: Path, space: Space | None, frames: bool, state: bool) -> None:
    episodes = recorded(space, frames=frames, state=state)
    given = Episodes.of(episodes, space=space, fps=12.5, name="kept")
    path = tmp_path / "kept"
    arrays.write(given, path)
    reader = arrays.read(path)
    assert reader.spec == given.spec and arrays.recognises(path)
    assert [unlike(a, reader.episode(i)) for i, a in enumerate(episodes)] == [[]] * 5
    assert reader.splits == given.splits and reader.prints == given.prints
    assert reader.opening == {"path": str(path.absolute()), "camera": None}
    check_reader(reader)


def steps(count: int, first: int = 0) -> np.ndarray:
    """State that counts up, so that the action that leads from one row to the next is known: its number."""
    return np.arange(first, first + count, dtype=np.float32)[:, None]


@pytest.mark.parametrize("given", [6, 5])
def test_the_action_of_the_last_frame_leads_nowhere(tmp_path: Path, given: int) -> None:
    np.savez(tmp_path / "one.npz", obs=steps(6), action=np.arange(given), reward=np.arange(given, dtype=float))
    episode = arrays.read(tmp_path / "one.npz").episode(0)
    assert episode.actions.tolist() == episode.rewards.tolist() == [0, 1, 2, 3, 4]
    assert episode.state[:-1, 0].tolist() == episode.actions.tolist()


@pytest.mark.parametrize("mark", ["episode_ends", "terminals", "dones"])
def test_episodes_end_to_end_are_cut_where_they_end(tmp_path: Path, mark: str) -> None:
    ends = np.array([4, 6, 9])
    marks = np.isin(np.arange(9), [3, 5]) if mark == "dones" else np.isin(np.arange(9), ends - 1).astype(np.float32)
    told = {mark: ends if mark == "episode_ends" else marks}  # of the dones the last was never reached
    np.savez(tmp_path / "all.npz", state=steps(9), actions=np.arange(9), text=np.array(["a", "b", "c"]), fps=5, **told)
    reader = arrays.read(tmp_path / "all.npz")
    assert reader.lengths.tolist() == [4, 2, 3] and reader.texts == ("a", "b", "c") and reader.spec.fps == 5
    assert [reader.episode(i).actions.tolist() for i in range(3)] == [[0, 1, 2], [4], [6, 7]]
    assert [reader.episode(i).state[0, 0] for i in (2, 0, 1)] == [6, 0, 4]
    check_reader(reader)


def test_pictures_with_the_channels_first_and_floats_are_bytes_in_the_end(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", video=np.moveaxis(frames, -1, 1))
    np.savez(tmp_path / "b.npz", video=frames.astype(np.float32))
    np.savez(tmp_path / "c.npz", video=frames / 255)
    reader = arrays.read(tmp_path)
    assert reader.names == ("a.npz", "b.npz", "c.npz") and reader.spec.frame == (5, 6) and reader.spec.space is None
    assert all(np.array_equal(reader.episode(i).frames, frames) for i in range(3))


def test_an_npy_is_frames_or_state_and_an_array_in_columns_is_no_other(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    assert np.array_equal(arrays.read(tmp_path / "frames.npy").episode(0).frames, frames)
    (tmp_path / "many").mkdir()
    for number in range(2):
        np.save(tmp_path / "many" / f"{number}.npy", np.asfortranarray(np.arange(12.0).reshape(4, 3) + number))
    reader = arrays.read(tmp_path / "many")
    assert reader.names == ("0.npy", "1.npy") and reader.episode(1).state[2].tolist() == [7, 8, 9]
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    with pytest.raises(Damaged, match="wanted frames"):
        arrays.read(tmp_path / "cube.npy")


@pytest.mark.parametrize(
    ("actions", "space"),
    [
        (np.array([[0], [3], [1]]), Space("discrete", 4)),
        (np.array([0, -1, 2]), Space("discrete", 3)),
        (np.array([[0.5, -1], [0.2, 0.1], [0, 0]]), Space("continuous", 2)),
        (np.array([[2.0, -1], [np.nan, np.nan], [0, 8]]), Space("continuous", 2, -1.0, 8.0)),
        (np.array([7.0, 7.0, 7.0]), Space("continuous", 1, 7.0, 8.0)),
        (np.array([[1, 5], [0, 0], [2, 2]]), Space("continuous", 2, 0.0, 5.0)),
    ],
)
def test_actions_tell_their_space_where_the_file_does_not(tmp_path: Path, actions: np.ndarray, space: Space) -> None:
    np.savez(tmp_path / "a.npz", state=steps(4), actions=actions)
    reader = arrays.read(tmp_path / "a.npz")
    assert reader.spec.space == space
    check_reader(reader)


def test_the_camera_is_chosen_by_its_name(tmp_path: Path) -> None:
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=frames, video=frames + 1, wrist=frames + 2)
    with pytest.raises(ValueError, match=r"cameras are \['video', 'images'\]"):
        arrays.read(tmp_path / "a.npz")
    assert arrays.read(tmp_path / "a.npz", camera="wrist").episode(0).frames.max() == 2


def test_a_large_packed_array_is_read_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tacit.data.formats.archive.KEPT", 1000)
    monkeypatch.setattr("tacit.data.video.MOST", 10_000)  # more than an episode may take lies in the file
    np.savez_compressed(tmp_path / "a.npz", state=steps(9000), episode_ends=np.array([10, 8995, 9000]))
    reader = arrays.read(tmp_path / "a.npz")
    assert reader.episode(2).state[:, 0].tolist() == list(range(8995, 9000))
    assert reader.episode(0).state[:, 0].tolist() == list(range(10))  # and back again
    assert list(Episodes(reader).damaged()) == [1]


FAULTS: dict[str, dict[str, Any]] = {
    "no observation": {"actions": np.zeros(3, int)},
    "too few actions": {"state": steps(6), "actions": np.zeros(3, int)},
    "actions of another kind": {"state": steps(6), "actions": np.zeros((6, 2))},
    "state of another width": {"state": np.zeros((6, 2)), "actions": np.zeros(6, int)},
    "a choice below all": {"state": steps(6), "actions": np.full(6, -7)},
    "objects": {"state": np.array([{}] * 6, dtype=object), "actions": np.zeros(6, int)},
    "no rows": {"state": np.zeros((0, 1)), "actions": np.zeros(0, int)},
    "another rate": {"state": steps(6), "actions": np.zeros(6, int), "fps": 3},
    "no rate": {"state": steps(6), "actions": np.zeros(6, int), "fps": -1.0},
    "no truth": {"state": steps(6), "actions": np.zeros(6, int), "success": "maybe"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_damaged_episode_is_named_and_harms_no_other(tmp_path: Path, fault: str) -> None:
    for name in ("a", "c", "d"):
        np.savez(tmp_path / f"{name}.npz", state=steps(6), actions=np.arange(6))
    np.savez(tmp_path / "b.npz", **FAULTS[fault])
    episodes = Episodes(arrays.read(tmp_path))
    faults = episodes.damaged()
    assert list(faults) == [1] and "b.npz" in faults[1] and "\n" not in faults[1]
    good = episodes.select([0, 2, 3])
    assert good.labelled == 15 and good.column("state").shape == (18, 1) and episodes.prints[1] == "damaged-1"


def member(shape: str, data: bytes, *, version: int = 1, descr: str = "<f4") -> bytes:
    """An .npy whose header says what it likes."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header + data


HOSTILE = {
    "absurd length": member("(99999999999999, 3)", b"\0" * 24),
    "no width": member("(99999999999999, 0)", b""),
    "negative": member("(-1, 3)", b"\0" * 24),
    "huge text": member("(3,)", b"\0" * 24, descr="<U999999999"),
    "objects": member("(3,)", b"\0" * 24, descr="|O"),
    "a header without end": b"\x93NUMPY\2\0\xff\xff\xff\xff" + b" " * 2**20,
    "code": member("__import__('os').system('touch hit')", b""),
    "nothing": b"",
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_header_is_not_taken_at_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("state.npy", HOSTILE[fault])
    with pytest.raises(Damaged, match="a.npz") as caught:
        arrays.read(Path("a.npz"))
    assert "\n" not in str(caught.value) and [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_bomb_is_refused_by_the_size_it_claims(tmp_path: Path) -> None:
    zeros = io.BytesIO()
    np.lib.format.write_array_header_1_0(zeros, {"descr": "|u1", "fortran_order": False, "shape": (20000, 400, 400, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("frames.npy", "w") as inner:
        inner.write(zeros.getvalue())
        for _ in range(64):
            inner.write(bytes(2**20))
    with pytest.raises(Damaged, match="holds 20000x400x400x3"):
        arrays.read(tmp_path / "a.npz")


def test_no_member_is_written_to_the_disk(tmp_path: Path) -> None:
    good = io.BytesIO()
    np.save(good, steps(3))
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.npz", "w") as file:
        file.writestr("state.npy", good.getvalue())
        file.writestr("../../out.npy", good.getvalue())
    assert len(arrays.read(tmp_path / "in").episode(0)) == 3
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.npz", "in"]


@pytest.mark.parametrize("ends", [[3, 3, 9], [5, 4, 9], [0, 9], [3, 10], [-1, 9], [2.0, 9.0], [[3, 9]], []])
def test_ends_must_rise_within_the_data(tmp_path: Path, ends: list[Any]) -> None:
    np.savez(tmp_path / "a.npz", state=steps(9), episode_ends=np.array(ends))
    with pytest.raises(Damaged, match="ends of episodes|one end"):
        arrays.read(tmp_path / "a.npz")


def test_a_file_cut_anywhere_is_an_error_of_one_line(tmp_path: Path) -> None:
    arrays.write(Episodes.of(recorded(FIVE), space=FIVE), tmp_path / "kept")
    whole = (tmp_path / "kept" / "episode_000000.npz").read_bytes()
    file = tmp_path / "cut.npz"
    for cut in range(0, len(whole), len(whole) // 40):
        file.write_bytes(whole[:cut])
        with pytest.raises(Damaged, match="cut.npz"):
            arrays.read(file)
        assert arrays.recognises(file)  # by its name: what reads it says what is wrong


def test_what_is_no_arrays_is_not_recognised(tmp_path: Path) -> None:
    assert not arrays.recognises(tmp_path) and not arrays.recognises(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", actions=np.zeros(3))
    assert arrays.recognises(tmp_path)
    (tmp_path / "a.mp4").touch()  # beside a video an .npz only tells its actions
    assert not arrays.recognises(tmp_path) and not arrays.recognises(Path("a\0b"))


def test_many_headers_are_read_at_once(tmp_path: Path) -> None:
    """Python 3.11 ends a parse with a SystemError where another thread began one, as was seen here."""
    np.savez(tmp_path / "beside.npz", actions=np.zeros((5, 2)), state=np.zeros((6, 3)))

    def shapes(_: int) -> tuple[Any, Any]:
        archive = Archive(tmp_path / "beside.npz")
        return archive.head("actions").shape, archive.head("state").shape

    def yielding(*_: Any) -> None:
        sum(range(200))  # time enough for another thread to take its turn

    turn, often = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    gc.callbacks.append(yielding)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(shapes, range(500))) == {((5, 2), (6, 3))}
    finally:
        gc.callbacks.remove(yielding)
        gc.set_threshold(*often)
        sys.setswitchinterval(turn)
