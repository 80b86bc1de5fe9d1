"""Writing LeRobotDataset v3.0 so that a crash costs the last group of episodes at most."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.lerobot import COUNTERS, FEATURES, called
from tacit.data.meta import episode_table, fill, information, instructions, side
from tacit.data.reader import Spec, content
from tacit.data.stats import STATS, measure, merge
from tacit.data.tables import arrow, write_tasks
from tacit.data.video import SHARP, Encoder
from tacit.part import write

CHUNK = 1000  # files in one folder
MOST = 200 * 2**20  # bytes in one video file
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
TABLE = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
STAGE = ".partial"
OURS = {STAGE, "data", "videos", "meta", "cache"}


@final
class Writer:
    """A dataset being written: add episodes, then close (or use ``with``).

    Episodes are gathered in groups of about ``group`` frames or ``seconds`` seconds, whichever ends first. A group's
    files are finished under temporary names, synced and renamed, ``info.json`` last: what it counts is on the disk.
    Frames of at most 128 pixels are stored without loss unless ``lossless`` says otherwise. With ``append`` an existing
    dataset goes on; the leavings of a killed writer are swept first.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        spec: Spec,
        *,
        camera: str = "main",
        group: int = 8192,
        seconds: float = 60.0,
        lossless: bool | None = None,
        append: bool = False,
        robot: str | None = None,
    ) -> None:
        if spec.fps != int(spec.fps) or spec.fps < 1:
            raise ValueError(
                f"The rate is {spec.fps} frames a second; LeRobotDataset v3.0 wants a whole number of at least 1."
            )
        self.path, self.spec, self.fps = Path(path), spec, int(spec.fps)
        self.camera = camera if camera.startswith("observation.") else f"observation.images.{camera}"
        if not re.fullmatch(r"[\w.-]+", camera) or ".." in camera:
            raise ValueError(f"The camera is named {camera!r}; wanted letters, digits, dots, dashes and underscores.")
        self.group, self.seconds, self.robot = group, seconds, robot
        self.lossless = lossless if lossless is not None or spec.frame is None else max(spec.frame) <= SHARP
        self.features = _features(spec, self.camera, lossless=bool(self.lossless))
        self.episodes, self.frames, self._file = 0, 0, 0
        self._tasks: dict[str, int] = {}
        self._told: list[dict[str, Any]] = []
        self._stats: dict[str, dict[str, Any]] = {}
        self._stage = self.path / STAGE
        self._begin(append)
        self._encoder: Encoder | None = None
        self._table: list[dict[str, Any]] = []
        self._failed = False
        self._opened = time.monotonic()

    def _begin(self, append: bool) -> None:
        held = self.path.exists() and {p.name for p in self.path.iterdir()}
        whole = (self.path / "meta" / "info.json").exists()
        if whole and not append:
            raise FileExistsError(
                f"{self.path} holds a dataset already; pass append=True to add to it, or give another path."
            )
        if held and not whole and not held <= OURS:
            raise FileExistsError(
                f"{self.path} holds {sorted(held - OURS)[:3]} and no dataset; give an empty or a new path."
            )
        last = -1
        if whole:
            last = self._resume()
        sweep(self.path, [self.camera], last=last)
        self._file = last + 1
        shutil.rmtree(self._stage, ignore_errors=True)
        self._stage.mkdir(parents=True)

    def _resume(self) -> int:
        """Take up an existing dataset; its last file's number."""
        info = information(self.path)
        kinds = [{k: (f["dtype"], list(f["shape"])) for k, f in fs.items()} for fs in (info["features"], self.features)]
        if kinds[0] != kinds[1] or info["fps"] != self.fps:
            differ = sorted(k for k in kinds[0].keys() | kinds[1].keys() if kinds[0].get(k) != kinds[1].get(k)) or [
                "fps"
            ]
            raise ValueError(f"Cannot append to {self.path}: {', '.join(differ)} differ from what is being written.")
        extra, total = side(self.path), int(info["total_episodes"])
        ours = extra.get("spec", {}).get("space")
        mine = self.spec.json()["space"]
        if ours is not None and json.loads(json.dumps(mine)) != ours:
            raise ValueError(f"Cannot append to {self.path}: its actions are {ours}, those being written are {mine}.")
        table = episode_table(self.path, total)
        self.episodes, self.frames = total, int(info["total_frames"])
        told = extra.get("episodes", [])[:total]
        self._told = told + [{}] * (total - len(told))
        self._tasks = instructions(self.path)
        # A kill between the two files leaves statistics that are ahead of what is counted; those before lie beside.
        before, stats = self._before(total), self.path / "meta" / "stats.json"
        if before.exists():
            place(before, stats)
        self._stats = json.loads(stats.read_text()) if stats.exists() else {}
        self.features = info["features"]
        return last_file(table, [self.camera] if self.spec.frame else [])

    def _before(self, episodes: int) -> Path:
        """Where the statistics of so many episodes lie while those of more are put in their place."""
        return self._stage / f"stats-{episodes}.json"

    def __len__(self) -> int:
        return self.episodes + len(self._table)

    def add(self, episode: Episode, *, mark: str | None = None, origin: str | None = None) -> None:
        """Write one episode; a copy of one known elsewhere has that one's print as ``mark``, its name as ``origin``."""
        self._go_on()
        self._check(episode)
        length, number = len(episode), len(self)
        rows = self._columns(episode, number)
        table: dict[str, Any] = {"episode_index": number, "tasks": [episode.text or ""], "length": length}
        first = int(rows["index"][0])
        table |= {
            "dataset_from_index": first,
            "dataset_to_index": first + length,
            "stats": measure(rows, frames=episode.frames, camera=self.camera),
        }
        if episode.frames is not None:
            if self._encoder is None:
                frame = (episode.frames.shape[1], episode.frames.shape[2])
                self._encoder = Encoder(self._stage / "video.mp4", fps=self.fps, frame=frame, lossless=self.lossless)
            begin = self._encoder.count
            try:
                self._encoder.add(episode.frames)
            except Exception:  # a full disk, say: what it lacks may be frames of the episodes before
                self._failed = True
                raise
            table["from"], table["to"] = begin / self.fps, (begin + length) / self.fps
        table["told"] = {"source": episode.source, "success": episode.success, "print": mark or content(episode)}
        table["told"] |= {k: v for k, v in (("split", episode.split), ("origin", origin)) if v}
        if not self._table:
            self._opened = time.monotonic()
        self._table.append(table | {"rows": rows})
        waited = time.monotonic() - self._opened
        full = self._encoder is not None and self._encoder.size >= MOST
        if full or waited >= self.seconds or sum(t["length"] for t in self._table) >= self.group:
            self.commit()

    def _check(self, episode: Episode) -> None:
        spec, length = self.spec, len(episode)
        frame = None if episode.frames is None else episode.frames.shape[1:3]
        state = 0 if episode.state is None else episode.state.shape[1]
        if frame != spec.frame or state != spec.state:
            raise ValueError(
                f"The episode has frames {frame} and state {state}; this dataset's are {spec.frame} and {spec.state}."
            )
        if episode.actions is not None:
            if spec.space is None:
                raise ValueError(
                    "The episode has actions, this dataset has none: give its Spec a space, or drop the actions."
                )
            spec.space.check(episode.actions, length - 1)
        if episode.rewards is not None and not spec.rewards:
            raise ValueError(
                "The episode has rewards, this dataset has none: give its Spec rewards=True, or drop the rewards."
            )
        for name, width in (("latents", spec.latent), ("codes", spec.codes)):
            value = getattr(episode, name)
            if value is not None and value.shape[1] != width:
                raise ValueError(f"The episode's {name} are {value.shape[1]} wide; this dataset's are {width} wide.")

    def _columns(self, episode: Episode, number: int) -> dict[str, np.ndarray]:
        length = len(episode)
        start = self.frames + sum(t["length"] for t in self._table)
        task = self._tasks.setdefault(episode.text or "", len(self._tasks))
        count = np.arange(length, dtype=np.int64)
        rows = {
            "timestamp": (count / self.fps).astype(np.float32),
            "frame_index": count,
            "episode_index": np.full(length, number, np.int64),
            "index": count + start,
            "task_index": np.full(length, task, np.int64),
        }
        for column, feature in FEATURES.items():
            if self.spec.has(column):
                value = self.spec.blank(column, length)  # its last row stays so: no action leads from the last frame
                given = getattr(episode, column)
                if given is not None:
                    value[: len(given)] = given
                rows[feature] = value
        return rows

    def commit(self) -> None:
        """Make every episode added so far part of the dataset, for good."""
        self._go_on()
        if not self._table:
            return
        self._failed = True  # until all of it is done
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close()
        at = {"chunk_index": self._file // CHUNK, "file_index": self._file % CHUNK}
        moves = [(self._write_data(), fill(DATA, **at)), (self._write_table(at), fill(TABLE, **at))]
        if encoder is not None:
            moves.insert(0, (encoder.path, fill(VIDEO, video_key=self.camera, **at)))
        for staged, name in moves:
            place(staged, self.path / name)
        before, held = self._before(self.episodes), json.dumps(self._stats)
        write(before, lambda path: Path(path).write_text(held))
        self._stats = merge([self._stats, *(t["stats"] for t in self._table)])
        self._told += [t["told"] for t in self._table]
        self.episodes, self.frames = len(self), self.frames + sum(t["length"] for t in self._table)
        self._file += 1
        self._table = []
        self._describe()
        before.unlink()
        self._failed = False

    def _go_on(self) -> None:
        if self._failed:
            raise RuntimeError(
                f"Writing to {self.path} failed before. What was part of the dataset still is; open it again, with "
                "append=True, to go on from there."
            )

    def _write_data(self) -> Path:
        tables = [pa.table({name: arrow(value) for name, value in told["rows"].items()}) for told in self._table]
        path = self._stage / "data.parquet"
        with pq.ParquetWriter(path, tables[0].schema, compression="snappy", use_dictionary=True) as file:
            for table in tables:  # one row group an episode
                file.write_table(table, row_group_size=len(table))
        return path

    def _write_table(self, at: dict[str, int]) -> Path:
        rows = []
        for told in self._table:
            row = {k: told[k] for k in ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")}
            keys = ["data", "meta/episodes", *([f"videos/{self.camera}"] if "from" in told else [])]
            row |= {f"{key}/{k}": v for key in keys for k, v in at.items()}
            if "from" in told:
                row |= {f"videos/{self.camera}/{k}_timestamp": told[k] for k in ("from", "to")}
            rows.append(row)
        table = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
        # A feature nobody recorded keeps its columns, for the files must agree on their types.
        for feature in self.features:
            for name in STATS:
                kind = pa.list_(pa.int64() if name == "count" else pa.float64())
                if feature == self.camera and name != "count":
                    kind = pa.list_(pa.list_(kind))
                values = [told["stats"].get(feature, {}).get(name) for told in self._table]
                table[f"stats/{feature}/{name}"] = pa.array(values, kind)
        path = self._stage / "episodes.parquet"
        pq.write_table(pa.table(table), path, compression="snappy")
        return path

    def _describe(self) -> None:
        """Rewrite what describes the whole, each file at one stroke, ``info.json`` last."""
        write_tasks(self._stage / "tasks.parquet", self._tasks)
        place(self._stage / "tasks.parquet", self.path / "meta" / "tasks.parquet")
        info = {
            "codebase_version": "v3.0",
            "robot_type": self.robot,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": ranges([told.get("split", "") for told in self._told]),
            "data_path": DATA,
            "video_path": VIDEO if self.spec.frame is not None else None,
            "features": self.features,
        }
        extra = {"format": 1, "spec": self.spec.json(), "camera": self.camera, "episodes": self._told}
        for name, value in (("stats", self._stats), ("tacit", extra), ("info", info)):
            staged = self._stage / f"{name}.json"
            staged.write_text(json.dumps(value, indent=1 if name == "info" else None, allow_nan=False))
            place(staged, self.path / "meta" / f"{name}.json")

    def close(self) -> None:
        if self._failed:
            return  # the next writer sweeps what was placed, and needs the statistics that lie in the stage
        self.commit()
        shutil.rmtree(self._stage, ignore_errors=True)

    def drop(self) -> None:
        """Forget the group that is not full yet, so that who goes on from here writes the same files."""
        if not self._failed:
            self._failed, self._encoder, self._table = True, None, []
            shutil.rmtree(self._stage, ignore_errors=True)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()  # also when the caller failed: the episodes that are whole are kept


def save(episodes: Episodes, path: str | os.PathLike[str], **options: Any) -> None:
    """Write a set of episodes as a dataset; ``options`` are the ``Writer``'s. Copies are known as what they copy."""
    with Writer(path, episodes.spec, **options) as writer:
        for number, (mark, name) in enumerate(zip(episodes.prints, episodes.names, strict=True)):
            writer.add(episodes.episode(number), mark=mark, origin=called(name))


def _features(spec: Spec, camera: str, *, lossless: bool) -> dict[str, Any]:
    features: dict[str, Any] = {}
    if spec.frame is not None:
        height, width = spec.frame
        info = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.fps": int(spec.fps),
            "video.channels": 3,
        }
        odd = height % 2 or width % 2
        info["video.pix_fmt"] = "gbrp" if lossless else "yuv444p" if odd else "yuv420p"
        info |= {"video.g": 2, "video.crf": 0 if lossless else 20}
        info["video.preset"] = "superfast" if lossless else "veryfast"
        info |= {"video.is_depth_map": False, "has_audio": False, "is_depth_map": False}
        axes = ["height", "width", "channels"]
        features[camera] = {"dtype": "video", "shape": [height, width, 3], "names": axes, "info": info}
    widths = {"state": spec.state, "latents": spec.latent, "codes": spec.codes, "rewards": 1}
    for column, name in FEATURES.items():
        if spec.has(column):
            kind = "int64" if column == "codes" else "float32"
            width = widths.get(column, 1)
            names: list[str] | None = None
            if column == "actions" and spec.space is not None:
                kind, names = np.dtype(spec.space.dtype).name, list(spec.space.names) or None
                width = 1 if spec.space.discrete else spec.space.size
                names = None if spec.space.discrete else names
            features[name] = {"dtype": kind, "shape": [width], "names": names}
    for name in COUNTERS:
        features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    return features


def ranges(splits: Sequence[str]) -> dict[str, str]:
    """LeRobot's splits are stretches of episodes; where ours are none, all of it is for training."""
    runs = [(name, len(list(same))) for name, same in itertools.groupby(splits)]
    names = [name for name, _ in runs]
    if not all(names) or len(set(names)) < len(names):
        return {"train": f"0:{len(splits)}"}
    edges = np.cumsum([0, *(count for _, count in runs)]).tolist()
    return {name: f"{a}:{b}" for name, a, b in zip(names, edges[:-1], edges[1:], strict=True)}


def last_file(table: dict[str, list[Any]], cameras: Sequence[str]) -> int:
    """The highest number of a file that an episode lies in; -1 where there is none."""
    keys = ["data", "meta/episodes", *(f"videos/{camera}" for camera in cameras)]
    held = [key for key in keys if f"{key}/file_index" in table]
    pairs = (zip(table[f"{k}/chunk_index"], table[f"{k}/file_index"], strict=True) for k in held)
    return max((chunk * CHUNK + file for numbers in pairs for chunk, file in numbers), default=-1)


def place(staged: Path, final: Path) -> None:
    """Rename a finished file to its place once its bytes are on the disk."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for path, after in ((staged, False), (final.parent, True)):
        if after:
            os.replace(staged, final)
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def sweep(path: Path, cameras: Sequence[str], *, last: int) -> None:
    """Delete numbered files beyond the last one counted: a killed writer placed them and never described them."""
    folders = [path / "data", path / "meta" / "episodes", *(path / "videos" / camera for camera in cameras)]
    for file in (f for folder in folders for f in folder.glob("chunk-*/file-*.*")):
        numbers = re.fullmatch(r"chunk-(\d+)/file-(\d+)\.(parquet|mp4)", f"{file.parent.name}/{file.name}")
        if numbers and int(numbers[1]) * CHUNK + int(numbers[2]) > last:
            file.unlink()
