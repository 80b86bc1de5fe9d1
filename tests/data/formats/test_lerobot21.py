"""LeRobotDataset v2.1: each row and each frame where the layout says, nothing believed that the files belie."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tacit.check.reader import check_reader
from tacit.clip import Space
from tacit.data.formats.lerobot21 import LeRobot21, read, recognises
from tacit.data.video import Damaged, Encoder
from tacit.data.view import View, Viewed

LENGTHS = (9, 4, 12)
CAMERA = "observation.images.top"


def pictures(number: int) -> np.ndarray:
    frames = np.zeros((LENGTHS[number], 24, 32, 3), np.uint8)
    for t in range(len(frames)):
        frames[t] = 60 * number + 5 * t
    return frames


def features(*, kind: str = "video", discrete: bool = False) -> dict[str, Any]:
    action = {"dtype": "int64", "shape": [1], "names": None} if discrete else {"dtype": "float32", "shape": [2]}
    return {
        CAMERA: {"dtype": kind, "shape": [24, 32, 3], "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": [3], "names": None},
        "action": action,
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    }


def dataset(path: Path, *, kind: str = "video", discrete: bool = False, chunk: int = 2, **changes: Any) -> Path:
    """A dataset of three episodes as LeRobot 2.1 lays it out, written by hand."""
    (path / "meta").mkdir(parents=True)
    info = {
        "codebase_version": "v2.1",
        "fps": 10,
        "total_episodes": 3,
        "chunks_size": chunk,
        "features": features(kind=kind, discrete=discrete),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "splits": {"train": "0:2", "test": "2:3"},
    }
    (path / "meta" / "info.json").write_text(json.dumps(info | changes))
    rows = [{"episode_index": i, "tasks": [f"task {i}"], "length": n} for i, n in enumerate(LENGTHS)]
    (path / "meta" / "episodes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in reversed(rows)))
    tasks = "".join(json.dumps({"task_index": i, "task": f"task {i}"}) + "\n" for i in range(3))
    (path / "meta" / "tasks.jsonl").write_text(tasks)
    stats = [{"episode_index": i, "stats": {"action": {"min": [-i, 0], "max": [5, 7]}}} for i in range(3)]
    if not discrete:
        (path / "meta" / "episodes_stats.jsonl").write_text("".join(json.dumps(s) + "\n" for s in stats))
    for number, length in enumerate(LENGTHS):
        count = np.arange(length)
        table: dict[str, Any] = {
            "observation.state": pa.array([[float(t), number, 0] for t in count], pa.list_(pa.float32(), 3)),
            "action": pa.array(count % 4) if discrete else pa.array([[t, -t] for t in count], pa.list_(pa.float32())),
            "next.reward": pa.array(count.astype(np.float32)),
            "frame_index": pa.array(count),
            "episode_index": pa.array(np.full(length, number)),
        }
        if kind == "image":
            stored = []
            for frame in pictures(number):
                Image.fromarray(frame).save(data := io.BytesIO(), "PNG")
                stored.append({"bytes": data.getvalue(), "path": None})
            table[CAMERA] = pa.array(stored)
        else:
            film = path / f"videos/chunk-{number // chunk:03d}" / CAMERA / f"episode_{number:06d}.mp4"
            film.parent.mkdir(parents=True, exist_ok=True)
            with Encoder(film, fps=10, frame=(24, 32)) as encoder:
                encoder.add(pictures(number))
        file = path / f"data/chunk-{number // chunk:03d}/episode_{number:06d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        order = np.roll(count, 1)  # the rows' own numbers say their order
        pq.write_table(pa.table(table).take(pa.array(order)), file)
    return path


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_every_row_and_frame_is_where_it_should_be(tmp_path: Path, kind: str, version: str) -> None:
    path = dataset(tmp_path / "set", kind=kind, codebase_version=version)
    assert recognises(path)
    reader = read(path, camera="top")
    check_reader(reader)
    assert reader.lengths.tolist() == list(LENGTHS)
    assert reader.spec.space == Space("continuous", 2, -2, 7)
    assert reader.splits == ("train", "train", "test")
    assert len(set(reader.prints)) == 3
    for number, length in enumerate(LENGTHS):
        episode = reader.episode(number)
        assert episode.frames is not None and (episode.frames == pictures(number)).all()
        assert (np.concatenate(list(reader.blocks(number, count=5))) == pictures(number)).all()
        assert episode.state is not None and episode.state[:, 0].tolist() == list(range(length))
        assert episode.actions is not None and episode.actions.tolist() == [[t, -t] for t in range(length - 1)]
        assert episode.rewards is not None and episode.rewards.tolist() == list(range(length - 1))
        assert (episode.text, episode.split) == (f"task {number}", reader.splits[number])


def test_choices_are_counted_and_a_view_is_honoured(tmp_path: Path) -> None:
    path = dataset(tmp_path / "set", discrete=True)
    reader = read(path, view=View(fps=5, size=(12, 16)))
    assert isinstance(reader, Viewed)
    check_reader(reader)
    assert reader.spec.space == Space("discrete", 4)
    assert reader.lengths.tolist() == [5, 2, 6]
    frames = reader.episode(2).frames
    assert frames is not None and (frames == pictures(2)[::2, ::2, ::2]).all()
    assert reader.opening is not None and reader.opening["camera"] == CAMERA


def test_what_is_missing_or_cut_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = dataset(tmp_path / "set")
    film = path / "videos/chunk-000" / CAMERA / "episode_000001.mp4"
    film.write_bytes(film.read_bytes()[:-200])
    (path / "data/chunk-001/episode_000002.parquet").unlink()
    long = path / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(long)
    reader = read(path)
    assert len(reader.episode(0)) == 9
    with pytest.raises(Damaged, match="episode_000001.mp4"):
        reader.episode(1)
    with pytest.raises(Damaged, match="episode_000002.parquet cannot be read"):
        reader.episode(2)
    assert reader.prints[0] != reader.prints[1]
    assert [len(p) for p in reader.pieces("state", np.array([0, 1]))] == [13]
    pq.write_table(pa.concat_tables([table, table]), long)
    with pytest.raises(Damaged, match="has 8 rows in .*; promised are 4"):
        reader.pieces("state", np.array([1]))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"total_episodes": 4}, "lacks episode 3"),
        ({"total_episodes": 10**12}, "lacks episode 3"),
        ({"fps": 0}, "lacks fps"),
        ({"fps": "fast"}, "frames a second"),
        ({"features": {"action": {"dtype": "float32", "shape": [10**9]}}}, "wanted a dtype and a shape"),
        ({"features": {CAMERA: {"dtype": "video", "shape": [30000, 30000, 3]}}}, "30000x30000|dtype and a shape"),
        ({"features": []}, "lacks features"),
        ({"video_path": None}, "lacks video_path"),
        ({"total_episodes": [3]}, "makes no sense"),
        ({"features": features() | {CAMERA: {"dtype": "video", "shape": [24, 32, 3], "names": [1]}}}, "makes no sense"),
    ],
)
def test_a_description_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = dataset(tmp_path / "set", **changes)
    with pytest.raises(Damaged, match=why) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    path = dataset(tmp_path / "set", video_path="../../{episode_index}.mp4")
    with pytest.raises(Damaged, match="leads out"):
        read(path).episode(0)
    other = dataset(tmp_path / "other", data_path="/{episode_index:06d}.parquet")
    with pytest.raises(Damaged, match="leads out"):
        read(other).episode(0)


def test_an_episode_longer_than_memory_is_refused(tmp_path: Path) -> None:
    path = dataset(tmp_path / "set")
    rows = [{"episode_index": i, "tasks": [], "length": 10**9} for i in range(3)]
    (path / "meta" / "episodes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(Damaged, match="Episode 0 of .* says it holds 1000000000x24x32x3"):
        LeRobot21(path).episode(0)


def test_only_the_older_layouts_are_recognised(tmp_path: Path) -> None:
    assert not recognises(tmp_path)
    assert not recognises(dataset(tmp_path / "new", codebase_version="v3.0"))
    (tmp_path / "new" / "meta" / "info.json").write_text("[" * 10**5)
    assert not recognises(tmp_path / "new")
