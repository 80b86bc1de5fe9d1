"""Duplicates: the same recording twice weighs twice in training, and in a test it is no test."""

from __future__ import annotations

import numpy as np

from tacit.data.curate.dropped import Dropped
from tacit.data.curate.keep import parted
from tacit.data.curate.pace import shares
from tacit.data.curate.pictures import small
from tacit.data.episodes import Episodes

PARTS = 12  # of equal length, of whose means an episode is known: a frame more or less moves them little
SIDE = 16
ROWS = 512  # episodes compared with all others at a time


def distinct(episodes: Episodes, *, near: float = 0.2) -> tuple[Episodes, Dropped]:
    """One of each group of episodes that show the same, exactly (by their prints) or nearly.

    Nearly: compared by the means of their twelve parts, in small pictures or in the state, they differ by less than
    ``near`` times what changes within them, as another encoding, size or speed of one recording does. Of a group the
    one with most labels stays, then the longest, then the first. ``near=0`` finds exact ones only.
    """
    count, prints = len(episodes), episodes.prints
    known: dict[str, int] = {}
    leader = np.array([known.setdefault(p, i) for i, p in enumerate(prints)])
    apart = np.where(leader == np.arange(count), np.nan, 0.0)
    if near > 0:
        sketch, inside = _sketched(episodes)
        _joined(leader, apart, sketch, near * inside)
    labels = np.add.reduceat(episodes.mask.astype(np.int64), episodes.starts)
    names, gone = episodes.names, {}
    for first in np.unique(leader):
        group = np.flatnonzero(leader == first)
        best = max(group.tolist(), key=lambda i: (labels[i], episodes.lengths[i], -i))
        for i in group.tolist():
            if i != best:
                same = "shows the same as" if prints[i] == prints[best] else "shows nearly the same as"
                gone[i] = (0.0 if prints[i] == prints[best] else float(apart[i]), f"{same} {names[best]}")
    return parted(episodes, gone)


def _sketched(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Each episode's twelve parts as one row, and how much changes within each."""
    rows = []
    state = episodes.column("state") if episodes.spec.frame is None else None
    if state is not None:
        unit = state.astype(np.float64).std(0)
        state = state / np.where(unit > 0, unit, 1)
    for number, length in enumerate(episodes.lengths.tolist()):
        start = int(episodes.starts[number])
        seen = small(episodes, number, side=SIDE).mean(-1) if state is None else state[start : start + length]
        part = shares(np.linspace(0, length, PARTS + 1), length) * (PARTS / length)
        rows.append(part @ seen.reshape(length, -1))
    sketch = np.stack(rows).astype(np.float64)
    inside = np.sqrt(((sketch - sketch.mean(1, keepdims=True)) ** 2).mean((1, 2)))
    return sketch.reshape(len(rows), -1), inside


def _joined(leader: np.ndarray, apart: np.ndarray, sketch: np.ndarray, reach: np.ndarray) -> None:
    """Join the groups of any two rows that lie nearer than the lesser of their reaches; note how near they lay."""
    squares, dims = (sketch**2).sum(1), sketch.shape[1]
    for first in range(0, len(sketch), ROWS):
        part = slice(first, first + ROWS)
        gap = np.sqrt(np.maximum(squares[part, None] + squares - 2 * sketch[part] @ sketch.T, 0) / dims)
        for i, j in zip(*np.nonzero(gap < np.minimum(reach[part, None], reach)), strict=True):
            i = int(i) + first
            if i < j:
                apart[[i, j]] = np.fmin(apart[[i, j]], gap[i - first, j])
                low, high = sorted((leader[i], leader[j]))
                leader[leader == high] = low
