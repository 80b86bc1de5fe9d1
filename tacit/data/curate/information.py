"""Mutual information: how much what is seen tells about what is done, and which episodes lend to it."""

from __future__ import annotations

import numpy as np

from tacit.data.curate.features import Features, Points, projected, seen
from tacit.data.curate.neighbours import Others
from tacit.data.episodes import Episodes

TAILS = (1, 99)  # percentiles to which the points' values are cut, so that no single one decides


def information(
    episodes: Episodes, *, k: int = 5, dim: int = 8, most: int = 4096, features: Features = seen
) -> np.ndarray:
    """Each episode's part in the mutual information of situations and actions; high where varied and predictable.

    DemInf, Hejna et al. 2025 (arXiv 2502.08623), on the estimator of Kraskov et al. 2004 (arXiv cond-mat/0305641). It
    differs from the paper: principal axes in place of two autoencoders, and every point is compared with one fixed
    choice of the points of other episodes in place of random batches, so that no chance is in it. Needs labels.
    """
    points = Points.of(episodes, features=features)
    s, a = projected(points.view, dim), projected(points.done, dim)
    others, value = Others.of(points.owner, most=most), np.empty(len(s))
    k = min(k, len(others.at) - int(np.bincount(others.owner).max()))
    for part in others.parts(len(s)):
        far_s, far_a = (others.squares(x, points.owner, part=part) for x in (s, a))
        reach = np.partition(np.maximum(far_s, far_a), k - 1, axis=1)[:, k - 1, None]
        value[part] = -sum(_digamma(np.count_nonzero(far < reach, axis=1) + 1) for far in (far_s, far_a))
    low, high = np.percentile(value, TAILS)
    return points.mean(np.clip(value, low, high), count=len(episodes))


def _digamma(n: np.ndarray) -> np.ndarray:
    """Of whole numbers of at least 1: the harmonic sum before n, less Euler's constant."""
    sums = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, max(2, int(n.max()))))])
    return np.asarray(sums[n - 1] - np.euler_gamma)
