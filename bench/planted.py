"""Does the verdict name the fault that was planted, and leave good models alone?

    python bench/planted.py --out results/planted.json

Nine worlds: a toy in pictures, and eight real ones in states. In each, good models are trained with labels
inside, and fifteen kinds of fault are planted in them or in their data, each at three strengths (``faults.py``). A good
model is one from which a line reads the action (R2, or accuracy beyond chance, of at least ``READ``) and that foresees
at least half of the change, both on held-out episodes; where training did not get so far nothing is planted, and that
is told. A fault that works by what is learnt (of an expert alone, of few or copied clips, with a distractor or a pan,
by latents that are turned) is none where the model is as good as a good one all the same: it is not counted.
The limits of ``tacit check`` were set on half of the worlds (``sets=True`` in ``places.py``) and are tested on the
others; both halves are shown. Killed, it goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Rows, kept
from faults import FAULTS, STRENGTHS, Base, Case
from places import PLACES, material, trained

from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import proportion
from tacit.evaluate.verdict.check import LIMITS
from tacit.evaluate.verdict.exam import Exam
from tacit.evaluate.verdict.verdict import WORKING, Verdict, verdict_of

MOST = 768  # transitions that are looked at
READ, FORESEEN = 0.7, 0.5  # what makes a model good, by measures that no limit is set on
RIGHT, WRONG = 0.95, 0.05
BAR = (
    "of models with a planted fault at least 95 % are given the verdict that was planted, of good ones at most 5 % are "
    "called ill, in worlds in which no limit was set; at least 12 kinds of fault, 3 worlds and 200 models"
)
# Good models, each otherwise trained: further numbers, a wider network, noise, half the video, a distractor beside.
GOOD: dict[str, dict[str, Any]] = {
    "plain": {},
    "wider latent": {"extra": 6},
    "noisy latent": {"noise": 0.1},
    "half the width": {"width": 64},
    "half the labels": {"labelled": 0.5},
    "looks back": {"past": 1},
    "half the video": {},
    "beside a distractor": {},
    "with a sibling": {},
}


@functools.lru_cache(maxsize=1)
def based(name: str, seed: int) -> Base:
    """A good model of one world, and a second seed of it."""
    place = PLACES[name]
    data = material(place, seed=seed)
    one, two = (trained(place, data.train, seed=seed * 100 + k) for k in (0, 1))
    return Base(place, seed, data, one, two)


def good(base: Base, kind: str) -> Case:
    """A good model of another kind."""
    place, case = base.place, base.case
    if kind == "plain":
        return case
    if kind == "with a sibling":
        return Case(base.other, base.data.held, base.data.train, (base.model,))
    if kind == "beside a distractor":
        data = material(place, foreign=0.3, seed=base.seed)
        return Case(base.again(data.train), data.held, data.train, (), data.tracks)
    train = base.data.train
    train = train.select(range(0, len(train), 2)) if kind == "half the video" else train
    return Case(base.again(train, **GOOD[kind]), base.data.held, train)


def asked(case: Case, seed: int) -> tuple[Verdict, Exam]:
    """What comes of a case; the same transitions for all of a world."""
    exam = Exam(case.model, case.held, case.learnt, case.siblings, None, case.tracks, MOST, seed)
    return verdict_of(exam), exam


def row(name: str, kind: str, strength: int, seed: int) -> Rows:
    """One model, and the verdict on it."""
    began, base = time.perf_counter(), based(name, seed)
    case = good(base, kind) if kind in GOOD else FAULTS[kind][0](base, strength)
    found, exam = asked(case, seed)
    values = {c.code: None if c.value is None else c.value.value for c in found.checks}
    where = case.held if kind in GOOD else case.harmed
    exam = exam if where is case.held or where is None else Exam(case.model, where, most=MOST, seed=seed)
    read = exam.read(("z",)) if where is not None and not isinstance(exam.sides, str) else None
    facts: dict[str, Any] = {"place": name, "kind": kind, "strength": strength, "seed": seed}
    facts |= {"wanted": FAULTS[kind][1] if kind in FAULTS else WORKING, "verdict": found.name}
    facts |= {"ailments": list(found.ailments), "failed": [c.code for c in found.checks if c.outcome == "fail"]}
    if read is not None:
        share, left = _read(exam, read), exam.judged["FVU"].value
        facts |= {"read": share, "FVU": left, "sound": bool(share >= READ and (left or 0) <= FORESEEN)}
    took = round(time.perf_counter() - began, 1)
    return [facts | {"values": values, "more": _more(found), "judged": round(found.seconds, 1), "seconds": took}]


def _read(exam: Exam, tallied: Any) -> float:
    """How well a line reads the action: R2, or accuracy beyond that of always saying the commonest."""
    from tacit.evaluate.tally import quality

    found = float(quality(tallied, exam.space))
    if not exam.space.discrete:
        return found
    common = np.bincount(exam.labelled.test.actions).max() / len(exam.labelled.test.actions)
    return float((found - common) / (1 - common))


def _more(found: Verdict) -> dict[str, float | None]:
    """The further numbers that a limit is set on."""
    names = {"FVU": "foreseen", "future leak": "leak", "transitions that are jumps": "jumps"}
    names |= {"how like the latent of a move that of standing still after it is": "hindsight"}
    return {names[v.name]: v.value for c in found.checks for v in c.more if v.name in names}


def done(name: str, kind: str, strength: int, *, seed: int, home: Path) -> dict[str, Any]:
    """A row from the disk if it was finished with the same settings and limits, else made and put there."""
    settings = [MOST, PLACES[name].frames, PLACES[name].steps, {k: v.at for k, v in LIMITS.items()}]
    path = home / "cells" / f"{name}-{kind}-{strength}-{seed}.json".replace(" ", "-").replace(",", "")
    rows, made = kept(path, settings, lambda: row(name, kind, strength, seed))
    if made:
        told = rows[0]
        print(f"{name}, {kind} {strength}: {', '.join(told['ailments']) or WORKING} ({told['seconds']} s)", flush=True)
    return rows[0]


def study(names: Sequence[str], *, seed: int, home: Path) -> Rows:
    """Every good model and every fault of every world, world by world."""
    rows: Rows = []
    for name in names:
        rows += [done(name, kind, 0, seed=seed, home=home) for kind in GOOD]
        if rows[-len(GOOD)]["sound"]:
            rows += [done(name, kind, s, seed=seed, home=home) for kind in FAULTS for s in STRENGTHS]
    return rows


def tallied(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many were named as planted, first and at all, and how many of the good were called ill."""
    ill = [r for r in rows if r["wanted"] != WORKING and not r.get("sound")]
    well = [r for r in rows if r["wanted"] == WORKING and r.get("sound")]
    first, named = (sum(f(r) for r in ill) for f in (lambda r: r["verdict"] == r["wanted"], _named))
    false = sum(r["verdict"] != WORKING for r in well)
    counts: dict[str, Any] = {"planted": len(ill), "good": len(well), "left out": len(rows) - len(ill) - len(well)}
    for key, count, of in (("first", first, ill), ("named", named, ill), ("false alarms", false, well)):
        share = proportion(count, max(1, len(of)))
        counts[key] = {"share": share.value, "low": share.low, "high": share.high, "count": count}
    return counts


