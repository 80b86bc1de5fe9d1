"""The decoded cache: every frame decoded once, at training size, so that training only ever copies bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.reader import COLUMNS, Reader, Spec
from tacit.data.scale import Engine, Fault, spread
from tacit.data.video import Damaged, resize

FORMAT = 1
MARK = ".tacit"  # lies in every cache from its beginning: one whose index is lost is not taken for anything else
SHARD = 1024  # frames: what is decoded again, at most, after a kill
STARTING = 5.0  # seconds that processes take to start: less than twice that is done sooner alone


@final
class Cached(Reader):
    """A whole cache, as memory maps."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.opening = {"path": str(self.path.absolute())}
        index = _index(self.path)
        if index is None:
            raise Damaged(f"{self.path} is no whole cache; delete it and call tacit.data.cache again.")
        self.spec, self.fingerprint = Spec.of(index["spec"]), index["fingerprint"]
        self.lengths = np.array(index["lengths"], np.int64)
        self.prints, self.sources = tuple(index["prints"]), tuple(index["sources"])
        self.texts, self.successes = tuple(index["texts"]), tuple(index["successes"])
        self.splits = tuple(index.get("splits") or [""] * len(self.lengths))
        self.names = tuple(index.get("names") or [f"episode {i}" for i in range(len(self.lengths))])

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        held = [c for c in COLUMNS if self.spec.has(c)]
        return {c: np.load(self.path / f"{c}.npy", mmap_mode="r", allow_pickle=False) for c in held}

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return (self._maps[column],) if self.spec.has(column) else ()

    def episode(self, number: int) -> Episode:
        start, stop = int(self._starts[number]), int(self._starts[number] + self.lengths[number])
        values: dict[str, Any] = {}
        for name, column in self._maps.items():
            rows = np.asarray(column[start : stop if name in ("frames", "state") else stop - 1])
            values[name] = self.spec.recorded(name, rows)
        values |= {"text": self.texts[number], "source": self.sources[number], "success": self.successes[number]}
        values["split"] = self.splits[number]
        return Episode(**values)


def cache(
    episodes: Episodes,
    *,
    size: int | tuple[int, int] | None = None,
    path: str | os.PathLike[str] | None = None,
    workers: int = 2,
    engine: Engine = "local",
) -> Episodes:
    """The same episodes from decoded frames of ``size``, made once and found again; hidden labels stay hidden.

    Killed while it builds, it goes on where it was. Without ``path`` it lies in the dataset's own folder.
    """
    frame = (size, size) if isinstance(size, int) else size
    frame = episodes.spec.frame if frame is None or episodes.spec.frame is None else (int(frame[0]), int(frame[1]))
    if isinstance(episodes.reader, Cached) and frame == episodes.spec.frame and path is None:
        return episodes
    whole = episodes.bare()
    mark = _fingerprint(whole, frame)
    home = _home(whole.reader, frame, mark) if path is None else Path(path)
    if (_index(home) or {}).get("fingerprint") == mark:  # there: nothing need be written, nor may be writable
        return episodes.onto(_assigned(home, whole))
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"{home.parent} cannot be written ({error.strerror})"
        raise type(error)(
            f"{why}; give a place that can: cache(path=...), or bring a copy with tacit data import."
        ) from error
    with _lock(home):
        index = _index(home)
        if index is None:
            _clear(home)
            partial = home.with_name(f".{home.name}.{mark[:12]}.partial")
            for stale in set(home.parent.glob(f".{home.name}.*.partial")) - {partial}:
                shutil.rmtree(stale)
            _build(_Plan(whole.reader, whole.rows, whole.lengths, frame, partial, SHARD), home, mark, workers, engine)
        elif index["fingerprint"] != mark:
            raise FileExistsError(
                f"{home} is the cache of other episodes or another size; delete it or give another path."
            )
    return episodes.onto(_assigned(home, whole))


def _assigned(home: Path, episodes: Episodes) -> Cached:
    """The cache, with the parts that its episodes are assigned to now: to assign them moves no frame."""
    cached = Cached(home)
    cached.splits = episodes.splits
    return cached


