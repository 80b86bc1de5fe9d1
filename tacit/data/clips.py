"""Clips: batches of stretches of equal length, each one vectorised gather, each decided by (seed, step) alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from tacit.clip import Clip

if TYPE_CHECKING:
    from tacit.data.episodes import Episodes

BLOCK = 2**20  # a permutation is held for this many windows at a time


@final
class Clips:
    """Every window of ``length`` frames that lies inside one episode, and batches of them.

    Windows start every ``stride`` frames. With ``gap`` g a clip holds every g-th frame; between such frames lie g
    actions, not one, so ``actions``, ``latents``, ``rewards`` and ``mask`` are then ``None``. ``labelled`` is the share
    of every batch drawn from windows that hold at least one label, from their transition ``after`` on. Below a
    ``balance`` of 1 small sources are drawn from more often than their size says: each as often as its number of
    windows to that power, at 0 all alike. With ``device`` all columns live there, if they fit, and are gathered there.
    """

    def __init__(
        self,
        episodes: Episodes,
        length: int,
        *,
        stride: int = 1,
        labelled: float = 0.0,
        after: int = 0,
        gap: int = 1,
        balance: float = 1.0,
        device: torch.device | str | None = None,
    ) -> None:
        if length < 1 or stride < 1 or gap < 1 or after < 0 or not 0 <= labelled <= 1 or not 0 <= balance <= 1:
            raise ValueError(
                f"Clips of length {length}, stride {stride}, gap {gap}, labelled {labelled}, after {after}, "
                f"balance {balance}; the first three must be at least 1, after at least 0, labelled a share and "
                "balance a power in [0, 1]."
            )
        drawn = f"clips of length {length}, stride {stride}, gap {gap}, labelled {float(labelled)}"
        drawn += f", labels after {after}" if after else ""
        drawn += f", balance {float(balance)}" if balance < 1 else ""
        # What training on these sees, in words, so that a run begun with other clips says what differs.
        self.prints, self.fingerprint = episodes.prints, f"{drawn}, of {episodes.fingerprint}"
        span = (length - 1) * gap + 1
        counts = np.maximum(0, (episodes.lengths - span) // stride + 1)
        if not counts.sum():
            longest = int(episodes.lengths.max(initial=0))
            raise ValueError(f"No episode holds a clip of {span} frames; the longest of {len(episodes)} has {longest}.")
        self.spec, self.length, self.stride, self.gap, self.share = episodes.spec, length, stride, gap, labelled
        self._owner = np.repeat(np.arange(len(episodes)), counts)
        within = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)) * stride
        self._starts = episodes.starts[self._owner] + within  # in the set's own order: for what may be overlaid
        self._places = episodes.places[self._owner] + within  # in the reader's pieces: for what is never copied
        self._ends = within + span == episodes.lengths[self._owner]
        self._texts = np.array(episodes.texts, object) if self.spec.text else None
        self._columns: dict[str, np.ndarray | Tensor] = {}
        self._mask: np.ndarray | None = None
        if gap == 1 and self.spec.space is not None:
            self._mask = episodes.mask
        self._lucky = self._with_labels(after)
        self._fair: list[_Fair] = []  # by lane: of all windows, and of those that hold labels
        if balance < 1:
            which = np.unique(episodes.sources, return_inverse=True)[1][self._owner]
            self._fair = [_Fair.of(rows, which, balance) for rows in (np.arange(len(self)), self._lucky)]
        for name in ("actions", "latents", "rewards") if gap == 1 else ():
            value = episodes.column(name)
            if value is not None:
                self._columns[name] = value
        if self._mask is not None:
            self._columns["mask"] = self._mask
        held = {name: episodes.reader.pieces(name, episodes.rows) for name in ("frames", "state")}
        self._pieces = {name: list[np.ndarray | Tensor](pieces) for name, pieces in held.items()}
        self._bounds = np.cumsum([0, *(len(p) for p in self._pieces["frames"] or self._pieces["state"])])
        self.device = torch.device(device) if device is not None and self._fits(torch.device(device)) else None
        if self.device is not None:
            self._move(self.device)

    def _with_labels(self, after: int) -> np.ndarray:
        if self._mask is None:
            lucky = np.zeros(0, np.int64)
        else:
            seen, last = np.concatenate([[0], np.cumsum(self._mask)]), self.length - 1
            lucky = np.flatnonzero(seen[self._starts + last] > seen[self._starts + min(after, last)])
        if self.share and not len(lucky):
            raise ValueError(
                f"A share {self.share} of labelled clips was asked for, but no window of {self.length} frames (gap "
                f"{self.gap}) holds a label{f' from transition {after} on' if after else ''}. Keep labels with "
                "keep_labels, or ask for labelled=0."
            )
        return lucky

    def __len__(self) -> int:
        return len(self._owner)

    @property
    def episodes(self) -> np.ndarray:
        """Which episode each window lies in."""
        return self._owner

    @property
    def labelled(self) -> np.ndarray:
        """The windows that hold at least one label that counts."""
        return self._lucky

    def batch(self, rows: np.ndarray | Sequence[int]) -> Clip:
        """The clips of these windows; frames are a (B, T, C, H, W) view of (B, T, H, W, C) memory: channels last."""
        rows = np.asarray(rows, np.int64)
        steps = np.arange(self.length) * self.gap
        places = self._places[rows][:, None] + steps
        between = self._starts[rows][:, None] + steps[:-1]
        values = {name: self._rows(value, between) for name, value in self._columns.items()}
        for name in ("frames", "state"):
            if self._pieces[name]:
                values[name] = self._gather(self._pieces[name], places)
        if "frames" in values:
            values["frames"] = values["frames"].permute(0, 1, 4, 2, 3)
        text = None if self._texts is None else tuple(t or "" for t in self._texts[self._owner[rows]])
        ends = torch.from_numpy(self._ends[rows]).to(self.device or "cpu")
        return Clip(**values, ends=ends, text=text)

    def _rows(self, column: np.ndarray | Tensor, at: np.ndarray) -> Tensor:
        if isinstance(column, Tensor):
            index = torch.from_numpy(at.ravel()).to(column.device)
            return column.index_select(0, index).view(*at.shape, *column.shape[1:])
        return torch.from_numpy(column[at])

    def _gather(self, pieces: list[np.ndarray | Tensor], at: np.ndarray) -> Tensor:
        if len(pieces) == 1:
            return self._rows(pieces[0], at)
        out = np.empty((*at.shape, *pieces[0].shape[1:]), pieces[0].dtype)  # type: ignore[arg-type]
        for piece, low, high in zip(pieces, self._bounds[:-1], self._bounds[1:], strict=True):
            mine = (low <= at) & (at < high)
            out[mine] = piece[at[mine] - low]  # type: ignore[index]
        return torch.from_numpy(out)

    def _fits(self, device: torch.device) -> bool:
        if device.type != "cuda":
            return True
        held = sum(p.nbytes for ps in self._pieces.values() for p in ps) + sum(c.nbytes for c in self._columns.values())
        return held * 1.1 < torch.cuda.mem_get_info(device)[0] / 2  # the other half is for the model

    def _move(self, device: torch.device) -> None:
        for name, pieces in self._pieces.items():
            if pieces:
                first = pieces[0]
                whole = torch.empty((int(self._bounds[-1]), *first.shape[1:]), dtype=_dtype(first), device=device)
                for piece, low in zip(pieces, self._bounds[:-1], strict=True):
                    for i in range(0, len(piece), 4096):  # in parts, so that a memory map is never all in RAM
                        part = torch.from_numpy(np.array(piece[i : i + 4096]))
                        whole[low + i : low + i + len(part)] = part.to(device)
                self._pieces[name] = [whole]
        self._columns = {name: torch.from_numpy(np.array(v)).to(device) for name, v in self._columns.items()}
        self._bounds = self._bounds[[0, -1]]

    def draw(self, step: int, batch: int, *, seed: int = 0, rank: int = 0, world: int = 1) -> np.ndarray:
        """The windows of one step: a function of the arguments and nothing else, so that resuming needs no state."""
        if batch < 1 or batch % world or not 0 <= rank < world:
            raise ValueError(
                f"A batch of {batch} cannot be shared by rank {rank} of {world}; make it a multiple of {world}."
            )
        lucky = min(batch, max(1, round(self.share * batch))) if self.share else 0
        if self._fair:
            drawn = [
                self._fair[lane].draw(step, n, seed=seed, lane=lane) for lane, n in ((1, lucky), (0, batch - lucky))
            ]
            return np.concatenate(drawn)[rank::world]
        first = self._lucky[_walk(len(self._lucky), step, lucky, seed=seed, lane=1)] if lucky else np.zeros(0, np.int64)
        rows = np.concatenate([first, _walk(len(self), step, batch - lucky, seed=seed, lane=0)])
        return rows[rank::world]

    def stream(
        self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1, ahead: int = 1
    ) -> Iterator[Clip]:
        """Batches without end from step ``start``; ranks share each ``batch``, ``ahead`` are gathered beforehand."""

        def clip(step: int) -> Clip:
            return self.batch(self.draw(step, batch, seed=seed, rank=rank, world=world))

        if ahead < 1:
            yield from map(clip, itertools.count(start))
        with ThreadPoolExecutor(1, thread_name_prefix="clips") as pool:
            waiting = [pool.submit(clip, start + i) for i in range(ahead)]
            for step in itertools.count(start + ahead):
                waiting.append(pool.submit(clip, step))
                yield waiting.pop(0).result()


@dataclass(frozen=True)
class _Fair:
    """Windows parted by source, of which each has its own share of every batch, however many windows it holds."""

    rows: np.ndarray  # the windows, those of one source together
    places: np.ndarray  # where in `rows` each source begins, and the last ends
    shares: np.ndarray  # the same places as shares of all that is drawn, from 0 to 1

    @classmethod
    def of(cls, rows: np.ndarray, source: np.ndarray, balance: float) -> _Fair:
        counts = np.bincount(source[rows])
        counts = counts[counts > 0]
        weights = counts**balance
        places, shares = (np.concatenate([[0], np.cumsum(x)]) for x in (counts, weights))
        return cls(rows[np.argsort(source[rows], kind="stable")], places, shares / max(1.0, shares[-1]))

    def draw(self, step: int, batch: int, *, seed: int, lane: int) -> np.ndarray:
        """One window from each of ``batch`` equal slices of the shares: within one, a batch is as fair as can be."""
        random = np.random.Philox(np.random.SeedSequence((seed, lane, 0, 0, step)))
        sliced = (np.arange(batch) + np.atleast_1d(random.random_raw(max(1, batch)))[:batch] / 2**64) / max(1, batch)
        at = np.interp(sliced, self.shares, self.places).astype(np.int64)
        return self.rows[np.minimum(at, len(self.rows) - 1)]


def _dtype(array: np.ndarray | Tensor) -> torch.dtype:
    return array.dtype if isinstance(array, Tensor) else torch.from_numpy(np.empty(0, array.dtype)).dtype


def _walk(count: int, step: int, batch: int, *, seed: int, lane: int) -> np.ndarray:
    """Positions ``step * batch`` onwards of an endless walk over ``range(count)``, each epoch a fresh permutation.

    An epoch is cut into interleaved blocks (block b holds b, b + blocks, ...), so that any place in it is reached by
    permuting one block, and yet a block looks like the whole.
    """
    at = step * batch + np.arange(batch)
    out = np.empty(batch, np.int64)
    blocks = -(-count // BLOCK)
    for epoch in np.unique(at // count):
        order = _permutation(blocks, (seed, lane, int(epoch)))
        sizes = (count - order + blocks - 1) // blocks
        edges = np.cumsum(sizes)
        here = np.flatnonzero(at // count == epoch)
        place = at[here] % count
        which = np.searchsorted(edges, place, side="right")
        for w in np.unique(which):
            block, mine = int(order[w]), which == w
            shuffled = _permutation(int(sizes[w]), (seed, lane, int(epoch), block))
            out[here[mine]] = shuffled[place[mine] - (edges[w] - sizes[w])] * blocks + block
    return out


@lru_cache(maxsize=8)
def _permutation(count: int, key: tuple[int, ...]) -> np.ndarray:
    # Sorting raw Philox words rather than Generator.permutation: the raw stream is promised not to change with numpy.
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(np.atleast_1d(words), kind="stable")
