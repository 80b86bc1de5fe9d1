"""What the formats that hold arrays share: what is told of an episode, and how its arrays become one, or a fault."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import struct
import tokenize
import zipfile
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.reader import BETWEEN, BLOCK, Reader, Spec, content
from tacit.data.video import MOST, Damaged, bounded

MANY = 2**20  # episodes that one file may claim to hold
HELD = ("frames", "state", "actions", "rewards")  # the columns that these formats have room for
FACTS: dict[str, tuple[Any, type]] = {"text": (None, str), "source": ("", str), "success": (None, bool)}
FACTS["split"] = ("", str)
BROKEN = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError, EOFError,
    SyntaxError, zlib.error, zipfile.BadZipFile, struct.error, tokenize.TokenError,
)  # fmt: skip


@contextlib.contextmanager
def naming(where: object) -> Iterator[None]:
    """Whatever a library says of a broken file becomes one line that names what is broken."""
    try:
        yield
    except BROKEN as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        reason = f"it lacks {reason}." if isinstance(error, KeyError) else reason
        raise Damaged(reason if reason.startswith(str(where)) else f"{where}: {reason}") from error


def sane(shape: Sequence[int], dtype: np.dtype[Any], *, where: str) -> None:
    """Refuse an array that is none of numbers, or whose shape no recording has."""
    if dtype.kind not in "biuf" or not 0 < dtype.itemsize <= 8:
        raise Damaged(f"{where} is of {dtype}; wanted plain numbers.")
    if any(n < 0 for n in shape) or 0 in shape[1:] or any(n > 2**40 for n in shape):
        raise Damaged(f"{where} says its shape is {'x'.join(map(str, shape))}; no recording has that.")


def roomy(shape: Sequence[int], dtype: np.dtype[Any], *, where: str) -> None:
    """``bounded``, with room for a second copy of what has to be converted."""
    bounded(shape, dtype, where=where)
    if dtype != np.uint8 and dtype != np.float32 and math.prod(shape) * dtype.itemsize > MOST // 2:
        raise Damaged(f"{where} takes {MOST / 2e9:.1f} GB and as much again to convert; store it smaller, or cut it.")


def frame(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """The size of the pictures that such an array holds, (T, H, W, 3) or (T, 3, H, W), if it holds any."""
    if len(shape) != 4 or not (dtype == np.uint8 or dtype.kind == "f"):
        return None
    if shape[3] == 3:
        return int(shape[1]), int(shape[2])
    return (int(shape[2]), int(shape[3])) if shape[1] == 3 else None


def pictures(value: np.ndarray) -> np.ndarray:
    """Frames as (T, H, W, 3) bytes; floats are taken as bytes that were converted, or as shares of the full light."""
    value = value if value.shape[-1] == 3 else np.moveaxis(value, 1, -1)
    if value.dtype == np.uint8:
        return value
    scale = 255 if value.size and value.max() <= 1 else 1
    frames = np.empty(value.shape, np.uint8)
    for start in range(0, len(value), BLOCK):
        part = np.rint(value[start : start + BLOCK] * scale)
        if not (part.min() >= 0 and part.max() <= 255):
            raise Damaged("its pictures are floats outside [0, 255].")
        frames[start : start + BLOCK] = part
    return frames


def chosen(held: Sequence[str], wanted: str | None) -> str | None:
    """The one camera there is, or the one asked for."""
    matching = [n for n in held if wanted is None or n == wanted or n.rsplit("/", 1)[-1] == wanted]
    if len(matching) == 1:
        return matching[0]
    if not held and wanted is None:
        return None
    asked = "None was chosen" if wanted is None else f"{wanted!r} was asked for"
    raise ValueError(f"{asked}; the cameras are {list(held)}. Name one with camera=... (--camera).")


def fact(name: str, value: Any) -> Any:
    """What is told of an episode, once it is sure to be of the right kind; absent where nothing is told."""
    absent, kind = FACTS[name]
    value = value.decode() if isinstance(value, bytes) else value
    if value is None or isinstance(value, kind):
        if isinstance(value, str):
            value.encode()  # half a surrogate pair is no text
        return absent if value is None else value
    if kind is bool and value in (0, 1):
        return bool(value)
    raise Damaged(f"its {name} is {str(value)[:40]!r}; wanted a {kind.__name__}.")


def rate(value: Any) -> float:
    """Frames a second, once it is sure that it can be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10_000:
        raise Damaged(f"its rate is {str(value)[:40]!r}; wanted frames a second.")
    return float(value)


def space(value: Any) -> Space | None:
    """The action space that a file tells as JSON."""
    value = json.loads(value) if isinstance(value, str | bytes) else value
    if value is None:
        return None
    made = Space(**value)
    if type(made.size) is not int or not all(isinstance(n, str) for n in made.names):
        raise Damaged(f"its action space is {str(value)[:80]}; wanted a whole size, and names as text.")
    if not all(math.isfinite(n) for n in (made.low, made.high)):
        raise Damaged(f"its actions lie in [{made.low}, {made.high}]; wanted finite bounds.")
    return made


