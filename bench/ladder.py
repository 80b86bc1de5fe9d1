"""LAOM's ladder in miniature: does each published remedy help against moving distractors, in the published order?

    python bench/ladder.py --out results/ladder.json

Two environments in pictures with sprites flying over them. The rungs are those of Nikulin et al. 2025 (arXiv
2502.00379), each an argument of ``lapo_fsq`` or ``laom`` and each on top of the one before: rounded numbers and the
next pixels; no quantiser; several steps; a wide latent; the target as features; shifts of the picture; a few labels
inside training. Every model learns from the same video with the same steps, batches and seed. ``probe`` is how well a
line, fitted on half of the held-out episodes, reads the true action from the latent on the other half; ``few`` the same
of what the training's few labels alone read out of it, which are those that the last rung was taught.
Killed, it goes on where it was: finished rungs lie in ``--home``, and finished seeds in the file of results, which is
written after each.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Rows, begun, kept, over
from minimal import Readout

from tacit import data as recordings
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import Interval, mean
from tacit.evaluate.probe import probe
from tacit.latents.model import LatentActions
from tacit.parts.quantize import Free
from tacit.recipes.laom import laom
from tacit.recipes.lapo_fsq import lapo_fsq
from tacit.train import Plan

BAR = "on two environments or more with moving distractors the published order of remedies comes out"
SPRITES: dict[str, Any] = {"distract": "sprites", "strength": 0.5}
PLACES: dict[str, dict[str, Any]] = {  # how each world is opened and recorded
    "control/cheetah": {"noise": 0.5, "options": SPRITES},
    "metaworld/button-press-topdown": {"noise": 0.5, "options": {**SPRITES, "repeat": 4}},
}
FRAMES, SIZE, LABELS = 15_000, 32, 256
NARROW, WIDE, REACH, SHIFT = 128, 1024, 5, 3
NETS: dict[str, Any] = {"size": 16, "hidden": 256}
STACK = 1  # with stacks of three, as published, 1,500 steps on pixels left every latent unused: a look at seed 0
PIXELS: dict[str, Any] = {**NETS, "base": 12, "stack": STACK}
FEATURES: dict[str, Any] = {"channels": 16, "features": 128, "width": 256, "dim": WIDE, "reach": REACH, "stack": STACK}
INSIDE: dict[str, Any] = {"labelled": 0.2, "weight": 0.1}  # as ``laom_labels`` has them

RUNGS: dict[str, Callable[..., LatentActions]] = {
    "rounded": partial(lapo_fsq, groups=4, **PIXELS),
    "free": partial(lapo_fsq, bottleneck=Free(NARROW), **PIXELS),
    "several steps": partial(lapo_fsq, bottleneck=Free(NARROW), reach=REACH, **PIXELS),
    "wide": partial(lapo_fsq, bottleneck=Free(WIDE), reach=REACH, **PIXELS),
    "features": partial(laom, shift=0, **FEATURES),
    "shifted": partial(laom, shift=SHIFT, **FEATURES),
    "labels inside": partial(laom, shift=SHIFT, **FEATURES, **INSIDE),
}
# What the paper says is better than what, and by which of the two measures: with distractors, its figures fall from
# 29.17 to 22.09, 9.54, 3.89 and 2.74 but for features without shifts, which are worse (5.22) until shifted.
CLAIMS: tuple[tuple[str, str, str, str], ...] = (
    ("no quantiser beats rounding", "free", "rounded", "probe"),
    ("several steps beat one", "several steps", "free", "probe"),
    ("a wide latent beats a narrow one", "wide", "several steps", "probe"),
    ("features with shifts beat pixels", "shifted", "wide", "probe"),
    ("shifts help features", "shifted", "features", "probe"),
    ("labels inside beat the same labels after", "labels inside", "shifted", "few"),
)


def sides(name: str, seed: int, home: Path) -> tuple[Episodes, Episodes]:
    """What is learnt from and what is held out, recorded anew for each seed."""
    folder = home / f"{name.replace('/', '-')}-{seed}"
    who = {"demonstrator": ["expert", "play"], "size": SIZE, "seed": seed, "workers": 1}
    collect(name, folder, frames=FRAMES, **who, **PLACES[name])  # type: ignore[arg-type]
    train, held = recordings.cache(recordings.open(folder)).split(0.2, seed=seed)
    return train, held


def cell(name: str, rung: str, seed: int, *, home: Path, steps: int) -> Rows:
    """One rung in one environment with one seed."""
    train, held = sides(name, seed, home)
    few, began = train.keep_labels(LABELS, seed=seed), time.perf_counter()
    plan = Plan(steps=steps, batch=64, rate=1e-3, seed=seed, precision="bfloat16", device="cpu", log_every=1000)
    model = RUNGS[rung](few if rung == "labels inside" else few.unlabelled(), None, plan=plan).eval()
    spent = time.perf_counter() - began
    read = {"probe": probe(model, held, seed=seed), "few": probe(Readout(model, few), held, seed=seed)}
    facts = {"environment": name, "rung": rung, "seed": seed, "training": round(spent, 1)}
    return [facts | {measure: value.value for measure, value in read.items()}]


def settings(steps: int) -> dict[str, Any]:
    """All that decides the numbers beside environment, rung and seed."""
    sizes = {"frames": FRAMES, "size": SIZE, "labels": LABELS, "narrow": NARROW}
    return {"steps": steps, **sizes, "places": PLACES, "pixels": PIXELS, "features": FEATURES, "shift": SHIFT, **INSIDE}


def done(name: str, rung: str, seed: int, *, home: Path, steps: int) -> Rows:
    """A cell from the disk if it was finished with the same settings, else made and put there."""
    path = home / "cells" / f"{name}-{rung}-{seed}.json".replace("/", "-").replace(" ", "-")
    rows, made = kept(path, settings(steps), lambda: cell(name, rung, seed, home=home, steps=steps))
    if made:
        row = rows[0]
        told = f"probe {row['probe']:.3f}, few {row['few']:.3f}"
        print(f"{name}, {rung}, seed {seed}, {row['training']:.0f} s: {told}", flush=True)
    return rows


def gaps(rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> list[dict[str, Any]]:
    """By how much each claim holds, seed by seed, in each environment."""
    at = {(row["environment"], row["rung"], row["seed"]): row for row in rows}
    seeds, found = sorted({row["seed"] for row in rows}), []
    for place in places:
        for claim, better, worse, measure in CLAIMS:
            gap = mean([at[place, better, s][measure] - at[place, worse, s][measure] for s in seeds])
            found.append({"environment": place, "claim": claim, "gap": gap.value, "low": gap.low, "high": gap.high})
    return found


def sentence(told: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> str:
    """What came out, in words that follow from the numbers."""
    held = sum(entry["gap"] > 0 for entry in told)
    sure = sum(entry["low"] > 0 for entry in told)
    said = [f"{held} of {len(told)} published comparisons come out as published, {sure} beyond chance"]
    for place in places:
        probes = {r: over(rows, "probe", environment=place, rung=r).value for r in RUNGS}
        few = {r: over(rows, "few", environment=place, rung=r).value for r in ("shifted", "labels inside")}
        said.append(
            f"on {place} a line reads of the action "
            + ", ".join(f"{v:.2f} ({r})" for r, v in probes.items())
            + f"; {LABELS} labels read {few['shifted']:.2f} after and {few['labels inside']:.2f} inside training"
        )
    return ": ".join((said[0], "; ".join(said[1:]))) + "."


def drawn(rows: Sequence[Mapping[str, Any]], axes: Any, places: Sequence[str]) -> None:
    """The rungs from left to right, a line for each environment and measure."""
    at = np.arange(len(RUNGS))
    for i, place in enumerate(places):
        for measure, style in (("probe", "o-"), ("few", "^:")):
            found: list[Interval] = [over(rows, measure, environment=place, rung=rung) for rung in RUNGS]
            label = f"{place}, {'all labels' if measure == 'probe' else f'{LABELS} labels'}"
            axes.plot(at, [f.value for f in found], style, color=f"C{i}", label=label, markersize=5)
            axes.vlines(at, [f.low for f in found], [f.high for f in found], color=f"C{i}", linewidth=1)
    axes.axhline(0, color="#cccccc", linewidth=0.8)
    axes.set_xticks(at, RUNGS, rotation=20, ha="right")
    axes.set_ylabel("R2 of the true action")
    axes.legend(fontsize=7)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    parser.add_argument("--home", type=Path, default=Path("out/ladder"), help="recordings and finished cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="from 10 on: 0 chose settings")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--environments", nargs="+", default=list(PLACES), choices=list(PLACES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    before, rows, passed = begun(given.out, settings(given.steps)), Rows(), False
    for seed in given.seeds:
        known = {(row["environment"], row["rung"]): row for row in before if row["seed"] == seed}
        for name in given.environments:
            for rung in RUNGS:
                old = known.get((name, rung))
                rows += [old] if old else done(name, rung, seed, home=given.home, steps=given.steps)
        passed = concluded(rows, given)
    return 0 if passed else 1


def concluded(rows: Rows, given: argparse.Namespace) -> bool:
    """Say, and write down, what the seeds so far come to."""
    told, seeds = gaps(rows, given.environments), sorted({row["seed"] for row in rows})
    said = sentence(told, rows, given.environments)
    print(said, flush=True)
    passed = len(given.environments) > 1 and len(seeds) > 2 and all(entry["gap"] > 0 for entry in told)
    if given.out:
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/ladder.py", *sys.argv[1:]]),
            value={p: {e["claim"]: e["gap"] for e in told if e["environment"] == p} for p in given.environments},
            interval={
                p: {e["claim"]: [e["low"], e["high"]] for e in told if e["environment"] == p}
                for p in given.environments
            },
            n=len(seeds),
            seeds=tuple(seeds),
            bar=BAR,
            passed=passed,
            rows=rows,
            extra={"settings": settings(given.steps)},
        ).save(given.out, draw=lambda axes: drawn(rows, axes, given.environments))
    return passed


if __name__ == "__main__":
    raise SystemExit(main())
