"""A screen recording: a video and the log of what was done at the mouse and the keyboard, brought to its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np

from tacit.clip import Space
from tacit.data.formats.film import SUFFIXES, Film
from tacit.data.formats.log import BUTTONS, DOWN, HIT, KEYS, MOVE, SCROLL, UP, Log, about, log
from tacit.data.formats.reels import LOOK, Reels, found, label, natural, nothing, opened
from tacit.data.formats.sidecar import Notes, lines
from tacit.data.reader import Reader
from tacit.data.video import Damaged
from tacit.data.view import View, grid

WHAT = "screen recordings: folders of one video and an events.jsonl or events.csv, with an optional metadata.json"
EXTRA = ""
LOGS = ("events.jsonl", "events.csv")
WHEEL = 10.0  # notches that count as one

# What is done between two frames, every number in [-1, 1]: how far the pointer went, in screens; where it was at the
# end, from the upper left; whether a button was down at any time; a tenth of the notches that the wheel turned; and
# whether each key was down at any time, or its letter typed.
NAMES = ("dx", "dy", "x", "y", *BUTTONS, "scroll", *(f"key_{k}" for k in KEYS))
SPACE = Space("continuous", len(NAMES), -1.0, 1.0, NAMES)


def recognises(path: Path) -> bool:
    """Whether a folder in it holds an event log and a video."""
    try:
        return path.is_dir() and any(_films(file.parent) for file in found(path, LOGS, most=LOOK) if file.name in LOGS)
    except (OSError, ValueError):
        return False


def read(path: Path, *, camera: str | None = None, view: View = View()) -> Reader:
    """Every folder with a video and an event log as episodes, of one common action space."""
    if camera is not None:
        raise ValueError(f"The camera {camera!r} was asked for; a screen recording has none. Leave it out.")
    return Screen(Path(path), view=view)


@final
class Screen(Reels):
    """Screen recordings as episodes, whose actions are ``NAMES`` at work between each two frames that are kept.

    An action counts from the moment that its first frame was recorded to the moment of its second. ``stray`` is how
    many events lie before the first frame of their video or from its last one on.
    """

    def __init__(self, path: Path, *, view: View = View()) -> None:
        folders = sorted({f.parent for f in found(path, LOGS) if f.name in LOGS}, key=natural)

        logs: dict[str, Log] = {}

        def open_(folder: Path) -> Film:
            films = _films(folder)
            if len(films) != 1:
                raise Damaged(f"{folder} holds {len(films)} videos beside its event log; wanted one.")
            film, told = Film(films[0], name=label(folder, path)), about(folder)
            events = next(folder / n for n in LOGS if (folder / n).is_file())
            logs[film.name] = log(events, told, seconds=float(film.times[-1]), shape=film.shape)
            text = next((told[k] for k in ("task", "instruction") if isinstance(told.get(k), str) and told[k]), None)
            film.note(Notes(text=text))
            return film

        reels, faults = opened(folders, open_, root=path)
        if not reels:
            raise Damaged(nothing(path, faults))
        super().__init__(reels, path=path, view=view, name=path.name, faults=faults)
        self.spec = replace(self.spec, space=SPACE)
        self.opening = {"path": str(path.absolute()), "view": view.plain()}
        self._logs = [logs[r.name] for r in self.reels]
        self._edges = [self._moments(i) for i in range(len(self.reels))]
        self.stray = sum(_outside(held, edges) for held, edges in zip(self._logs, self._edges, strict=True))
        starts: dict[int, int] = {}
        self._starts = []
        for part in self.parts:
            self._starts.append(starts.get(part.reel, 0))
            starts[part.reel] = self._starts[-1] + len(part.rows) - 1

    def _moments(self, reel: int) -> np.ndarray:
        """When each kept frame of a reel was recorded; one shown again, since nothing new came, counts as seen then."""
        film, mine = self.reels[reel], [p.rows for p in self.parts if p.reel == reel]
        rows = np.concatenate([mine[0], *(r[1:] for r in mine[1:])])
        again = np.concatenate([[False], np.diff(rows) == 0])
        shown = grid(film.times, self.spec.fps, where=film.name)
        return np.maximum.accumulate(np.where(again, shown, film.times[rows] - film.times[0]))

    def _between(self, number: int) -> np.ndarray:
        """The moments of one episode's frames."""
        start, piece = self._starts[number], self.parts[number]
        return self._edges[piece.reel][start : start + len(piece.rows)]

    def columns(self, number: int) -> dict[str, np.ndarray | None]:
        actions = actions_of(self._logs[self.parts[number].reel], self._between(number))
        return super().columns(number) | {"actions": actions}

    def events(self, number: int) -> list[dict[str, Any]]:
        """What was done in an episode, event by event: between which frames, when, where, and all that its row says."""
        held, edges = self._logs[self.parts[number].reel], self._between(number)
        step = np.searchsorted(edges, held.times, side="right") - 1
        inside = np.flatnonzero((step >= 0) & (step < len(edges) - 1))
        by_line = {int(held.lines[i]): int(i) for i in inside[::-1]}
        out = []
        for at, row in enumerate(lines(held.file)):
            if at in by_line:
                i = by_line[at]
                x, y = (None if np.isnan(v) else float(v) for v in held.where[i])
                out.append({"step": int(step[i]), "time": float(held.times[i]), "x": x, "y": y, "row": row})
                out[-1]["text"] = row.get("text") if isinstance(row.get("text"), str) else None
        return sorted(out, key=lambda event: event["time"])


