"""Scene cuts: where a recording jumps, no action led from one frame to the next."""

from __future__ import annotations

import numpy as np

from tacit.data.curate.dropped import Drop, Dropped
from tacit.data.curate.pictures import changes, small
from tacit.data.curate.stretched import called, stretches
from tacit.data.episodes import Episodes

NEAR = 5  # changes on either side that say what is usual there


def scenes(episodes: Episodes, number: int, *, least: float = 0.08, times: float = 5.0) -> np.ndarray:
    """The frames of one episode with which a new scene begins.

    There the mean change of a pixel is at least ``least`` of its range, and ``times`` the median of the changes around:
    a fast game changes much in every frame, a cut much more than its neighbours.
    """
    jump = changes(small(episodes, number)).mean((1, 2))
    if not len(jump):
        return np.zeros(0, np.int64)
    padded = np.pad(jump, NEAR, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEAR + 1).copy()
    around[:, NEAR] = np.nan  # itself says nothing about what is usual
    usual = np.zeros(len(jump)) if len(jump) == 1 else np.nanmedian(around, axis=1)
    return np.flatnonzero((jump >= least) & (jump >= times * usual)) + 1


def cut(episodes: Episodes, *, least: float = 0.08, times: float = 5.0, shortest: int = 2) -> tuple[Episodes, Dropped]:
    """Episodes split at scene cuts into pieces of at least ``shortest`` frames; shorter ones are dropped."""
    spans, gone = [], []
    names = episodes.names
    for number, length in enumerate(episodes.lengths.tolist()):
        begins = [0, *scenes(episodes, number, least=least, times=times).tolist(), length]
        for start, stop in zip(begins[:-1], begins[1:], strict=True):
            if stop - start >= shortest:
                spans.append((number, start, stop))
                continue
            part = stop - start < length
            name = called(names[number], start, stop=stop) if part else names[number]
            gone.append(Drop(name, number, float(stop - start), f"a scene of fewer than {shortest} frames", part=part))
    if not spans:
        raise ValueError(f"No scene of {len(episodes)} episodes has {shortest} frames; lower `shortest`.")
    return stretches(episodes, spans), Dropped(tuple(gone), len(episodes))
