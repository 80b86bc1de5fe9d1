"""Outliers: episodes that go where no other goes, do what no other does, or end where no other ends."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tacit.data.curate.features import Features, acts, means, seen
from tacit.data.curate.neighbours import Others
from tacit.data.episodes import Episodes

How = Literal["neighbours", "mahalanobis"]
WORST = 0.1  # the share of an episode's frames by which it is judged: one wrong moment is few frames of many
SHRINK = 1e-3  # of the covariance towards its diagonal mean, so that it can be inverted


def typical_states(
    episodes: Episodes, *, by: How = "neighbours", k: int = 5, worst: float = WORST, features: Features = seen
) -> np.ndarray:
    """Minus the strangeness of what an episode shows: how far its strangest frames lie from those of the others.

    Far is the distance to the ``k``-th nearest of the other episodes (fewer than ``k`` that share a fault do not excuse
    it), or Mahalanobis' from a centre and covariance that the farthest tenth does not sway. The mean over the ``worst``
    share of the frames. Needs no labels.
    """
    rows = features(episodes)
    owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return -_strange(np.concatenate(rows), owner, count=len(rows), by=by, k=k, worst=worst)


def typical_actions(episodes: Episodes, *, by: How = "neighbours", k: int = 5, worst: float = WORST) -> np.ndarray:
    """Minus the strangeness of what an episode does, whatever it sees: as ``typical_states``. Needs labels."""
    rows = acts(episodes)
    owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return -_strange(np.concatenate(rows), owner, count=len(rows), by=by, k=k, worst=worst)


def typical_ends(episodes: Episodes, *, k: int = 5, features: Features = seen) -> np.ndarray:
    """Minus the distance from where an episode ends to the ``k``-th nearest end of another. Needs no labels.

    What was cut short, or failed, ends where the others do not.
    """
    ends = np.stack([rows[-1] for rows in features(episodes)])
    owner = np.arange(len(ends))
    return -Others.of(owner).kth(ends, owner, k=k)


def _strange(points: np.ndarray, owner: np.ndarray, *, count: int, by: How, k: int, worst: float) -> np.ndarray:
    if by == "mahalanobis":
        far = _mahalanobis(points)
    else:
        far = Others.of(owner).kth(points, owner, k=k)
    order = np.lexsort([-far, owner])  # each episode's strangest points first
    sizes = np.bincount(owner, minlength=count)
    place = np.arange(len(far)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[place < np.maximum(1, np.ceil(worst * sizes))[owner[order]]]
    return means(far[chosen], owner[chosen], count=count)


def _mahalanobis(points: np.ndarray, *, rounds: int = 3) -> np.ndarray:
    """Distances from a centre and covariance estimated anew from the nearest nine tenths, a few times over."""
    inside = np.ones(len(points), bool)
    for _ in range(rounds):
        centre, some = points[inside].mean(0), points[inside]
        covariance = np.atleast_2d(np.cov(some, rowvar=False))
        covariance[np.diag_indices_from(covariance)] += SHRINK * np.trace(covariance) / len(covariance) + 1e-12
        off = points - centre
        far = np.sqrt((off * np.linalg.solve(covariance, off.T).T).sum(1))
        inside = far <= np.quantile(far, 0.9)
    return np.asarray(far)
