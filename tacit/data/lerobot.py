"""LeRobotDataset v3.0, the native format on disk, read with pyarrow and PyAV alone."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tacit.clip import Episode, Space
from tacit.data.cache import cache
from tacit.data.episodes import Episodes
from tacit.data.reader import Reader, Spec, content
from tacit.data.video import Damaged, Video

FEATURES = {
    "state": "observation.state",
    "actions": "action",
    "latents": "latent_action",
    "codes": "latent_code",
    "rewards": "next.reward",
}
OPEN = 4  # video files kept open at once


@final
class LeRobot(Reader):
    """A dataset folder; frames are decoded an episode at a time, and clips of them come from a cache in that folder.

    Of a selection only what is selected is decoded and read, so that a damaged episode can be left out.
    """

    def __init__(self, path: str | os.PathLike[str], *, camera: str | None = None) -> None:
        self.path = Path(path)
        self.info = information(self.path)
        self.camera = _camera(self.info["features"], camera)
        self.opening = {"path": str(self.path.absolute()), "camera": self.camera}
        self.extra = side(self.path)
        self.table = episode_table(self.path, int(self.info["total_episodes"]))
        self.lengths = np.array(self.table["length"], np.int64)
        self.spec = self._spec()
        self._videos: dict[Path, Video] = {}
        self._rows: dict[tuple[str, int, int], dict[int, np.ndarray]] = {}

    def _spec(self) -> Spec:
        features, ours = self.info["features"], self.extra.get("spec", {})
        width = {c: int(np.prod(features[f]["shape"])) for c, f in FEATURES.items() if f in features}
        return Spec(
            frame=None if self.camera is None else _size(features[self.camera]),
            state=width.get("state", 0),
            space=self._space(features.get("action"), ours.get("space")),
            fps=float(self.info["fps"]),
            latent=width.get("latents", 0),
            codes=width.get("codes", 0),
            rewards="rewards" in width,
            text=any(t is not None for t in self.texts),
            name=ours.get("name") or self.path.name,
        )

    def _space(self, feature: dict[str, Any] | None, ours: dict[str, Any] | None) -> Space | None:
        """The space our side file names, or for a stranger's dataset the range its statistics show."""
        if feature is None or ours is not None:
            return None if feature is None or ours is None else Space(**ours)
        size, discrete = int(np.prod(feature["shape"])), feature["dtype"].startswith(("int", "uint", "bool"))
        file = self.path / "meta" / "stats.json"
        stats = (_json(file) if file.exists() else {}).get("action", {})
        low, high = (np.asarray(stats.get(k, [np.nan]), np.float64) for k in ("min", "max"))
        if discrete and size == 1:
            held = range(len(self.lengths)) if np.isnan(high).any() else ()
            seen = max((float(self.values(i, feature="action").max()) for i in held), default=high.max())
            return Space("discrete", int(seen) + 1)
        names = feature.get("names")
        names = tuple(names) if isinstance(names, list) and all(isinstance(n, str) for n in names) else ()
        if np.isfinite(low).all() and np.isfinite(high).all() and low.min() < high.max():
            return Space("continuous", size, float(low.min()), float(high.max()), names)
        return Space("continuous", size, names=names)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(e.get("source", "") for e in self._told)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        return tuple((t[0] or None) if t else None for t in self.table["tasks"])

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        return tuple(e.get("success") for e in self._told)

    @cached_property
    def prints(self) -> tuple[str, ...]:
        """Our writer noted them; of a stranger's episode the first encoded frames and the length are hashed.

        What cannot be read is known by its number: it may be left out, and the others must be told apart without it.
        """
        return tuple(e.get("print") or self._print(i) for i, e in enumerate(self._told))

    @property
    def _told(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.extra.get("episodes", [])[: len(self.lengths)]
        return told + [{}] * (len(self.lengths) - len(told))  # LeRobot itself may have appended since

    def _print(self, number: int) -> str:
        try:
            if self.camera is None or self.info["features"][self.camera]["dtype"] != "video":
                return content(self.episode(number))
            video, first = self._video(number)
            return f"{video.digest(first, min(64, int(self.lengths[number])))}-{self.lengths[number]}"
        except (ValueError, OSError):
            return f"damaged-{number}"

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return self.pieces(column, np.arange(len(self.lengths)))

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return np.unique(rows)

    def pieces(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        if not self.spec.has(column):
            return ()
        kept = self.kept(rows)
        if column == "frames" and len(kept):
            return cache(Episodes(self, kept)).reader.flat("frames")
        flat, start = self.spec.blank(column, int(self.lengths[kept].sum())), 0
        for number in kept.tolist():
            value = self._column(column, number)
            flat[start : start + len(value)] = value
            start += int(self.lengths[number])
        return (flat,)

    def _column(self, column: str, number: int) -> np.ndarray:
        """One episode's rows of a column; the action of its last frame leads nowhere."""
        rows = self.values(number, feature=FEATURES[column])[: None if column == "state" else -1]
        value = self.spec.blank(column, len(rows))
        value[:] = rows.reshape(value.shape)
        return value

    def values(self, number: int, *, feature: str) -> np.ndarray:
        """Any numeric feature of one episode, one row a frame; its whole file is read with it."""
        at = self.table["data/chunk_index"][number], self.table["data/file_index"][number]
        if (feature, *at) not in self._rows:
            self._rows[feature, *at] = _grouped(self._data(number), feature)
        rows = self._rows[feature, *at].get(number, np.empty(0))
        if len(rows) != (length := self.lengths[number]):
            raise Damaged(
                f"Episode {number} has {len(rows)} rows in {self._data(number)}; its metadata promise {length}."
            )
        return rows

    def _data(self, number: int) -> Path:
        told = {k: self.table[f"data/{k}"][number] for k in ("chunk_index", "file_index")}
        return self._file(self.info["data_path"], **told)

    def _file(self, template: str, **values: Any) -> Path:
        return self.path / fill(template, **values)

    def _video(self, number: int) -> tuple[Video, int]:
        told = {
            k: self.table[f"videos/{self.camera}/{k}"][number] for k in ("chunk_index", "file_index", "from_timestamp")
        }
        first = round(told.pop("from_timestamp") * self.spec.fps)
        path = self._file(self.info["video_path"], video_key=self.camera, **told)
        if path not in self._videos:
            while len(self._videos) >= OPEN:
                self._videos.pop(next(iter(self._videos))).close()
            self._videos[path] = Video(path, fps=self.spec.fps)
        return self._videos[path], first

    def _frames(self, number: int) -> np.ndarray | None:
        if self.camera is None:
            return None
        if self.info["features"][self.camera]["dtype"] == "image":
            return self._pictures(number)
        try:
            video, first = self._video(number)
            return video.frames(first, int(self.lengths[number]))
        except Damaged as error:
            raise Damaged(f"Episode {number} of {self.path} is damaged: {error}") from error

    def _pictures(self, number: int) -> np.ndarray:
        from PIL import Image

        assert self.camera is not None
        path = self._data(number)
        rows = parquet(path, columns=[self.camera, "frame_index"], filters=[("episode_index", "=", number)])
        rows = rows.sort_by("frame_index")
        stored = [picture["bytes"] for picture in rows[self.camera].to_pylist()]
        if len(stored) != self.lengths[number] or None in stored:
            raise Damaged(f"Episode {number} has {len(stored)} pictures in {path}; wanted {self.lengths[number]}.")
        return np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in stored])

    def episode(self, number: int) -> Episode:
        values: dict[str, Any] = {"frames": self._frames(number)}
        for column in FEATURES:
            if self.spec.has(column):
                values[column] = self.spec.recorded(column, self._column(column, number))
        values |= {"text": self.texts[number], "source": self.sources[number], "success": self.successes[number]}
        return Episode(**values)


