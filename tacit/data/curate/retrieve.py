"""Retrieval: of much that nobody sorted, what looks most like a few demonstrations. It needs no labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tacit.data.curate.dropped import Dropped
from tacit.data.curate.keep import Score, parted
from tacit.data.curate.pictures import small
from tacit.data.curate.stretched import stretches
from tacit.data.episodes import Episodes

Look = Callable[[Episodes, int], np.ndarray]  # an episode's number to (T, F), before any scaling
ROWS = 2**22  # distances held at a time


def looked(episodes: Episodes, number: int, *, side: int = 8) -> np.ndarray:
    """The default look: pictures of eight by eight pixels or, where there are none, the state."""
    if episodes.spec.frame is not None:
        return small(episodes, number, side=side).reshape(-1, 3 * side * side) / np.float32(255)
    state = episodes.select([number]).column("state")
    assert state is not None
    return state


def retrieve(
    library: Episodes,
    demonstrations: Episodes,
    *,
    count: int,
    length: int = 8,
    stride: int = 4,
    look: Look = looked,
) -> tuple[Episodes, Dropped]:
    """The ``count`` stretches of ``length`` frames that lie nearest to any stretch of the demonstrations, as episodes.

    Behaviour retrieval, Du et al. 2023 (arXiv 2304.08742), of short stretches as Memmel et al. 2024 (STRAP, arXiv
    2412.15182) have it; without a learned space: a stretch is how it begins and how it moves from there. None overlaps
    another. The table names the episodes of which nothing was taken, with their least distance.
    """
    rows, far = _compared(library, demonstrations, length=length, stride=stride, look=look)
    taken: list[tuple[int, int, int]] = []
    busy: dict[int, list[int]] = {}
    for i in np.argsort(far, kind="stable"):
        number, start = (int(n) for n in rows[i])
        if all(abs(start - other) >= length for other in busy.get(number, ())):
            busy.setdefault(number, []).append(start)
            taken.append((number, start, start + length))
        if len(taken) == count:
            break
    if len(taken) < count:
        raise ValueError(f"{count} stretches were asked for; the library holds {len(taken)} of {length} frames.")
    least = {n: float(far[rows[:, 0] == n].min(initial=np.inf)) for n in set(range(len(library))) - busy.keys()}
    gone = {
        n: (v, "no stretch of it is among the nearest" if np.isfinite(v) else "too short") for n, v in least.items()
    }
    return stretches(library, sorted(taken)), parted(library, gone)[1]


def likeness(demonstrations: Episodes, *, length: int = 8, stride: int = 4, look: Look = looked) -> Score:
    """A score for ``keep``: minus how far an episode's stretches lie from those of the demonstrations, at the median.

    An episode too short to hold a stretch is not judged (NaN).
    """

    def likeness(episodes: Episodes) -> np.ndarray:
        rows, far = _compared(episodes, demonstrations, length=length, stride=stride, look=look)
        own = [far[rows[:, 0] == number] for number in range(len(episodes))]
        return np.array([-float(np.median(mine)) if len(mine) else np.nan for mine in own])

    return likeness


def _compared(
    library: Episodes, demonstrations: Episodes, *, length: int, stride: int, look: Look
) -> tuple[np.ndarray, np.ndarray]:
    """Every stretch of the library as (episode, start), and its distance to the nearest stretch of a demonstration."""
    if length < 2 or stride < 1:
        raise ValueError(f"Stretches of {length} frames, every {stride}; wanted at least 2 frames and a stride of 1.")
    rows, theirs = _described(library, length, stride, look)
    _, wanted = _described(demonstrations, length, 1, look)  # every one of the few: the match may begin anywhere
    if not len(wanted) or not len(theirs):
        lacking = "demonstration" if not len(wanted) else "episode of the library"
        raise ValueError(f"No {lacking} holds a stretch of {length} frames; ask for shorter ones.")
    if wanted.shape[1:] != theirs.shape[1:]:
        raise ValueError(
            f"A look at the library gives {theirs.shape[2]} numbers, one at the demonstrations {wanted.shape[2]}."
        )
    # The place counts as much as the movement, whatever their units; no column more than it varies in the library.
    centre, unit = theirs.mean(0, dtype=np.float64), theirs.std(0, dtype=np.float64)
    unit = np.where(unit > 1e-6 * (1 + np.abs(centre)), unit, np.inf)
    b = ((wanted - centre) / unit).reshape(len(wanted), -1)
    far, step = np.empty(len(theirs)), max(1, ROWS // len(b))
    for i in range(0, len(theirs), step):
        a = ((theirs[i : i + step] - centre) / unit).reshape(-1, b.shape[1])
        gap = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
        far[i : i + step] = np.sqrt(np.maximum(gap.min(1), 0) / b.shape[1])
    return rows, far


def _described(episodes: Episodes, length: int, stride: int, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Stretches as (episode, start), and what each shows: how it begins, and its change at the middle and the end."""
    rows, shown = [], []
    for number in range(len(episodes)):
        x = np.asarray(look(episodes, number), np.float32)  # of a large library, many
        starts = np.arange(0, len(x) - length + 1, stride)
        begin, middle, end = (x[starts + at] for at in (0, length // 2, length - 1))
        rows.append(np.stack([np.full(len(starts), number), starts], 1))
        shown.append(np.stack([begin, middle - begin, end - begin], 1))
    return np.concatenate(rows), np.concatenate(shown)
