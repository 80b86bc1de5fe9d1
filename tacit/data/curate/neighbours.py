"""Nearest neighbours among the frames of other episodes, by plain arithmetic, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS = 2**22  # distances held at a time
MOST = 6000  # points that are compared against: more say little more, and cost in proportion


@dataclass(frozen=True)
class Others:
    """Some of a set's points, every so many of each episode, to be compared with the points of other episodes.

    Which ones are taken does not depend on the order of the episodes. An episode's own frames are never its
    neighbours: that one frame resembles the next says nothing about the episode.
    """

    owner: np.ndarray
    at: np.ndarray  # which points they are

    @classmethod
    def of(cls, owner: np.ndarray, *, most: int = MOST) -> Others:
        """Choose among points that lie in order of ``owner``."""
        stride = -(-len(owner) // most)
        first = np.searchsorted(owner, owner, side="left")
        at = np.flatnonzero((np.arange(len(owner)) - first) % stride == 0)
        if len(np.unique(owner)) < 2:
            raise ValueError("Episodes are judged by others; wanted at least two that can be compared.")
        return cls(owner[at], at)

    def squares(self, points: np.ndarray, owner: np.ndarray, *, part: slice) -> np.ndarray:
        """Squared distances of the points of a ``part`` to these; infinite to those of the same episode."""
        mine, theirs = points[part], points[self.at]
        gap = (mine**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * mine @ theirs.T
        return np.where(owner[part, None] == self.owner, np.inf, np.maximum(gap, 0))

    def parts(self, count: int) -> list[slice]:
        """The points in parts small enough that their distances to these fit in memory."""
        step = max(1, ROWS // max(1, len(self.at)))
        return [slice(i, i + step) for i in range(0, count, step)]

    def nearest(self, points: np.ndarray, owner: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The distance to each of the ``k`` nearest points of other episodes, (N, k), nearest first, and which."""
        k = min(k, len(self.at) - int(np.bincount(self.owner).max()))
        gaps, which = np.empty((len(points), k)), np.empty((len(points), k), np.int64)
        for part in self.parts(len(points)):
            squares = self.squares(points, owner, part=part)
            near = np.argpartition(squares, k - 1, axis=1)[:, :k]
            close = np.take_along_axis(squares, near, axis=1)
            order = np.argsort(close, axis=1, kind="stable")
            gaps[part] = np.sqrt(np.take_along_axis(close, order, axis=1))
            which[part] = self.at[np.take_along_axis(near, order, axis=1)]
        return gaps, which

    def kth(self, points: np.ndarray, owner: np.ndarray, *, k: int) -> np.ndarray:
        """The distance to the ``k``-th nearest of the other episodes, each as near as its nearest point, (N,)."""
        first = np.flatnonzero(np.diff(self.owner, prepend=-1))
        k, found = min(k, len(first) - 1), np.empty(len(points))
        for part in self.parts(len(points)):
            near = np.minimum.reduceat(self.squares(points, owner, part=part), first, axis=1)
            found[part] = np.sqrt(np.partition(near, k - 1, axis=1)[:, k - 1])
        return found
