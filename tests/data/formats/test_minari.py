"""Minari: what is written is read again, both layouts are read as Minari writes them, and no file can do harm."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tacit.check import check_reader
from tacit.clip import Space
from tacit.data import Damaged, Episodes
from tacit.data.formats import minari
from tests.data.formats.several import FIVE, VECTOR, recorded, unlike


@pytest.mark.parametrize("space", [None, FIVE, VECTOR], ids=str)
@pytest.mark.parametrize(("frames", "state"), [(True, False), (False, True), (True, True)])
def test_what_is_written_is_read_again(tmp_path: Path, space: Space | None, frames: bool, state: bool) -> None:
    episodes = recorded(space, frames=frames, state=state)
    given = Episodes.of(episodes, space=space, fps=12.5, name="kept")
    path = tmp_path / "kept"
    minari.write(given, path)
    for place in (path, path / "data", path / "data" / "main_data.hdf5"):
        reader = minari.read(place)
        assert reader.spec == given.spec and minari.recognises(place)
        assert reader.opening == {"path": str(place.absolute()), "camera": None}
    assert [unlike(a, reader.episode(i)) for i, a in enumerate(episodes)] == [[]] * 5
    assert reader.splits == given.splits and reader.prints == given.prints
    check_reader(reader)


LENGTHS = (5, 2, 8)  # steps
BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-9.0, -9.0], "high": [40.0, 40.0]}
PICTURE = {"type": "Box", "dtype": "uint8", "shape": [32, 40, 3]}
PICTURE |= {"low": np.zeros((32, 40, 3), int).tolist(), "high": np.full((32, 40, 3), 255).tolist()}
WHOLE = {"type": "Discrete", "dtype": "int64", "start": 3, "n": 40}
PAIR = {"type": "Tuple", "subspaces": [{**BOX, "dtype": "float64"}, {"type": "Discrete", "start": 0, "n": 99}]}
SEEN = {"type": "Dict", "subspaces": {"image": PICTURE, "pair": PAIR, "mission": {"type": "Text"}}}


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 32), (shade, shade, shade)).save(file, "JPEG", quality=95, comment=b"x" * shade)
    return file.getvalue()


def described(home: Path, **changes: Any) -> None:
    about = {"data_format": "hdf5", "jpeg_encoding": True, "total_episodes": 3, "minari_version": "0.5.4"}
    about |= {"observation_space": json.dumps(SEEN), "action_space": json.dumps(BOX), "dataset_id": "made-v0"}
    (home / "metadata.json").write_text(json.dumps(about | changes))


def hdf(path: Path, *, actions: str = "box", alike: bool = False) -> Path:
    """Three episodes as Minari keeps them in HDF5; an action is the number of the observation that it leaves."""
    home = path / "data"
    home.mkdir(parents=True)
    described(home, action_space=json.dumps(BOX if actions == "box" else WHOLE))
    with h5py.File(home / "main_data.hdf5", "w", track_order=True) as file:
        for number, steps in enumerate(LENGTHS):
            group, count = file.create_group(f"episode_{number}"), np.arange(steps + 1) + 10 * number
            shown = [np.frombuffer(jpeg(20 if alike else int(c)), np.uint8) for c in count]
            kind = None if alike else h5py.vlen_dtype(np.uint8)  # files of one length become plain rows
            group.create_dataset("observations/image", data=shown, dtype=kind, chunks=True)
            group["observations/pair/_index_0"] = np.stack([count, -count], 1).astype(np.float64)
            group["observations/pair/_index_1"] = count
            group.create_dataset("observations/mission", data=["go"] * (steps + 1), dtype=h5py.string_dtype())
            acts = count[:-1] + 3 if actions == "whole" else np.stack([count[:-1], -count[:-1]], 1).astype(np.float32)
            group.create_dataset("actions", data=acts, chunks=True, maxshape=(None, *acts.shape[1:]))
            group["rewards"] = count[:-1] / 2
            group["terminations"], group["truncations"] = np.zeros(steps, bool), np.arange(1, steps + 1) == steps
            group["infos/x"] = np.zeros(steps + 1)
            group.attrs["id"], group.attrs["total_steps"] = number, steps
    return path


def table(path: Path, kind: str) -> Path:
    """The same as Minari keeps it in Arrow or parquet: a folder for each, and actions with one row too many."""
    home = path / "data"
    home.mkdir(parents=True)
    described(home, data_format=kind)
    for number, steps in enumerate(LENGTHS):
        count, folder = np.arange(steps + 1) + 10 * number, home / str(number)
        folder.mkdir()
        first = pa.FixedSizeListArray.from_arrays(np.stack([count, -count], 1).astype(float).reshape(-1), 2)
        pair = pa.StructArray.from_arrays([first, pa.array(count)], names=["0", "1"])
        parts = [pa.array([jpeg(int(c)) for c in count], pa.binary()), pair, pa.array(["go"] * len(count))]
        acts = np.stack([count, -count], 1).astype(np.float32)
        acts[-1] = 0
        held = {"observations": pa.StructArray.from_arrays(parts, names=["image", "pair", "mission"])}
        held |= {"actions": pa.FixedSizeListArray.from_arrays(acts.reshape(-1), 2)}
        held |= {"rewards": pa.array(np.append(count[:-1] / 2, 0)), "terminations": pa.array(np.zeros(steps + 1, bool))}
        batch = pa.RecordBatch.from_pydict(held)
        if kind == "parquet":
            pq.write_table(pa.Table.from_batches([batch]), folder / "part-0.parquet")
        else:
            with pa.OSFile(str(folder / "part-0.arrow"), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
                writer.write(batch)
        (folder / "metadata.json").write_text(json.dumps({"id": number, "total_steps": steps}))
    return path


LAYOUTS = ("hdf5", "arrow", "parquet")


def laid(path: Path, layout: str) -> Path:
    return hdf(path) if layout == "hdf5" else table(path, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_minari_means_it(tmp_path: Path, layout: str) -> None:
    path = laid(tmp_path / "made-v0", layout)
    reader = minari.read(path)
    assert minari.recognises(path) and reader.spec.name == "made-v0" and not reader.faults
    assert reader.spec.frame == (32, 40) and reader.spec.state == 3
    assert reader.spec.space == Space("continuous", 2, -9.0, 40.0)
    assert reader.names == (("episode_0", "episode_1", "episode_2") if layout == "hdf5" else ("0", "1", "2"))
    for number, steps in enumerate(LENGTHS):
        episode, count = reader.episode(number), np.arange(steps + 1) + 10 * number
        assert episode.frames[:, 5, 5, 0].tolist() == pytest.approx(count.tolist(), abs=1)
        assert episode.state.tolist() == [[c, -c, c] for c in count]
        assert episode.actions.tolist() == [[c, -c] for c in count[:-1]]
        assert episode.rewards.tolist() == (count[:-1] / 2).tolist()
    check_reader(reader)


def test_choices_begin_at_nought_wherever_they_began(tmp_path: Path) -> None:
    reader = minari.read(hdf(tmp_path / "made-v0", actions="whole"))
    assert reader.spec.space == Space("discrete", 40) and reader.episode(1).actions.tolist() == [10, 11]


def test_jpeg_files_of_one_length_are_pictures_all_the_same(tmp_path: Path) -> None:
    reader = minari.read(hdf(tmp_path / "made-v0", alike=True))
    assert reader.spec.frame == (32, 40) and abs(int(reader.episode(0).frames[0, 0, 0, 0]) - 20) < 2
    assert reader.spec.state == 3


def test_a_file_without_its_description_is_read(tmp_path: Path) -> None:
    path = hdf(tmp_path / "made-v0")
    (path / "data/metadata.json").unlink()
    reader = minari.read(path / "data/main_data.hdf5")
    assert reader.spec.frame == (32, 40) and reader.spec.space == Space("continuous", 2, -27.0, 27.0)


def test_episodes_that_were_promised_and_are_not_there_are_told(tmp_path: Path) -> None:
    path = hdf(tmp_path / "made-v0")
    described(path / "data", total_episodes=4)
    assert "promises 4" in minari.read(path).faults["metadata.json"]


def test_what_is_written_is_described_as_minari_wants_it(tmp_path: Path) -> None:
    minari.write(Episodes.of(recorded(FIVE), space=FIVE), tmp_path / "some set")
    about = json.loads((tmp_path / "some set/data/metadata.json").read_text())
    assert about["dataset_id"] == "some-set-v0" and about["jpeg_encoding"] is False
    assert (about["total_episodes"], about["total_steps"]) == (5, 19)
    assert json.loads(about["action_space"]) == {"type": "Discrete", "dtype": "int64", "start": 0, "n": 5}
    assert sorted(json.loads(about["observation_space"])["subspaces"]) == ["image", "state"]
    with h5py.File(tmp_path / "some set/data/main_data.hdf5") as file:
        group = file["episode_0"]
        assert len(group["observations/image"]) == len(group["actions"]) + 1 == 7
        assert group["truncations"][:].tolist() == [False] * 5 + [True] and group.attrs["id"] == 0


def rewritten(group: Any, name: str, value: Any, **options: Any) -> None:
    del group[name]
    group.create_dataset(name, data=value, **options)


def huge(group: Any) -> None:
    picture = io.BytesIO()
    Image.new("L", (8000, 8000)).save(picture, "JPEG")
    shown = [np.frombuffer(p, np.uint8) for p in (picture.getvalue(), jpeg(1), jpeg(2))]
    rewritten(group, "observations/image", shown, dtype=h5py.vlen_dtype(np.uint8))


def linked(group: Any) -> None:
    del group["observations"]
    group["observations"] = h5py.ExternalLink("../../other.hdf5", "episode_1/observations")


def grouped(group: Any) -> None:
    del group["rewards"]
    group.create_group("rewards")


SPOILED: dict[str, Callable[[Any], None]] = {
    "no actions": lambda g: g.__delitem__("actions"),
    "as many actions as frames": lambda g: rewritten(g, "actions", np.zeros((3, 2), np.float32)),
    "too few of one": lambda g: rewritten(g, "observations/pair/_index_1", np.zeros(2, int)),
    "no picture": lambda g: g["observations"].__delitem__("image"),
    "pictures that are none": lambda g: rewritten(g, "observations/image", np.full((3, 90), 7, np.uint8)),
    "a vast picture": huge,
    "words for actions": lambda g: rewritten(g, "actions", ["a", "b"]),
    "rewards in a group": grouped,
    "another file's": linked,
    "a fact of another kind": lambda g: g.attrs.__setitem__("success", 7),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_one_damaged_episode_is_named_and_harms_no_other(tmp_path: Path, fault: str) -> None:
    path = hdf(tmp_path / "made-v0")
    (tmp_path / "other.hdf5").write_bytes((path / "data/main_data.hdf5").read_bytes())  # to be read, if it were
    with h5py.File(path / "data/main_data.hdf5", "a") as file:
        SPOILED[fault](file["episode_1"])
    episodes = Episodes(minari.read(path))
    faults = episodes.damaged()
    assert list(faults) == [1] and "made-v0, episode_1" in faults[1] and "\n" not in faults[1]
    assert episodes.select([0, 2]).labelled == 13


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@pytest.mark.parametrize("fault", ["missing", "cut", "another", "longer", "packed"])
def test_one_damaged_table_is_named_and_harms_no_other(tmp_path: Path, kind: str, fault: str) -> None:
    path = table(tmp_path / "made-v0", kind)
    part = path / f"data/1/part-0.{kind}"
    if fault == "missing":
        part.unlink()
    elif fault == "cut":
        part.write_bytes(part.read_bytes()[: -200 if kind == "parquet" else 900])
    elif fault == "another":
        part.write_bytes((path / f"data/0/part-0.{kind}").read_bytes())
    elif fault == "longer":
        (path / "data/1/metadata.json").write_text('{"total_steps": 999999999999}')
    elif kind == "arrow":  # what is packed may swell
        rows = pa.ipc.open_file(part).read_all()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, rows.schema, options=options) as writer:
            writer.write(rows)
    else:  # one long word, a million times over
        words = pa.DictionaryArray.from_arrays(np.zeros(2**20, np.int32), pa.array([b"x" * 2**20]))
        seen = pa.StructArray.from_arrays([words], names=["image"])
        pq.write_table(pa.table({"observations": seen, "actions": np.zeros(2**20)}), part)
    episodes = Episodes(minari.read(path))
    faults = episodes.damaged()
    assert list(faults) == [1] and "made-v0, 1" in faults[1] and "\n" not in faults[1]
    assert episodes.select([0, 2]).labelled == 13


@pytest.mark.parametrize(
    "changes",
    [
        {"observation_space": "{"},
        {"observation_space": json.dumps({"type": "Box", "dtype": "O", "shape": [3]})},
        {"observation_space": json.dumps({"type": "Box", "dtype": "f4", "shape": [10**30]})},
        {"observation_space": json.dumps({"type": "Dict", "subspaces": []})},
        {"action_space": json.dumps({"type": "Discrete", "n": 0})},
        {"action_space": json.dumps({"type": "Discrete"})},
        {"action_space": json.dumps([1])},
        {"action_space": json.dumps({**BOX, "shape": [3]})},
        {"data_format": "lance"},
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["hdf5", "arrow"])
def test_a_description_that_cannot_be_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], layout: str) -> None:
    path = laid(tmp_path / "made-v0", layout)
    described(path / "data", **{"data_format": layout} | changes)
    if layout == "hdf5" and "data_format" in changes:
        assert len(minari.read(path).lengths) == 3  # the file itself says so better
        return
    with pytest.raises(Damaged, match="made-v0") as caught:
        minari.read(path).episode(0)
    assert "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = hdf(tmp_path / "made-v0")
    file = path / "data/main_data.hdf5"
    whole = file.read_bytes()
    for share in range(12):
        file.write_bytes(whole[: len(whole) * share // 12])
        with pytest.raises(Damaged, match="made-v0"):
            minari.read(path)


def test_other_folders_are_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text('{"fps": 3}')
    (tmp_path / "a.hdf5").touch()
    assert not any(map(minari.recognises, (tmp_path, tmp_path / "a.hdf5", tmp_path / "none", Path("a\0b"))))
