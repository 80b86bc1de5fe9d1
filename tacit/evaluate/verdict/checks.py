"""The ten checks: each a question, a number beside its null, a limit with its reason, and what it names on failing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tacit.evaluate import holdout
from tacit.evaluate.interval import Interval, ratio, resummed
from tacit.evaluate.latents import missed
from tacit.evaluate.probe import linear
from tacit.evaluate.report import Value
from tacit.evaluate.tally import targets
from tacit.evaluate.verdict.check import LIMITS, Ailment, Check, lacking, told
from tacit.evaluate.verdict.exam import TRIPS, Exam, affine
from tacit.evaluate.verdict.further import abroad, additive, drift, gradient
from tacit.evaluate.verdict.labelled import alignable, useful
from tacit.part import Part, config

ASKABLE = 0.9  # of what another action changes in the latent: if more is untold, no other future can be asked for
LEARNT = 0.5  # of the change: a model that explains less of its own recordings has learnt nothing by heart


def asked(exam: Exam) -> list[Check]:
    """All checks, in the order in which they are told."""
    questions: list[Callable[[Exam], Check | list[Check]]] = [
        enough, used, alive, copies, transported, nothing, stable, alignable, minimal, causal, useful,
    ]  # fmt: skip
    found: list[Check] = []
    for question in questions:
        answer = question(exam)
        found += answer if isinstance(answer, list) else [answer]
    return found


def enough(exam: Exam) -> Check:
    """Whether there is enough to say anything, and whether what was learnt holds for episodes that were not seen."""
    what = ("C0", "enough", "Is there enough data?")
    limit, rows = LIMITS["rows"], len(exam.path)
    if rows < limit.at or len(exam.episodes) < 4:
        value = Value("transitions", float(rows), n=len(exam.episodes), data=exam.told)
        note = f"{rows} transitions of {len(exam.episodes)} episodes; wanted {limit.at:.0f} of 4 or more"
        return Check(*what, "fail", value, limit=limit, names="not enough data", note=note)
    if exam.learnt is None or not len(exam.learnt) or not exam.predicts or not exam.encodes:
        return Check(*what, "abstain", note="give the episodes it was trained on too: were they learnt by heart?")
    there = holdout.walk(exam.learnt, length=holdout.span(exam.model), most=exam.most, seed=exam.seed)
    own = missed(exam.model, there, seed=exam.seed).sum(0)
    home, other = own[0] / max(own[1], 1e-12), own[2] / max(own[1], 1e-12)
    if home > 1 - LEARNT or home > (1 - LIMITS["used"].at) * other:
        note = "it explains too little of its own episodes, or not by its latent, to have learnt them by heart"
        return Check(*what, "abstain", note=note)
    here = exam.trips[:, [TRIPS.index(name) for name in ("direct", "change")]]
    found = resummed(here, lambda sums: (ratio(sums) - home) / (1 - home))
    value = Value.of("of what it explains of its own episodes, lost on new ones", found, data=exam.told)
    distinct = float(len(np.unique(exam.learnt.prints)) / len(exam.learnt))
    good = LIMITS["overfit"].kept(found.value) and distinct >= 0.5
    note = f"{len(exam.learnt)} episodes to learn from, {100 * distinct:.0f} % of them different"
    against = "as well as what it knows"
    return Check(*what, told(good=good), value, 0.0, against, LIMITS["overfit"], "not enough data", note)


def used(exam: Exam) -> Check:
    """Is the latent used?"""
    what = ("C1", "used", used.__doc__ or "")
    if why := lacking(exam, predict=True):
        return Check(*what, "abstain", note=why)
    gap, left = exam.judged["shuffled-latent gap"], exam.judged["FVU"]
    if gap.value is None or left.value is None:
        return Check(*what, "abstain", note=gap.note)
    good = LIMITS["used"].kept(gap.value)
    note = f"{left.value:.2f} of the change is missed, where a copy of the frame misses 1"
    more = (left, exam.judged["zero-latent gap"], exam.judged["delta-PSNR"], *drift(exam))
    return Check(*what, told(good=good), gap, 0.0, "another clip's latent", LIMITS["used"], "collapsed", note, more)


def alive(exam: Exam) -> Check:
    """Is the latent alive?"""
    what = ("C2", "alive", alive.__doc__ or "")
    if why := lacking(exam):
        return Check(*what, "abstain", note=why)
    even, rank, dead = exam.codes["perplexity"], exam.codes["effective rank"], exam.codes["dead dimensions"]
    if even.value is None:
        good, limit = LIMITS["rank"].kept(rank.value or 0.0), LIMITS["rank"]
        return Check(*what, told(good=good), rank, 1.0, "one way to vary", limit, "collapsed", rank.note, (dead,))
    size = float(even.note.split()[1])
    share = Value("perplexity over codes", even.value / size, even.low and even.low / size,
                  even.high and even.high / size, even.n, even.data)  # fmt: skip
    good = LIMITS["alive"].kept(even.value / size) or even.value >= 8  # a book may well be larger than what happens
    more = (exam.codes["codes in use"], exam.codes["dead codes"], rank)
    note = f"as many as {even.value:.1f} even codes of {size:.0f}"
    return Check(*what, told(good=good), share, 1 / size, "one code", LIMITS["alive"], "collapsed", note, more)


def copies(exam: Exam) -> Check:
    """Does the latent carry the next frame itself?"""
    what = ("C3", "no copy", copies.__doc__ or "")
    if why := lacking(exam, predict=True):
        return Check(*what, "abstain", note=why)
    found, leak = exam.share("carried", "painted", "carried"), exam.judged["future leak"]
    if not np.isfinite(found.value):
        return Check(*what, "abstain", note="every frame is the same")
    carried = Value.of("of its frame painted into another scene, beyond carrying the change", found, data=exam.told)
    side = leak.value is not None and not LIMITS["leak"].kept(leak.value)
    good = LIMITS["copy"].kept(found.value) and not side
    note = f"predictions move with the future while the latent is held, by {leak.value:.2f}" if side else ""
    more = (leak, gradient(exam), exam.judged["cut and copy"])
    return Check(*what, told(good=good), carried, 0.0, "the same change there", LIMITS["copy"], "leaking", note, more)


def transported(exam: Exam) -> Check:
    """Does the same latent mean the same elsewhere?"""
    what = ("C4", "same meaning", transported.__doc__ or "")
    if why := lacking(exam):
        return Check(*what, "abstain", note=why)
    labelled = not isinstance(exam.sides, str)  # labels know best; without any, what moves stands for what was done
    sides, of = (exam.sides, "the action") if labelled else (exam.effects, "what moves")
    if isinstance(sides, str):
        return Check(*what, "abstain", note=f"there are no labels, and {sides}")
    name = f"knowing where things are adds to what the latent tells of {of}"
    gap = Value.of(name, exam.gap(sides, together=not labelled), data=exam.told)
    if gap.value is None:
        return Check(*what, "abstain", note=f"{of} never differs")
    more: tuple[Value, ...] = ()
    if exam.predicts and exam.pictures:
        back = exam.share("change", "again", "change", "direct")
        more = (
            Value.of("share of what it explains that comes back from a trip elsewhere", back, data=exam.told),
            Value.of("error after the trip over error without", exam.share("again", "direct"), data=exam.told),
        )
    more += tuple(abroad(exam, exam.body)) if exam.body is not None else ()
    good = LIMITS["gap"].kept(gap.value)
    note = f"by {of}"
    return Check(*what, told(good=good), gap, 0.0, "nothing", LIMITS["gap"], "state-entangled", note, more)


def nothing(exam: Exam) -> Check:
    """Does no change have a latent of no change?"""
    what = ("C5", "nothing is nothing", nothing.__doc__ or "")
    if why := lacking(exam, predict=True):
        return Check(*what, "abstain", note=why)
    found, back = exam.share("rest", "change"), exam.share("back", "forth")
    if not np.isfinite(found.value):
        return Check(*what, "abstain", note="nothing moves in these episodes")
    value = Value.of("what happens where nothing does", found, data=exam.told)
    more = (Value.of("a latent back against the latent forth", back, data=exam.told), *additive(exam))
    good = LIMITS["null"].kept(found.value)
    return Check(*what, told(good=good), value, 0.0, "the frame stays", LIMITS["null"], "distracted", "", more)


def stable(exam: Exam) -> Check:
    """Do other seeds find the same?"""
    what = ("C6", "stable", stable.__doc__ or "")
    if why := lacking(exam) or ("" if exam.siblings else "give models of other seeds: --siblings MODEL ..."):
        return Check(*what, "abstain", note=why)
    found: list[Interval] = []
    for other in exam.siblings:
        length = max(holdout.span(exam.model), holdout.span(other))  # transitions that both can be asked about
        path = holdout.walk(exam.episodes, length=length, most=exam.most, seed=exam.seed)
        mine, theirs = (holdout.infer(one, path).astype(np.float64) for one in (exam.model, other))
        for one, two in ((mine, theirs), (theirs, mine)):
            found.append(resummed(affine(one, two, owner=path.owner), lambda sums: 1 - ratio(sums)))
    worst = min(found, key=lambda i: i.value)
    value = Value.of("latents of one seed from another's", worst, data=exam.told)
    kinds = [config(one) for one in (exam.model, *exam.siblings) if isinstance(one, Part)]
    if any(kind != kinds[0] for kind in kinds):
        return Check(*what, "abstain", value, note="not all were built alike: they may differ by more than their seeds")
    good = LIMITS["seeds"].kept(worst.value)
    return Check(*what, told(good=good), value, 0.0, "latents of nothing in common", LIMITS["seeds"], "unstable")


def minimal(exam: Exam) -> Check:
    """Is what no action moves left out?"""
    what = ("C8", "minimal", minimal.__doc__ or "")
    if why := lacking(exam):
        return Check(*what, "abstain", note=why)
    held = exam.nuisance
    if held.value is None:
        return Check(*what, "abstain", note=held.note)
    if exam.tracks is not None:
        against, limit = "a code of the whole change, as wide", LIMITS["nuisance"]
        good = limit.kept(held.value)
        return Check(*what, told(good=good), held, exam.passive.value, against, limit, "distracted", held.note)
    note = "the rim of a picture may be the body's own: whether it is takes a recorded distractor, or twins"
    return Check(*what, "abstain", note=note, more=(held,))


def causal(exam: Exam) -> Check:
    """Twin rollouts: whether latents follow what the action changed, and not what chance did."""
    what = ("C9", "causal", "Does the latent follow the action, and nothing else?")
    if why := lacking(exam) or ("" if exam.twins else "no simulator that the data come from is at hand"):
        return Check(*what, "abstain", note=why)
    assert exam.twins is not None
    twins, model, more = exam.twins, exam.model, []
    with holdout.still(model, seed=exam.seed):
        place = holdout.place(model)
        z = np.stack([holdout.latest(model, twins.clip(k).to(place)).cpu().numpy() for k in range(twins.ways)], 1)
        other = None if twins.stirred is None else holdout.latest(model, twins.stirred.to(place)).cpu().numpy()
    acted = np.square(z[:, 1:] - z[:, :1]).sum(2).mean(1)
    swayed = None
    if other is not None:
        chance = np.square(other - z[:, 0]).sum(1)
        sums = holdout.summed(np.stack([chance, acted], 1), twins.owner)
        swayed = Value.of("other chance moves it, of what another action does", resummed(sums, ratio))
        more.append(swayed)
    hit = _hits(exam, z)
    more += [hit] if hit is not None else []
    judged = swayed or hit
    if judged is None or judged.value is None:
        note = "nothing moves by chance here, and there are too few twins to ask predictions about, or none to ask"
        return Check(*what, "abstain", note=hit.note if hit is not None else note, more=tuple(more))
    limit = LIMITS["swayed" if judged is swayed else "hit"]
    null = 1.0 if judged is swayed else 1 / twins.ways
    against = "chance moves it as much" if judged is swayed else "a guess"
    good = limit.kept(judged.value)
    named: Ailment = "distracted" if judged is swayed else "state-entangled"
    return Check(*what, told(good=good), judged, null, against, limit, named, "", tuple(more))


def _hits(exam: Exam, z: np.ndarray) -> Value | None:
    """How often, of one moment's futures, the nearest to what is predicted is that of the action that is asked about.

    Asked is the counterfactual: the latent of what was done, changed by what other actions usually change.
    """
    twins, model = exam.twins, exam.model
    if twins is None or not exam.predicts or len(twins) < 40 or twins.ways < 2:
        return None
    half = twins.owner < np.median(twins.owner)
    if not half.any() or half.all():
        return None
    given = targets(twins.actions.numpy().reshape(-1, *twins.actions.shape[2:]), twins.space)
    given = given.reshape(*z.shape[:2], -1)
    other, change = given[:, 1:] - given[:, :1], (z[:, 1:] - z[:, :1]).astype(np.float64)
    rows = (other[half].reshape(-1, other.shape[-1]), change[half].reshape(-1, change.shape[-1]))
    usual = linear(*rows, groups=np.repeat(twins.owner[half], twins.ways - 1), discrete=False)
    name, so = "the asked future is the nearest", change[~half].reshape(-1, change.shape[-1])
    left = np.square(usual(other[~half].reshape(-1, other.shape[-1])) - so).sum() / max(np.square(so).sum(), 1e-30)
    if left > ASKABLE:
        return Value(name, None, note="no line tells what another action changes in the latent: nothing to ask for")
    place, hits = holdout.place(model), []
    with holdout.still(model, seed=exam.seed):
        clips = [twins.clip(k)[torch.from_numpy(np.flatnonzero(~half))].to(place) for k in range(twins.ways)]
        wanted = torch.stack([model.targets(c)[:, -1].float().flatten(1) for c in clips], 1)
        done = holdout.told_by(model, clips[0])
        for k in range(1, twins.ways):
            meant = done[:, -1] + torch.from_numpy(usual(other[~half, k - 1])).to(done)
            guess = holdout.foretold(model, clips[0], by=holdout.lent(done, meant)).flatten(1)
            hits.append((torch.cdist(guess[:, None], wanted)[:, 0].argmin(1) == k).float().cpu().numpy())
    table = np.stack([np.stack(hits, 1).mean(1), np.ones(int((~half).sum()))], 1)
    return Value.of(name, resummed(holdout.summed(table, twins.owner[~half]), ratio))
