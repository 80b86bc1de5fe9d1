"""What a latent holds: how many bits it takes to say, and how much of it is about what no action moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from tacit.clip import Space, floats
from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.codes import SAME, perplexity, said
from tacit.evaluate.probe import AGAIN, HELD, Side, Sides
from tacit.evaluate.report import Value
from tacit.evaluate.tally import score

LOST = 0.05  # share of a continuous latent's variance that need not be said
RIM = 8  # a picture is so many cells wide and high, of which those at its edge are the rim


def bits(model: Any, episodes: Episodes, *, most: int = holdout.MOST, seed: int = 0) -> Value:
    """How many bits a latent of ``model`` takes to say: what a probe's score is to be held against.

    Of codes, the entropy of each symbol, summed: what their statistics alone would save. Of numbers, what saying all
    but ``LOST`` of their variance takes if they are Gaussian, which is the most that their covariance allows.
    """
    holdout.refuse_overlap(model, episodes)
    path = holdout.walk(episodes, length=holdout.span(model), most=most, seed=seed)
    (latents, chosen), data = said(model, path), holdout.told(episodes)
    if chosen is None:
        note = f"if Gaussian, to all but {100 * LOST:.0f} % of the variance"
        return Value("bits of the latent", rate(latents), n=len(path), data=data, note=note)
    told = sum(np.log2(perplexity(np.bincount(column))) for column in chosen.T)
    note = f"entropy of {chosen.shape[1]} symbol{'s' * (chosen.shape[1] > 1)}, summed"
    return Value("bits of the latent", float(told), n=len(path), data=data, note=note)


def rate(latents: ArrayLike, *, lost: float = LOST) -> float:
    """Bits to say all but ``lost`` of the variance of Gaussian latents (N, D): reverse water-filling."""
    z = np.asarray(latents, np.float64)
    centred = z - z.mean(0)
    square = centred.T @ centred if z.shape[1] <= len(z) else centred @ centred.T
    sizes = np.clip(np.linalg.eigvalsh(square), 0, None)  # the weakest first
    if sizes.sum() <= SAME * (z**2).sum():
        return 0.0  # a constant need not be said
    drowned = np.cumsum(sizes) - sizes  # of all that are weaker
    levels = (lost * sizes.sum() - drowned) / np.arange(len(sizes), 0, -1)
    level = levels[np.argmax(levels <= sizes)]
    return float(np.log2(np.maximum(sizes / level, 1)).sum() / 2)


def nuisance(
    model: Any,
    episodes: Episodes,
    *,
    tracks: Sequence[NDArray[Any]] | None = None,
    most: int = holdout.MOST,
    seed: int = 0,
) -> Value:
    """The share of what no action moves that a linear probe reads from ``model``'s latents, as R2; 0 is best.

    ``tracks`` are the episodes' exogenous states, (T, E) each, whose change is asked for. Without them it is the change
    of the picture's rim, which stands for the background where the actor keeps away from the edge.
    """
    holdout.refuse_overlap(model, episodes)
    data, name = holdout.told(episodes), "nuisance probe of z"
    if len(episodes) < 2 or (tracks is None and episodes.spec.frame is None):
        return Value(name, None, data=data, note="it wants two episodes, and pictures or an exogenous state")
    note = "R2; change of the picture's rim" if tracks is None else "R2; change of the exogenous state"
    flat = None if tracks is None else np.concatenate(list(tracks))
    unit = 1.0 if flat is None else np.maximum(np.diff(flat, axis=0).std(0), 1e-9)  # brightness has one unit already
    owner = np.repeat(np.arange(len(episodes)), episodes.lengths)
    sides = []
    for part in _parted(episodes, seed=seed):
        path = holdout.walk(episodes.select(part), length=holdout.span(model), most=most, seed=seed, ordered=True)
        if not len(path):
            return Value(name, None, data=data, note="too few frames to fit a probe and to test it")
        at = np.flatnonzero(np.isin(owner, part))[path.at]
        moved = _rim(path) if flat is None else flat[at + 1] - flat[at]
        inputs = {"z": holdout.infer(model, path).astype(np.float64)}
        sides.append(Side(inputs, (moved / unit)[:, None].astype(np.float64), path.owner))
    space = Space("continuous", sides[0].actions.shape[1])
    tallied = Sides(sides[0], sides[1], space).tally(("z",), "linear")
    return Value.of(name, score(tallied, None), data=data, note=note)


def _parted(episodes: Episodes, *, seed: int) -> list[NDArray[np.int64]]:
    """Numbers of the episodes that a probe is fitted on, and of those that it is tested on, as for any other probe."""
    sides = episodes.split(HELD, seed=AGAIN + seed)
    return [np.flatnonzero(np.isin(episodes.rows, side.rows)) for side in sides]


def _rim(path: holdout.Walk) -> NDArray[np.float64]:
    """How much each cell along the picture's edge brightens in each transition, (N, cells * 3)."""
    ring = np.ones((RIM, RIM), bool)
    ring[1:-1, 1:-1] = False
    edge, found = torch.from_numpy(ring), []
    for _, clip in path.batches():
        frames = floats(clip.frames)  # type: ignore[arg-type]
        found.append(F.adaptive_avg_pool2d(frames[:, -1] - frames[:, -2], RIM)[..., edge].flatten(1))
    return torch.cat(found).double().numpy()
