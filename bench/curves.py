"""Success against labels in four real environments: do latent actions need fewer labels than others make of them?

    python bench/curves.py --out results/curves.json

A point mass, MetaWorld's button, a BabyAI room through the agent's eyes and dm_control's cheetah: manipulation, a grid
and locomotion, discrete and continuous. In each, half of the video is an expert's and half is play; every method has
the same video, steps and labels, which are of the expert's transitions: ``tacit compare`` with the settings below.
``bc`` with every label of the expert's is what there is to reach; the score of an environment is its success, of
cheetah its return, and 90 % of the way from chance to ``bc`` with all labels is what a method needs so many labels for,
on the line between two budgets.
Killed, it goes on where it was: finished cells lie in ``--home``, and finished seeds of an environment in the file of
results, which is written after each.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Rows, begun, over

from tacit.cell import Terms
from tacit.comparison import compare
from tacit.data.collect import collect
from tacit.evaluate.claim import Claim

BAR = (
    "ours reaches 90 % of all-label bc with at most a quarter of the labels that the best other method needs, on at "
    "least three of four environments"
)
PLACES: dict[str, dict[str, Any]] = {
    "point": {"env": "control/point_mass", "noise": 1.4, "options": {"repeat": 10, "horizon": 50}},
    "button": {"env": "metaworld/button-press-topdown", "noise": 0.3, "options": {"repeat": 4}},
    "ball": {"env": "babyai/GoToRedBallNoDists", "noise": 0.2, "options": {"view": "ego"}},
    "cheetah": {"env": "control/cheetah", "noise": 0.3},
}
SCORE = {"point": "success", "button": "success", "ball": "success", "cheetah": "return"}
FRAMES, SIZE = 20_000, 32
BUDGETS = (16, 64, 256, 1024)
OURS, OTHERS = "tacit", ("laom_labels", "lapo", "idm", "bc")
ENOUGH, QUARTER = 0.9, 0.25
FAST = {"plan.precision": "bfloat16"}
SMALL = {"dim": 256, "size": 16, "hidden": 256, "reach": 3, "shift": 2, "plan.rate": 1e-3, "plan.batch": 64}
KNOBS: dict[str, dict[str, Any]] = {
    "tacit": {"points": 16, "plan.rate": 2e-3, **FAST},
    "laom_labels": SMALL,
    "lapo": {"width": 1, "base": 8, "plan.rate": 1e-3, "plan.batch": 64},
    "idm": {"plan.rate": 2e-3, **FAST},
    "bc": {"plan.rate": 2e-3, **FAST},
    "follow": FAST,
}


def recorded(name: str, home: Path) -> Path:
    """Half an expert, half play; what is there already is read."""
    collect(
        frames=FRAMES, size=SIZE, demonstrator=["expert", "play"], workers=1, out=home / "data" / name, **PLACES[name]
    )
    return home / "data" / name


def terms(labels: Sequence[int], names: Sequence[str]) -> Terms:
    knobs = {name: knobs for name, knobs in KNOBS.items() if name in names}
    return Terms(labels=tuple(labels), plan={"steps": 1000, "device": "cpu"}, knobs=knobs)


def settings() -> dict[str, Any]:
    """All that decides the numbers beside environment, method and seed."""
    return {"places": PLACES, "frames": FRAMES, "size": SIZE, "budgets": BUDGETS, "knobs": KNOBS}


def run(name: str, seed: int, home: Path) -> Rows:
    """One environment: every method with every budget, ``bc`` with every label there is, and both ends of the scale."""
    path = recorded(name, home)
    train, _, source = terms(BUDGETS, ()).sides(path, workers=1)
    whole = train.select(source).labelled if source else train.labelled
    few = compare(
        ("random", OURS, "bc", "idm", "lapo", "laom_labels"), (path,), home / name,
        seeds=(seed,), terms=terms(BUDGETS, (OURS, *OTHERS, "follow")),
    )  # fmt: skip
    every = compare(("bc",), (path,), home / f"{name}-all", seeds=(seed,), terms=terms((whole,), ("bc",)))
    rows = few.rows + [row | {"recipe": "bc, all labels"} for row in every.rows]
    kept = ("recipe", "data", "seed", "labels", "success", "return", "probe", "bits", "training", "failed")
    return [{k: row[k] for k in kept if k in row} | {"score": row[SCORE[name]]} for row in rows]


def needed(means: Mapping[int, float], goal: float) -> float:
    """With how many labels a line between budgets reaches the goal; infinite where none of the budgets does."""
    budgets = sorted(means)
    if means[budgets[0]] >= goal:
        return float(budgets[0])
    for one, two in zip(budgets[:-1], budgets[1:], strict=True):
        if means[two] >= goal:
            share = (goal - means[one]) / (means[two] - means[one])
            return float(np.exp(np.log(one) + share * (np.log(two) - np.log(one))))
    return float("inf")


def told(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The labels that each method needs in one environment, and what ours needs of the best other's."""
    here = [row for row in rows if row["data"] == name]
    floor, top = (over(here, "score", recipe=r).value for r in ("random", "bc, all labels"))
    goal = floor + ENOUGH * (top - floor)
    means = {r: {b: over(here, "score", recipe=r, labels=b).value for b in BUDGETS} for r in (OURS, *OTHERS)}
    wants = {r: needed(by, goal) for r, by in means.items()}
    best = min(wants[r] for r in OTHERS)
    whole = next(row["labels"] for row in here if row["recipe"] == "bc, all labels")
    best = min(best, float(whole))  # bc needs no more than all of them
    return {
        "environment": name, "score": SCORE[name], "random": floor, "all labels": top, "goal": goal, "whole": whole,
        "needs": {r: v if np.isfinite(v) else None for r, v in wants.items()},
        "share": wants[OURS] / best if np.isfinite(wants[OURS]) else None,
        "means": {r: {str(b): v for b, v in by.items()} for r, by in means.items()},
    }  # fmt: skip


