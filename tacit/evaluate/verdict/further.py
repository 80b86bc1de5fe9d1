"""Further numbers beside the checks: drift of long predictions, leaks by gradient, and latents lent to another body."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.altered import KINDS, ended, ending, kind_of, picked, seen, shown, square
from tacit.evaluate.interval import ratio, resummed
from tacit.evaluate.report import Value
from tacit.evaluate.verdict.exam import Exam

AHEAD = (2, 4)  # steps on a model's own predictions
ROWS = 16  # transitions whose gradient is taken
FEW = 64  # transitions of long predictions and of another body: further numbers may be rougher


def drift(exam: Exam) -> list[Value]:
    """What is missed so many steps on, when each prediction is made from the last and each latent is the true one's.

    Of the change since the beginning, so that 1 is as bad as never having moved.
    """
    model, span = exam.model, holdout.span(exam.model)
    longest = int(exam.episodes.lengths.max()) - span + 1
    steps = [k for k in AHEAD if k <= longest]
    if not steps or not exam.pictures:
        return []
    path = holdout.walk(exam.episodes, length=span + steps[-1] - 1, most=min(FEW, exam.most), seed=exam.seed)
    table = np.zeros((len(path), 2 * len(steps)))
    with holdout.still(model, seed=exam.seed):
        for rows, clip in path.batches(holdout.place(model)):
            z, back, made, columns = model.infer(clip), seen(model, clip), clip, list[Tensor]()
            assert back is not None
            kind = kind_of(clip, model.targets(clip)[:, -1])
            first = shown(clip, kind)[:, span - 2]
            for k in range(1, steps[-1] + 1):
                window = made.steps(k - 1, k - 1 + span)
                guess = back(holdout.foretold(model, window, by=z[:, k - 1 : k + span - 2]))
                made = ended(made, guess, at=k + span - 2)
                if k in steps:
                    true = shown(clip, kind)[:, k + span - 2]
                    columns += [square(guess, true), square(first, true)]
            table[rows] = torch.stack(columns, 1).double().cpu().numpy()
    sums = holdout.summed(table, path.owner)
    return [
        Value.of(f"missed {k} steps on by its own predictions",
                 resummed(sums[:, 2 * i : 2 * i + 2], ratio), data=exam.told)
        for i, k in enumerate(steps)
    ]  # fmt: skip


def additive(exam: Exam) -> list[Value]:
    """How far the latent of two steps is from the sum of theirs, all less that of none; 0 where latents add up."""
    model, span = exam.model, holdout.span(exam.model)
    if exam.episodes.lengths.max() < span + 1:
        return []
    path = holdout.walk(exam.episodes, length=span + 1, most=min(FEW, exam.most), seed=exam.seed)
    table = np.zeros((len(path), 2))
    with holdout.still(model, seed=exam.seed):
        for rows, clip in path.batches(holdout.place(model)):
            past, now, then, last = list(range(span - 2)), span - 2, span - 1, span
            ways = ([*past, now, then], list(range(1, span + 1)), [*past, now, last], [*past, now, now])
            one, two, whole, none = (holdout.latest(model, picked(clip, way)) for way in ways)
            columns = [square(whole - none, one + two - 2 * none), square(whole, none)]
            table[rows] = torch.stack(columns, 1).double().cpu().numpy()
    sums = holdout.summed(table, path.owner)
    return [Value.of("two steps' latent against the sum of theirs", resummed(sums, ratio), data=exam.told)]


def gradient(exam: Exam) -> Value:
    """How steeply the prediction follows the future while the latent is held, of how steeply it follows the present."""
    name, model = "gradient of the prediction by the future, of that by the present", exam.model
    place = holdout.place(model)
    _, clip = next(exam.path.batches(place, size=ROWS))
    with holdout.still(model, seed=exam.seed):
        z = holdout.told_by(model, clip).clone()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            given = {
                kind: shown(clip, kind).clone().requires_grad_() for kind in KINDS if getattr(clip, kind) is not None
            }
            guess = holdout.foretold(model, clip.replace(**given), by=z.clone())
            way = torch.randn(guess.shape, generator=torch.Generator().manual_seed(exam.seed)).to(guess)
            slopes = torch.autograd.grad((guess * way).sum(), list(given.values()), allow_unused=True)
    except (RuntimeError, ValueError) as error:  # somebody else's function need not be differentiable
        return Value(name, None, data=exam.told, note=str(error).splitlines()[0][:80])
    felt = [slope.double().square().flatten(2).sum((0, 2)) for slope in slopes if slope is not None]
    if not felt:
        return Value(name, 0.0, n=len(clip), data=exam.told, note="no gradient comes through")
    after, now = (float(torch.stack(felt).sum(0)[t].sqrt()) for t in (-1, -2))
    return Value(name, after / now if now > 0 else float("inf"), n=len(clip), data=exam.told)


def abroad(exam: Exam, other: Episodes) -> list[Value]:
    """What another body's latents come to in these scenes: painted there, and inferred again."""
    model, data = exam.model, f"latents of {holdout.told(other)} in the scenes of {exam.told}"
    holdout.refuse_overlap(model, other)
    name = "of a latent of another body, back from a trip to these scenes"
    if not (exam.encodes and exam.predicts and exam.pictures):
        return [Value(name, None, data=data, note="it wants a model that encodes, and predicts what it sees")]
    span = holdout.span(model)
    here, there = (
        holdout.walk(e, length=span, most=min(FEW, exam.most), seed=exam.seed) for e in (exam.episodes, other)
    )
    count = min(len(here), len(there))
    table = np.zeros((count, 2))
    with holdout.still(model, seed=exam.seed):
        for rows in np.array_split(np.arange(count), max(1, count // holdout.BATCH)):
            theirs, mine = (w.clips.batch(w.windows[rows]).to(holdout.place(model)) for w in (there, here))
            lent = holdout.latest(model, theirs)
            given = holdout.lent(holdout.told_by(model, mine), lent)
            back = seen(model, mine)
            assert back is not None
            again = holdout.latest(model, ended(mine, back(holdout.foretold(model, mine, by=given))))
            none = holdout.latest(model, ending(mine, lambda x: x[:, -2]))
            table[rows] = torch.stack([square(again, lent), square(none, lent)], 1).double().cpu().numpy()
    sums = holdout.summed(table, here.owner[:count])
    return [Value.of(name, resummed(sums, lambda both: 1 - ratio(both)), data=data)]
