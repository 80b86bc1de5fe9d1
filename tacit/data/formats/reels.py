"""Recordings that are strips of pictures with times, seen through a view and read in pieces of bounded size."""

from __future__ import annotations

import hashlib
import itertools
import math
import multiprocessing
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import numpy as np

from tacit.clip import Episode
from tacit.data.cache import cache
from tacit.data.episodes import Episodes
from tacit.data.formats.sidecar import Notes, agreed
from tacit.data.reader import BLOCK, Reader, Spec
from tacit.data.video import Damaged
from tacit.data.view import Unmet, View, carried, framed, kept, rate, shaped, summed
from tacit.state import bar

PIECE = 2**28  # bytes of decoded frames in one episode
PIXELS = 2**25  # of one picture as it was recorded, that of 8K video: a header may claim any number
THREADS = 8  # files looked at at once when a folder is opened
LOOK = 20000  # files looked at to recognise a folder
Opened = TypeVar("Opened", bound="Reel")


class Reel(ABC):
    """One strip of pictures on the disk: known by its times and its shape before a picture is decoded."""

    path: Path
    name: str  # posix, relative to the folder that was opened
    times: np.ndarray  # float64 seconds, not decreasing
    shape: tuple[int, int]  # (H, W) as it is to be looked at
    rate: float | None  # frames a second, where it is known
    fault: str = ""  # why it is not whole after its last picture, if it is not
    notes: Notes = Notes()

    def note(self, notes: Notes) -> None:
        """Take what is known beside the pictures; its times go before the file's own."""
        self.notes = notes
        if notes.fps is not None:
            self.rate, self.times = notes.fps, np.arange(len(self.times)) / notes.fps
        if notes.times is not None:
            self.times = notes.times - notes.times[0]
            self.rate = rate(self.times, where=self.name) or self.rate

    @abstractmethod
    def digest(self, rows: np.ndarray) -> bytes:
        """A hash of what is stored of these rows, wherever else it may be stored too."""

    @abstractmethod
    def pictures(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The pictures (H, W, 3) of these rows, which rise, one by one; ``Damaged`` where one cannot be had."""


@dataclass(frozen=True)
class Piece:
    """One episode: the stretch of a reel that is shown, and which source frame is shown when."""

    reel: int
    rows: np.ndarray
    name: str
    last: bool  # whether the reel ends with it


class Reels(Reader):
    """Reels of a folder as episodes: one rate and one size for all, long ones in pieces that share a border frame.

    A subclass may say more of a piece than its reel's notes do, by its own ``columns``.
    """

    def __init__(
        self, reels: Sequence[Reel], *, path: Path, view: View, name: str, faults: Mapping[str, str], fps: float = 10.0
    ) -> None:
        self.path, self.view, told = path, view, dict(faults)
        rates = [r.rate for r in reels if r.rate is not None]
        fps = float(view.fps or min(rates, default=fps))
        sizes = {}
        for reel in reels:
            try:
                sizes[reel.name] = framed(reel.shape, replace(view, size=None), where=reel.name)
            except Unmet as error:
                told[reel.name] = error.fault
        counts = Counter(sizes.values())  # of equally common ones the largest: detail can be dropped later, not found
        size = view.size or max(counts, key=lambda s: (counts[s], math.prod(s)), default=(1, 1))
        # So many frames that none of them is two episodes' worth of memory.
        most = max(2, PIECE // (size[0] * size[1] * 3))
        most = min(most, max(2, math.floor(view.longest * fps + 1e-6) + 1)) if math.isfinite(view.longest) else most
        self.reels: list[Reel] = []
        self.parts: list[Piece] = []
        for reel in reels:
            try:
                if reel.name not in sizes:
                    continue
                rows = kept(reel.times, fps, where=reel.name)
            except ValueError as error:
                told[reel.name] = error.fault if isinstance(error, Unmet) else _unnamed(error, reel.name)
                continue
            self.parts += _cut(rows, reel=len(self.reels), name=reel.name, most=most, fps=fps)
            self.reels.append(reel)
        self.faults = told
        shown = [round(r.rate, 2) for r in self.reels if r.rate is not None]
        self.mixed = {"rates": Counter(shown), "sizes": Counter(r.shape for r in self.reels)}
        if not self.reels:
            raise (Unmet if summed(told)[1] else Damaged)(nothing(reels[0].path if len(reels) == 1 else path, told))
        self.lengths = np.array([len(p.rows) for p in self.parts], np.int64)
        found = [r.notes for r in self.reels]
        self.spec = Spec(
            frame=size,
            state=next((n.state.shape[1] for n in found if n.state is not None), 0),
            space=agreed(found),
            fps=fps,
            rewards=any(n.rewards is not None for n in found),
            text=any(n.text is not None for n in found),
            name=name,
        )

    def _noted(self, number: int) -> Notes:
        return self.reels[self.parts[number].reel].notes

    def columns(self, number: int) -> dict[str, np.ndarray | None]:
        """State, actions and rewards of one episode, which cost no decoding."""
        found, rows = self._noted(number), self.parts[number].rows
        how: Any = "most" if self.spec.space is not None and self.spec.space.discrete else "mean"
        values = {
            "state": None if found.state is None else found.state[rows],
            "actions": None if found.actions is None else carried(found.actions, rows, how=how),
            "rewards": None if found.rewards is None else carried(found.rewards, rows, how="sum"),
        }
        return {name: self.spec.recorded(name, value) for name, value in values.items()}

    def episode(self, number: int) -> Episode:
        told = {"text": self.texts, "source": self.sources, "success": self.successes, "split": self.splits}
        frames = self.spec.blank("frames", int(self.lengths[number]))
        for k, picture in enumerate(self._shown(number)):
            frames[k] = picture
        about: dict[str, Any] = self.columns(number) | {name: values[number] for name, values in told.items()}
        return Episode(frames=frames, **about)

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        shown = self._shown(number)
        while block := list(itertools.islice(shown, count)):
            yield np.stack(block)

    def _shown(self, number: int) -> Iterator[np.ndarray]:
        """The frames of an episode one by one, as they are seen; never more than one source picture is held."""
        piece, done = self.parts[number], 0
        reel = self.reels[piece.reel]
        rows, times = np.unique(piece.rows, return_counts=True)
        try:
            for picture, again in zip(reel.pictures(rows), times.tolist(), strict=True):
                frame = shaped(picture[None], self.view, size=self.spec.frame)[0]
                for _ in range(again):
                    done += 1
                    yield frame
            if piece.last and reel.fault:
                raise Damaged(f"{reel.path} is not whole: {reel.fault}. Its last good frame is {int(rows[-1])}.")
        except ValueError as error:
            said = str(error) if isinstance(error, Damaged) else f"{reel.path}: {error}"
            raise Damaged(said, good=done) from error

    @cached_property
    def prints(self) -> tuple[str, ...]:
        """Of what is stored, which frames of it are shown, and of what part of the picture: all that decoding gives."""
        out = []
        for piece in self.parts:
            digest = hashlib.blake2b(self.reels[piece.reel].digest(piece.rows), digest_size=16)
            digest.update(self.view.mark.encode())
            out.append(digest.hexdigest())
        return tuple(out)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parts)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        told = [(self._noted(i).source, self.reels[p.reel].name) for i, p in enumerate(self.parts)]
        return tuple(name.rpartition("/")[0] if source is None else source for source, name in told)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        return tuple(self._noted(i).text for i in range(len(self.parts)))

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        return tuple(self._noted(i).success for i in range(len(self.parts)))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._noted(i).split for i in range(len(self.parts)))

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return self.pieces(column, np.arange(len(self.lengths)))

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
            if value is not None:
                flat[start : start + len(value)] = value
            start += int(self.lengths[number])
        return (flat,)


def _cut(rows: np.ndarray, *, reel: int, name: str, most: int, fps: float) -> Iterator[Piece]:
    """Pieces of at most so many frames; each begins with the frame that ends the one before, so no step is lost."""
    if len(rows) <= most:
        yield Piece(reel, rows, name, last=True)
        return
    for start in range(0, len(rows) - 1, most - 1):
        stop = min(len(rows), start + most)
        between = f"{start / fps:.6g}-{(stop - 1) / fps:.6g} s"
        yield Piece(reel, rows[start:stop], f"{name} {between}", last=stop == len(rows))


def nothing(path: Path, faults: Mapping[str, str]) -> str:
    """Why there is no episode at all: what was asked for and is not there, else the first faults."""
    damaged, unmet = summed(faults)
    if unmet:
        more = f" Besides, {len(damaged):,} cannot be read." if damaged else ""
        return f"{path} holds nothing that was asked for: {'; '.join(unmet)}.{more}"
    told = "; ".join(f"{name}: {shorten(why, 300, placeholder=' ...')}" for name, why in [*damaged.items()][:3])
    return f"{path} holds nothing that can be read. {told or 'No file of a known kind lies there.'}"


def alike(reels: list[Opened]) -> tuple[list[Opened], dict[str, str]]:
    """Those whose notes are of the kind that most are of, so that one space and one state fit all; the others, and why.

    State that one lacks none has.
    """
    faults: dict[str, str] = {}
    for name in ("actions", "state"):
        kinds = [_kind(r.notes, name) for r in reels]
        most = Counter(k for k in kinds if k).most_common(1)
        odd = {r.name: k for r, k in zip(reels, kinds, strict=True) if most and k and k != most[0][0]}
        faults |= {r: f"its {name} are {kind}; those of most others are {most[0][0]}" for r, kind in odd.items()}
    good = [r for r in reels if r.name not in faults]
    if any(r.notes.state is None for r in good):
        for reel in good:
            reel.notes = replace(reel.notes, state=None)
    return good, faults


def _kind(notes: Notes, name: str) -> str:
    value = getattr(notes, name)
    if value is None:
        return ""
    what = "choices" if value.ndim == 1 else f"vectors of {value.shape[1]}"
    return what if name != "actions" or notes.space is None else f"{what} of {notes.space}"


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A key that orders file names as people number them, 2 before 10."""
    parts = re.findall(r"\d+|\D+", path.as_posix())
    return [(0, int(p), p) if p.isdecimal() and len(p) < 400 else (1, 0, p) for p in parts]


def found(path: Path, suffixes: Sequence[str], *, most: int | None = None) -> Iterator[Path]:
    """The files below a folder that end so, hidden ones and links to folders left out; in the order people number."""
    looked = 0
    for folder, inner, files in os.walk(path):
        inner[:] = [n for n in inner if not n.startswith(".")]
        for name in files:
            looked += 1
            if most is not None and looked > most:
                return
            if name.lower().endswith(tuple(suffixes)) and not name.startswith("."):
                yield Path(folder, name)


def opened(
    files: Sequence[Path], open_: Callable[[Path], Opened], *, root: Path
) -> tuple[list[Opened], dict[str, str]]:
    """Every file looked at, several at once and behind a bar; what cannot be opened by its name, and why."""

    def attempt(file: Path) -> Opened | str:
        try:
            return open_(file)
        except (ValueError, OSError) as error:
            return _unnamed(error, str(file))

    ours = multiprocessing.parent_process() is None  # those that it starts open the same again
    results: list[Opened | str] = []
    with ThreadPoolExecutor(THREADS) as pool, bar("opening", len(files), unit="files", shown=ours) as advance:
        for result in pool.map(attempt, files):
            results.append(result)
            advance(len(results))
    good = [r for r in results if not isinstance(r, str)]
    return good, {label(f, root): r for f, r in zip(files, results, strict=True) if isinstance(r, str)}


def _unnamed(error: Exception, name: str) -> str:
    """What is wrong, without the name under which it will be told."""
    return shorten(str(error), 500, placeholder=" ...").removeprefix(f"{name} ")


def label(file: Path, root: Path) -> str:
    """What a file is called in the folder that was opened."""
    return file.name if file == root else file.relative_to(root).as_posix()