def _named(row: Mapping[str, Any]) -> bool:
    return row["wanted"] in row["ailments"]


def halves(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The counts where limits were set, and where they were tested."""
    sets = {True: "set", False: "tested"}
    return {sets[flag]: tallied([r for r in rows if PLACES[r["place"]].sets == flag]) for flag in sets}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    parser.add_argument("--home", type=Path, default=Path("out/planted"), help="finished cells")
    parser.add_argument("--places", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--seed", type=int, default=1, help="0 chose settings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = study(given.places, seed=given.seed, home=given.home)
    return 0 if concluded(rows, given) else 1


def concluded(rows: Rows, given: argparse.Namespace) -> bool:
    """Say, and write down, what came out."""
    both = halves(rows)
    said = sentence(both)
    print(said)
    tested = both["tested"]
    kinds = ("first", "named", "false alarms")
    enough = len(rows) >= 200 and len(given.places) >= 3 and len(FAULTS) >= 12
    passed = enough and tested["first"]["share"] >= RIGHT and tested["false alarms"]["share"] <= WRONG
    if given.out:
        interval = {
            h: {k: [c[k]["low"], c[k]["high"]] for k in ("first", "named", "false alarms")} for h, c in both.items()
        }
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/planted.py", *sys.argv[1:]]),
            value={h: {k: c[k]["share"] for k in kinds} for h, c in both.items()},
            interval=interval,
            n=len(rows),
            seeds=(given.seed,),
            bar=BAR,
            passed=bool(passed),
            rows=rows,
            extra={"halves": both, "limits": {k: v.at for k, v in LIMITS.items()}},
        ).save(given.out, draw=lambda axes: drawn(rows, axes))
    return bool(passed)


def sentence(both: Mapping[str, Any]) -> str:
    """What came out, in words that follow from the numbers."""

    def of(counts: Mapping[str, Any]) -> str:
        first, named, false = (counts[k] for k in ("first", "named", "false alarms"))
        return (
            f"{first['count']} of {counts['planted']} planted faults are the verdict ({100 * first['share']:.0f} %), "
            f"{100 * named['share']:.0f} % are named; {false['count']} of {counts['good']} good models are called ill"
        )

    return f"In worlds where no limit was set {of(both['tested'])}; where limits were set {of(both['set'])}."


def drawn(rows: Sequence[Mapping[str, Any]], axes: Any) -> None:
    """Faults down, worlds across: the share of strengths at which the fault is the verdict."""
    counted = [r for r in rows if (r["wanted"] == WORKING) == bool(r.get("sound"))]
    names, kinds = list(dict.fromkeys(r["place"] for r in counted)), [*FAULTS, "good, left alone"]
    table = np.full((len(kinds), len(names)), np.nan)
    for i, kind in enumerate(kinds):
        for j, name in enumerate(names):
            here = [r for r in counted if r["place"] == name]
            some = [r for r in here if (r["kind"] if r["kind"] in FAULTS else kinds[-1]) == kind]
            if some:
                table[i, j] = np.mean([r["verdict"] == r["wanted"] for r in some])
    axes.figure.set_size_inches(7.2, 5.6)
    axes.imshow(table, cmap="RdYlGn", vmin=-0.3, vmax=1.3, aspect="auto")
    for i, j in np.argwhere(np.isfinite(table)):
        axes.text(j, i, f"{100 * table[i, j]:.0f}", ha="center", va="center", fontsize=8)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_xticks(range(len(names)), [f"{n}\n{'set' if PLACES[n].sets else 'tested'}" for n in names], fontsize=8)
    axes.set_title("% of models whose verdict is right", fontsize=9)


if __name__ == "__main__":
    raise SystemExit(main())
