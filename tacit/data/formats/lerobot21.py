"""LeRobotDataset v2.1 and v2.0, which keep one parquet and one video file an episode, read as they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tacit.clip import Episode, Space
from tacit.data.cache import cache
from tacit.data.episodes import Episodes
from tacit.data.formats.reels import PIXELS
from tacit.data.formats.sidecar import lines
from tacit.data.lerobot import chosen, numbers_of, sized, unread
from tacit.data.meta import document, fill, parquet, stretched
from tacit.data.reader import BLOCK, Reader, Spec, content
from tacit.data.video import Damaged, Video, bounded
from tacit.data.view import View, Viewed

WHAT = "a LeRobotDataset v2.1 or v2.0"
EXTRA = ""
FEATURES = {"state": "observation.state", "actions": "action", "rewards": "next.reward"}
VERSIONS = ("v2.0", "v2.1")
FIRST = 64  # frames hashed to know an episode again


def recognises(path: Path) -> bool:
    """Whether its ``meta/info.json`` says that it is one."""
    try:
        return document(path / "meta" / "info.json").get("codebase_version") in VERSIONS
    except (OSError, ValueError, RecursionError):
        return False


def read(path: Path, *, camera: str | None = None, view: View = View()) -> Reader:
    """Its episodes, whole however long, from one camera."""
    try:
        reader = LeRobot21(Path(path), camera=camera)
    except (TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise Damaged(f"{path} describes itself in a way that makes no sense ({str(error)[:200]}).") from error
    return reader if (view.fps, view.size, view.crop) == (None, None, None) else Viewed(reader, view)


@final
class LeRobot21(Reader):
    """A dataset folder of the older layout; what its tables promise is held against what its files hold."""

    def __init__(self, path: Path, *, camera: str | None = None) -> None:
        self.path = path
        self.info = _information(path)
        self.camera = chosen(self.info["features"], camera)
        self.beside = unread(self.info["features"], self.camera)
        self.opening = {"path": str(path.absolute()), "camera": self.camera}
        self._told = _told(path, int(self.info["total_episodes"]))
        self.lengths = np.array([t["length"] for t in self._told], np.int64)
        self.spec = self._spec()

    def _spec(self) -> Spec:
        features = self.info["features"]
        width = {c: math.prod(features[f]["shape"]) for c, f in FEATURES.items() if f in features}
        frame = None if self.camera is None else sized(features[self.camera])
        if frame is not None and frame[0] * frame[1] > PIXELS:
            raise Damaged(f"{self.path} claims pictures of {frame[0]}x{frame[1]}; a frame may have {PIXELS} pixels.")
        return Spec(
            frame=frame,
            state=width.get("state", 0),
            space=self._space(features.get("action")),
            fps=float(self.info["fps"]),
            rewards="rewards" in width,
            text=any(t is not None for t in self.texts),
            name=self.path.name,
        )

    def _space(self, feature: dict[str, Any] | None) -> Space | None:
        """The range that its statistics show, of all episodes together or of each."""
        if feature is None:
            return None
        size, low, high = math.prod(feature["shape"]), np.inf, -np.inf
        discrete = str(feature["dtype"]).startswith(("int", "uint", "bool")) and size == 1
        for stats in self._stats():
            told = stats.get("action") if isinstance(stats, dict) else None
            if isinstance(told, dict) and {"min", "max"} <= told.keys():
                low = min(low, float(np.min(np.asarray(told["min"], np.float64))))
                high = max(high, float(np.max(np.asarray(told["max"], np.float64))))
        if discrete:
            top = high if np.isfinite(high) else max(float(self._rows(i, "action").max()) for i in range(len(self)))
            return Space("discrete", max(2, int(top) + 1))
        names = feature.get("names")
        names = tuple(names) if isinstance(names, list) and all(isinstance(n, str) for n in names) else ()
        if np.isfinite([low, high]).all() and low < high:
            return Space("continuous", size, low, high, names)
        return Space("continuous", size, names=names)

    def _stats(self) -> Iterator[Any]:
        whole, each = self.path / "meta" / "stats.json", self.path / "meta" / "episodes_stats.jsonl"
        if whole.is_file():
            yield document(whole)
        elif each.is_file():
            yield from (row.get("stats") for row in lines(each))

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return ("",) * len(self)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        return tuple(next((str(x) for x in t.get("tasks") or ()), None) or None for t in self._told)

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        return (None,) * len(self)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Stretches of numbers, of which a single one says nothing."""
        told, ranges = [""] * len(self), self.info.get("splits")
        if isinstance(ranges, dict) and len(ranges) > 1:
            for name, stretch in ranges.items():
                first, last = stretched(stretch, len(self))
                told[first:last] = [str(name)] * (last - first)
        return tuple(told)

    @cached_property
    def prints(self) -> tuple[str, ...]:
        return tuple(self._print(i) for i in range(len(self)))

    def _print(self, number: int) -> str:
        try:
            if not self._filmed:
                return content(self.episode(number))
            video = self._video(number)
            try:
                length = int(self.lengths[number])
                return f"{video.digest(0, min(FIRST, length))}-{length}"
            finally:
                video.close()
        except (ValueError, OSError):
            return f"damaged-{number}"

    @property
    def _filmed(self) -> bool:
        return self.camera is not None and self.info["features"][self.camera]["dtype"] == "video"

    def _file(self, template: str, number: int) -> Path:
        chunk = number // max(1, int(self.info.get("chunks_size") or 1000))
        return self.path / fill(
            str(self.info[template]), episode_chunk=chunk, episode_index=number, video_key=self.camera
        )

    def _video(self, number: int) -> Video:
        video = Video(self._file("video_path", number), fps=self.spec.fps)
        if video.shape != self.spec.frame:
            video.close()
            raise Damaged(f"Video {video.path} is {video.shape}; its dataset promises {self.spec.frame}.")
        return video

    def _rows(self, number: int, feature: str) -> np.ndarray:
        """One feature of an episode, one row a frame in the order of its frames."""
        path = self._file("data_path", number)
        table = self._table(number, feature)
        return numbers_of(table[feature], path)[np.argsort(table["frame_index"].to_numpy(), kind="stable")]

    def _table(self, number: int, feature: str) -> Any:
        """One feature with the numbers of its frames, once the file holds no more rows than were promised."""
        path = self._file("data_path", number)
        try:
            held = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError) as error:
            raise Damaged(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); copy it again.") from error
        if held != self.lengths[number]:
            raise Damaged(f"Episode {number} has {held} rows in {path}; promised are {self.lengths[number]}.")
        return parquet(path, columns=[feature, "frame_index"])

    def columns(self, number: int) -> dict[str, np.ndarray]:
        """State, actions and rewards of one episode; the action of its last frame leads nowhere."""
        values = {}
        for column, feature in FEATURES.items():
            if self.spec.has(column):
                rows = self._rows(number, feature)[: None if column == "state" else -1]
                blank = self.spec.blank(column, len(rows))
                if rows.size != blank.size:
                    raise Damaged(f"Episode {number} has {feature} of {rows.shape[1]} numbers; promised are others.")
                blank[:] = rows.reshape(blank.shape)
                values[column] = blank
        return values

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        length = int(self.lengths[number])
        if not self._filmed:
            frames = None if self.camera is None else self._pictures(number)
            if frames is not None:
                yield from (frames[i : i + count] for i in range(0, length, count))
            return
        video, start = self._video(number), 0
        try:
            for start in range(0, length, count):
                yield video.frames(start, min(count, length - start))
        except Damaged as error:
            good = None if error.good is None else start + error.good
            raise Damaged(f"Episode {number} of {self.path} is damaged: {error}", good=good) from error
        finally:
            video.close()

    def _pictures(self, number: int) -> np.ndarray:
        """Pictures that lie in the table itself."""
        from tacit.data.formats.frames import stored

        assert self.camera is not None and self.spec.frame is not None
        path = self._file("data_path", number)
        table = self._table(number, self.camera).sort_by("frame_index")
        cells = table[self.camera].to_pylist()
        out = self.spec.blank("frames", len(cells))
        for k, cell in enumerate(cells):
            frame = stored(cell.get("bytes") if isinstance(cell, dict) else None, where=f"{path}, frame {k}")
            if frame.shape != out.shape[1:]:
                raise Damaged(f"{path} holds a picture of {frame.shape[:2]}; its dataset promises {self.spec.frame}.")
            out[k] = frame
        return out

    def episode(self, number: int) -> Episode:
        frames, length = None, int(self.lengths[number])
        if self.spec.frame is not None:
            bounded((length, *self.spec.frame, 3), np.uint8, where=f"Episode {number} of {self.path}")
            frames = np.concatenate(list(self.blocks(number, count=length)))
        columns: dict[str, Any] = {n: self.spec.recorded(n, v) for n, v in self.columns(number).items()}
        return Episode(frames=frames, **columns, text=self.texts[number], split=self.splits[number])

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return self.pieces(column, np.arange(len(self)))

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return np.unique(rows)

    def pieces(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        if not self.spec.has(column):
            return ()
        taken = self.kept(rows)
        if column == "frames" and len(taken):
            return cache(Episodes(self, taken)).reader.flat("frames")
        flat, start = self.spec.blank(column, int(self.lengths[taken].sum())), 0
        for number in taken.tolist():
            value = self.columns(number)[column]
            flat[start : start + len(value)] = value
            start += int(self.lengths[number])
        return (flat,)


def _information(path: Path) -> dict[str, Any]:
    """``meta/info.json``, once it is sure to describe what we read."""
    file = path / "meta" / "info.json"
    info = document(file)
    if info.get("codebase_version") not in VERSIONS:
        raise ValueError(f"{path} is a LeRobotDataset {info.get('codebase_version')}; wanted one of {VERSIONS}.")
    missing = [k for k in ("features", "fps", "total_episodes", "data_path") if not info.get(k)]
    features = info.get("features")
    if missing or not isinstance(features, dict):
        raise Damaged(f"{file} lacks {', '.join(missing) or 'features'}; copy the dataset again.")
    for name, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        sane = isinstance(shape, list) and shape and all(isinstance(n, int) and 0 < n <= 2**16 for n in shape)
        if not sane or "dtype" not in feature or math.prod(shape or ()) > PIXELS * 3:
            raise Damaged(f"{file} describes {name!r} as {str(feature)[:80]}; wanted a dtype and a shape.")
    fps = info["fps"]
    if not isinstance(fps, int | float) or not (math.isfinite(fps) and fps > 0):
        raise Damaged(f"{file} gives {str(fps)[:40]} frames a second; wanted a number above 0.")
    if any(f["dtype"] == "video" for f in features.values()) and not info.get("video_path"):
        raise Damaged(f"{file} lacks video_path, and its features are on video; copy the dataset again.")
    return info


def _told(path: Path, total: int) -> list[dict[str, Any]]:
    """What ``meta/episodes.jsonl`` says of each episode, in order of number."""
    file = path / "meta" / "episodes.jsonl"
    if not file.is_file():
        raise Damaged(f"{file} is missing; copy the dataset again.")
    told: dict[int, dict[str, Any]] = {}
    for row in lines(file):
        number, length = row.get("episode_index"), row.get("length")
        if not isinstance(number, int) or not isinstance(length, int) or not 0 < length < 2**31:
            raise Damaged(f"{file} says {str(row)[:80]}; wanted an episode_index and a length of at least 1.")
        told[number] = row
    lost = next((i for i in range(max(total, 0)) if i not in told), None)
    if total < 1 or lost is not None:
        raise Damaged(f"{path} promises {total} episodes; meta/episodes.jsonl lacks episode {lost or 0}.")
    return [told[i] for i in range(total)]
