"""zarr: what is written is read again and by zarr itself, and chunks can neither swell nor lie elsewhere."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr as library

from tacit.check import check_reader
from tacit.clip import Space
from tacit.data import Damaged, Episodes
from tacit.data.formats import zarr
from tests.data.formats.several import FIVE, VECTOR, recorded, unlike


@pytest.mark.parametrize("space", [None, FIVE, VECTOR], ids=str)
@pytest.mark.parametrize(("frames", "state"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_what_is_written_is_read_again(
    tmp_path: Path, space: Space | None, frames: bool, state: bool, suffix: str
) -> None:
    episodes = recorded(space, frames=frames, state=state)
    given = Episodes.of(episodes, space=space, fps=12.5, name="kept")
    path = tmp_path / f"kept{suffix}"
    zarr.write(given, path)
    reader = zarr.read(path)
    assert reader.spec == given.spec and zarr.recognises(path)
    assert [unlike(a, reader.episode(i)) for i, a in enumerate(episodes)] == [[]] * 5
    assert reader.splits == given.splits and reader.prints == given.prints
    assert reader.opening == {"path": str(path.absolute()), "camera": None}
    check_reader(reader)


def pushed(path: Path, *, pictures: bool = True, compressor: Any = "auto", **arrays: np.ndarray) -> Path:
    """Three episodes of 4, 3 and 5 rows as Diffusion Policy stores them; each action is the number of its row."""
    rows = np.arange(12, dtype=np.float32)
    root = library.open_group(str(path), mode="w", zarr_format=2)
    held = {"action": np.stack([rows, -rows], 1), "state": rows[:, None] * np.ones(5, np.float32)}
    held |= {"img": np.zeros((12, 6, 7, 3), np.float32) + rows[:, None, None, None]} if pictures else {}
    held |= {"keypoint": np.zeros((12, 9, 2), np.float32), "n_contacts": np.ones((12, 1), np.float32)} | arrays
    for name, value in held.items():
        chunks = (5, *value.shape[1:])
        root.create_array(f"data/{name}", data=value, chunks=chunks, compressors=compressor)
    root.create_array("meta/episode_ends", data=np.array([4, 7, 12]), chunks=(3,))
    return path


PACKERS = {
    "none": None,
    "blosc": numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE),
    "zstd": numcodecs.Zstd(3),
    "lz4": numcodecs.LZ4(),
    "zlib": numcodecs.Zlib(),
    "gzip": numcodecs.GZip(),
}


@pytest.mark.parametrize("packer", PACKERS)
def test_episodes_are_read_as_diffusion_policy_means_them(tmp_path: Path, packer: str) -> None:
    reader = zarr.read(pushed(tmp_path / "pusht.zarr", compressor=PACKERS[packer]))
    spec = reader.spec
    assert (spec.frame, spec.state, spec.fps, spec.name) == ((6, 7), 5, 10.0, "pusht")
    assert reader.lengths.tolist() == [4, 3, 5] and spec.space == Space("continuous", 2, -10.0, 10.0)
    episode = reader.episode(2)
    assert episode.frames[:, 0, 0, 0].tolist() == [7, 8, 9, 10, 11] and episode.frames.dtype == np.uint8
    assert episode.actions[:, 0].tolist() == [7, 8, 9, 10] and episode.state[:, 4].tolist() == [7, 8, 9, 10, 11]
    check_reader(reader)


def test_what_is_written_is_read_by_zarr(tmp_path: Path) -> None:
    given = Episodes.of(recorded(VECTOR), space=VECTOR, fps=10)
    zarr.write(given, tmp_path / "a.zarr.zip")
    store = library.storage.ZipStore(tmp_path / "a.zarr.zip", read_only=True)
    root = library.open_group(store, mode="r", zarr_format=2)
    ends = root["meta/episode_ends"][:]
    assert ends.dtype == np.int64 and ends.tolist() == np.cumsum(given.lengths).tolist()
    assert np.array_equal(root["data/img"][:], np.concatenate([e.frames for e in recorded(VECTOR)]))
    action = root["data/action"][:]
    assert len(action) == ends[-1] and np.array_equal(action[ends[0] - 1], action[ends[0] - 2])
    assert root.attrs["fps"] == 10 and len(root.attrs["texts"]) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr.zip"]


def test_state_is_all_that_is_low_where_none_is_named_so(tmp_path: Path) -> None:
    path = pushed(tmp_path / "a.zarr", pictures=False, eef_pos=np.arange(24.0).reshape(12, 2))
    shutil.rmtree(path / "data" / "state")
    assert zarr.read(path).episode(1).state[0].tolist() == [8, 9, 1]


def test_empty_chunks_and_other_orders_are_read(tmp_path: Path) -> None:
    path = pushed(tmp_path / "a.zarr")
    root = library.open_group(str(path), mode="a", zarr_format=2)
    value = np.arange(60).reshape(12, 5)
    data = root.create_array("data/state", data=value, chunks=(5, 2), order="F", overwrite=True, fill_value=7)
    data[:5] = 7  # which zarr does not write
    assert not (path / "data/state/0.0").exists()
    assert zarr.read(path).episode(1).state.tolist() == [[7] * 5, *value[5:7].tolist()]


def test_the_camera_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = pushed(tmp_path / "a.zarr", camera_1=np.full((12, 6, 7, 3), 9, np.uint8))
    with pytest.raises(ValueError, match=r"\['camera_1', 'img'\]"):
        zarr.read(path)
    assert zarr.read(path, camera="camera_1").episode(0).frames.max() == 9


def told(path: Path, **changes: Any) -> None:
    file = path / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_jpeg_2000_names_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str, **_: Any) -> None:
        if package == "imagecodecs":
            raise ImportError(package)

    monkeypatch.setattr("tacit.data.formats.zarr.need", absent)
    path = pushed(tmp_path / "a.zarr", img=np.zeros((12, 6, 7, 3), np.uint8))
    told(path / "data/img", compressor={"id": "imagecodecs_jpeg2k", "level": 50})
    with pytest.raises(ImportError, match="imagecodecs"):
        zarr.read(path)


def chunk(path: Path, data: bytes) -> None:
    (path / "1.0").write_bytes(data)


def linked(path: Path) -> None:
    secret = path.parents[2] / "secret"
    secret.write_bytes(bytes(40))
    (path / "1.0").unlink()
    (path / "1.0").symlink_to(secret)


SPOILED: dict[str, Callable[[Path], None]] = {
    "cut": lambda p: chunk(p, (p / "1.0").read_bytes()[:20]),
    "nothing": lambda p: chunk(p, b""),
    "another size": lambda p: chunk(p, numcodecs.Blosc().encode(bytes(400))),
    "a lie of its size": lambda p: chunk(p, (p / "1.0").read_bytes()[:4] + b"\xff\xff\xff\x7f" + bytes(40)),
    "vast": lambda p: chunk(p, bytes(2**20)),
    "a link outside": linked,
}


@pytest.mark.parametrize("fault", SPOILED)
def test_one_damaged_chunk_is_named_and_harms_no_other_episode(tmp_path: Path, fault: str) -> None:
    path = pushed(tmp_path / "a.zarr", eef=np.zeros((12, 1)))
    told(path) if (path / ".zarray").exists() else None
    (path / ".zattrs").write_text(json.dumps({"space": {"kind": "continuous", "size": 2, "low": -20, "high": 20}}))
    SPOILED[fault](path / "data" / "action")  # rows 5 to 9: the second episode and the third
    episodes = Episodes(zarr.read(path))
    faults = episodes.damaged()
    assert list(faults) == [1, 2] and all("a.zarr, episode" in f and "\n" not in f for f in faults.values())
    assert episodes.episode(0).actions[:, 0].tolist() == [0, 1, 2] and episodes.select([0]).labelled == 3


@pytest.mark.parametrize("kind", ["gzip", "zlib", "zstd", "lz4"])
def test_a_chunk_cannot_swell(tmp_path: Path, kind: str) -> None:
    path = pushed(tmp_path / "a.zarr", compressor=PACKERS[kind])
    (path / ".zattrs").write_text(json.dumps({"space": {"kind": "continuous", "size": 2}}))
    bomb = PACKERS[kind].encode(bytes(2**24))
    (path / "data/action/0.0").write_bytes(bytes(bomb))
    with pytest.raises(Damaged, match="episode 0: .*(chunk|bytes)"):
        zarr.read(path).episode(0)


LIES: dict[str, tuple[str, dict[str, Any]]] = {
    "pickles": ("data/action", {"filters": [{"id": "pickle"}], "dtype": "|O"}),
    "pickled chunks": ("data/action", {"compressor": {"id": "pickle"}}),
    "objects": ("data/action", {"dtype": "|O"}),
    "records": ("data/action", {"dtype": [["a", "<f4"]]}),
    "vast chunks": ("data/action", {"chunks": [10**9, 2]}),
    "no chunks": ("data/action", {"chunks": [0, 2]}),
    "chunks of another shape": ("data/action", {"chunks": [5]}),
    "no width": ("data/action", {"shape": [10**15, 0], "chunks": [5, 1]}),
    "a shape in words": ("data/action", {"shape": ["12", 2]}),
    "too short": ("data/action", {"shape": [11, 2]}),
    "an absurd length": ("meta/episode_ends", {"shape": [10**12]}),
    "ends that are no numbers": ("meta/episode_ends", {"dtype": "<f8"}),
    "ends that are none": ("meta/episode_ends", {"shape": [0]}),
    "ends that go on": ("meta/episode_ends", {"shape": [4], "chunks": [4], "compressor": None}),
    "another version": ("data/action", {"zarr_format": 3}),
    "a codec in words": ("data/action", {"compressor": "blosc"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_description_is_not_taken_at_its_word(tmp_path: Path, lie: str) -> None:
    path = pushed(tmp_path / "a.zarr")
    array, changes = LIES[lie]
    told(path / array, **changes)
    with pytest.raises(Damaged, match="a.zarr") as caught:
        zarr.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ends", [[4, 4, 12], [7, 4, 12], [0, 4, 12], [4, 7, 13], [-4, 7, 12]])
def test_ends_must_rise_within_the_data(tmp_path: Path, ends: list[int]) -> None:
    path = pushed(tmp_path / "a.zarr")
    library.open_group(str(path), mode="a", zarr_format=2)["meta/episode_ends"][:] = ends
    with pytest.raises(Damaged, match="do not rise"):
        zarr.read(path)


@pytest.mark.parametrize(
    "attrs",
    [
        "{",
        "[]",
        '{"fps": 0}',
        '{"texts": "a"}',
        '{"texts": ["a"]}',
        '{"success": ["yes", 1, 0]}',
        '{"space": {"a": 1}}',
    ],
)
def test_what_is_told_beside_must_fit(tmp_path: Path, attrs: str) -> None:
    path = pushed(tmp_path / "a.zarr")
    (path / ".zattrs").write_text(attrs)
    with pytest.raises(Damaged, match="a.zarr"):
        zarr.read(path)


def test_a_zip_is_read_in_place_and_leads_nowhere(tmp_path: Path) -> None:
    path = pushed(tmp_path / "a.zarr")
    (tmp_path / "in").mkdir()
    packed = tmp_path / "in" / "a.zarr.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for part in sorted(f for f in path.rglob("*") if f.is_file()):
            file.write(part, part.relative_to(path).as_posix())
        file.writestr("../out", b"x")
        file.writestr("data/../.zarray", b"{}")
    reader = zarr.read(packed)
    assert reader.episode(1).actions[:, 0].tolist() == [4, 5] and reader.spec.name == "a"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "in"]
    packed.write_bytes(packed.read_bytes()[:-30])
    assert not zarr.recognises(packed)
    with pytest.raises(Damaged, match="a.zarr.zip"):
        zarr.read(packed)


def test_newer_and_other_folders_are_told_apart(tmp_path: Path) -> None:
    assert (
        not zarr.recognises(tmp_path) and not zarr.recognises(tmp_path / "none") and not zarr.recognises(Path("a\0b"))
    )
    library.open_group(str(tmp_path / "new.zarr"), mode="w", zarr_format=3)
    with pytest.raises(Damaged, match="zarr_format=2"):
        zarr.read(tmp_path / "new.zarr")
