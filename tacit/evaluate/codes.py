"""Whether latents are alive: codes used, dead and how evenly; how many directions a continuous latent truly has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.interval import Interval, bootstrap
from tacit.evaluate.report import Value

WIDEST = 64  # numbers in a latent up to which the rank gets an interval; beyond, drawing it takes too long
FLAT = 1e-4  # a dimension that varies by less than this share of the liveliest is dead
SAME = 1e-10  # what varies by less than this share of its square varies by rounding alone
DRAWS = 500
Said = tuple[NDArray[np.float32], NDArray[np.int64] | None]  # latents, and codes where there are any
ALIKE = 0.05  # of how far codes lie apart in use: nearer ones say the same


def codes(model: Any, episodes: Episodes, *, most: int = holdout.MOST, seed: int = 0) -> list[Value]:
    """How alive the latents of ``model`` are: codes where it has them, rank and variance of the latent in any case.

    Codes all in use say nothing of their meaning; codes or dimensions all dead say that there is none.
    """
    holdout.refuse_overlap(model, episodes)
    path = holdout.walk(episodes, length=holdout.span(model), most=most, seed=seed)
    return codes_of(model, path, known=said(model, path), data=holdout.told(episodes))


def codes_of(model: Any, path: holdout.Walk, *, known: Said, data: str) -> list[Value]:
    """The same, where what the model says of the chosen transitions is known."""
    latents, chosen = known
    return [*_of_codes(model, path, latents, chosen, data), *_of_latents(latents, path, data)]


def said(model: Any, path: holdout.Walk) -> Said:
    """The latent of each chosen transition, and its codes, (N, K); None where the model's latents are no codes."""
    if not hasattr(model, "found"):
        return holdout.infer(model, path), None
    latents, chosen = list[torch.Tensor](), list[torch.Tensor]()
    few = {"count": 1} if getattr(model, "alone", False) else {}
    with holdout.still(model):
        for _, clip in path.batches(holdout.place(model)):
            bottled = model.found(clip, **few)
            z, codes = (None if x is None else x.unflatten(0, (len(clip), -1))[:, -1].cpu()
                        for x in (bottled.z, bottled.codes))  # fmt: skip
            latents.append(z.float())  # type: ignore[union-attr]
            chosen += [] if codes is None else [codes]
    return holdout.finite(torch.cat(latents).numpy(), model), torch.cat(chosen).numpy() if chosen else None


def counts(chosen: ArrayLike, size: int, *, groups: int = 1) -> NDArray[np.int64]:
    """How often each of ``size`` codes of each book was chosen, (groups, size); the columns of a book lie together."""
    given = np.asarray(chosen)
    if given.ndim != 2 or given.shape[1] % groups or (given.size and not 0 <= given.min() <= given.max() < size):
        raise ValueError(
            f"Codes have shape {given.shape}; wanted (N, K) of 0 to {size - 1}, K a multiple of the {groups} books."
        )
    books = given.reshape(len(given), groups, -1)
    return np.stack([np.bincount(books[:, g].ravel(), minlength=size) for g in range(groups)])


def merged(
    chosen: NDArray[np.int64], latents: ArrayLike, *, starts: Sequence[int], groups: int = 1
) -> NDArray[np.int64]:
    """The codes, those that stand for nearly the same numbers called by one name: copies in a book are one code."""
    z, edges = np.asarray(latents, np.float64), [*starts, np.asarray(latents).shape[1]]
    if len(starts) != chosen.shape[1]:
        return chosen
    out, columns = chosen.copy(), np.split(np.arange(chosen.shape[1]), groups)
    for book in columns:
        told = np.concatenate([chosen[:, k] for k in book])
        said = np.concatenate([z[:, edges[k] : edges[k + 1]] for k in book])
        names, first = np.unique(told, return_index=True)
        values, unit = said[first], max(float(said.var(0).sum()) ** 0.5, 1e-12)
        alike = np.linalg.norm(values[:, None] - values[None], axis=-1) < ALIKE * unit
        out[:, book] = names[alike.argmax(1)][np.searchsorted(names, chosen[:, book])]
    return out


def perplexity(hits: ArrayLike) -> float:
    """How many equally likely codes would be as uncertain as these counts (..., size), averaged over the books."""
    hits = np.atleast_2d(np.asarray(hits, np.float64))
    shares = hits / np.maximum(hits.sum(-1, keepdims=True), 1)
    logs = np.log(np.where(shares > 0, shares, 1))
    return float(np.exp(-(shares * logs).sum(-1)).mean())


