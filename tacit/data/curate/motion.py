"""Scores that look at actions alone, or at nothing: cheap, and the ones that every better score must beat."""

from __future__ import annotations

import hashlib

import numpy as np

from tacit.data.curate.features import runs
from tacit.data.episodes import Episodes

FAST = 0.5  # of the highest frequency that a recording can hold: what no hand means lies above


def smoothness(episodes: Episodes) -> np.ndarray:
    """Minus the jerk of the actions: their mean squared second difference, in squared deviations. Needs labels.

    Actions mostly are speeds or forces, whose second difference is a jerk or worse.
    """
    bends = [[np.diff(run, 2, axis=0).ravel() for run in own] for own in runs(episodes)]
    joined = [np.concatenate(own) for own in bends]
    return np.array([-float((bend**2).mean()) if len(bend) else np.nan for bend in joined])


def steadiness(episodes: Episodes, *, above: float = FAST) -> np.ndarray:
    """Minus the tremor of the actions: the power above ``above`` of the highest frequency, per action. Needs labels.

    Of the longest stretch that is labelled without a gap, less the straight line from its first action to its last,
    which would show at all frequencies.
    """
    return np.array([-_tremor(max(own, key=len), above) for own in runs(episodes)])


def _tremor(run: np.ndarray, above: float) -> float:
    if len(run) < 4:
        return float("nan")
    power = np.abs(np.fft.rfft(run - np.linspace(run[0], run[-1], len(run)), axis=0)) ** 2
    fast = np.arange(len(power)) / (len(run) / 2) > above
    return float(power[fast].sum() * 2 / len(run) ** 2 / run.shape[1])


def typical_length(episodes: Episodes) -> np.ndarray:
    """Minus how far an episode's length is from the median, as a ratio: the baseline that looks at nothing else."""
    return -np.abs(np.log(episodes.lengths / np.median(episodes.lengths)))


def chance(episodes: Episodes, *, seed: int = 0) -> np.ndarray:
    """A number drawn for each episode: the control, which no score may fail to beat.

    It depends on what the episode shows and on ``seed``, not on where it stands.
    """
    told = [hashlib.blake2b(f"{seed}:{p}".encode(), digest_size=8).digest() for p in episodes.prints]
    return np.array([int.from_bytes(word, "big") / 2**64 for word in told])
