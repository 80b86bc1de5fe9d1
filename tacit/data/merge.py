"""Datasets put together without decoding a frame: their video is copied, their tables are renumbered."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tacit.data import collection
from tacit.data.episodes import Episodes
from tacit.data.file import apart
from tacit.data.lerobot import LeRobot, any_camera
from tacit.data.meta import fill, parquet
from tacit.data.record import CHUNK, DATA, STAGE, TABLE, VIDEO, last_file, place, ranges, sweep
from tacit.data.stats import merge as merged
from tacit.data.tables import write_tasks
from tacit.data.transfer import stopped


def merge(sources: Sequence[Path], out: Path, *, report: Callable[[str], None] = lambda _: None) -> dict[str, Episodes]:
    """Put native datasets together into ``out``; each episode's ``source`` then begins with its dataset's name.

    What differs in cameras, rate or actions cannot share a dataset: it is kept apart, in folders of ``out`` that
    ``tacit.data.open`` opens together. Killed, the same call goes on where it was; the sources are only read.
    """
    for path in sources:
        apart(path, out)
    readers = [any_camera(path) for path in sources]
    for path, reader in zip(sources, readers, strict=True):
        if why := stopped(path, there=len(reader.lengths)):
            raise ValueError(f"{path} is not whole: {why}; then merge.")
    names = [path.absolute().name for path in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"The datasets are named {names}; give them different names, for they tell episodes apart.")
    _settle(out, [str(path.absolute()) for path in sources], [r.lengths.tolist() for r in readers])
    kinds: dict[str, list[tuple[str, LeRobot]]] = {}
    for name, reader in zip(names, readers, strict=True):
        kinds.setdefault(_kind(reader), []).append((name, reader))
    if len(kinds) == 1:
        return {out.name: _joined(next(iter(kinds.values())), out, report)}
    made = {group[0][0]: _joined(group, out / group[0][0], report) for group in kinds.values()}
    (out / f"{collection.NOTE}.partial").write_text(json.dumps({"members": list(made)}, indent=1) + "\n")
    place(out / f"{collection.NOTE}.partial", out / collection.NOTE)
    return made


def _kind(reader: LeRobot) -> str:
    """What must be equal for two datasets to share their files."""
    features = {k: (f["dtype"], list(f["shape"])) for k, f in sorted(reader.info["features"].items())}
    return json.dumps([features, reader.spec.fps, reader.extra.get("spec", {}).get("space")])


def _settle(out: Path, sources: list[str], lengths: list[list[int]]) -> None:
    """An empty folder, or one in which the same datasets are half put together."""
    note, about = out / "meta" / "merge.json", json.dumps({"sources": sources, "lengths": lengths})
    if note.exists():
        if note.read_text() != about:
            raise ValueError(f"{out} is being made of other datasets; give a new folder, or delete it.")
        return
    held = {path.name for path in out.iterdir()} if out.exists() else set()
    if held - {"meta"} or (out / "meta" / "info.json").exists():
        raise FileExistsError(f"{out} holds {sorted(held)[:3]} already; give a new or an empty folder.")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.with_suffix(".partial").write_text(about)
    place(note.with_suffix(".partial"), note)


def _joined(group: Sequence[tuple[str, LeRobot]], out: Path, report: Callable[[str], None]) -> Episodes:
    done = 0
    if (out / "meta" / "info.json").exists():
        done = len(any_camera(out).lengths)
    ends = np.cumsum([len(reader.lengths) for _, reader in group])
    for k, (name, _) in enumerate(group):
        if done < ends[k]:
            _Adoption(out, group[: k + 1]).adopt()
        report(name)
    shutil.rmtree(out / STAGE, ignore_errors=True)
    return Episodes(any_camera(out))


class _Adoption:
    """The last dataset of a group taken over into the dataset of those before it, ``info.json`` last."""

    def __init__(self, out: Path, group: Sequence[tuple[str, LeRobot]]) -> None:
        self.out, self.stage = out, out / STAGE
        self.group, (self.name, self.reader) = group, group[-1]
        self.cameras = [k for k, f in self.reader.info["features"].items() if f["dtype"] == "video"]
        before = any_camera(out) if (out / "meta" / "info.json").exists() else None
        self.episodes = 0 if before is None else len(before.lengths)
        self.frames = 0 if before is None else int(before.lengths.sum())
        self.told = [] if before is None else before.told
        self.file = 1 + last_file(before.table if before else {}, self.cameras)
        tasks = itertools.chain.from_iterable(reader.tasks for _, reader in group)
        self.tasks = {task: number for number, task in enumerate(dict.fromkeys(tasks))}

    def adopt(self) -> None:
        sweep(self.out, self.cameras, last=self.file - 1)
        shutil.rmtree(self.stage, ignore_errors=True)
        self.stage.mkdir(parents=True)
        table = self._table()
        numbers = {
            "data": self._moved("data", table),
            **{f"videos/{c}": self._moved(f"videos/{c}", table) for c in self.cameras},
        }
        for at, new in numbers["data"].items():
            place(self._data(at), self.out / fill(DATA, **_place(new)))
        for camera in self.cameras:
            for (chunk, file), new in numbers[f"videos/{camera}"].items():
                told = {"video_key": camera, "chunk_index": chunk, "file_index": file}
                source = self.reader.file("video_path", **told)
                shutil.copyfile(source, self.stage / "video.mp4")
                place(self.stage / "video.mp4", self.out / fill(VIDEO, video_key=camera, **_place(new)))
        pq.write_table(self._renumbered(table, numbers), self.stage / "episodes.parquet", compression="snappy")
        place(self.stage / "episodes.parquet", self.out / fill(TABLE, **_place(self.file)))
        self._describe()

    def _table(self) -> pa.Table:
        """Everything ``meta/episodes`` says of the episodes, statistics included, in their order."""
        files = sorted((self.reader.path / "meta" / "episodes").glob("**/*.parquet"))
        tables = [parquet(file) for file in files]
        table = pa.concat_tables(tables, promote_options="default").sort_by("episode_index")
        return table.slice(0, len(self.reader.lengths))

    def _moved(self, key: str, table: pa.Table) -> dict[tuple[int, int], int]:
        """The new number of every file that holds some of it."""
        pairs = zip(table[f"{key}/chunk_index"].to_pylist(), table[f"{key}/file_index"].to_pylist(), strict=True)
        return {at: self.file + i for i, at in enumerate(dict.fromkeys(pairs))}

    def _data(self, at: tuple[int, int]) -> Path:
        """One file of rows under its new numbers, one row group an episode."""
        source = self.reader.file("data_path", chunk_index=at[0], file_index=at[1])
        table = parquet(source)
        owner = table["episode_index"].to_numpy()
        table = table.filter(pa.array(owner < len(self.reader.lengths)))  # later ones were never finished
        owner = table["episode_index"].to_numpy()
        tasks = np.array([self.tasks[task] for task in self.reader.tasks], np.int64)[table["task_index"].to_numpy()]
        for name, value in (
            ("episode_index", owner + self.episodes),
            ("index", table["index"].to_numpy() + self.frames),
            ("task_index", tasks),
        ):
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(value))
        path = self.stage / "data.parquet"
        edges = np.flatnonzero(np.diff(owner)) + 1
        with pq.ParquetWriter(path, table.schema, compression="snappy") as file:
            for first, last in itertools.pairwise([0, *edges.tolist(), len(owner)]):
                file.write_table(table.slice(first, last - first), row_group_size=max(1, last - first))
        return path

    def _renumbered(self, table: pa.Table, numbers: dict[str, dict[tuple[int, int], int]]) -> pa.Table:
        changes: dict[str, Any] = {"episode_index": table["episode_index"].to_numpy() + self.episodes}
        changes |= {f"dataset_{k}_index": table[f"dataset_{k}_index"].to_numpy() + self.frames for k in ("from", "to")}
        for key, moved in numbers.items():
            pairs = zip(table[f"{key}/chunk_index"].to_pylist(), table[f"{key}/file_index"].to_pylist(), strict=True)
            new = np.array([moved[at] for at in pairs], np.int64)
            changes |= {f"{key}/chunk_index": new // CHUNK, f"{key}/file_index": new % CHUNK}
        changes |= {f"meta/episodes/{k}": np.full(len(table), v) for k, v in _place(self.file).items()}
        for name, value in changes.items():
            where = table.schema.get_field_index(name)
            table = (
                table.append_column(name, pa.array(value))
                if where < 0
                else table.set_column(where, name, pa.array(value))
            )
        return table

    def _describe(self) -> None:
        count = len(self.reader.lengths)
        mine = [
            told | {"source": "/".join(filter(None, (self.name, source))), "origin": f"{self.name}: {name}"}
            for told, source, name in zip(self.reader.told, self.reader.sources, self.reader.names, strict=True)
        ]
        marks = zip(mine, self.reader.prints, self.reader.splits, strict=True)  # a stranger's splits are ranges alone
        mine = [told | {"print": mark} | ({"split": split} if split else {}) for told, mark, split in marks]
        told, total = self.told + mine, self.episodes + count
        write_tasks(self.stage / "tasks.parquet", self.tasks)
        place(self.stage / "tasks.parquet", self.out / "meta" / "tasks.parquet")
        spec = self.reader.spec.json() | {"name": "+".join(name for name, _ in self.group)}
        spec["space"] = self.reader.extra.get("spec", {}).get("space")  # where nobody told it, the statistics do
        info = self.group[0][1].info | {
            "total_episodes": total,
            "total_frames": self.frames + int(self.reader.lengths.sum()),
            "total_tasks": len(self.tasks),
            "splits": ranges([t.get("split", "") for t in told]),
            "data_path": DATA,
            "video_path": VIDEO if self.cameras else None,
        }
        extra = {"format": 1, "spec": spec, "camera": self.reader.camera, "episodes": told}
        stats = merged([reader.stats for _, reader in self.group])
        for name, value in (("stats", stats), ("tacit", extra), ("info", info)):
            staged = self.stage / f"{name}.json"
            staged.write_text(json.dumps(value, indent=1 if name == "info" else None, allow_nan=False))
            place(staged, self.out / "meta" / f"{name}.json")


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK, "file_index": number % CHUNK}
