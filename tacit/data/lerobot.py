"""LeRobotDataset v3.0, the native format on disk, read with pyarrow and PyAV alone."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from tacit.clip import Episode, Space
from tacit.data.cache import cache
from tacit.data.episodes import Episodes
from tacit.data.meta import document, episode_table, fill, information, instructions, parquet, side, stretched
from tacit.data.reader import BLOCK, Reader, Spec, content
from tacit.data.video import Damaged, Video

FEATURES = {
    "state": "observation.state",
    "actions": "action",
    "latents": "latent_action",
    "codes": "latent_code",
    "rewards": "next.reward",
}
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
WRONG = (TypeError, KeyError, AttributeError, IndexError, ArithmeticError)  # what values of a wrong kind lead to
OPEN = 4  # video files kept open at once


@final
class LeRobot(Reader):
    """A dataset folder; frames are decoded an episode at a time, and clips of them come from a cache in that folder.

    Of a selection only what is selected is decoded and read, so that a damaged episode can be left out.
    """

    def __init__(self, path: str | os.PathLike[str], *, camera: str | None = None) -> None:
        self.path = Path(path)
        try:
            self._begin(camera)
        except WRONG as error:
            raise Damaged(f"{self.path}/meta does not tell what a dataset's should ({error!r}); repair it.") from error

    def _begin(self, camera: str | None) -> None:
        self.info = information(self.path)
        self.camera = chosen(self.info["features"], camera)
        self.opening = {"path": str(self.path.absolute()), "camera": self.camera}
        self.extra = side(self.path)
        self.table = episode_table(self.path, int(self.info["total_episodes"]))
        self.lengths = np.array(self.table["length"], np.int64)
        self.beside = unread(self.info["features"], self.camera)
        self._videos: dict[Path, Video] = {}
        self._rows: dict[tuple[str, int, int], dict[int, np.ndarray]] = {}
        self.spec = self._spec()

    def _spec(self) -> Spec:
        features, ours = self.info["features"], self.extra.get("spec", {})
        width = {c: int(np.prod(features[f]["shape"])) for c, f in FEATURES.items() if f in features}
        return Spec(
            frame=None if self.camera is None else sized(features[self.camera]),
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
        stats = self.stats.get("action", {})
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
        return tuple(e.get("source", "") for e in self.told)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        return tuple((t[0] or None) if t else None for t in self.table["tasks"])

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        return tuple(e.get("success") for e in self.told)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Ours are noted with each episode; others' are stretches of numbers, of which a single one says nothing."""
        told = [e.get("split", "") for e in self.told]
        ranges = self.info.get("splits")
        if isinstance(ranges, dict) and len(ranges) > 1 and not any(told):
            for name, stretch in ranges.items():
                first, last = stretched(stretch, len(told))
                told[first:last] = [str(name)] * (last - first)
        return tuple(told)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(e.get("origin") or f"episode {i}" for i, e in enumerate(self.told))

    @cached_property
    def prints(self) -> tuple[str, ...]:
        """Our writer noted them; of a stranger's episode the first encoded frames and the length are hashed.

        What cannot be read is known by its number: it may be left out, and the others must be told apart without it.
        """
        return tuple(e.get("print") or self._print(i) for i, e in enumerate(self.told))

    @property
    def told(self) -> list[dict[str, Any]]:
        """What our side file says of each episode."""
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

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Every instruction, at the place that its number gives it."""
        named = {number: task for task, number in instructions(self.path).items()}
        return tuple(named.get(i, "") for i in range(max(named, default=-1) + 1))

    @cached_property
    def stats(self) -> dict[str, Any]:
        """What ``meta/stats.json`` says of each feature; nothing where it is missing."""
        file = self.path / "meta" / "stats.json"
        return document(file) if file.exists() else {}

    def _data(self, number: int) -> Path:
        told = {k: self.table[f"data/{k}"][number] for k in ("chunk_index", "file_index")}
        return self.file("data_path", **told)

    def file(self, kind: str, **values: Any) -> Path:
        """Where a file lies, from the template of that ``kind`` in ``info.json``."""
        return self.path / fill(self.info[kind], **values)

    def _video(self, number: int) -> tuple[Video, int]:
        told = {
            k: self.table[f"videos/{self.camera}/{k}"][number] for k in ("chunk_index", "file_index", "from_timestamp")
        }
        first = round(told.pop("from_timestamp") * self.spec.fps)
        path = self.file("video_path", video_key=self.camera, **told)
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
        return next(self.blocks(number, count=int(self.lengths[number])))

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
        return Episode(**values, split=self.splits[number])

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        if self.camera is None or self.info["features"][self.camera]["dtype"] != "video":
            yield from super().blocks(number, count=count)
            return
        length, start = int(self.lengths[number]), 0
        try:
            video, first = self._video(number)
            for start in range(0, length, count):
                yield video.frames(first + start, min(count, length - start))
        except Damaged as error:
            good = None if error.good is None else start + error.good
            raise Damaged(f"Episode {number} of {self.path} is damaged: {error}", good=good) from error

    def prefix(self, number: int, count: int) -> Episode:
        """Its columns too, as far as they are told."""
        found, values = super().prefix(number, count), {}
        for column in FEATURES:
            with contextlib.suppress(Damaged):
                rows = self._column(column, number) if self.spec.has(column) else None
                values[column] = None if rows is None else rows[: count if column == "state" else count - 1]
        return found.replace(**values)


def called(name: str) -> str | None:
    """A name that is worth noting: a number by which a reader went is not."""
    return None if re.fullmatch(r"episode \d+", name) else name


def any_camera(path: Path) -> LeRobot:
    """A dataset opened for what does not depend on the camera, the first one chosen where there are several."""
    features = information(path)["features"]
    return LeRobot(path, camera=min((k for k, v in features.items() if v["dtype"] in ("video", "image")), default=None))


def numbers_of(column: pa.ChunkedArray, path: Path) -> np.ndarray:
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
    return dict(zip(numbers.tolist(), np.split(numbers_of(table[feature], path)[order], first[1:]), strict=True))


def chosen(features: dict[str, Any], wanted: str | None) -> str | None:
    """The camera that is looked through: the one that was named, or the only one."""
    held = [name for name, f in features.items() if f["dtype"] in ("video", "image")]
    matching = held if wanted is None else [n for n in held if n == wanted or n.rsplit(".", 1)[-1] == wanted]
    if len(matching) == 1:
        return matching[0]
    if not held and wanted is None:
        return None
    asked = "None was chosen" if wanted is None else f"{wanted!r} was asked for"
    raise ValueError(f"{asked}; the cameras are {held}. Name one with camera=... (--camera).")


def unread(features: dict[str, Any], camera: str | None) -> tuple[str, ...]:
    """Columns of a dataset that no episode holds."""
    return tuple(sorted(features.keys() - {camera, *FEATURES.values(), *COUNTERS}))


def sized(feature: dict[str, Any]) -> tuple[int, int]:
    """Height and width of a camera's pictures."""
    told = feature.get("info") or {}
    if "video.height" in told and "video.width" in told:
        return int(told["video.height"]), int(told["video.width"])
    shape = [int(n) for n in feature["shape"]]
    names = feature.get("names")
    first = names[0].startswith("channel") if isinstance(names, list) and names else shape[0] in (1, 3)
    return (shape[1], shape[2]) if first else (shape[0], shape[1])
