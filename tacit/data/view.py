"""How recordings are to be seen: at which rate, which part of the picture, at which size, in pieces of what length."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final, get_args

import numpy as np

from tacit.clip import Episode
from tacit.data.cache import cache
from tacit.data.episodes import Episodes
from tacit.data.reader import BLOCK, Reader, Through
from tacit.data.video import Damaged, bounded, resize

Fit = Literal["crop", "pad", "stretch"]
SLACK = 0.01  # of a rate: how far it may lie above the recorded one and still be the same: 30 of 29.97, say
FRAMES = 2**24  # of one recording: a hundred and fifty hours; damaged timestamps may ask for any number


class Unmet(ValueError):
    """More was asked for than a recording has, which is whole; ``fault`` says so in the words that ``summed`` knows."""

    def __init__(self, told: str, *, fault: str = "") -> None:
        super().__init__(told)
        self.fault = fault


def summed(faults: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What is damaged, by name; and what is whole and not as it was asked for, a line for all of one reason."""
    found = {name: re.fullmatch(r"whole, but (.+) \((.+)\); (.+)", why) for name, why in faults.items()}
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for match in filter(None, found.values()):
        reasons.setdefault((match[1], match[3]), Counter())[match[2]] += 1
    told = [
        f"{own.total():,} {reason}: {', '.join(sorted(own, key=_numbers))}; {advice}"
        for (reason, advice), own in reasons.items()
    ]
    return {name: why for name, why in faults.items() if not found[name]}, told


def _numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]


def sized(shape: tuple[int, int]) -> str:
    """A size in words, for some say the width first and some the height."""
    return f"{shape[1]} wide {shape[0]} high"


@dataclass(frozen=True)
class View:
    """What is asked of a recording beside what it is; ``None`` leaves it as it was recorded."""

    fps: float | None = None  # frames a second; never more than were recorded
    size: tuple[int, int] | None = None  # (H, W) of the pictures
    crop: tuple[int, int, int, int] | None = None  # top, left, height, width of the part that is looked at
    fit: Fit = "crop"  # how a picture of another shape comes to ``size``: its middle, with black bars, or stretched
    longest: float = 60.0  # seconds: longer video is read in pieces, which share their border frame

    def __post_init__(self) -> None:
        for name, count, least in (("size", 2, 1), ("crop", 4, 0)):
            value = getattr(self, name)
            if value is None:
                continue
            value = tuple(int(n) for n in value)
            if len(value) != count or min(value) < least or min(value[-2:]) < 1:
                wanted = "(height, width)" if name == "size" else "(top, left, height, width)"
                raise ValueError(f"View.{name} is {value}; wanted {wanted} in pixels, a picture of at least 1x1.")
            object.__setattr__(self, name, value)
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"View.fps is {self.fps}; wanted frames a second, above 0.")
        if not self.longest > 0:
            raise ValueError(f"View.longest is {self.longest}; wanted seconds above 0, or inf for no pieces.")
        if self.fit not in get_args(Fit):
            raise ValueError(f"View.fit is {self.fit!r}; wanted one of {', '.join(get_args(Fit))}.")

    def plain(self) -> dict[str, Any]:
        """As JSON writes it, so that another process can look the same way."""
        value = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        return value | {"longest": self.longest if math.isfinite(self.longest) else None}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> View:
        """The view that ``plain`` wrote."""
        return cls(**(dict(value) | {"longest": math.inf if value.get("longest") is None else value["longest"]}))

    @property
    def mark(self) -> str:
        """What it makes of a picture beyond its size, to tell apart what is seen differently; "" for nothing."""
        return "" if self.crop is None and self.fit == "crop" else json.dumps([self.crop, self.fit])


