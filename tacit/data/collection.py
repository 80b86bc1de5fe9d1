"""Datasets that could not become one, in one folder, opened as one set: what not all of them have is hidden."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from tacit.clip import Episode
from tacit.data.meta import document
from tacit.data.reader import BLOCK, Joined, Reader, Through
from tacit.data.video import Damaged
from tacit.data.view import View

NOTE = "collection.json"  # names the datasets of a folder that could not become one
NONE: dict[str, Any] = {"state": 0, "latent": 0, "codes": 0, "space": None}  # of a spec, where there is nothing
COLUMNS = {"state": "state", "latents": "latent", "codes": "codes", "actions": "space"}


@final
class Hiding(Through):
    """A reader without some of its columns."""

    def __init__(self, reader: Reader, columns: Sequence[str]) -> None:
        self.reader, self.hidden, self.lengths = reader, frozenset(columns), reader.lengths
        self.path, self.faults, self.mixed = getattr(reader, "path", None), reader.faults, reader.mixed
        self.spec = dataclasses.replace(reader.spec, **{COLUMNS[c]: NONE[COLUMNS[c]] for c in columns})

    def episode(self, number: int) -> Episode:
        return self._bare(self.reader.episode(number))

    def prefix(self, number: int, count: int) -> Episode:
        return self._bare(self.reader.prefix(number, count))

    def _bare(self, episode: Episode) -> Episode:
        return episode.replace(**dict.fromkeys(self.hidden))

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        return self.reader.blocks(number, count=count)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return self.reader.kept(rows)

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return () if column in self.hidden else self.reader.flat(column)

    def pieces(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return () if column in self.hidden else self.reader.pieces(column, rows)

    @cached_property
    def prints(self) -> tuple[str, ...]:
        return self.reader.prints


def together(place: Path, read: Callable[[Path], Reader], *, camera: str | None, view: View) -> Reader:
    """The members of a collection as one reader: actions of the first labelled one's space are seen, others hidden.

    State of several widths none has. Rates and sizes must agree, as they are recorded or as ``view`` has them.
    """
    names = document(place / NOTE).get("members")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and _plain(n) for n in names):
        raise Damaged(f"{place / NOTE} names {str(names)[:80]}; wanted the names of folders beside it.")
    members = [read(place / name) for name in names]
    specs = [m.spec for m in members]
    if len({(s.frame, s.fps) for s in specs}) > 1:
        told = "; ".join(f"{name}: {_told(s.frame, s.fps)}" for name, s in zip(names, specs, strict=True))
        raise ValueError(
            f"The datasets in {place} cannot be looked at together ({told}). Ask for one rate and one size of all "
            "(--fps, --size), or open one of them."
        )
    first = {f: next((getattr(s, f) for s in specs if getattr(s, f)), nothing) for f, nothing in NONE.items()}
    widths = {s.state for s in specs}
    shown = []
    for member in members:
        other = [c for c, f in COLUMNS.items() if c != "state" and getattr(member.spec, f) not in (NONE[f], first[f])]
        other += ["state"] if member.spec.state and len(widths) > 1 else []
        shown.append(Hiding(member, other) if other else member)
    if all(s.frame is None for s in specs) and len(widths) > 1:
        raise ValueError(f"The datasets in {place} hold no pictures, and states of {sorted(widths)} numbers; open one.")
    joined = Joined(shown)
    joined.spec = dataclasses.replace(joined.spec, name=place.name)
    joined.path = place
    joined.opening = {"path": str(place.absolute()), "camera": camera, "view": view.plain()}
    return joined


def _plain(name: str) -> bool:
    return bool(name) and Path(name).name == name and name not in (".", "..") and "\0" not in name


def _told(frame: tuple[int, int] | None, fps: float) -> str:
    return f"{'no pictures' if frame is None else f'{frame[0]}x{frame[1]}'} at {fps:g} a second"
