"""Action divergence: how far what was done is from what others did where they saw the same."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tacit.data.curate.features import Features, Points, seen
from tacit.data.curate.neighbours import Others
from tacit.data.episodes import Episodes

PENALTY = 1e-2  # of the ridge, a share of the mean square of its inputs


def consistency(
    episodes: Episodes, *, k: int = 5, by: Literal["neighbours", "ridge"] = "neighbours", features: Features = seen
) -> np.ndarray:
    """Minus the action divergence of each episode: the variance of the action given what is seen. Needs labels.

    Belkhale et al. 2023, Data Quality in Imitation Learning (arXiv 2306.02437), who name the quantity; here it is the
    squared distance of each action from the mean of the ``k`` nearest situations of other episodes, or from a ridge
    regression (with squares and products) that did not see the episode. In squared deviations of the action.
    """
    points = Points.of(episodes, features=features)
    if by == "ridge":
        said = _ridge(points)
    else:
        _, near = Others.of(points.owner).nearest(points.view, points.owner, k=k)
        said = points.done[near].mean(1)
    return -points.mean(((points.done - said) ** 2).mean(1), count=len(episodes))


def _ridge(points: Points) -> np.ndarray:
    """What a regression on all other episodes would have done."""
    x, y = points.view, points.done
    if x.shape[1] <= 16:
        i, j = np.triu_indices(x.shape[1])
        x = np.concatenate([x, x[:, i] * x[:, j]], 1)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    if len(np.unique(points.owner)) < 2:
        raise ValueError("A regression is judged on an episode that it did not see; wanted at least two episodes.")
    gram, cross, said = x.T @ x, x.T @ y, np.zeros_like(y)
    penalty = PENALTY * np.trace(gram) / len(gram) * np.eye(len(gram))
    for owner in np.unique(points.owner):
        own = points.owner == owner  # what it lent to the sums is taken off again
        said[own] = x[own] @ np.linalg.solve(gram - x[own].T @ x[own] + penalty, cross - x[own].T @ y[own])
    return said