def variances(latents: ArrayLike) -> NDArray[np.float64]:
    """How much each number of the latent varies, (D,)."""
    return np.asarray(np.asarray(latents, np.float64).var(0))


def rank(latents: ArrayLike) -> float:
    """In how many directions latents (N, D) vary, the weak ones counting less: exp of the entropy of the spectrum."""
    z = np.asarray(latents, np.float64)
    centred = z - z.mean(0)
    square = centred.T @ centred if z.shape[1] <= len(z) else centred @ centred.T
    return _rank(square, float((z**2).sum()))


def directions(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The directions in which rows vary at all, the strongest last."""
    sizes, axes = np.linalg.eigh(np.cov(x.T, bias=True).reshape(x.shape[1], -1))
    return np.asarray(axes[:, sizes > 1e-9 * max(sizes[-1], 1e-30)])


def _rank(square: NDArray[np.float64], energy: float) -> float:
    sizes = np.clip(np.linalg.eigvalsh(square), 0, None)
    total = sizes.sum()
    if total <= SAME * energy:
        return 0.0  # a constant has no direction
    shares = sizes[sizes > 1e-12 * total] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _of_codes(
    model: Any, path: holdout.Walk, latents: NDArray[np.float32], chosen: NDArray[np.int64] | None, data: str
) -> list[Value]:
    names = ("codes in use", "dead codes", "perplexity")
    if chosen is None:
        return [Value(name, None, data=data, note="this model's latents are no codes") for name in names]
    book = getattr(model, "bottleneck", None)
    size, groups = int(getattr(book, "codes", chosen.max() + 1)), int(getattr(book, "groups", 1))
    hits = counts(chosen, size, groups=groups)
    used = hits > 0
    chosen = merged(chosen, latents, starts=getattr(book, "starts", ()), groups=groups)
    ids = np.repeat(np.arange(groups), chosen.shape[1] // groups) * size + chosen
    which, ids = np.unique(ids, return_inverse=True)
    table = np.zeros((int(path.owner.max()) + 1, len(which)))
    np.add.at(table, (np.repeat(path.owner, chosen.shape[1]), ids.ravel()), 1)
    table = table[np.unique(path.owner)]
    edges = np.searchsorted(which, np.arange(groups + 1) * size)
    books = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    even = bootstrap(table, lambda rows: float(np.mean([perplexity(rows[:, b].sum(0)) for b in books])), draws=DRAWS)
    note = f"of {size} in {'each of ' + str(groups) + ' books' if groups > 1 else 'the book'}"
    return [
        Value(names[0], float(used.mean()), n=len(path), data=data, note=f"share {note}"),
        Value(names[1], float((~used).sum()), n=len(path), data=data, note=f"never chosen in {len(path)} transitions"),
        Value.of(names[2], even, data=data, note=note),
    ]


def _of_latents(latents: NDArray[np.float32], path: holdout.Walk, data: str) -> list[Value]:
    wide, lively = latents.shape[1], variances(latents)
    value = rank(latents)
    spread = Interval(value, float("nan"), float("nan"), len(np.unique(path.owner)))
    if wide <= WIDEST:
        parts = [latents[path.owner == e].astype(np.float64) for e in np.unique(path.owner)]
        sums = np.stack([np.concatenate([[len(z)], z.sum(0), (z.T @ z).ravel()]) for z in parts])
        spread = bootstrap(sums, lambda rows: _of_sums(rows, wide), draws=200, method="percentile")
    dead = int((lively <= max(FLAT * lively.max(), SAME * float((latents**2).mean()))).sum())
    note = f"{wide} numbers; the least varies by {lively.min():.2g}, the most by {lively.max():.2g}"
    return [
        Value.of("effective rank", spread, data=data, note=f"of {wide}"),
        Value("dead dimensions", float(dead), n=len(latents), data=data, note=note),
    ]


def _of_sums(rows: NDArray[np.float64], wide: int) -> float:
    """The rank from counts, sums and products."""
    total = rows.sum(0)
    count, first, second = total[0], total[1 : 1 + wide], total[1 + wide :].reshape(wide, wide)
    return _rank(second - np.outer(first, first) / count, float(np.trace(second)))