def information(path: Path) -> dict[str, Any]:
    """``meta/info.json``, once it is sure to describe a dataset of a kind we read."""
    file = path / "meta" / "info.json"
    if not file.exists():
        raise FileNotFoundError(
            f"{path} holds no dataset: {file.name} is missing from its meta folder. Wanted a LeRobotDataset v3.0."
        )
    info = _json(file)
    version, storage = str(info.get("codebase_version")), info.get("storage_format") or "parquet"
    if not version.startswith("v3."):
        raise ValueError(
            f"{path} is a LeRobotDataset {version}; wanted v3.0. Convert it with LeRobot's convert_dataset_v21_to_v30."
        )
    if storage != "parquet":
        raise ValueError(
            f"{path} is stored as {storage!r}; wanted parquet and video files. Convert it with lerobot-edit-dataset."
        )
    missing = [k for k in ("features", "fps", "total_episodes", "data_path") if k not in info]
    if missing:
        raise Damaged(f"{file} lacks {', '.join(missing)}; write the dataset again.")
    return info


def side(path: Path) -> dict[str, Any]:
    """What the format has no room for and our writer put beside it; empty for a stranger's dataset."""
    file = path / "meta" / "tacit.json"
    return _json(file) if file.exists() else {}


def episode_table(path: Path, total: int) -> dict[str, list[Any]]:
    """What ``meta/episodes`` says of the first ``total`` episodes; later ones were never finished."""
    columns: dict[str, list[Any]] = {}
    for file in sorted((path / "meta" / "episodes").glob("**/*.parquet")):
        try:
            wanted = [n for n in pq.read_schema(file).names if not n.startswith("stats/")]
        except (pa.ArrowException, OSError) as error:
            raise _broken(file, error) from error
        table = parquet(file, columns=wanted).to_pydict()
        if columns and set(columns) != set(table):
            raise Damaged(f"{file} has other columns than the files before it: {sorted(set(columns) ^ set(table))}.")
        for name, values in table.items():
            columns.setdefault(name, []).extend(values)
    numbers = columns.get("episode_index", [])
    order = sorted(range(len(numbers)), key=numbers.__getitem__)[:total]
    if [numbers[i] for i in order] != list(range(total)):
        lost = next(i for i in range(total) if i >= len(order) or numbers[order[i]] != i)
        raise Damaged(f"{path} promises {total} episodes; meta/episodes lacks episode {lost}. Copy the folder again.")
    return {name: [values[i] for i in order] for name, values in columns.items()}


