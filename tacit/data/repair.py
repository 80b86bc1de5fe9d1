"""What is whole of a broken dataset, verified by reading it, written anew beside it; the source is never touched."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tacit.data.episodes import Episodes
from tacit.data.file import apart
from tacit.data.formats import lerobot21
from tacit.data.lerobot import COUNTERS, LeRobot
from tacit.data.meta import information, instructions, parquet, side
from tacit.data.record import DATA, VIDEO
from tacit.data.tables import write_tasks
from tacit.data.transfer import Brought, rounded, transfer
from tacit.data.video import Damaged

REBUILT = ".rebuilt"  # the folder of new tables over the old files, while a repair lasts


def repair(path: Path, out: Path, *, camera: str | None = None, workers: int = 2, progress: bool = True) -> Brought:
    """Write to ``out`` all that can be read of the dataset at ``path``, each frame of it decoded to be sure.

    Damaged episodes are kept as far as they are whole. Where a crash left no tables, or half of them (LeRobot's writers
    finish theirs when a session ends), they are made anew from the rows and the video that are there.
    """
    from tacit.data import open as opened

    apart(path, out)
    why = _unreadable(path, camera) if (path / "data").is_dir() and (path / "meta").is_dir() else ""
    if not why:
        try:
            whole = rounded(opened(path, camera=camera))
            return transfer(whole, out, prefixes=True, workers=workers, progress=progress)
        except (KeyError, TypeError) as error:  # a column of its tables that is not there, or holds something else
            why = repr(error)
    with _rebuilt(path, out) as (folder, faults):
        source = Episodes(LeRobot(folder, camera=camera))
        made = transfer(source, out, prefixes=True, workers=1, progress=progress)
    return Brought(made.data, {"the tables": why} | dict(faults) | dict(made.left), made.cut)


def _unreadable(path: Path, camera: str | None) -> str:
    """What is wrong with the tables of a dataset, if anything."""
    if lerobot21.recognises(path):
        return ""
    try:
        return "" if len(LeRobot(path, camera=camera).lengths) else "its tables hold no episode"
    except (ValueError, OSError, KeyError, TypeError) as error:
        return " ".join(str(error).split())


@dataclass
class _Found:
    """What the rows of a dataset tell when its tables do not."""

    features: dict[str, Any]
    fps: int
    rows: list[dict[str, Any]] = field(default_factory=list)  # of meta/episodes
    faults: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def _rebuilt(path: Path, out: Path) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """A dataset of new tables over the old rows and video, as long as it is needed."""
    tasks: dict[str, int] = {}
    with contextlib.suppress(Damaged, OSError):
        tasks = instructions(path)
    found = _found(path, {number: task for task, number in tasks.items()})
    if not found.rows:
        raise Damaged(f"Nothing of {path} can be read: {next(iter(found.faults.values()), 'it holds no rows')}")
    folder = out.with_name(f"{out.name}{REBUILT}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
        for name in ("data", "videos"):
            if (path / name).is_dir():
                (folder / name).symlink_to((path / name).absolute())
        table = {name: pa.array([row[name] for row in found.rows]) for name in found.rows[0]}
        pq.write_table(pa.table(table), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
        write_tasks(folder / "meta" / "tasks.parquet", tasks or {"": 0})
        totals = {"total_episodes": len(found.rows), "total_frames": sum(row["length"] for row in found.rows)}
        info = {"codebase_version": "v3.0", "fps": found.fps, "features": found.features, "data_path": DATA}
        (folder / "meta" / "info.json").write_text(json.dumps(info | {"video_path": VIDEO} | totals))
        extra: dict[str, Any] = {"spec": {"name": path.name}}
        with contextlib.suppress(Damaged, OSError):
            extra |= side(path)
        (folder / "meta" / "tacit.json").write_text(json.dumps(extra))
        yield folder, found.faults
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(path: Path, tasks: dict[int, str]) -> _Found:
    """Every episode whose rows can be read, up to the first number that is missing, and where its video should lie."""
    faults: dict[str, str] = {}
    tables: dict[tuple[int, int], pa.Table] = {}
    for file in sorted((path / "data").glob("chunk-*/file-*.parquet")):
        try:
            at = int(file.parent.name[6:]), int(file.stem[5:])
            table = parquet(file)
            missing = set(COUNTERS) - set(table.column_names)
            if missing:
                raise Damaged(f"{file} lacks the columns {sorted(missing)}.")
            tables[at] = table
        except ValueError as error:
            faults[str(file.relative_to(path))] = str(error)
    if not tables:
        return _Found({}, 1, faults=faults)
    features, fps = _features(path, next(iter(tables.values())))
    found = _Found(features, fps, faults=faults)
    videos = {k: _Reel(path, k, fps, faults) for k, f in features.items() if f["dtype"] == "video"}
    total = 0
    for at, table in tables.items():
        numbers = table["episode_index"].to_numpy()
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            length = int(mine.sum())
            if number != len(found.rows):
                faults.setdefault(f"episode {len(found.rows)}", "its rows are in no file that can be read")
                return found
            task = tasks.get(int(table["task_index"].to_numpy()[mine][0]), "")
            row = {"episode_index": number, "tasks": [task], "length": length}
            row |= {"dataset_from_index": total, "dataset_to_index": total + length}
            row |= {"data/chunk_index": at[0], "data/file_index": at[1]}
            for reel in videos.values():
                row |= reel.next(length)
            found.rows.append(row)
            total += length
    return found


class _Reel:
    """The video files of a camera in their order, out of which the episodes' frames are handed one after another."""

    def __init__(self, path: Path, camera: str, fps: int, faults: dict[str, str]) -> None:
        self.camera, self.fps = camera, fps
        self._left: list[tuple[int, int, int]] = []  # chunk, file, frames
        for file in sorted((path / "videos" / camera).glob("chunk-*/file-*.mp4")):
            try:
                with av.open(str(file)) as container:
                    count = sum(1 for packet in container.demux(video=0) if packet.pts is not None)
            except (av.error.FFmpegError, IndexError, ValueError) as error:
                faults[str(file.relative_to(path))] = f"{file} cannot be opened ({error})."
                count = 0
            self._left.append((int(file.parent.name[6:]), int(file.stem[5:]), count))
        self._used = 0

    def next(self, length: int) -> dict[str, Any]:
        """Where the next episode lies: in the file at hand, or in the next one where it no longer fits."""
        while len(self._left) > 1 and self._left[0][2] - self._used < length:
            self._left.pop(0)
            self._used = 0
        chunk, file = self._left[0][:2] if self._left else (0, 0)
        first, self._used = self._used, self._used + length
        place = {"chunk_index": chunk, "file_index": file}
        times = {"from_timestamp": first / self.fps, "to_timestamp": self._used / self.fps}
        return {f"videos/{self.camera}/{k}": v for k, v in (place | times).items()}


