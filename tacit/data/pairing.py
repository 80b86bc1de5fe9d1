"""Which video shows which episode where no table says so any more: what is proven, and never a guess."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import av

from tacit.clip import Episode
from tacit.data.lerobot import LeRobot
from tacit.data.reader import Through, content
from tacit.data.record import CHUNK
from tacit.data.video import Damaged

At = tuple[int, int]  # a file by the numbers of its chunk and its own


def numbered_files(folder: Path, suffix: str) -> dict[At, Path]:
    """The files of a dataset's folder by their numbers, in order."""
    files = {f"{file.parent.name}/{file.name}": file for file in folder.glob(f"chunk-*/file-*.{suffix}")}
    found = ((re.fullmatch(rf"chunk-(\d+)/file-(\d+)\.{suffix}", name), file) for name, file in files.items())
    return dict(sorted(((int(m[1]), int(m[2])), file) for m, file in found if m))


@dataclass(frozen=True)
class Place:
    """Where an episode's video lies, and whose print tells whether prints are of what is stored here.

    With no ``witness`` nothing but the episode's own print can prove the place.
    """

    chunk: int
    file: int
    first: int
    witness: int | None


@final
@dataclass(frozen=True)
class Reel:
    """The video files of a camera and how many frames each holds; ``None`` where it cannot be opened."""

    counts: Mapping[At, int | None]

    @classmethod
    def of(cls, path: Path, camera: str, *, broken: dict[str, str]) -> Reel:
        """Count every file's frames as its header promises them, so that one cut short is known by what it held.

        Those that cannot be opened are named in ``broken``.
        """
        counts: dict[At, int | None] = {}
        for at, file in numbered_files(path / "videos" / camera, "mp4").items():
            try:
                with av.open(str(file)) as container:
                    packets = (packet for packet in container.demux(video=0) if packet.pts is not None)
                    counts[at] = container.streams.video[0].frames or sum(1 for _ in packets)
            except (av.error.FFmpegError, IndexError, ValueError) as error:
                broken[str(file.relative_to(path))] = f"{file} cannot be opened ({error})."
                counts[at] = None
        return cls(counts)

    @property
    def _held(self) -> dict[At, int]:
        return {at: count for at, count in self.counts.items() if count is not None}

    def paired(self, rows: Mapping[At, int | None]) -> bool:
        """Whether each file of video has a file of as many rows, as some writers, tacit's among them, write them.

        One then tells where the other's frames belong, whatever happened to the files before it. ``rows`` is how many
        each file of rows holds, ``None`` where it cannot be read.
        """
        last = max(rows)  # of video beyond it the rows were never written: a kill came between
        return all(rows.get(at, -1) in (None, count) for at, count in self._held.items() if at <= last)

    def places(self, lengths: Sequence[int], owners: Sequence[At], *, paired: bool) -> list[Place | None]:
        """Where the episodes lie, whose rows lie in the files ``owners``.

        If files are not paired, frames follow one another from the first one on, as long as files are there and used
        up by whole episodes.
        """
        within, held = _offsets(lengths, owners), self._held
        if paired:
            first = {at: number for number, at in reversed(list(enumerate(owners)))}
            return [Place(*at, n, first[at]) if at in held else None for at, n in zip(owners, within, strict=True)]
        chained = self._chained(lengths)
        own = (Place(*at, n, None) if at in held else None for at, n in zip(owners, within, strict=True))
        return [*chained, *itertools.islice(own, len(chained), None)]

    def _chained(self, lengths: Sequence[int]) -> list[Place | None]:
        """The episodes that are proven to lie one after another from the first file on, the last perhaps in part."""
        found: list[Place | None] = []
        files, used = iter(self.counts.items()), 0
        for expected in itertools.count():
            at, count = next(files, ((-1, -1), None))
            if count is None or at[0] * CHUNK + at[1] != expected:
                return found
            used = 0
            while len(found) < len(lengths) and used < count:
                found.append(Place(*at, used, 0))
                used += lengths[len(found) - 1]
            if used > count or len(found) == len(lengths):  # it breaks off within an episode: what follows may be any
                return found
        return found

    def why(self, at: At, *, paired: bool) -> str:
        """Why no video of an episode whose rows lie in this file can be had."""
        if paired:
            name = f"chunk-{at[0]:03d}/file-{at[1]:03d}.mp4"
            return f"its video {name} {'cannot be opened' if at in self.counts else 'is missing'}"
        return "a video file before its own is missing or broken, and nothing proves which of the frames are its own"


def _offsets(lengths: Sequence[int], owners: Sequence[At]) -> list[int]:
    """How many frames lie before each episode among those of its own file of rows."""
    seen, found = dict[At, int](), []
    for length, at in zip(lengths, owners, strict=True):
        found.append(seen.get(at, 0))
        seen[at] = found[-1] + length
    return found


@final
class Verified(Through):
    """A dataset over rebuilt tables, whose episodes show what their prints say wherever prints can tell.

    A print is of the pictures as they were recorded: stored with loss, or copied from elsewhere, no episode shows what
    its print says. Whether prints tell anything is seen by another episode, the place's ``witness``.
    """

    def __init__(self, reader: LeRobot, places: Sequence[Place | None], *, original: Path) -> None:
        self.reader = self._dataset = reader
        self.spec, self.lengths = reader.spec, reader.lengths
        self.places, self.original, self._known = places, original, dict[int, bool]()

    @property
    def origin(self) -> Any:
        return self.reader.origin

    @cached_property
    def prints(self) -> tuple[str, ...]:
        return self.reader.prints

    def episode(self, number: int) -> Episode:
        found, place = self._read(number), self.places[number]
        witness = None if place is None else place.witness
        if self._known[number] or witness is not None and (witness == number or not self._fits(witness)):
            return found
        raise Damaged(
            "the video shows other pictures than meta/tacit.json knows it by"
            if witness is not None
            else "a video file before its own is broken, and its print does not prove that these are its pictures"
        )

    def prefix(self, number: int, count: int) -> Episode:
        place = self.places[number]
        if place is None or place.witness is None:
            raise Damaged("nothing proves whose pictures these are.")
        return self.reader.prefix(number, count)

    def _read(self, number: int) -> Episode:
        """An episode of the rebuilt dataset, or what is wrong with the files that it stands for."""
        try:
            found = self.reader.episode(number)
        except Damaged as error:
            raise Damaged(str(error).replace(str(self._dataset.path), str(self.original)), good=error.good) from error
        mark = self._dataset.told[number].get("print")
        self._known[number] = mark is not None and content(found) == mark
        return found

    def _fits(self, number: int) -> bool:
        if number not in self._known:
            try:
                self._read(number)
            except (ValueError, OSError):
                self._known[number] = False
        return self._known[number]