def actions_of(log: Log, edges: np.ndarray) -> np.ndarray:
    """What was done between each two moments, (len(edges) - 1, len(NAMES)), as ``NAMES`` says."""
    count = len(edges) - 1
    out = np.zeros((max(0, count), len(NAMES)), np.float32)
    step = np.searchsorted(edges, log.times, side="right") - 1
    inside = (step >= 0) & (step < count)
    known = np.flatnonzero(np.isfinite(log.where).all(1))
    if len(known):  # before anything is known of the pointer it lies where it is first known to be
        last = np.searchsorted(log.times[known], edges, side="left") - 1
        place = log.where[known[np.maximum(last, 0)]]
    else:
        place = np.full((len(edges), 2), 0.5)
    out[:, 2:4] = place[1:]
    out[:, 0:2] = np.diff(place, axis=0)
    told = np.isfinite(log.moved)
    moves = (log.kinds == MOVE) & told.all(1)
    if moves.any():  # a pointer that is held in one place, in a game say, tells how far it would have gone
        sums = np.zeros((max(0, count), 2))
        np.add.at(sums, step[moves & inside], log.moved[moves & inside])
        out[:, 0:2] = np.clip(sums, -1, 1)
    turned = (log.kinds == SCROLL) & told[:, 1] & inside
    wheel = np.zeros(max(0, count))
    np.add.at(wheel, step[turned], log.moved[turned, 1])
    out[:, NAMES.index("scroll")] = np.clip(wheel / WHEEL, -1, 1)
    column = np.where(log.codes < len(BUTTONS), 4 + log.codes, 5 + log.codes)  # the wheel stands between
    hits = inside & (log.codes >= 0) & np.isin(log.kinds, (DOWN, HIT))
    out[step[hits], column[hits]] = 1
    for first, stop, which in _held(log, edges):
        out[first:stop, which + (4 if which < len(BUTTONS) else 5)] = 1
    return out


def _held(log: Log, edges: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """The steps through which each button and key was held, from going down to coming up, if it came up."""
    down: dict[int, float] = {}
    for i in np.flatnonzero((log.codes >= 0) & np.isin(log.kinds, (DOWN, UP))):
        code, time = int(log.codes[i]), float(log.times[i])
        if log.kinds[i] == DOWN:
            down.setdefault(code, time)
        elif code in down:
            first = int(np.searchsorted(edges, down.pop(code), side="right")) - 1
            stop = int(np.searchsorted(edges, time, side="left"))
            if stop > 0 and first < len(edges) - 1:
                yield max(0, first), min(stop, len(edges) - 1), code


def _outside(log: Log, edges: np.ndarray) -> int:
    return len(np.unique(log.lines[(log.times < edges[0]) | (log.times >= edges[-1])]))


def _films(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