def _features(path: Path, table: pa.Table) -> tuple[dict[str, Any], int]:
    """What ``info.json`` says of the columns, or what the rows and the video themselves show."""
    with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
        info = information(path)
        return info["features"], int(info["fps"])
    moments = np.diff(table["timestamp"].to_numpy().astype(np.float64))
    fps = max(1, round(1 / np.median(moments[moments > 0]))) if (moments > 0).any() else 1
    features: dict[str, Any] = {}
    for camera in sorted((path / "videos").glob("*")):
        for file in itertools.islice(sorted(camera.glob("chunk-*/file-*.mp4")), 8):
            with contextlib.suppress(av.error.FFmpegError, IndexError), av.open(str(file)) as container:
                stream = container.streams.video[0]
                shape = [stream.codec_context.height, stream.codec_context.width, 3]
                told = {"video.height": shape[0], "video.width": shape[1], "video.fps": fps}
                names = ["height", "width", "channels"]
                features[camera.name] = {"dtype": "video", "shape": shape, "names": names, "info": told}
                break
    for column in table.schema:
        kind, width = column.type, 1
        while isinstance(kind, pa.FixedSizeListType | pa.ListType):
            width, kind = getattr(kind, "list_size", width) * width, kind.value_type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            features[column.name] = {"dtype": np.dtype(kind.to_pandas_dtype()).name, "shape": [width], "names": None}
    return features, fps
