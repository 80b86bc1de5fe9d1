"""What a probe said, summed over each episode, and what it comes to: accuracy or R2, with an interval over episodes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tacit.clip import Space
from tacit.evaluate import holdout
from tacit.evaluate.interval import LEVEL, Interval, resummed

Array = NDArray[np.float64]


def targets(actions: NDArray[Any], space: Space) -> Array:
    """What a probe is to say, (N, M): a one for the action chosen, or the action itself."""
    return np.eye(space.size)[actions] if space.discrete else actions.astype(np.float64)


def tally(said: Array, actions: NDArray[Any], *, space: Space, owner: ArrayLike) -> Array:
    """Sums over each episode that its score is made of, (E, K): what is drawn anew for the interval."""
    one = np.ones((len(actions), 1))
    if space.discrete:
        rows = np.concatenate([one, (said.argmax(1) == actions)[:, None]], 1)
    else:
        rows = np.concatenate([one, (said - actions) ** 2, actions, actions**2], 1)
    return holdout.summed(rows, owner)


def score(tallied: Array, space: Space | None) -> Interval:
    """Accuracy or R2, with its interval over episodes; without a space, as ``explained``."""
    return resummed(tallied, _good(space))


def gain(one: Array, other: Array, *, space: Space | None, level: float = LEVEL) -> Interval:
    """By how much one probe is better than another on the same transitions; without a space, as ``explained``."""
    width, both, good = one.shape[1], np.concatenate([one, other], 1), _good(space)
    return resummed(both, lambda sums: good(sums[..., :width]) - good(sums[..., width:]), level=level)


def quality(tallied: Array, space: Space) -> float:
    """Accuracy, or R2 averaged over the dimensions that vary at all; NaN where none does."""
    return float(_quality(tallied.sum(0), space=space))


def explained(tallied: Array) -> float:
    """R2 of all numbers together: one of a number that hardly ever changes would drown the others'."""
    return float(_explained(tallied.sum(0)))


def _good(space: Space | None) -> Callable[[Array], Array]:
    return _explained if space is None else functools.partial(_quality, space=space)


def _quality(sums: Array, *, space: Space) -> Array:
    if space.discrete:
        return np.asarray(sums[..., 1] / sums[..., 0])
    missed, varied, second = _parts(sums)
    told = varied > 1e-9 * np.maximum(second, 1e-12)
    count = told.sum(-1)
    share = np.where(told, 1 - missed / np.where(told, varied, 1.0), 0.0).sum(-1) / np.maximum(count, 1)
    return np.where(count > 0, share, np.nan)


def _explained(sums: Array) -> Array:
    missed, varied, second = (part.sum(-1) for part in _parts(sums))
    told = varied > 1e-9 * np.maximum(second, 1e-12)
    return np.where(told, 1 - missed / np.where(told, varied, 1.0), np.nan)


def _parts(sums: Array) -> tuple[Array, Array, Array]:
    """Of a tally's sums (..., 1 + 3 M): what was missed of each number, how much it varied, and its square."""
    missed, first, second = np.moveaxis(sums[..., 1:].reshape(*sums.shape[:-1], 3, -1), -2, 0)
    return missed, second - first**2 / sums[..., :1], second
