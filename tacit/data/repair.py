"""What is whole of a broken dataset, verified by reading it, written anew beside it; the source is never touched."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
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
from tacit.data.lerobot import COUNTERS, LeRobot, chosen
from tacit.data.meta import information, instructions, parquet, side
from tacit.data.pairing import At, Place, Reel, Verified, numbered_files
from tacit.data.record import DATA, VIDEO
from tacit.data.tables import write_tasks
from tacit.data.transfer import Brought, rounded, transfer
from tacit.data.video import Damaged

REBUILT = ".rebuilt"  # the folder of new tables over the old files, while a repair lasts


def repair(path: Path, out: Path, *, camera: str | None = None, workers: int = 2, progress: bool = True) -> Brought:
    """Write to ``out`` all that can be read of the dataset at ``path``, each frame of it decoded to be sure.

    Damaged episodes are kept as far as they are whole. Where a crash left no tables, or half of them (LeRobot's writers
    finish theirs when a session ends), they are made anew from the rows and the video that are there; an episode of
    which nothing then proves where in the video it lies is named, and not guessed at.
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
    with _rebuilt(path, out, camera) as (folder, found):
        source = Verified(LeRobot(folder, camera=camera), found.places, original=path)
        kept = [i for i in range(len(source.lengths)) if i not in found.lost]
        made = transfer(Episodes(source, kept), out, prefixes=True, workers=1, progress=progress)
    lost = {found.names.get(i, f"episode {i}"): told for i, told in found.lost.items()} | dict(made.left)
    return Brought(made.data, lost, made.cut, broken={"meta": why} | found.broken)


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

    features: dict[str, Any] = field(default_factory=dict)
    fps: int = 1
    rows: list[dict[str, Any]] = field(default_factory=list)  # of meta/episodes
    places: list[Place | None] = field(default_factory=list)  # where each episode's video lies
    names: dict[int, str] = field(default_factory=dict)  # what episodes were called where they came from
    lost: dict[int, str] = field(default_factory=dict)  # episodes
    broken: dict[str, str] = field(default_factory=dict)  # files


@contextlib.contextmanager
def _rebuilt(path: Path, out: Path, camera: str | None) -> Iterator[tuple[Path, _Found]]:
    """A dataset of new tables over the old rows and video, as long as it is needed."""
    tasks, extra = dict[str, int](), dict[str, Any](spec={"name": path.name})
    with contextlib.suppress(Damaged, OSError):
        tasks = instructions(path)
    with contextlib.suppress(Damaged, OSError):
        extra |= side(path)
    told = extra.get("episodes", [])
    found = _found(path, {number: task for task, number in tasks.items()}, camera, len(told))
    found.names = {number: about["origin"] for number, about in enumerate(told) if about.get("origin")}
    if len(found.lost) >= len(found.rows):
        why = [*found.lost.values(), *found.broken.values(), "it holds no rows"]
        raise Damaged(f"Nothing of {path} can be repaired: {why[0]}")
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
        (folder / "meta" / "tacit.json").write_text(json.dumps(extra))
        yield folder, found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(path: Path, tasks: dict[int, str], camera: str | None, told: int) -> _Found:
    """Every episode whose rows can be read, up to the first number that is missing, and where its video lies."""
    found, tables, rows = _Found(), dict[At, pa.Table](), dict[At, int | None]()
    for at, file in numbered_files(path / "data", "parquet").items():
        try:
            table = parquet(file)
            missing = set(COUNTERS) - set(table.column_names)
            if missing:
                raise Damaged(f"{file} lacks the columns {sorted(missing)}.")
            tables[at], rows[at] = table, len(table)
        except ValueError as error:
            found.broken[str(file.relative_to(path))] = str(error)
            rows[at] = None
    if not tables:
        return found
    found.features, found.fps = _features(path, next(iter(tables.values())))
    total, owners, most = 0, list[At](), told
    for at, table in tables.items():
        owner, moments = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
        for number in np.unique(owner).tolist():
            mine = owner == number
            length, most = int(mine.sum()), max(most, number + 1)
            if number != len(found.rows) or sorted(moments[mine].tolist()) != list(range(length)):
                continue
            task = tasks.get(int(table["task_index"].to_numpy()[mine][0]), "")
            row = {"episode_index": number, "tasks": [task], "length": length}
            row |= {"dataset_from_index": total, "dataset_to_index": total + length}
            found.rows.append(row | {"data/chunk_index": at[0], "data/file_index": at[1]})
            owners.append(at)
            total += length
    for number in range(len(found.rows), most):
        found.lost[number] = "its rows, or those of an episode before it, are in no file that can be read"
    _place(path, found, camera, owners, rows, told=bool(told))
    return found


def _place(
    path: Path, found: _Found, camera: str | None, owners: list[At], rows: dict[At, int | None], *, told: bool
) -> None:
    """Write into the rows where their video lies, and which of them have none that is proven to be theirs."""
    looked = chosen(found.features, camera)
    if looked is None or found.features[looked]["dtype"] != "video":
        found.places = [Place(0, 0, 0, witness=0)] * len(found.rows)
        return
    reel = Reel.of(path, looked, broken=found.broken)
    paired = reel.paired(rows)
    found.places = reel.places([row["length"] for row in found.rows], owners, paired=paired)
    for number, (row, place) in enumerate(zip(found.rows, found.places, strict=True)):
        if place is None or place.witness is None and not told:
            found.lost[number] = reel.why(owners[number], paired=paired)
        chunk, file, first = (0, 0, 0) if place is None else (place.chunk, place.file, place.first)
        row |= {f"videos/{looked}/chunk_index": chunk, f"videos/{looked}/file_index": file}
        times = {"from": first / found.fps, "to": (first + row["length"]) / found.fps}
        row |= {f"videos/{looked}/{k}_timestamp": v for k, v in times.items()}


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