def parquet(path: Path, *, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """Some columns of a parquet file, or an error that names it."""
    try:
        return pq.read_table(
            path, columns=None if columns is None else list(columns), filters=filters, partitioning=None
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _broken(path, error) from error


def fill(template: str, **values: Any) -> str:
    """A path template of info.json filled in; only known fields, and no way out of the dataset's folder."""

    def field(match: re.Match[str]) -> str:
        name, width = match[1], match[2]
        if name not in values:
            raise Damaged(f"The path template {template!r} asks for {name!r}; known are {sorted(values)}.")
        return str(values[name]) if width is None else f"{int(values[name]):{width}d}"

    path = re.sub(r"\{(\w+)(?::(0?\d+)d)?\}", field, template)
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or any(c in path for c in "{}\\\0"):
        raise Damaged(f"The path template {template!r} leads out of the dataset's folder or is malformed; refused.")
    return path


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _broken(file, error) from error
    if not isinstance(value, dict):
        raise Damaged(f"{file} holds a {type(value).__name__}; wanted an object.")
    return value


def _broken(file: Path, error: Exception) -> Damaged:
    reason = " ".join(str(error).split())[:200]
    return Damaged(
        f"{file} cannot be read ({reason}); it is missing or truncated. Copy it again or repair the dataset."
    )


def _array(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """(N, width) numbers from a scalar, list or tensor column."""
    count, flat = len(column), column.combine_chunks()
    while not pa.types.is_primitive(flat.type):
        flat = flat.storage if isinstance(flat, pa.ExtensionArray) else flat.flatten()
    if flat.null_count or (count and len(flat) % count):
        raise Damaged(
            f"{path} has empty or uneven cells in a numeric column; wanted the same count of numbers in each row."
        )
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(count, -1)


def _grouped(path: Path, feature: str) -> dict[int, np.ndarray]:
    """The rows of each episode of a file, in the order of its frames."""
    table = parquet(path, columns=[feature, "episode_index", "frame_index"])
    order = np.lexsort([table[k].to_numpy() for k in ("frame_index", "episode_index")])
    numbers, first = np.unique(table["episode_index"].to_numpy()[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(_array(table[feature], path)[order], first[1:]), strict=True))


def _camera(features: dict[str, Any], wanted: str | None) -> str | None:
    held = [name for name, f in features.items() if f["dtype"] in ("video", "image")]
    matching = held if wanted is None else [n for n in held if n == wanted or n.rsplit(".", 1)[-1] == wanted]
    if len(matching) == 1:
        return matching[0]
    if not held and wanted is None:
        return None
    asked = "None was chosen" if wanted is None else f"{wanted!r} was asked for"
    raise ValueError(f"{asked}; the cameras are {held}. Name one with camera=...")


def _size(feature: dict[str, Any]) -> tuple[int, int]:
    told = feature.get("info") or {}
    if "video.height" in told and "video.width" in told:
        return int(told["video.height"]), int(told["video.width"])
    shape = [int(n) for n in feature["shape"]]
    names = feature.get("names")
    first = names[0].startswith("channel") if isinstance(names, list) and names else shape[0] in (1, 3)
    return (shape[1], shape[2]) if first else (shape[0], shape[1])