@dataclass
class Told:
    """What a file tells of one episode before its rows are read."""

    name: str
    length: int = 1
    frame: tuple[int, int] | None = None
    state: int = 0
    action: tuple[bool, int] | None = None  # whole numbers or not, and how many a step
    rewards: bool = False
    fps: float = 10.0
    space: Space | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    fault: str = ""

    def hold(self, column: str, shape: Sequence[int], *, dtype: np.dtype[Any]) -> None:
        """Note that the episode has a column of such a shape."""
        width = math.prod(shape[1:])
        if column == "frames":
            self.frame = frame(shape, dtype)
        elif column == "state":
            self.state += width
        elif column == "actions":
            self.action = (dtype.kind in "biu", width)
        else:
            self.rewards = True
        lacks = len(shape) < 1 or shape[0] < self.length - (column in BETWEEN)
        if lacks or shape[0] > self.length:
            raise Damaged(f"its {column} have {shape[0] if shape else 'no'} rows where {self.length} frames want them.")

    def admit(self, column: str, shape: Sequence[int], *, dtype: np.dtype[Any]) -> None:
        """``hold``, where a column that is too large is this episode's fault alone."""
        try:
            roomy(shape, dtype, where=f"its {column}")
            self.hold(column, shape, dtype=dtype)
        except Damaged as error:
            self.fault = self.fault or str(error)

    def has(self, column: str) -> bool:
        """Whether anything of a column is stored, if only blanks."""
        held = {"frames": self.frame, "state": self.state, "actions": self.action, "rewards": self.rewards}
        return bool(held[column])


def overlap(out: np.ndarray, block: np.ndarray, *, begin: Sequence[int], corner: Sequence[int]) -> None:
    """Copy what a block that starts at ``corner`` shares with ``out``, which starts at ``begin``."""
    into, of = [], []
    for a, n, c, m in zip(begin, out.shape, corner, block.shape, strict=True):
        low, high = max(a, c), min(a + n, c + m)
        into.append(slice(low - a, high - a))
        of.append(slice(low - c, high - c))
    out[tuple(into)] = block[tuple(of)]


FLAT = {"text": "texts", "source": "sources", "success": "success", "split": "splits"}


def about(episodes: Episodes) -> dict[str, Any]:
    """What a format with all episodes end to end has no room for, as JSON."""
    held = {"texts": episodes.texts, "sources": episodes.sources, "success": episodes.successes}
    told = None if episodes.spec.space is None else dataclasses.asdict(episodes.spec.space)
    return {"fps": episodes.spec.fps, "space": told, "splits": episodes.splits, **held}


def flatly(ends: np.ndarray, told: Any) -> list[Told]:
    """The episodes that lie end to end up to ``ends``, with what ``about`` told of them, if anything."""
    told = told if isinstance(told, dict) else {}
    fps, held = rate(told.get("fps", 10.0)), space(told.get("space"))
    lists = {name: told.get(key) for name, key in FLAT.items()}
    for name, values in lists.items():
        if values is not None and (not isinstance(values, list) or len(values) != len(ends)):
            raise Damaged(f"its {name}s are told as {str(values)[:40]!r}; wanted a list of one for each episode.")
    facts = [{n: fact(n, v[i]) for n, v in lists.items() if v is not None} for i in range(len(ends))]
    lengths = np.diff(ends, prepend=0).tolist()
    return [Told(f"episode {i}", n, fps=fps, space=held, facts=facts[i]) for i, n in enumerate(lengths)]


def ended(episodes: Episodes, column: str) -> np.ndarray | None:
    """A column end to end whose last row of each episode repeats the one before, for loaders want as many as frames."""
    value = episodes.column(column)
    if value is None or column in ("frames", "state"):
        return value
    value, last = np.array(value), episodes.starts + episodes.lengths - 1
    value[last] = value[np.maximum(last - 1, episodes.starts)]
    return value


