"""Whether latent actions are real: what they tell the forward model, what they let slip, and what they line up with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tacit.clip import Clip
from tacit.data.episodes import Episodes
from tacit.evaluate import holdout, page
from tacit.evaluate.altered import ending, noise, others, square
from tacit.evaluate.codes import SAME, Said, codes, said
from tacit.evaluate.interval import Interval, number, resummed
from tacit.evaluate.page import Figure
from tacit.evaluate.probe import Kind, gather, linear, probes
from tacit.evaluate.report import Report, Value
from tacit.evaluate.tally import gain, quality, score, tally, targets

REACH = 3  # labels are looked for so many steps before and after where they should be
PERFECT = 1e-10  # of the change: an error below this share is none, and 100 dB is the most there is
SHOWN = 8  # pictures in a row of the report
Array = NDArray[np.float64]
COLUMNS = ("miss", "zero", "shuffled", "copy", "cut", "stitched", "leak", "stir", "swing", "energy", "spread")


def judge(model: Any, episodes: Episodes, *, most: int = holdout.MOST, seed: int = 0) -> list[Value]:
    """Whether ``model``'s latents are used, carry no copy of the future, and line up with true actions, where known.

    Every number is from up to ``most`` transitions of episodes that the model was not trained on, with an interval
    over episodes. What cannot be measured on these episodes has no value, and a note that says why.
    """
    holdout.refuse_overlap(model, episodes)
    path = holdout.walk(episodes, length=holdout.span(model), most=most, seed=seed)
    data = holdout.told(episodes)
    if len(path) < 2:
        raise ValueError(f"{data} hold {len(path)} transitions of {holdout.span(model)} frames; wanted at least 2.")
    sums = holdout.summed(_measured(model, path, seed=seed), path.owner)
    found = []
    for name, statistic, over, note in CHECKS:
        columns = sums[:, [COLUMNS.index(c) for c in over]]
        value = resummed(columns, lambda sums, statistic=statistic: statistic(*np.moveaxis(sums, -1, 0)))  # type: ignore[misc]
        found.append(Value.of(name, value, data=data, note=note if np.isfinite(value.value) else "nothing moves here"))
    return [*found, *align(model, episodes, most=most, seed=seed)]


def align(model: Any, episodes: Episodes, *, most: int = holdout.MOST, seed: int = 0) -> list[Value]:
    """At which offset the true actions are read best from the latents: 0, or labels and frames are out of step.

    Offset k sets ``z_t`` against ``a_{t+k}``. Where no offset tells the actions better than chance there is nothing to
    line up, and the first value, the best offset, is left out.
    """
    offsets, data = range(-REACH, REACH + 1), holdout.told(episodes)
    names = ["best offset of the labels", *(f"linear probe at offset {k:+d}" for k in offsets)]
    sides = gather({"z": model}, episodes, most=most, reach=REACH, seed=seed)
    if isinstance(sides, str):
        return [Value(name, None, data=data, note=sides) for name in names]
    train, test, space = sides.train, sides.test, sides.space
    wanted = [targets(train.around[:, k + REACH], space) for k in offsets]
    both = np.concatenate(wanted, 1)
    fitted = linear(train.inputs["z"], both, groups=train.owner, discrete=space.discrete, tasks=len(offsets))
    said = fitted(test.inputs["z"])
    blocks = np.split(said, len(offsets), 1)

    def tallied(answers: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        return tally(answers, test.around[:, k + REACH], space=space, owner=test.owner)

    table = np.stack([tallied(block, k) for block, k in zip(blocks, offsets, strict=True)], 1)  # (E, offsets, K)
    heights = np.nan_to_num([quality(table[:, i], space) for i in range(len(offsets))], nan=-np.inf)
    top = max(range(len(offsets)), key=lambda i: (heights[i], -abs(offsets[i])))  # of equals, the one nearest to 0
    blind = tallied(np.broadcast_to(wanted[top].mean(0), blocks[top].shape), offsets[top])
    lead = gain(table[:, top], blind, space=space, level=0.99)
    if lead.low > 0:
        leads = {k: gain(table[:, top], table[:, i], space=space) for i, k in enumerate(offsets) if i != top}
        rivals = [offsets[top], *(k for k, ahead in leads.items() if not ahead.low > 0)]
        where = Interval(offsets[top], min(rivals), max(rivals), lead.n)
        first = Value.of(names[0], where, data=data, note="0 where labels and frames are in step")
    else:
        first = Value(names[0], None, n=lead.n, data=data, note="no offset tells the actions better than chance")
    scores = [score(table[:, i], space) for i in range(len(offsets))]
    return [first, *(Value.of(n, s, data=data, note=sides.note()) for n, s in zip(names[1:], scores, strict=True))]


def report(
    model: Any,
    episodes: Episodes,
    *,
    most: int = holdout.MOST,
    kinds: Sequence[Kind] = ("linear", "nonlinear"),
    seed: int = 0,
) -> Report:
    """All that is known of ``model``'s latents on held-out episodes, in numbers and, if it predicts them, pictures."""
    holdout.refuse_overlap(model, episodes)
    prints = {"held-out episodes": episodes.fingerprint}
    whole = Report("Latent actions", seeds=(seed,), fingerprint=prints)
    parts: dict[str, Callable[[], list[Value]]] = {
        "judging": lambda: judge(model, episodes, most=most, seed=seed),
        "probing": lambda: probes(model, episodes, most=most, kinds=kinds, seed=seed),
        "counting codes": lambda: codes(model, episodes, most=most, seed=seed),
    }
    for name, work in parts.items():
        started = time.perf_counter()
        whole.add(*work())
        whole.stages[name] = time.perf_counter() - started
    whole.figures = figures(model, episodes, seed=seed)
    whole.headline = _headline(whole)
    return whole


