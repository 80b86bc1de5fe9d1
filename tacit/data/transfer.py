"""Recordings of any format into a native dataset: in parallel, resumable, and naming what is damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tacit.clip import Episode
from tacit.data.crew import ready
from tacit.data.curate.stretched import Stretched
from tacit.data.episodes import Episodes
from tacit.data.file import apart, placed
from tacit.data.lerobot import LeRobot, any_camera
from tacit.data.reader import Reader
from tacit.data.record import OURS, Writer
from tacit.data.scale import Engine, Fault, spread
from tacit.data.view import View, Viewed
from tacit.part import write
from tacit.state import alone

NOTE = "transfer.json"  # what is being brought into a folder, and what of it had to be left out
SLACK = 0.01  # of a rate: 29.97 frames a second are taken for 30
FIRST, GROUP = 256, 4096  # frames written at a time, at first and at most: what a stop costs


@dataclass(frozen=True)
class Brought:
    """What came of it: the dataset, and by name what is not in it and why."""

    data: Episodes
    left: Mapping[str, str] = field(default_factory=dict)
    cut: Mapping[str, str] = field(default_factory=dict)  # what is in it as far as it is whole
    broken: Mapping[str, str] = field(default_factory=dict)  # files that could not be read, where they are told apart
    known: tuple[str, ...] = ()  # what an addition need not bring: its recordings were there already


def transfer(
    source: Episodes,
    out: Path,
    *,
    prefixes: bool = False,
    workers: int = 2,
    engine: Engine = "local",
    lossless: bool | None = None,
    append: bool = False,
    progress: bool = True,
) -> Brought:
    """Write ``source`` as a dataset, whatever it is read from. Its rate must be a whole number.

    Damaged episodes are left out and named; with ``prefixes`` they are kept as far as they are whole. Stopped or
    killed, the same call goes on where it was, and ends in the same bytes. With ``append`` a dataset that is there is
    added to; recordings that it holds already, known by their prints, are not brought again.
    """
    ready(workers)
    if source.reader.opening is not None:
        apart(Path(source.reader.opening["path"]), out)
    with placed(out), alone(out):  # of the same command given twice at once, the second finds the work done
        return _written(source, out, prefixes, workers, engine, lossless, append, progress)


def _written(
    source: Episodes,
    out: Path,
    prefixes: bool,
    workers: int,
    engine: Engine,
    lossless: bool | None,
    append: bool,
    progress: bool,
) -> Brought:
    names = np.array(_unique(source.names), object)
    note = _Note(out, _who(source, names.tolist()), append, {"prefixes": prefixes, "lossless": lossless})
    marks: Sequence[str | None] = source.prints if _cheap(source.reader) else [None] * len(source)
    new = note.new(marks)
    marks = [mark for mark, wanted in zip(marks, new, strict=True) if wanted]
    known, names = tuple(names[~new]), names[new]
    source = source if new.all() else source.select(np.flatnonzero(new))
    writer: Writer | None = None
    try:
        for number, answer in _read(source, note.first(names.tolist()), workers, engine, progress):
            name, mark = names[number], marks[number]
            if isinstance(answer, Fault):
                whole = _prefix(source, number, answer) if prefixes else None
                (note.left if whole is None else note.cut)[name] = answer.why
                note.keep()
                if whole is None:
                    continue
                answer, mark = whole, None
            if writer is None:
                begun = (out / "meta" / "info.json").exists()
                writer = Writer(out, source.spec, seconds=math.inf, append=begun, lossless=lossless)
            writer.group = min(GROUP, max(FIRST, writer.frames))  # by frames alone, so that who goes on ends alike
            writer.add(answer, mark=mark, origin=name)
    except BaseException:
        if writer is not None:
            writer.drop()
        raise
    if writer is not None:
        writer.close()
    note.keep(done=True)
    left = dict(source.reader.faults) | note.left
    if not (out / "meta" / "info.json").exists():
        name, why = next(iter((note.left | left).items()), ("the source", "it holds no episode"))
        raise ValueError(f"None of {len(names)} episodes could be read; {name}: {why}")
    return Brought(Episodes(LeRobot(out)), left, dict(note.cut), known=known)


def rounded(source: Episodes) -> Episodes:
    """The same recordings at a whole number of frames a second, which is what the native format can say."""
    fps = source.spec.fps
    if fps == int(fps) and fps >= 1:
        return source
    whole = round(fps) if abs(round(fps) - fps) <= SLACK * fps else math.floor(fps)
    if whole < 1:
        raise ValueError(f"These recordings have {fps:g} frames a second; the native format wants 1 at least.")
    opening = source.reader.opening
    if opening is None or not source.plain:  # what is laid over them has a row for each of their frames
        all_ = Stretched(source, ((i, 0, int(n)) for i, n in enumerate(source.lengths)))
        return Episodes(Viewed(all_, View(fps=whole)))
    view = replace(View.of(opening.get("view", {})), fps=float(whole))
    return Episodes(Reader.open(**(opening | {"view": view})).reader, source.rows)


def _cheap(reader: Reader) -> bool:
    """Whether its recordings are known by prints of its own: a copy then keeps them, and is known for a copy."""
    return "prints" in vars(reader) or type(reader).prints is not Reader.prints


@dataclass(frozen=True)
class Reading:
    """The task of reading episodes: what a process is sent, to open the source there itself."""

    opening: dict[str, Any] | None
    rows: list[int]
    held: Episodes | None  # where there is nothing to open again

    ours = True

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], Episode]]:
        source = self.held if self.opening is None else Episodes(Reader.open(**self.opening).reader, self.rows)
        assert source is not None
        yield source.episode


def _read(
    source: Episodes, first: int, workers: int, engine: Engine, progress: bool
) -> Iterator[tuple[int, Episode | Fault]]:
    """The episodes from ``first`` on, behind a bar with the time left where somebody is looking."""
    opening = source.reader.opening if source.plain else None
    task = Reading(opening, source.rows.tolist(), None if opening else source)
    console, workers = Console(stderr=True), workers if opening else 1
    seen = progress and console.is_terminal
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not seen) as bar:
        shown = bar.add_task("", total=int(source.lengths.sum()), completed=int(source.lengths[:first].sum()))
        with contextlib.closing(spread(task, first=first, stop=len(source), workers=workers, engine=engine)) as answers:
            for number, answer in enumerate(answers, first):
                yield number, answer
                bar.advance(shown, int(source.lengths[number]))


def _prefix(source: Episodes, number: int, fault: Fault) -> Episode | None:
    """As much of a damaged episode as is whole: two frames at least, or it teaches nothing."""
    if fault.good is None or fault.good < 2:
        return None
    try:
        found = source.reader.prefix(int(source.rows[number]), fault.good)
    except (ValueError, OSError):
        return None
    return found if (found.state is not None) == bool(source.spec.state) else None  # its rows may be damaged too


class _Note:
    """The file beside a dataset that says what was and is being brought into it, so that the same call goes on."""

    def __init__(self, out: Path, who: str, append: bool, asked: dict[str, Any]) -> None:
        self.out, self.who, self.file = out, who, out / "meta" / NOTE
        self.all: dict[str, dict[str, Any]] = json.loads(self.file.read_text()) if self.file.exists() else {}
        whole = (out / "meta" / "info.json").exists()
        if not whole:  # whatever was begun here, with whatever settings, has written nothing that counts
            self.all = {}
        going = [other for other, told in self.all.items() if other != who and not told["done"]]
        if who not in self.all:
            held = {path.name for path in out.iterdir()} if out.exists() else set()
            if going or (whole or self.all) and not append:
                raise ValueError(f"{out} holds other recordings, or others of their settings; give a new folder.")
            if not whole and not held <= OURS:
                raise FileExistsError(f"{out} holds {sorted(held - OURS)[:3]} already; give a new or an empty folder.")
            before = len(any_camera(out).lengths) if whole else 0
            self.all[who] = {"before": before, "left": {}, "cut": {}, "done": False, "asked": asked}
        elif self.all[who].get("asked", asked) != asked:
            raise ValueError(f"{out} holds these recordings, brought with {self.all[who]['asked']}; give a new folder.")
        self.left: dict[str, str] = self.all[who]["left"]
        self.cut: dict[str, str] = self.all[who]["cut"]

    def new(self, marks: Sequence[str | None]) -> np.ndarray:
        """Which episodes are to be brought: all, but for those that the dataset held before, known by their prints."""
        told, new = self.all[self.who], np.ones(len(marks), bool)
        if told["before"]:
            held = {mark for mark in any_camera(self.out).prints[: told["before"]] if not mark.startswith("damaged-")}
            new = np.array([mark not in held for mark in marks], bool)
        told["of"] = int(new.sum())
        self.keep()
        return new

    def first(self, names: list[str]) -> int:
        """The first of the episodes of these names that is not there yet."""
        if self.all[self.who]["done"]:
            return len(names)
        if not (self.out / "meta" / "info.json").exists():
            return 0
        written = any_camera(self.out).names[self.all[self.who]["before"] :]
        return names.index(written[-1]) + 1 if written else 0

    def keep(self, *, done: bool = False) -> None:
        """Write it down: what was left out is known before the episodes after it are."""
        self.all[self.who]["done"] |= done
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write(self.file, lambda path: Path(path).write_text(json.dumps(self.all, indent=1) + "\n"))


def stopped(path: Path, *, there: int) -> str:
    """What is not whole about a dataset that holds ``there`` episodes: a command that was stopped before it had all."""
    for name, gone in {NOTE: _unbrought, "merge.json": _unmerged, "label.json": _unlabelled}.items():
        file = path / "meta" / name
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # notes of somebody else
            if file.exists() and (told := gone(json.loads(file.read_text()), there)):
                return f"{told} episodes; give the same command again and it goes on from there"
    return ""


def _unbrought(notes: dict[str, dict[str, Any]], there: int) -> str:
    going = (told for told in notes.values() if not told["done"])
    told = next(going, None)
    return told and f"an import was stopped at {there - told['before']} of {told.get('of', 'more')}" or ""


def _unmerged(note: dict[str, Any], there: int) -> str:
    of = sum(map(len, note["lengths"]))
    return f"a merge was stopped at {there} of {of}" if there < of else ""


def _unlabelled(note: dict[str, Any], there: int) -> str:
    of = note.get("of", there)
    return f"labelling was stopped at {there} of {of}" if there < of else ""


def _who(source: Episodes, names: list[str]) -> str:
    about = [source.spec.json(), names, source.lengths.tolist(), source.origin]
    return hashlib.blake2b(json.dumps(about, default=str).encode(), digest_size=16).hexdigest()


def _unique(names: Sequence[str]) -> list[str]:
    """Names by which an episode is found again, numbered where two would be the same."""
    taken, seen, out = set(names), dict[str, int](), []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        own = name
        while own != name or seen[name] > 1:
            own = f"{name} ({seen[name]})"
            if own not in taken:
                break
            seen[name] += 1
        taken.add(own)
        out.append(own)
    return out