def pace(times: np.ndarray) -> float | None:
    """Frames a second of a recording whose frames may come irregularly: one over the ordinary time between two."""
    between = np.diff(np.asarray(times, np.float64))
    between = between[between > 0]
    if not len(between):
        return None
    middle = float(np.sort(between)[(len(between) - 1) // 2])
    # The mean of the ordinary ones is exact where timestamps were rounded to milliseconds, and gaps do not move it.
    return 1 / float(between[np.abs(between - middle) <= middle / 2].mean())


def rate(times: np.ndarray, *, where: str) -> float | None:
    """``pace`` without the dust of rounding, once it is one that a recording can have."""
    own = pace(times)
    if own is not None and not 1e-5 <= own <= 1e6:
        raise ValueError(f"{where} has {own:.4g} frames a second; its timestamps are damaged.")
    return None if own is None else round(own, 3) if own >= 1 else float(f"{own:.4g}")


def grid(times: np.ndarray, fps: float | None, *, where: str = "The recording") -> np.ndarray:
    """When each frame of another rate is shown, in seconds from the first source frame; never a rate above its own."""
    times = np.asarray(times, np.float64)
    if not len(times) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError(f"{where} has frames whose times are missing or run backwards; write its timestamps anew.")
    own, times = pace(times), times - times[0]
    if own is None or fps is None:
        return times if own is not None else times[:1]
    rate(times, where=where)
    if fps > own * (1 + SLACK):
        raise Unmet(
            f"{where} has {own:.5g} frames a second; {fps:g} were asked for, and frames that nobody recorded are not "
            "made up. Ask for at most its own rate.",
            fault=f"whole, but slower than {fps:g} a second ({own:.4g}); a lower --fps keeps such",
        )
    step = 1 / own if abs(fps / own - 1) <= SLACK else 1 / fps
    count = math.floor(times[-1] / step + 0.05) + 1  # timestamps may be rounded, to milliseconds for one
    if count > FRAMES:
        raise ValueError(f"{where} spans {times[-1]:.4g} seconds, {count} frames; its timestamps are damaged.")
    return np.arange(count) * step


def kept(times: np.ndarray, fps: float | None, *, where: str = "The recording") -> np.ndarray:
    """Which source frame is shown at each k / fps: the nearest in time, the earlier of two that are as near.

    In a gap, where nothing was recorded because nothing moved, the frame before it stays: what came after is not shown
    ahead of its time by more than half an ordinary interval, or an action would seem to follow what it brought about.
    """
    times = np.asarray(times, np.float64)
    at = grid(times, fps, where=where)
    own = pace(times)
    if fps is None or own is None:
        return np.arange(len(at))
    times = times - times[0]
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    before = after - 1
    wait, since = times[after] - at, at - times[before]
    return np.where((wait < since - 1e-6) & (wait <= 0.5 / own + 1e-6), after, before)


def carried(values: np.ndarray, rows: np.ndarray, *, how: Literal["sum", "mean", "most"]) -> np.ndarray:
    """What lies between source frames, brought to what lies between the kept ones.

    Rewards sum; of continuous actions the mean, of discrete ones the most frequent, the first of equals. Unlabelled
    rows do not count unless there is nothing else, and between two showings of one frame there is nothing.
    """
    values, rows = np.asarray(values), np.asarray(rows)
    blank: float = -1 if how == "most" else 0 if how == "sum" else np.nan
    if (np.diff(rows) == 1).all():
        return values[rows[:-1]]
    out = np.full((max(0, len(rows) - 1), *values.shape[1:]), blank, values.dtype)
    flat = values.reshape(len(values), -1)
    seen = values >= 0 if how == "most" else np.isfinite(flat).all(1)
    for k, (start, stop) in enumerate(zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True)):
        part = values[start:stop][seen[start:stop]]
        if len(part) and how == "most":
            choices, first, counts = np.unique(part, return_index=True, return_counts=True)
            out[k] = choices[np.lexsort((first, -counts))[0]]
        elif len(part):
            out[k] = part.sum(0, dtype=np.float64) if how == "sum" else part.mean(0, dtype=np.float64)
        elif stop > start:
            out[k] = np.nan if how == "sum" else blank
    return out


def framed(shape: tuple[int, int], view: View, *, where: str = "The picture") -> tuple[int, int]:
    """The (H, W) at which pictures of a shape are seen, or that the crop does not lie within them."""
    if view.crop is not None:
        top, left, height, width = view.crop
        if top + height > shape[0] or left + width > shape[1]:
            raise Unmet(
                f"{where} is {sized(shape)}; the crop from {left} across and {top} down, {sized((height, width))}, "
                "leads out of it. Give a smaller crop.",
                fault=f"whole, but not as large as the {sized((top + height, left + width))} that the crop takes "
                f"({sized(shape)}); a smaller --crop keeps such",
            )
        shape = (height, width)
    return view.size or shape


def shaped(frames: np.ndarray, view: View, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """(T, H, W, 3) frames as they are seen: the part that is looked at, brought to a size."""
    height, width = framed((frames.shape[1], frames.shape[2]), dataclasses.replace(view, size=size or view.size))
    if view.crop is not None:
        top, left, tall, wide = view.crop
        frames = frames[:, top : top + tall, left : left + wide]
    tall, wide = frames.shape[1:3]
    if (tall, wide) == (height, width):
        return frames
    bounded((len(frames), height, width, 3), np.uint8, where="The view")
    if view.fit == "crop":
        inner = min(tall, max(1, round(wide * height / width))), min(wide, max(1, round(tall * width / height)))
        top, left = (tall - inner[0]) // 2, (wide - inner[1]) // 2
        frames = frames[:, top : top + inner[0], left : left + inner[1]]
    if view.fit != "pad":
        return resize(frames, (height, width))
    inner = min(height, max(1, round(tall * width / wide))), min(width, max(1, round(wide * height / tall)))
    out = np.zeros((len(frames), height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out[:, top : top + inner[0], left : left + inner[1]] = resize(frames, inner)
    return out


@final
class Viewed(Through):
    """Any reader seen another way, an episode at a time; its episodes stay whole, however long."""

    def __init__(self, reader: Reader, view: View) -> None:
        self.reader, self.view = reader, view
        self.path: Path | None = getattr(reader, "path", None)
        own = reader.spec.fps
        self._thinned = view.fps is not None and view.fps < own / (1 + SLACK)
        if view.fps is not None and not self._thinned:
            kept(np.arange(2) / own, view.fps, where=f"The data {reader.spec.name!r}")  # not above its own
        changes: dict[str, Any] = {"latent": 0, "codes": 0} if self._thinned else {}
        if view.fps is not None and (self._thinned or view.fps == int(view.fps)):  # 29.97 may be called 30
            changes["fps"] = float(view.fps)
        if view.size is not None or view.crop is not None:
            changes["frame"] = framed(reader.spec.pictures, view, where=f"The data {reader.spec.name!r}")
        self.fit = view.fit if view.size is not None and view.fit != "crop" else reader.fit
        self.spec = dataclasses.replace(reader.spec, **changes)
        self.lengths = np.array([len(self._rows(int(n))) for n in reader.lengths], np.int64)
        self.faults, self.beside, self.mixed = reader.faults, reader.beside, reader.mixed
        if not self.mixed and reader.spec.frame is not None:
            self.mixed = {"sizes": {reader.spec.frame: len(reader.lengths)}}
        if reader.opening is not None and "view" not in reader.opening:  # of two views one alone could be told
            self.opening = reader.opening | {"view": view.plain()}

    @property
    def origin(self) -> Any:
        return [self.reader.origin, self.view.plain()]

    def _rows(self, length: int) -> np.ndarray:
        return kept(np.arange(length) / self.reader.spec.fps, self.view.fps if self._thinned else None)

    def episode(self, number: int) -> Episode:
        with self._told(number):
            episode = self.reader.episode(number)
        return self._viewed(episode, self._rows(len(episode)))

    def prefix(self, number: int, count: int) -> Episode:
        rows = self._rows(int(self.reader.lengths[number]))[:count]
        return self._viewed(self.reader.prefix(number, int(rows[-1]) + 1), rows)

    @contextlib.contextmanager
    def _told(self, number: int) -> Iterator[None]:
        """A damaged episode's whole frames are counted as they are seen, not as they were recorded."""
        try:
            yield
        except Damaged as error:
            if error.good is None or not self._thinned:
                raise
            good = int(np.searchsorted(self._rows(int(self.reader.lengths[number])), error.good))
            raise Damaged(str(error), good=good) from error

    def _viewed(self, episode: Episode, rows: np.ndarray) -> Episode:
        values: dict[str, Any] = {}
        if episode.frames is not None:
            frames = episode.frames[rows] if self._thinned else episode.frames
            values["frames"] = np.ascontiguousarray(shaped(frames, self.view))
        if self._thinned:
            values |= {"latents": None, "codes": None}
            values["state"] = None if episode.state is None else episode.state[rows]
            for name, how in (("actions", self._how), ("rewards", "sum")):
                value = getattr(episode, name)
                values[name] = None if value is None else carried(value, rows, how=how)  # type: ignore[arg-type]
        return episode.replace(**values)

    @property
    def _how(self) -> str:
        return "most" if self.spec.space is not None and self.spec.space.discrete else "mean"

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        rows, start, held = self._rows(int(self.reader.lengths[number])), 0, np.zeros((0, 1, 1, 3), np.uint8)
        with self._told(number):
            for frames in self.reader.blocks(number, count=count):
                mine = rows[(start <= rows) & (rows < start + len(frames))] - start
                start += len(frames)
                seen = shaped(frames[mine], self.view)
                held = np.concatenate([held, seen]) if len(held) else seen
                while len(held) >= count:
                    yield np.ascontiguousarray(held[:count])
                    held = held[count:]
        if len(held):
            yield np.ascontiguousarray(held)

    @cached_property
    def prints(self) -> tuple[str, ...]:
        """The inner reader's, which outlive another size, marked where other moments or another part are seen."""
        asked = ([self.spec.fps] if self._thinned else []) + ([self.view.crop] if self.view.crop else [])
        mark = hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
        return tuple(f"{p}-{mark}" if asked else p for p in self.reader.prints)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return np.unique(rows)

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return self.pieces(column, np.arange(len(self.lengths)))

    def pieces(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        if not self.spec.has(column):
            return ()
        taken = self.kept(rows)
        if column == "frames":
            if self.path is not None and len(taken):
                return cache(Episodes(self, taken)).reader.flat("frames")
            return tuple(block for i in taken.tolist() for block in self.blocks(i))
        flat = self.reader.pieces(column, taken)
        inner, held = (np.concatenate(flat) if len(flat) > 1 else flat[0]), self.reader.kept(taken)
        lengths = self.reader.lengths[held]
        starts = (np.cumsum(lengths) - lengths)[np.searchsorted(held, taken)]
        out, at = self.spec.blank(column, int(self.lengths[taken].sum())), 0
        for number, start in zip(taken.tolist(), starts.tolist(), strict=True):
            length, size = int(self.reader.lengths[number]), int(self.lengths[number])
            value = inner[start : start + length]
            if column == "state":
                out[at : at + size] = value[self._rows(length)]
            elif not self._thinned:
                out[at : at + size] = value
            else:
                how: Any = "sum" if column == "rewards" else self._how
                out[at : at + size - 1] = carried(value[:-1], self._rows(length), how=how)
            at += size
        return (out,)
