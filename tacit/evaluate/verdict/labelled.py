"""The checks that want labels: what few of them tell of a latent, whether they are in step, and what they save."""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.evaluate.probe import linear
from tacit.evaluate.report import Value
from tacit.evaluate.tally import gain, quality, score, tally, targets
from tacit.evaluate.verdict.check import LIMITS, Check, lacking, told
from tacit.evaluate.verdict.exam import LABELS, Exam

READ = 0.05  # beyond what is right by chance: labels that read less read nothing
STEP = ("A", "in step", "Does each latent stand for one step, and the label beside it for the same?")


def alignable(exam: Exam) -> list[Check]:
    """Whether few labels tell what latents mean, better than the same labels spent otherwise, and whether in step."""
    what = ("C7", "alignable", "Do few labels tell what latents mean?")
    first = _in_step(exam)
    if why := lacking(exam) or (exam.sides if isinstance(exam.sides, str) else ""):
        return [first, Check(*what, "abstain", note=why)]
    count, more, rivals = len(exam.labelled.train.actions), [], {}
    budgets = [n for n in LABELS if n < count] or [count]
    for labels in budgets:
        mine = exam.read(("z",), labels=labels)
        beside = {"labels alone": exam.rival(labels)}
        beside |= {name: exam.read((view,), labels=labels) for name, view in
                   (("the plain change", "change"), ("an encoder that learnt nothing", "random"))}  # fmt: skip
        best = max(beside, key=lambda name: quality(beside[name], exam.space))
        rivals[labels] = (mine, beside[best], best)
        more += [Value.of(f"read with {labels} labels", score(mine, exam.space), data=exam.told)]
        more += [
            Value.of(f"{name}, {labels} labels", score(t, exam.space), data=exam.told) for name, t in beside.items()
        ]
    leads = {n: gain(mine, other, space=exam.space) for n, (mine, other, _) in rivals.items()}
    best_at = max(leads, key=lambda n: leads[n].value)
    value = Value.of(f"lead with {best_at} labels", leads[best_at], data=exam.told)
    mine, other, who = rivals[best_at]
    read, null = (max(quality(t, exam.space), 0.0) for t in (mine, other))
    note = f"{best_at} labels read {read:.2f} of the action from it, and {null:.2f} without it, by {who}"
    most = quality(rivals[budgets[-1]][0], exam.space)
    good = value.value is not None and value.value > 0 and most > _floor(exam) + READ
    return [
        first,
        Check(*what, told(good=good), value, 0.0, "no lead", LIMITS["gain"], None, note, tuple(more)),
    ]


def useful(exam: Exam) -> list[Check]:
    """Whether cloning through latents takes fewer labels, and whether there was anything to be found at all."""
    what = ("C10", "useful", "Does it save labels?")
    first = ("D", "varied", "Does what is seen leave the action open?")
    if why := lacking(exam) or (exam.sides if isinstance(exam.sides, str) else ""):
        return [Check(*first, "abstain", note=why), Check(*what, "abstain", note=why)]
    space = exam.space
    settled = Value.of("of the action told by what is seen before it", score(exam.habit, space), data=exam.told)
    assert settled.value is not None
    determined = Check(*first, told(good=LIMITS["settled"].kept(settled.value)), settled, None, "", LIMITS["settled"],
                       "too deterministic")  # fmt: skip
    whole = quality(exam.read(("o",)), space)
    floor = _floor(exam)
    if whole - floor < 0.1:
        note = f"what is seen tells {whole:.2f} of the action: too little for cloning to be judged by (play?)"
        return [determined, Check(*what, "abstain", note=note)]
    goal, count = floor + 0.8 * (whole - floor), len(exam.labelled.train.actions)
    budgets = [n for n in (8, *LABELS, 1024) if n < count] + [count]
    mine = {n: quality(_cloned(exam, n), space) for n in budgets}
    plain = {n: quality(exam.read(("o",), labels=n), space) for n in budgets}
    need, theirs = (next((n for n in budgets if by[n] >= goal), None) for by in (mine, plain))
    more = tuple(Value(f"{who}, {n} labels", v, n=n, data=exam.told) for who, by in
                 (("cloned through latents", mine), ("cloned", plain)) for n, v in by.items())  # fmt: skip
    if need is None or theirs is None:
        note = f"through latents {max(mine.values()):.2f} at most, where {goal:.2f} was to be reached"
        value = Value("labels saved", 0.0, n=count, data=exam.told)
        return [determined, Check(*what, "fail", value, 1.0, "plain cloning", LIMITS["thrift"], None, note, more)]
    value = Value("labels saved", theirs / need, n=count, data=exam.told)
    note = f"{need} labels where plain cloning takes {theirs} to reach 80 % of what all {count} give"
    good = LIMITS["thrift"].kept(theirs / need)
    return [determined, Check(*what, told(good=good), value, 1.0, "plain cloning", LIMITS["thrift"], None, note, more)]


