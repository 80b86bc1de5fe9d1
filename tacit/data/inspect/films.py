"""One pass over an episode's pictures, that keeps what every check needs of it and no picture at full size."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.inspect.labels import Labels, labels
from tacit.data.reader import BLOCK, Joined, Reader, content
from tacit.data.scale import Engine, Fault, spread
from tacit.data.video import resize

SIDE = 64  # pixels of the longer side of what is looked at: a hand or a sprite shows, sensor noise averages out
GRID = 16  # rows and columns of what is kept for fits: enough to say where a body is
CELLS = 8  # rows and columns in which change is sought: a body that fills 1/64 of the picture fills a cell
PATCHES = 4  # rows and columns in which motion is measured
FLOWS = 2 * PATCHES**2 + 2  # down and across, in each patch and over all
SLOTS = 8  # pictures kept of an episode, from the first to the last
KEPT = 20_000  # frames of all episodes together that are kept for fits, at GRID: 15 MB
LEAST = 32  # frames of one episode that are kept all the same
CHANCE = 10.0  # times the noise of a cell, and GRID: four deviations of what noise leaves in the sum of all cells
HELD = 2**27  # bytes of decoded pictures in memory at a time


@dataclass
class Film:
    """What is left of an episode once it was looked at: a few numbers a frame, a few small pictures, a stretch."""

    number: int
    length: int  # frames that its dataset promises
    seen: int = 0  # frames that could be read
    why: str = ""  # what stopped the reading
    good: int | None = None  # frames that are whole, from the first on, where that is known
    mute: str = ""  # why its labels could not be read, though its pictures could
    digest: str = ""
    level: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T,) mean of the picture
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T,) deviation within the picture
    change: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T-1,) mean difference to the next picture
    apart: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T-1,) 1 less their correlation
    peak: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T-1,) difference of the cell that changed most
    same: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # (T-1,) equal in every byte, at full size
    energy: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T-1,) squared change
    far: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T-1,) the part of it outside the busiest quarter
    views: np.ndarray | None = None  # (SLOTS, GRID, GRID) grey, evenly spread
    strip: bytes = b""  # the same SLOTS as one picture in a row, encoded; empty where none was read
    held: int = 0  # how many of the SLOTS were read
    first: int = 0  # frame at which the kept stretch begins
    small: np.ndarray | None = None  # (S, GRID, GRID, 3) uint8: the stretch
    flow: np.ndarray | None = None  # (S-1, F) what moved where in it
    state: np.ndarray | None = None  # (S, D)
    labels: Labels | None = None


@dataclass(frozen=True)
class Task:
    """The pictures of some episodes, for processes that open the data themselves."""

    opening: dict[str, Any]
    rows: tuple[int, ...]
    picked: tuple[int, ...]
    ours: bool = True

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], Film]]:
        from tacit.data import open as opened

        episodes = Episodes(opened(**self.opening).reader, np.array(self.rows, np.int64))
        yield lambda i: shown(episodes, self.picked[i], stretch=stretch(len(self.picked)))


def films(episodes: Episodes, picked: np.ndarray, *, workers: int = 1, engine: Engine = "local") -> Iterator[Film]:
    """Each of the ``picked`` episodes as a film, in order, each decoded once."""
    reader, kept = episodes.reader, stretch(len(picked))
    many = (workers > 1 or engine != "local") and reader.opening is not None and streamed(reader)
    if many and episodes.spec.frame is not None:
        task = Task(reader.opening or {}, tuple(episodes.rows.tolist()), tuple(picked.tolist()))
        with contextlib.closing(spread(task, stop=len(picked), workers=workers, engine=engine)) as answers:
            for number, film in zip(picked.tolist(), answers, strict=True):
                if isinstance(film, Fault):
                    film = Film(number, int(episodes.lengths[number]), why=film.why, good=film.good)
                yield told(film, episodes)
        return
    for number in picked.tolist():
        if streamed(reader):
            yield told(shown(episodes, number, stretch=kept), episodes)
        else:
            yield whole(episodes, number, stretch=kept)


def stretch(count: int) -> int:
    """How many frames of each of so many episodes are kept for fits."""
    return max(LEAST, KEPT // max(1, count))


def leaves(reader: Reader) -> tuple[Reader, ...]:
    """The readers of a joined set; a single one of any other."""
    return tuple(leaf for r in reader.readers for leaf in leaves(r)) if isinstance(reader, Joined) else (reader,)


def streamed(reader: Reader) -> bool:
    """Pictures come in blocks and numbers without pictures; else an episode comes as a whole or not at all."""
    kinds = {type(leaf) for leaf in leaves(reader)}
    bare = not (reader.spec.state or reader.spec.space)
    return all(k.blocks is not Reader.blocks and (bare or k.flat is not Reader.flat) for k in kinds)


def shown(episodes: Episodes, number: int, *, stretch: int) -> Film:
    """The pictures of one episode, block by block."""
    film = Film(number, int(episodes.lengths[number]))
    frame = episodes.spec.frame
    if frame is None:
        return film
    row, count = int(episodes.rows[number]), int(np.clip(HELD // (frame[0] * frame[1] * 3), 32, BLOCK))
    film = _watch(film, episodes.reader.blocks(row, count=count), stretch)
    good = film.good or 0
    if film.why and good > film.seen:  # a block is whole or lost: in other blocks that end at the fault less is lost
        blocks = episodes.reader.blocks(row, count=good // -(-good // count))
        again = _watch(Film(number, film.length), blocks, stretch)
        again.why, again.good = film.why, film.good
        return again
    return film


def told(film: Film, episodes: Episodes) -> Film:
    """The same film with the numbers that lie beside the pictures."""
    one = episodes.select([film.number])
    try:
        actions, state = (one.column(c) for c in ("actions", "state"))
    except (ValueError, OSError) as error:
        film.mute = str(error)
        return film
    return _beside(film, None if actions is None else actions[:-1], state=state, episodes=episodes)


def labelled(episodes: Episodes, picked: np.ndarray, *, skip: set[int]) -> dict[int, Labels]:
    """The labels of some episodes without their pictures, from readers that give them so."""
    if episodes.spec.space is None or any(type(leaf).flat is Reader.flat for leaf in leaves(episodes.reader)):
        return {}
    read = (told(Film(i, int(episodes.lengths[i])), episodes) for i in picked.tolist() if i not in skip)
    return {film.number: film.labels for film in read if film.labels}


def whole(episodes: Episodes, number: int, *, stretch: int) -> Film:
    """An episode of a reader that gives pictures and numbers at once."""
    film = Film(number, int(episodes.lengths[number]))
    try:
        episode = episodes.episode(number)
    except (ValueError, OSError) as error:
        film.why, film.good = str(error), getattr(error, "good", None)
        return film
    frames, count = episode.frames, BLOCK
    if frames is not None:
        film = _watch(film, (frames[i : i + count] for i in range(0, len(frames), count)), stretch)
    actions = episode.actions
    if actions is None and episodes.spec.space is not None:
        actions = episodes.spec.space.blank(len(episode) - 1)
    return _beside(film, actions, state=episode.state, episodes=episodes)


def _beside(film: Film, actions: np.ndarray | None, *, state: np.ndarray | None, episodes: Episodes) -> Film:
    span = slice(film.first, film.first + (len(film.small) if film.small is not None else film.length))
    if film.small is None:  # no pictures: the stretch is as long as it would have been
        span = slice(0, KEPT)
    if film.small is None and state is not None and episodes.spec.frame is None:
        film.digest = content(Episode(state=np.asarray(state, np.float32)))
    film.state = None if state is None else np.array(state[span], np.float32)
    if actions is not None and episodes.spec.space is not None:
        film.labels = labels(actions, episodes.spec.space, span=slice(span.start, span.stop - 1))
    return film


def _watch(film: Film, blocks: Iterator[np.ndarray], kept: int) -> Film:
    """Look at every picture once, and keep what ``Film`` says; a fault ends it where it is."""
    film.first = max(0, (film.length - kept) // 2)
    slots = np.linspace(0, max(0, film.length - 1), SLOTS).round().astype(int)
    rows: dict[str, list[np.ndarray]] = {k: [] for k in (*SERIES, "small", "flow")}
    pictures: dict[int, np.ndarray] = {}
    raw, last, digest = None, None, hashlib.blake2b(digest_size=16)
    try:
        for block in blocks:
            if not film.seen:  # as `content` has it, so that a copy is known whoever holds it
                digest.update(f"{block.dtype.str}{(film.length, *block.shape[1:])}".encode())
            digest.update(np.ascontiguousarray(block).data)
            small = resize(block, _shrunk(block.shape[1:3]))
            joined = small if last is None else np.concatenate([last, small])
            full = block if raw is None else np.concatenate([raw, block])
            series = _series(joined, fresh=len(small))
            series["same"] = np.array([np.array_equal(a, b) for a, b in zip(full[:-1], full[1:], strict=True)], bool)
            for name, value in series.items():
                rows[name].append(value)
            lo, hi = (int(np.clip(film.first + k - film.seen, 0, len(small))) for k in (0, kept))
            rows["small"].append(resize(small[lo:hi], (GRID, GRID)))
            shift = len(joined) - len(small)  # the first pair of `joined` leads from the block before
            if hi > lo:
                rows["flow"].append(_flow(joined[max(0, lo + shift - (film.seen + lo > film.first)) : hi + shift]))
            pictures |= {int(s): small[s - film.seen].copy() for s in slots if film.seen <= s < film.seen + len(small)}
            film.seen, raw, last = film.seen + len(block), block[-1:].copy(), small[-1:]
    except (ValueError, OSError) as error:
        film.why, film.good = str(error), getattr(error, "good", None)
        film.good = film.seen if film.good is None and film.seen else film.good
    for name in SERIES:
        setattr(
            film, name, np.concatenate(rows[name]) if rows[name] else np.zeros(0, bool if name == "same" else float)
        )
    film.digest = digest.hexdigest() if not film.why else ""
    film.held = len(pictures)
    if film.seen:
        film.small = np.concatenate(rows["small"])
        film.flow = np.concatenate([np.zeros((0, FLOWS), np.float32), *rows["flow"]])
        film.strip = _strip([pictures[s] for s in slots.tolist() if s in pictures])
    if all(int(s) in pictures for s in slots):
        chosen = _grey(np.stack([pictures[int(s)] for s in slots]).astype(np.float32))
        film.views = _cells(chosen, GRID) if min(chosen.shape[1:]) >= GRID else _padded(chosen)
    return film


SERIES = ("level", "spread", "change", "apart", "peak", "same", "energy", "far")


def _shrunk(shape: tuple[int, ...]) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _series(joined: np.ndarray, *, fresh: int) -> dict[str, np.ndarray]:
    """What is measured of every picture, and of every pair of neighbours."""
    x = joined.astype(np.float32)
    flat = x.reshape(len(x), -1)
    level, spread = flat.mean(1), flat.std(1)
    gap = np.abs(x[1:] - x[:-1])
    centred = flat - level[:, None]
    both = spread[1:] * spread[:-1]
    product = (centred[1:] * centred[:-1]).mean(1)
    apart = np.where(both > 1.0, 1 - product / np.maximum(both, 1e-6), 0.0)
    energy, far = _spread(joined)
    peak = _flat(_cells(_grey(gap), CELLS)).max(1, initial=0.0)
    pairs = {"change": _flat(gap).mean(1), "apart": apart, "peak": peak, "energy": energy, "far": far}
    return {"level": level[-fresh:], "spread": spread[-fresh:], **pairs}


def _flat(values: np.ndarray) -> np.ndarray:
    """One row a picture, or a pair of them; of a single frame there is no pair, and none is no fault."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _spread(joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared change of each pair, and how much of it lies outside the quarter of the picture that holds the most.

    The quarter may run over an edge, for in some games the edges join. A level is taken off first, for it is noise, and
    from the squares what a camera's noise adds to each on average; where no more is left than chance leaves, nothing.
    """
    x = resize(joined, (GRID, GRID)).astype(np.float32)
    noise = _noise(joined)[:, None, None]
    e = 3 * (_grey(np.square(np.maximum(np.abs(x[1:] - x[:-1]) - 1, 0))) - noise)
    half = GRID // 2
    wide = np.pad(e, ((0, 0), (0, half - 1), (0, half - 1)), mode="wrap")
    sums = np.pad(wide.cumsum(1, dtype=np.float64).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    quarters = sums[:, half:, half:] - sums[:, :-half, half:] - sums[:, half:, :-half] + sums[:, :-half, :-half]
    total = _flat(e).sum(1)
    moved = total > CHANCE * GRID * noise.ravel()
    return total * moved, (total - _flat(quarters).max(1, initial=0.0)) * moved


def _noise(joined: np.ndarray) -> np.ndarray:
    """(T-1,) what noise, another in every pixel, adds to the squared change of a cell of GRID beyond a level.

    How much differs within the median cell tells it: what moves covers fewer, or moves many pixels of a cell alike.
    """
    count = joined.shape[1] * joined.shape[2] / GRID**2
    if min(joined.shape[1:3]) <= GRID:  # a cell is a pixel, and nothing tells the two apart
        return np.zeros(len(joined) - 1)
    change = np.diff(joined.astype(np.float32), axis=0)
    inside = sum(_cells(np.square(c), GRID) - np.square(_cells(c, GRID)) for c in np.moveaxis(change, -1, 0)) / 3
    middle = (1 - 2 / (27 * (count - 1))) ** 3  # the median of such squares, of their mean (Wilson and Hilferty 1931)
    deviation = np.sqrt(np.median(_flat(inside), axis=1) / (count - 1) / middle) + 1e-3
    beyond = np.array([math.erfc(1 / (s * math.sqrt(2))) for s in deviation])
    density = np.exp(-1 / (2 * deviation**2)) * math.sqrt(2 / math.pi)
    return (deviation**2 + 1) * beyond - deviation * density  # the mean of (|x| - 1)^2 where a normal x exceeds 1


def _flow(pictures: np.ndarray) -> np.ndarray:
    """How far what is seen in each patch moved, down and across: the change times the slope, over the slope squared."""
    x = _grey(pictures.astype(np.float32))
    if len(x) < 2 or min(x.shape[1:]) < 2:
        return np.zeros((max(0, len(x) - 1), FLOWS), np.float32)
    after, middle = x[1:] - x[:-1], (x[1:] + x[:-1]) / 2
    down, across = np.gradient(middle, axis=1), np.gradient(middle, axis=2)
    steep = (down**2 + across**2).reshape(len(x) - 1, -1).mean(1, keepdims=True) + 1.0
    moved = [-_cells(after * slope, PATCHES).reshape(len(after), -1) / steep for slope in (down, across)]
    return np.concatenate([*moved, *(m.sum(1, keepdims=True) for m in moved)], 1).astype(np.float32)


def _grey(pictures: np.ndarray) -> np.ndarray:
    """The mean of the channels; numpy's own is ten times slower over an axis of three."""
    return np.asarray((pictures[..., 0] + pictures[..., 1] + pictures[..., 2]) / 3)


def _cells(values: np.ndarray, count: int) -> np.ndarray:
    """(N, H, W) as means over a grid of at most ``count`` rows and columns."""
    for axis in (1, 2):
        size = values.shape[axis]
        edges = np.linspace(0, size, min(count, size) + 1).round().astype(int)
        width = np.diff(edges).reshape((-1, 1) if axis == 1 else (-1,))
        values = np.add.reduceat(values, edges[:-1], axis=axis) / width
    return values


def _padded(pictures: np.ndarray) -> np.ndarray:
    """Pictures smaller than the grid, at its size."""
    grown = resize(np.repeat(pictures[..., None], 3, -1).round().astype(np.uint8), (GRID, GRID))
    return grown[..., 0].astype(np.float32)


def _strip(pictures: list[np.ndarray]) -> bytes:
    """Some pictures in a row, as PNG or, where they are many pixels, as JPEG."""
    from PIL import Image

    buffer, row = io.BytesIO(), Image.fromarray(np.concatenate(pictures, 1))
    row.save(buffer, "PNG")
    if buffer.tell() > 16_384:
        buffer = io.BytesIO()
        row.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