def figures(model: Any, episodes: Episodes, *, seed: int = 0) -> dict[str, Figure]:
    """Predictions beside the truth, and what each latent action does to one frame; none if features are predicted."""
    holdout.refuse_overlap(model, episodes)
    path = holdout.walk(episodes, length=holdout.span(model), most=holdout.BATCH, seed=seed)
    known = said(model, path)
    with holdout.still(model, seed=seed):
        clip = next(clip for _, clip in path.batches(holdout.place(model)))
        given = clip[slice(SHOWN)]
        z = holdout.told_by(model, given)
        guesses = holdout.foretold(model, given, by=z)
        frames = clip.frames
        if frames is None or guesses.shape[1:] != frames.shape[2:] or guesses.shape[1] != 3:
            return {}
        names, chosen = repertoire(known, path=path, episodes=episodes)
        start = given[torch.zeros(len(names), dtype=torch.long)]
        told = holdout.lent(z[:1].expand(len(names), -1, -1), torch.from_numpy(chosen).to(z))
        outcomes = holdout.foretold(model, start, by=told)
        past, after = _picture(given.frames[:, -2]), _picture(given.frames[:, -1])  # type: ignore[index]
        return {
            "predictions": page.predictions(past, after, predicted=_picture(guesses + 0.5)),
            "latent actions": page.effects(past[0], _picture(outcomes + 0.5), names=names),
        }


def missed(model: Any, path: holdout.Walk, *, seed: int = 0) -> NDArray[np.float64]:
    """What is missed by predictions, by copies of the frame, and with another clip's latent, over each episode: (E, 3).

    The other's is another's of the same batch: each holds transitions of many episodes, drawn at random.
    """
    table = np.empty((len(path), 3))
    with holdout.still(model, seed=seed):
        for rows, clip in path.batches(holdout.place(model)):
            want, kept = (model.targets(c).float()[:, -1] for c in (clip, ending(clip, lambda x: x[:, -2])))
            z = holdout.told_by(model, clip)
            guess, wrong = (holdout.foretold(model, clip, by=x) for x in (z, z.roll(1, 0)))
            columns = [square(guess, want), square(kept, want), square(wrong, want)]
            table[rows] = torch.stack(columns, 1).double().cpu().numpy()
    return holdout.summed(table, path.owner)


def _measured(model: Any, path: holdout.Walk, *, seed: int) -> NDArray[np.float64]:
    """One row a transition of ``COLUMNS``: squared misses and movements, whose ratios are the numbers."""
    table, latents = np.empty((len(path), len(COLUMNS))), []
    with holdout.still(model, seed=seed):
        for batch, (rows, clip) in enumerate(path.batches(holdout.place(model))):
            measured, z = _compared(model, clip, path.owner[rows], seed=seed + batch)
            table[rows, :-1] = torch.stack(measured, 1).double().cpu().numpy()
            latents.append(z.double().cpu().numpy())
    found = np.concatenate(latents)
    table[:, -1] = 2 * ((found - found.mean(0)) ** 2).sum(1)  # what two unrelated latents lie apart, on average
    return table


def _compared(model: Any, clip: Clip, owner: NDArray[np.int64], *, seed: int) -> tuple[list[Tensor], Tensor]:
    """All columns but the last of one batch, and its latents."""
    rows = torch.from_numpy(others(owner)).to(clip.device)
    same = ending(clip, lambda x: x[:, -2])  # nothing happened
    cut = ending(clip, lambda x: x[rows, -1])  # a scene cut: what follows is another clip's
    unseen = ending(clip, noise)

    def guessed(given: Clip, latents: Tensor) -> Tensor:
        torch.manual_seed(seed)  # what a forward model draws at random it draws alike each time
        out = model.predict(given, latents).float()
        holdout.last(out, given, what=f"{type(model).__name__}.predict", count=latents.shape[1])
        return out

    z, z_cut = (holdout.told_by(model, c) for c in (clip, cut))
    own = z[:, -1]
    want, kept, stitched = (model.targets(c).float()[:, -1] for c in (clip, same, cut))
    guess = guessed(clip, z)
    measured = [
        square(guess[:, -1], want),
        square(guessed(clip, holdout.lent(z, torch.zeros_like(own)))[:, -1], want),
        square(guessed(clip, holdout.lent(z, own[rows]))[:, -1], want),
        square(kept, want),
        square(guessed(cut, z_cut)[:, -1], stitched),
        square(kept, stitched),
        square(guess, guessed(unseen, z)),
        square(want, model.targets(unseen).float()[:, -1]),
        square(z_cut[:, -1], own),
        square(own, torch.zeros_like(own)),
    ]
    return measured, own.float()