class Stored(Reader):
    """Episodes in files, each read when asked for; a damaged one is named, and harms only those who want it."""

    def __init__(self, path: Path, told: Sequence[Told], *, camera: str | None = None, name: str = "") -> None:
        self.place, self.told = path, list(told)
        self.opening = {"path": str(path.absolute()), "camera": camera}
        good = self._agreed()
        self.spec = Spec(
            frame=good[0].frame,
            state=good[0].state,
            space=self._space(good),
            fps=good[0].fps,
            rewards=any(t.rewards for t in good),
            text=any(t.facts.get("text") is not None for t in good),
            name=name or (path.absolute().name if path.is_dir() else path.stem),
        )
        if all(t.fault for t in self.told):
            raise Damaged(f"{path} holds no episode that can be read: {self.told[0].fault}")
        self.lengths = np.array([1 if t.fault else t.length for t in self.told], np.int64)
        self._pieces: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @abstractmethod
    def values(self, number: int, column: str) -> np.ndarray:
        """One episode's rows of a column as they are stored, of which one action may lead nowhere."""

    def _agreed(self) -> list[Told]:
        """The episodes that are as most are; of the others it is noted in what they differ."""
        good = [t for t in self.told if not t.fault]
        for names in (("frame", "state", "fps"), ("action",)):
            shapes = [tuple(getattr(t, n) for n in names) for t in good]
            common = Counter(s for s in shapes if s != (None,)).most_common(1)
            for episode, shape in zip(good, shapes, strict=True):
                if common and shape not in (common[0][0], (None,)):
                    episode.fault = f"its {', '.join(names)} are {shape}, those of most others {common[0][0]}."
            good = [t for t in good if not t.fault]
        if not good:
            why = self.told[0].fault if self.told else "there are none."
            raise Damaged(f"{self.place} holds no episode that can be read: {why}")
        return good

    def _space(self, good: list[Told]) -> Space | None:
        """The space that is told, if the actions fit it, or the one that they themselves span."""
        kind = next((t.action for t in good if t.action is not None), None)
        told = Counter(t.space for t in good if t.space is not None)
        for space, _ in told.most_common():
            if kind is None and space.size <= 2**16 or kind == (True, 1) and space.discrete:
                return space
            if kind is not None and not space.discrete and kind[1] == space.size:
                return space
        if told:
            raise Damaged(f"{self.place} says its actions are {next(iter(told))}; those it holds are not.")
        if kind is None:
            return None
        low, high = math.inf, -math.inf
        for number, episode in enumerate(self.told):
            if episode.fault or episode.action is None:
                continue
            try:
                with naming(episode.name), np.errstate(over="ignore"):
                    value = self.values(number, "actions")[: max(0, episode.length - 1)]
                    if kind == (True, 1) and value.size and not (value.min() >= -1 and value.max() < 2**31):
                        raise Damaged(f"its actions lie in [{value.min()}, {value.max()}]; no choice is numbered so.")
                    value = value if value.dtype.kind in "biu" else value.astype(np.float32)
                    value = value[np.isfinite(value)]
            except Damaged as error:
                episode.fault = str(error)
                continue
            low, high = (f(x, float(f(value))) if value.size else x for f, x in ((min, low), (max, high)))
        if kind == (True, 1):
            return Space("discrete", max(0, int(max(high, 0))) + 1)
        inside = low >= -1 and high <= 1 or low > high
        low, high = (-1.0, 1.0) if inside else (low, high if low < high else low + 1)
        return Space("continuous", kind[1], low, high)

    def episode(self, number: int) -> Episode:
        columns: dict[str, Any] = {c: self._column(c, number) for c in HELD if self.told[number].has(c)}
        with self._whole(number):
            return Episode(**columns, **self.told[number].facts)

    @contextlib.contextmanager
    def _whole(self, number: int) -> Iterator[None]:
        told = self.told[number]
        with naming(f"{self.place}, {told.name}"):
            if told.fault:
                raise Damaged(told.fault)
            yield

    def _column(self, column: str, number: int) -> np.ndarray | None:
        """One episode's rows of a column as its spec wants them."""
        with self._whole(number), np.errstate(over="ignore"):
            if not self.told[number].has(column):
                return None
            value, length = self.values(number, column), self.told[number].length
            if len(value) not in (length, length - (column in BETWEEN)):
                raise Damaged(f"its {column} have {len(value)} rows where {length} frames want them.")
            if column == "frames":
                return pictures(value)
            value = value[: length - (column in BETWEEN)]
            value = value.reshape(len(value), math.prod(value.shape[1:]))
            if column == "actions":
                assert self.spec.space is not None
                value = self.spec.space.check(value[:, 0] if self.spec.space.discrete else value, len(value))
            elif column == "rewards" and value.shape[1] != 1:
                raise Damaged(f"its rewards are {value.shape[1]} numbers a step; wanted one.")
            value = value[:, 0] if column == "rewards" else value
            value = value if column == "actions" else value.astype(np.float32, copy=False)
            return self.spec.recorded(column, value)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return np.unique(rows)

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return self.pieces(column, np.arange(len(self.lengths)))

    def pieces(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        if not self.spec.has(column):
            return ()
        kept = self.kept(rows)
        if column not in self._pieces or not np.array_equal(self._pieces[column][0], kept):
            flat, start = self.spec.blank(column, int(self.lengths[kept].sum())), 0
            for number in kept.tolist():
                value = self._column(column, number)
                if value is not None:
                    flat[start : start + len(value)] = value
                start += int(self.lengths[number])
            self._pieces[column] = kept, flat
        return (self._pieces[column][1],)

    @cached_property
    def prints(self) -> tuple[str, ...]:
        """What cannot be read is known by its number: it may be left out, and the others must be told apart."""
        return tuple(self._print(i) for i in range(len(self.lengths)))

    def _print(self, number: int) -> str:
        try:
            return content(self.episode(number))
        except (ValueError, OSError):
            return f"damaged-{number}"

    def _facts(self, name: str) -> tuple[Any, ...]:
        return tuple(t.facts.get(name, FACTS[name][0]) for t in self.told)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return self._facts("source")

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        return self._facts("text")

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        return self._facts("success")

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return self._facts("split")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.told)