def sentence(places: Sequence[Mapping[str, Any]]) -> str:
    """What came out, in words that follow from the numbers."""
    won = [p for p in places if p["share"] is not None and p["share"] <= QUARTER]
    said = f"Ours needs at most a quarter of the best other method's labels in {len(won)} of {len(places)} environments"
    each = []
    for place in places:
        needs = ", ".join(f"{r} {'more than 1,024' if v is None else f'{v:,.0f}'}" for r, v in place["needs"].items())
        each.append(
            f"{place['environment']}, where 90 % of the way from {place['random']:.2f} to {place['all labels']:.2f} "
            f"({place['score']} of bc with {place['whole']:,} labels) takes {needs}"
        )
    return f"{said}: {'; '.join(each)}."


def drawn(rows: Sequence[Mapping[str, Any]], places: Sequence[Mapping[str, Any]], axes: Any) -> None:
    """A panel for each environment: score against labels, every method over seeds."""
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(3.2 * len(places), 3.4)
    for panel, place in zip(figure.subplots(1, len(places), squeeze=False)[0], places, strict=True):
        here = [row for row in rows if row["data"] == place["environment"]]
        for i, recipe in enumerate((OURS, *OTHERS)):
            found = [over(here, "score", recipe=recipe, labels=b) for b in BUDGETS]
            at = np.array(BUDGETS) * 1.04**i
            panel.plot(at, [f.value for f in found], "o-", color=f"C{i}", label=recipe, markersize=4)
            panel.vlines(at, [f.low for f in found], [f.high for f in found], color=f"C{i}", linewidth=0.8)
        panel.axhline(place["all labels"], color="#444444", linewidth=1, linestyle="--")
        panel.axhline(place["random"], color="#aaaaaa", linewidth=1, linestyle=":")
        room = max(place["all labels"], *(v for by in place["means"].values() for v in by.values())) - place["random"]
        panel.set_ylim(place["random"] - 0.15 * room, place["random"] + 1.2 * room)
        panel.set_xscale("log")
        panel.set_xticks(BUDGETS, BUDGETS)
        panel.set_xlabel("labels")
        panel.set_ylabel(place["score"])
        panel.set_title(place["environment"], fontsize=9)
    figure.axes[0].legend(fontsize=7)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    parser.add_argument("--home", type=Path, default=Path("out/curves"), help="recordings and finished cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--environments", nargs="+", default=list(PLACES), choices=list(PLACES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    before, rows, passed = begun(given.out, settings()), Rows(), False
    for seed in range(given.seeds):  # a seed of everywhere before the next: whoever stops early has all of some
        for name in given.environments:
            old = [row for row in before if (row["data"], row["seed"]) == (name, seed)]
            rows += old or run(name, seed, given.home)
            passed = concluded(rows, given)
    return 0 if passed else 1


def concluded(rows: Rows, given: argparse.Namespace) -> bool:
    """Say, and write down, what the seeds so far come to."""
    seeds = {name: sorted({row["seed"] for row in rows if row["data"] == name}) for name in given.environments}
    places = [told(rows, name) | {"seeds": found} for name, found in seeds.items() if found]
    said = sentence(places)
    print(said, flush=True)
    shares = [p["share"] for p in places if len(p["seeds"]) > 2]
    passed = sum(s is not None and s <= QUARTER for s in shares) >= 3 and len(shares) >= 4
    if given.out:
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/curves.py", *sys.argv[1:]]),
            value={p["environment"]: {"share": p["share"], **p["means"]} for p in places},
            interval=None,
            n=sum(map(len, seeds.values())),
            seeds=tuple(sorted(set().union(*seeds.values()))),
            bar=BAR,
            passed=passed,
            rows=rows,
            extra={"environments": places, "settings": settings()},
        ).save(given.out, draw=lambda axes: drawn(rows, places, axes))
    return passed


if __name__ == "__main__":
    raise SystemExit(main())
