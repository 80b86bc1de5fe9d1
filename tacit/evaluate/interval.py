"""Intervals: how far a measured number could be from the truth, by the method that fits what was averaged."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
AT_ONCE = 4_000_000  # rows that are drawn at a time, so that no number of episodes takes much memory
PERCENT = "\u202f%"  # with the narrow space that keeps it on the number's line


@dataclass(frozen=True)
class Interval:
    """A number, the interval that holds the truth at the stated level, and how many independent things it rests on.

    ``low`` and ``high`` are NaN where the data can give no interval, as from a single seed.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def above(self, other: Interval) -> bool:
        """True where this interval lies wholly above the other: the two do not touch, and both are known."""
        return self.known and other.known and self.low > other.high


def mean(samples: ArrayLike, *, level: float = LEVEL, within: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Student's t interval of a mean over independent runs, such as seeds; ``within`` cuts it to what is possible."""
    x = _finite(samples)
    if len(x) < 2:
        return Interval(float(x.mean()) if len(x) else math.nan, math.nan, math.nan, len(x))
    centre = float(x.mean())
    reach = student(0.5 + level / 2, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval(centre, max(within[0], centre - reach), min(within[1], centre + reach), len(x))


def proportion(hits: int, n: int, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share of independent trials; it is sound at 0, at 1 and for few trials."""
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} trials; hits must lie between 0 and the number of trials.")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    z, p = NormalDist().inv_cdf(0.5 + level / 2), hits / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    # at the ends the bound is the end itself, which rounding would miss by 1e-17
    return Interval(p, 0.0 if hits == 0 else centre - reach, 1.0 if hits == n else centre + reach, n)


def bootstrap(
    samples: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float] | None = None,
    *,
    groups: ArrayLike | None = None,
    method: Literal["bca", "percentile"] = "bca",
    draws: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Interval of any statistic of rows, by drawing whole ``groups`` anew: rows of one episode stand or fall together.

    Without ``groups`` each row is its own. ``statistic`` defaults to the mean. BCa is Efron's (1987) bias-corrected,
    accelerated interval; where it is not defined (every draw equal, or all on one side) the percentiles are given.
    """
    if method not in ("bca", "percentile"):
        raise ValueError(f"method is {method!r}; it must be 'bca' or 'percentile'.")
    x = np.asarray(samples, dtype=np.float64)
    members = _members(len(x), groups)
    if not len(x):
        return Interval(math.nan, math.nan, math.nan, 0)
    measure = statistic or (lambda rows: float(rows.mean()))
    value, n = float(measure(x)), len(members)
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    random = np.random.default_rng(seed)
    picks = random.integers(n, size=(draws, n))
    drawn = np.array([measure(x[_rows(members, pick)]) for pick in picks])
    left = [measure(np.delete(x, members[i], axis=0)) for i in range(n)] if method == "bca" else None
    return _between(value, drawn, left, level=level, n=n)


def resummed(
    sums: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    draws: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """``bootstrap`` of what is told from the sum of all rows (E, K) alone, draws by the thousand at once.

    ``statistic`` makes of sums (..., K) numbers (...). Each row is what one episode brings to the sum.
    """
    x = np.asarray(sums, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"Sums have shape {x.shape}; wanted (episodes, numbers).")
    n = len(x)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(x.sum(0)))
        if n < 2:
            return Interval(value, math.nan, math.nan, n)
        random, drawn = np.random.default_rng(seed), []
        for first in range(0, draws, size := max(1, AT_ONCE // n)):
            count = min(size, draws - first)
            picks = random.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
            times = np.bincount(picks.ravel(), minlength=count * n).reshape(count, n)
            drawn.append(statistic(times @ x))
        left = statistic(x.sum(0) - x)
    return _between(value, np.concatenate(drawn), left, level=level, n=n)


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first of sums (..., K) over the second; of more, what the first is above the second, over the rest."""
    one, other, *rest = np.moveaxis(sums, -1, 0)
    if rest:
        one, other = one - other, rest[0] - sum(rest[1:])
    return np.where(other > 0, one / np.where(other > 0, other, 1.0), np.nan)


def _between(value: float, drawn: ArrayLike, left: ArrayLike | None, *, level: float, n: int) -> Interval:
    """The interval of what was drawn; BCa's where the value without each group is known."""
    drawn, tails = np.sort(drawn), np.array([(1 - level) / 2, (1 + level) / 2])
    if left is not None:
        tails = _accelerated(tails, drawn, value, np.asarray(left))
    low, high = np.quantile(drawn, tails)
    return Interval(value, float(low), float(high), n)


def normalise(returns: ArrayLike, *, floor: float, ceiling: float) -> NDArray[np.float64]:
    """Returns on the scale where random actions earn 0 and the noiseless expert earns 1."""
    if not floor < ceiling:
        raise ValueError(
            f"The floor is {floor} and the ceiling {ceiling}; the expert must earn more than random actions."
        )
    return (np.asarray(returns, dtype=np.float64) - floor) / (ceiling - floor)


@functools.lru_cache(maxsize=256)
def student(probability: float, freedom: int) -> float:
    """Quantile of Student's t for whole degrees of freedom, exact to rounding, so that scipy need not be installed."""
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(
            f"No t quantile at {probability} with {freedom} degrees of freedom; wanted 0 < p < 1 and at least 1."
        )
    if probability < 0.5:
        return -student(1 - probability, freedom)
    low, high = 0.0, math.pi / 2
    for _ in range(100):  # bisect on the angle, in which the distribution is a finite sum and the tails are near
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """Probability that ``|t| < tan(angle) sqrt(freedom)``: Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    # successive terms of the sum differ by k / (k + 1) cos^2, with k odd for even freedom and even for odd freedom
    k = np.arange(1 + odd, freedom - 2, 2)
    terms = 1 + float(np.cumprod(k / (k + 1) * cosine**2).sum())
    if not odd:
        return sine * terms
    return 2 / math.pi * (angle + (sine * cosine * terms if freedom > 1 else 0.0))


def _accelerated(
    tails: NDArray[np.float64], drawn: NDArray[np.float64], value: float, left: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The percentiles to read instead of ``tails``, corrected for bias and for a spread that changes with the value."""
    normal = NormalDist()
    below = (np.mean(drawn < value) + np.mean(drawn <= value)) / 2  # half of the ties: statistics of counts tie often
    if not 0 < below < 1 or drawn[0] == drawn[-1]:
        return tails
    bias = normal.inv_cdf(float(below))
    apart = left.mean() - left
    spread = float((apart**2).sum()) ** 1.5
    speed = float((apart**3).sum()) / (6 * spread) if spread > 0 else 0.0
    shifted = np.array([bias + normal.inv_cdf(float(tail)) for tail in tails])
    return np.array([normal.cdf(bias + s / (1 - speed * s)) for s in shifted])


def _rows(members: Sequence[NDArray[np.intp]] | NDArray[np.intp], pick: NDArray[np.int64]) -> NDArray[np.intp]:
    """The row numbers of the picked groups."""
    return members[pick] if isinstance(members, np.ndarray) else np.concatenate([members[i] for i in pick])


def _members(count: int, groups: ArrayLike | None) -> Sequence[NDArray[np.intp]] | NDArray[np.intp]:
    """The row numbers of each group; one array of all of them where each row is its own."""
    if groups is None:
        return np.arange(count)
    names = np.asarray(groups)
    if names.shape != (count,):
        raise ValueError(f"groups has shape {names.shape}; wanted one group for each of the {count} rows, {(count,)}.")
    order = np.argsort(names, kind="stable")
    edges = np.flatnonzero(np.diff(np.unique(names, return_inverse=True)[1][order])) + 1
    return np.split(order, edges)


def _finite(samples: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(samples, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"Samples have shape {x.shape}; wanted one number for each run, in one dimension.")
    if not np.isfinite(x).all():
        failed = int((~np.isfinite(x)).sum())
        raise ValueError(f"{failed} of {len(x)} samples are not finite; a failed run must be shown, not averaged.")
    return x


def summarise(rows: Sequence[Mapping[str, Any]], metric: str = "success") -> list[dict[str, Any]]:
    """One entry for each (method, labels) of a raw table: the mean of ``metric`` and its interval.

    Several seeds give a t interval over seeds. A single seed gives what can be had from its episodes: Wilson's for
    success, or the row's own ``<metric>_low`` and ``<metric>_high``; ``over`` says which it was. A method that was
    tried once a seed is one entry even where the count of labels differs a little, as that of all labels does.
    """
    cells: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for method, own in _by_method([row for row in rows if row.get(metric) is not None]).items():
        counts, seeds = [row["labels"] for row in own], [row.get("seed") for row in own]
        if len(set(seeds)) == len(seeds) and max(counts) <= 1.1 * min(counts):
            counts = [round(sum(counts) / len(counts))] * len(own)
        for labels, row in zip(counts, own, strict=True):
            cells.setdefault((method, labels), []).append(row)
    within = (0.0, 1.0) if metric == "success" else (-math.inf, math.inf)
    entries = []
    for (method, labels), cell in cells.items():
        found, over = mean([row[metric] for row in cell], within=within), "seeds"
        if len(cell) == 1:
            found, over = _alone(cell[0], metric)
        entry = {"method": method, "labels": labels, "metric": metric, "mean": found.value}
        entries.append(entry | {"low": found.low, "high": found.high, "n": found.n, "over": over})
    return entries


def _by_method(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def _alone(row: Mapping[str, Any], metric: str) -> tuple[Interval, str]:
    """The interval that one run's episodes give."""
    value, episodes = float(row[metric]), int(row.get("episodes") or 0)
    if metric == "success" and episodes:
        return proportion(round(value * episodes), episodes), "episodes"
    low, high = (row.get(f"{metric}_{end}") for end in ("low", "high"))
    if low is None or high is None:
        return Interval(value, math.nan, math.nan, 1), "seeds"
    return Interval(value, float(low), float(high), episodes), "episodes"


def split(
    entries: Sequence[Mapping[str, Any]], budgets: Sequence[int] = ()
) -> tuple[list[str], list[int], list[Mapping[str, Any]]]:
    """The methods, the label budgets they share, and the entries that stand apart as the ends of the scale."""
    shared: dict[int, set[str]] = {}
    for entry in entries:
        shared.setdefault(entry["labels"], set()).add(entry["method"])
    columns = sorted(
        budgets or [n for n, methods in shared.items() if n > 0 and len(methods) > 1] or [n for n in shared if n > 0]
    )
    ends = [entry for entry in entries if entry["labels"] not in columns]
    return list(dict.fromkeys(e["method"] for e in entries if e["labels"] in columns)), columns, ends


def end(entry: Mapping[str, Any]) -> str:
    """What an end of the scale is called."""
    return f"{entry['method']}, all {entry['labels']:,} labels" if entry["labels"] else f"{entry['method']}, no labels"


def number(value: float | None, metric: str = "") -> str:
    """A number as a person writes it; success is in per cent."""
    if value is None or not np.isfinite(value):
        return "–"
    if metric == "success":
        return f"{100 * value:.0f}{PERCENT}"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\u2212")


def between(low: float | None, high: float | None, *, metric: str = "") -> str:
    """An interval as a person writes it, or nothing where there is none."""
    if low is None or high is None or not np.isfinite([low, high]).all():
        return ""
    first, last = (number(bound, metric).removesuffix(PERCENT) for bound in (low, high))
    return f"{first}–{last}" if low >= 0 else f"{first} to {last}"
