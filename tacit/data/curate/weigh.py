"""Returns as weights: how often each episode should be seen when some did better than others."""

from __future__ import annotations

import numpy as np

from tacit.data.curate.dropped import Dropped
from tacit.data.curate.keep import parted
from tacit.data.episodes import Episodes


def returns(episodes: Episodes) -> np.ndarray:
    """What each episode earned: the sum of its rewards, or else 1 for success and 0 for failure; NaN if neither."""
    rewards, marks = (
        episodes.column("rewards"),
        np.array([np.nan if s is None else s for s in episodes.successes], float),
    )
    if rewards is None:
        return marks
    told = np.add.reduceat(np.isfinite(rewards), episodes.starts) > 0
    return np.where(told, np.add.reduceat(np.nan_to_num(rewards.astype(np.float64)), episodes.starts), marks)


def weights(episodes: Episodes, *, temperature: float = 0.1) -> np.ndarray:
    """A distribution over episodes that favours high returns: exp(return / temperature), returns scaled to [0, 1].

    Trajectory weighting, Hong et al. 2023 (arXiv 2306.13085): return-weighted, without the baseline of the first state.
    A low temperature sees the best only, a high one all alike.
    """
    if temperature <= 0:
        raise ValueError(f"The temperature is {temperature}; it must be above 0.")
    earned = returns(episodes)
    if np.isnan(earned).any():
        lost = int(np.isnan(earned).sum())
        raise ValueError(
            f"{lost} of {len(earned)} episodes tell neither rewards nor success; select those that do, or mark them."
        )
    span = float(np.ptp(earned))
    scaled = (earned - earned.max()) / (span or 1.0)  # the best is 0, so that no exponential overflows
    weight = np.exp(scaled / temperature)
    return np.asarray(weight / weight.sum())


def sample(
    episodes: Episodes, count: int, *, weight: np.ndarray | None = None, seed: int = 0
) -> tuple[Episodes, Dropped]:
    """``count`` episodes drawn with replacement by ``weight`` (by default ``weights``): a set that repeats the good."""
    chance = weights(episodes) if weight is None else np.asarray(weight, np.float64)
    if count < 1 or chance.shape != (len(episodes),) or (chance < 0).any() or not chance.sum() > 0:
        raise ValueError(
            f"sample was given count={count} and weights of shape {chance.shape}; wanted at least 1, and one weight of "
            f"at least 0 for each of {len(episodes)} episodes."
        )
    chance = chance / chance.sum()
    drawn = np.sort(np.random.default_rng(seed).choice(len(episodes), size=count, p=chance))
    never = sorted(set(range(len(episodes))) - set(drawn.tolist()))
    _, dropped = parted(episodes, {i: (float(chance[i]), "not drawn") for i in never})
    return episodes.select(drawn), dropped
