"""The statistics LeRobot keeps of every feature, of one episode and merged over many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.reader import COLUMNS
from tacit.data.video import resize

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
STATS = ("min", "max", "mean", "std", "count", *QUANTILES)
SIDE = 150  # pictures are measured at about this many pixels a side


def measure(rows: dict[str, np.ndarray], *, frames: np.ndarray | None, camera: str) -> dict[str, dict[str, Any]]:
    """One episode's statistics of each feature somebody recorded; blank rows (an unknown action) do not count."""
    stats = {}
    for name, value in rows.items():
        flat = value.reshape(len(value), -1)
        absent = flat < 0 if name in ("action", "latent_code") and flat.dtype.kind == "i" else ~np.isfinite(flat)
        flat = flat[~absent.any(1)].astype(np.float64)
        if len(flat):
            stats[name] = _of(flat, len(flat))
    if frames is not None:
        count = int(np.clip(len(frames) ** 0.75, min(100, len(frames)), 10_000))
        picked = frames[np.linspace(0, len(frames) - 1, count).round().astype(np.int64)]
        shrink = max(1, max(picked.shape[1:3]) // SIDE)
        size = (max(1, picked.shape[1] // shrink), max(1, picked.shape[2] // shrink))
        told = [_histogram(np.bincount(channel, minlength=256)) for channel in resize(picked, size).reshape(-1, 3).T]
        stats[camera] = {k: [[[t[k]]] for t in told] for k in told[0]} | {"count": [count]}
    return stats


def summed(episodes: Episodes, *, pictures: bool = False) -> dict[str, dict[str, Any]]:
    """The same of a whole set; no video is decoded unless ``pictures`` are asked for, and then few."""
    found: dict[str, dict[str, Any]] = {}
    for column in COLUMNS[1:]:
        value = episodes.column(column)
        if value is not None:
            rows = value.reshape(len(value), -1)
            absent = rows < 0 if column in ("actions", "codes") and rows.dtype.kind == "i" else ~np.isfinite(rows)
            rows = rows[~absent.any(1)].astype(np.float64)
            found |= {column: _of(rows, len(rows))} if len(rows) else {}
    if pictures and episodes.spec.frame is not None:
        parts = []
        for number in range(len(episodes)):
            for block in episodes.reader.blocks(int(episodes.rows[number])):
                few = block[:: max(1, len(block) // 8)]
                parts.append(measure({}, frames=few, camera="pictures"))
        told = merge(parts)["pictures"]
        found["pictures"] = {k: np.ravel(v).tolist() for k, v in told.items()}
    return found


def _of(values: np.ndarray, count: int) -> dict[str, list[Any]]:
    lines = np.quantile(values, list(QUANTILES.values()), axis=0)
    told = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    told |= dict(zip(QUANTILES, lines, strict=True))
    return {k: v.tolist() for k, v in told.items()} | {"count": [count]}


def _histogram(seen: np.ndarray) -> dict[str, float]:
    """The same of bytes scaled to [0, 1], from how often each was seen: sorting pixels would outlast encoding them."""
    levels, share = np.arange(256) / 255, seen / seen.sum()
    mean = float(levels @ share)
    held = np.flatnonzero(seen)
    lines = np.searchsorted(np.cumsum(share), list(QUANTILES.values()))
    told = {
        "min": levels[held[0]],
        "max": levels[held[-1]],
        "mean": mean,
        "std": float(np.sqrt((levels - mean) ** 2 @ share)),
    }
    return {k: float(v) for k, v in (told | dict(zip(QUANTILES, levels[lines], strict=True))).items()}


def merge(parts: Iterable[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Statistics of the whole from those of its parts; merged quantiles are bounds, as LeRobot's own are."""
    gathered: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        for name, stats in part.items():
            gathered.setdefault(name, []).append({k: np.asarray(v, np.float64) for k, v in stats.items()})
    return {name: _merged(stats) for name, stats in gathered.items()}


def _merged(stats: list[dict[str, Any]]) -> dict[str, Any]:
    count = sum(s["count"] for s in stats)
    mean = sum(s["mean"] * s["count"] for s in stats) / count
    spread = sum((s["std"] ** 2 + (s["mean"] - mean) ** 2) * s["count"] for s in stats) / count
    told = {"mean": mean, "std": np.sqrt(spread)}
    for key, least in (("min", True), ("max", False), *((q, share <= 0.5) for q, share in QUANTILES.items())):
        if all(key in s for s in stats):  # older writers measured no quantiles
            told[key] = (np.min if least else np.max)([s[key] for s in stats], axis=0)
    return {k: np.asarray(v).tolist() for k, v in told.items()} | {"count": [int(count[0])]}