def _floor(exam: Exam) -> float:
    """What always saying the same thing gets right."""
    sides = exam.labelled
    if not exam.space.discrete:
        return 0.0
    commonest = np.bincount(sides.train.actions).argmax()
    return float((sides.test.actions == commonest).mean())


def _cloned(exam: Exam, labels: int) -> Any:
    """What is told of the action by the latent that is expected of what is seen, whose meaning so many labels gave."""
    sides, rows = exam.labelled, exam.some(labels)
    train, test = sides.train, sides.test
    expected = linear(train.inputs["o"], train.inputs["z"], groups=train.owner, discrete=False)(test.inputs["o"])
    y = targets(train.actions[rows], exam.space)
    meant = linear(train.inputs["z"][rows], y, groups=train.owner[rows], discrete=exam.space.discrete)
    return tally(meant(expected), test.actions, space=exam.space, owner=test.owner)


def _in_step(exam: Exam) -> Check:
    """Whether frames follow one another, latents stand for one step, and labels lie beside their own."""
    if why := lacking(exam):
        return Check(*STEP, "abstain", note=why)
    jumps, limit = Value.of("transitions that are jumps", exam.jumps, data=exam.told), LIMITS["jumps"]
    if jumps.value is not None and not limit.kept(jumps.value):
        note = "windows cross the ends of episodes, or recordings are cut"
        return Check(*STEP, "fail", jumps, 0.0, "one frame leads to the next", limit, "misaligned", note)
    if isinstance(exam.sides, str):
        note = f"of the frames; of labels nothing is known: {exam.sides}"
        return Check(*STEP, "pass", jumps, 0.0, "one frame leads to the next", limit, "misaligned", note)
    back = _looking_back(exam)
    if back is not None and back.value is not None and not LIMITS["hindsight"].kept(back.value):
        note, limit = "latents are made of several steps", LIMITS["hindsight"]
        return Check(*STEP, "fail", back, 0.0, "one step", limit, "misaligned", note, (jumps,))
    offset, *beside = exam.offsets
    if offset.value is None:
        return Check(*STEP, "abstain", offset, names="misaligned", note=offset.note, more=(jumps,))
    astray = exam.astray
    late = astray < 0 and exam.adds(astray).low > 0
    note = f"latents go best with labels {abs(astray)} steps {'later' if astray > 0 else 'earlier'}" if astray else ""
    note += ", and with those beside them too: the body answers late" if late else ""
    more = (jumps, *([back] if back else []))
    return Check(*STEP, told(good=not astray or late), offset, 0.0, "in step", names="misaligned", note=note, more=more)


def _looking_back(exam: Exam) -> Value | None:
    """Whether latents hold what was done before the step that they are of, where the model looks so far back."""
    name = "how like the latent of a move that of standing still after it is"
    return None if exam.hindsight is None else Value.of(name, exam.hindsight, data=exam.told)