def _fingerprint(episodes: Episodes, frame: tuple[int, int] | None) -> str:
    about = [FORMAT, frame, episodes.lengths.tolist(), episodes.sources, episodes.texts, episodes.fingerprint]
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()


def _home(reader: Reader, frame: tuple[int, int] | None, mark: str) -> Path:
    path = getattr(reader, "path", None)
    if path is None:
        raise ValueError(
            "These episodes lie in no dataset folder; bring them into one with tacit data import, or say where their "
            "cache goes: cache(episodes, path=...)."
        )
    folder = Path(path).parent if isinstance(reader, Cached) else Path(path) / "cache"
    return folder / ("x".join(map(str, frame or ("state",))) + f"-{mark[:12]}")


def _index(home: Path) -> dict[str, Any] | None:
    """The index of a cache that is whole: written last, naming every file's size."""
    try:
        index: dict[str, Any] = json.loads((home / "index.json").read_text())
        sizes = {name: (home / name).stat().st_size for name in index["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if index.get("format") == FORMAT and sizes == index["files"] else None


def _clear(home: Path) -> None:
    """Make way for a new cache, but only where an empty folder or a broken cache of ours lies."""
    ours = {f"{c}.npy" for c in COLUMNS} | {"index.json", "done", MARK}
    if home.exists() and not (home.is_dir() and {p.name for p in home.iterdir()} <= ours):
        raise FileExistsError(f"{home} exists and is no cache; give another path.")
    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One builder at a time; the others (the ranks of one run, say) wait and then find it done."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with open(home.with_name(f".{home.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which episodes go where: all that a builder in another process has to know."""

    reader: Reader | None  # None on its way to another process, which opens its own
    rows: np.ndarray
    lengths: np.ndarray
    frame: tuple[int, int] | None
    partial: Path
    shard: int  # frames in one, about

    @property
    def opening(self) -> dict[str, Any]:
        """How another process opens the dataset; nothing where none can."""
        return (self.reader and self.reader.opening) or {}

    @cached_property
    def shards(self) -> list[range]:
        """Episodes in runs of about ``shard`` frames; the same for the same episodes."""
        which = (np.cumsum(self.lengths) - 1) // self.shard
        edges = [0, *(np.flatnonzero(np.diff(which)) + 1).tolist(), len(which)]
        return [range(a, b) for a, b in itertools.pairwise(edges)]

    def done(self, shard: int) -> Path:
        episodes = self.shards[shard]
        return self.partial / "done" / f"{episodes.start}-{episodes.stop}"

    @property
    def missing(self) -> list[int]:
        return [i for i in range(len(self.shards)) if not self.done(i).exists()]

    def decode(self, shard: int) -> int:
        """Decode a shard into its place, where it counts once its bytes are on the disk; how many frames it is."""
        assert self.frame is not None
        file = self.partial / "frames.npy"
        starts, bytes_each = np.cumsum(self.lengths) - self.lengths, int(np.prod(self.frame)) * 3
        header = file.stat().st_size - int(self.lengths.sum()) * bytes_each
        handle = os.open(file, os.O_WRONLY)
        try:
            for i in self.shards[shard]:
                at = header + int(starts[i]) * bytes_each
                for frames in self._resized(i):
                    _write(handle, frames, at)
                    at += frames.nbytes
            os.fsync(handle)
            self.done(shard).touch()
            _sync(self.partial / "done")
        finally:
            os.close(handle)
        return int(sum(self.lengths[i] for i in self.shards[shard]))

    def _resized(self, i: int) -> Iterator[np.ndarray]:
        """An episode's frames at the size wanted, few at a time: an hour-long one need not fit in memory."""
        assert self.frame is not None and self.reader is not None
        row, count = int(self.rows[i]), 0
        for frames in self.reader.blocks(row):
            count += len(frames)
            if count <= self.lengths[i]:
                yield resize(frames, self.frame)
        if count != self.lengths[i]:
            raise Damaged(
                f"Episode {row} has {count} frames; its dataset promised {self.lengths[i]}. `tacit data "
                "repair` copies what is whole."
            )


def _write(handle: int, frames: np.ndarray, offset: int) -> None:
    left = np.ascontiguousarray(frames).data.cast("B")
    while left:  # one call writes at most 2 GiB
        wrote = os.pwrite(handle, left, offset)
        left, offset = left[wrote:], offset + wrote


def _build(plan: _Plan, home: Path, mark: str, workers: int, engine: Engine) -> None:
    assert plan.reader is not None
    (plan.partial / "done").mkdir(parents=True, exist_ok=True)
    (plan.partial / MARK).touch()
    _reserve(plan)
    if plan.frame is not None and plan.missing:
        _decode(plan, workers, engine)
    reader, rows = plan.reader, plan.rows
    whole = Episodes(reader, rows)
    for name in COLUMNS[1:]:
        value = whole.column(name)
        if value is not None:
            with open(plan.partial / f"{name}.npy", "wb") as file:
                np.save(file, value, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
    index = {
        "format": FORMAT,
        "fingerprint": mark,
        "spec": dataclasses.replace(whole.spec, frame=plan.frame).json(),
        "lengths": whole.lengths.tolist(),
        "prints": whole.prints,
        "sources": whole.sources,
        "texts": whole.texts,
        "successes": whole.successes,
        "splits": whole.splits,
        "names": whole.names,
        "files": {f.name: f.stat().st_size for f in sorted(plan.partial.glob("*.npy"))},
    }
    with open(plan.partial / "index.json", "w") as text:
        json.dump(index, text)
        text.flush()
        os.fsync(text.fileno())
    _sync(plan.partial)
    os.replace(plan.partial, home)
    _sync(home.parent)
    shutil.rmtree(home / "done")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _reserve(plan: _Plan) -> None:
    """Claim the disk before the work starts, so that it cannot run full half way."""
    if plan.frame is None:
        return
    total, file = int(plan.lengths.sum()), plan.partial / "frames.npy"
    need = total * int(np.prod(plan.frame)) * 3
    if file.exists() and file.stat().st_size >= need:
        return
    free = shutil.disk_usage(plan.partial).free
    if need > free * 0.95:
        raise OSError(
            f"A cache of {total} frames at {plan.frame[0]}x{plan.frame[1]} needs {need / 1e9:.2f} GB; "
            f"{free / 1e9:.2f} GB are free at {plan.partial.parent}. Give a smaller size or another path, or make room."
        )
    shutil.rmtree(plan.partial / "done")
    (plan.partial / "done").mkdir()
    fresh = file.with_suffix(".fresh")
    with open(fresh, "wb") as out:
        shape = (total, *plan.frame, 3)
        np.lib.format.write_array_header_2_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        out.flush()
        size = out.tell() + need
        if hasattr(os, "posix_fallocate") and need:
            os.posix_fallocate(out.fileno(), 0, size)
        else:
            out.truncate(size)
        os.fsync(out.fileno())
    os.replace(fresh, file)


def _decode(plan: _Plan, workers: int, engine: Engine) -> None:
    left = plan.missing
    todo = int(sum(plan.lengths[i] for shard in left for i in plan.shards[shard]))
    console = Console(stderr=True)
    columns = (TextColumn("decoding {task.total:.0f} frames"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=todo)
        alone, began = not plan.opening or (workers < 2 and engine == "local"), time.monotonic()
        done, rest = 0, 0.0
        while left and (alone or (engine == "local" and rest < 2 * STARTING)):
            done += plan.decode(left.pop(0))
            rest = (time.monotonic() - began) / max(1, done) * (todo - done)
            progress.update(task, completed=done)
        if left:
            shards = _Shards(plan.opening, replace(plan, reader=None), left)
            with contextlib.closing(spread(shards, stop=len(left), workers=workers, engine=engine)) as decoded:
                for count in decoded:
                    if isinstance(count, Fault):
                        raise Damaged(count.why)
                    progress.advance(task, count)


@dataclasses.dataclass(frozen=True)
class _Shards:
    """The task of decoding what is left: what a process is sent, to open the dataset there itself."""

    opening: dict[str, Any]
    plan: _Plan
    left: list[int]

    ours = True

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], int]]:
        plan = replace(self.plan, reader=Reader.open(**self.opening).reader)
        yield lambda number: plan.decode(self.left[number])