def _part(share: Array, whole: Array) -> Array:
    return np.where(whole > 0, share / whole, np.nan)


def _better(miss: Array, other: Array, copy: Array) -> Array:
    """The share of another's error that is gone; none where the other has none either."""
    gone = 1 - np.maximum(miss, PERFECT * copy) / np.maximum(other, PERFECT * copy)
    return np.where(copy > 0, gone, np.nan)


def _decibels(miss: Array, other: Array, copy: Array) -> Array:
    return np.asarray(-10 * np.log10(np.maximum(1 - _better(miss, other, copy), PERFECT)))


def _moved(swing: Array, spread: Array, energy: Array) -> Array:
    return np.where(spread > SAME * energy, swing / spread, 0.0)  # a latent that is always the same never moves


CHECKS: tuple[tuple[str, Callable[..., Array], tuple[str, ...], str], ...] = (
    ("FVU", _part, ("miss", "copy"), "error over that of copying the last frame; 1 is no better than a copy"),
    ("zero-latent gap", _better, ("miss", "zero", "copy"), "share of the error at z = 0 that z removes; 0 is unused"),
    ("shuffled-latent gap", _better, ("miss", "shuffled", "copy"), "the same with another clip's z; 0 is unused"),
    ("delta-PSNR", _decibels, ("miss", "shuffled", "copy"), "dB gained over another clip's latent; leaks raise it too"),
    ("cut and copy", _better, ("cut", "stitched", "stitched"), "of another frame in z; published: above 0.2 leaks"),
    ("future leak", _part, ("leak", "stir"), "how far predictions follow a future frame while z is held; must be 0"),
    ("z moves with the next frame", _moved, ("swing", "spread", "energy"), "0 is blind to it, 1 or more is not"),
)  # fmt: skip


def repertoire(known: Said, *, path: holdout.Walk, episodes: Episodes) -> tuple[list[str], NDArray[np.float32]]:
    """A few latents that show what there is: the commonest codes, the mean of each known action, or the main axes."""
    latents, words = known
    if words is None:  # latents as good as equal count as one, for those few that take few values without being codes
        words = np.round(latents / max(float(np.abs(latents).max()), 1e-30), 4)
    _, first, hits = np.unique(words, axis=0, return_index=True, return_counts=True)
    if len(first) <= min(64, len(latents) // 4):
        order = np.argsort(-hits, kind="stable")[:SHOWN]
        return [f"{100 * hits[i] / len(latents):.0f} % of all" for i in order], latents[first[order]]
    space, labelled = episodes.spec.space, episodes.mask[path.at]
    if space is not None and space.discrete and labelled.any():
        actions = np.where(labelled, np.asarray(episodes.column("actions"))[path.at], -1)
        taken = [a for a in range(space.size) if (actions == a).any()][: 2 * SHOWN]
        names = [space.names[a] if a < len(space.names) else f"action {a}" for a in taken]
        return names, np.stack([latents[actions == a].mean(0) for a in taken])
    mean = latents.mean(0)
    sizes, axes = np.linalg.eigh(np.cov(latents.T).reshape(len(mean), -1))
    reach = 1.5 * np.sqrt(np.maximum(sizes[::-1], 0))[: SHOWN // 2]
    steps = (reach * axes[:, ::-1][:, : len(reach)]).T
    both = np.concatenate([np.stack([mean + s, mean - s]) for s in steps]).astype(np.float32)
    return [f"axis {i + 1} {sign}" for i in range(len(steps)) for sign in "+\u2212"], both


def _picture(frames: Tensor) -> NDArray[Any]:
    """Pictures (B, C, H, W), as bytes or in [0, 1], for the page."""
    return np.asarray((frames if frames.dtype == torch.uint8 else frames.float()).permute(0, 2, 3, 1).cpu())


def _headline(whole: Report) -> str:
    left, used = whole["FVU"].value, whole["shuffled-latent gap"].value
    read = whole["linear probe of z"].value
    if left is None or used is None:
        return "Nothing moves in these episodes: there is nothing for a latent action to say."
    told = f"Predictions leave {100 * left:.0f} % of the change unexplained, {100 * used:.0f} % less than with a wrong "
    told += "latent; "
    return told + ("no labels to probe with." if read is None else f"a linear probe reads actions at {number(read)}.")
