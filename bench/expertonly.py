"""Video of experts alone, and half of it play: what the warning says before training, and what the latents are worth.

    python bench/expertonly.py --out results/expertonly.json   # two environments, two recipes, three seeds: 10 minutes

From near-deterministic video latent actions are not identifiable: what happened is told by where it happened. Both sets
of an environment have as many frames; their labels are read by what warns before training (``forewarned``), and not by
training. The latents are judged on play that no model has seen: by a line fitted on play (what is in them), and by the
decoder that 64 labels of the training video give (whether it means the same elsewhere). On the toy, where it is cheap,
that decoder and a clone of the expert's latents then act. ``clam`` learns from states here, without labels; ``lapo`` is
there to be asked for, and at these sizes finds nothing in either set. Killed, it goes on where it was; what is finished
lies in ``--home``.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cells import kept, over

from tacit import data as recordings
from tacit.data.collect import collect, opened
from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.claim import Claim
from tacit.evaluate.probe import probes
from tacit.evaluate.rollout import rollout
from tacit.latents.decode import decoder, gather
from tacit.latents.model import LatentActions, label
from tacit.parts.keypoints import Keypoints
from tacit.recipes.clam import clam
from tacit.recipes.follow import follow
from tacit.recipes.lapo import lapo
from tacit.recipes.tacit import tacit
from tacit.rehearsal import forewarned
from tacit.train import Plan

SETS = {"expert": ("expert",), "expert and play": ("expert", "play")}
PLACES: dict[str, tuple[int, int, dict[str, Any]]] = {  # side of the pictures, frames of each set, the world's options
    "dots/plain": (16, 4000, {"wrap": False}),
    "control/point_mass": (32, 4000, {"repeat": 10, "horizon": 50}),
}
LABELS, PLAYED = 64, 40  # labels that decode, and episodes that each policy acts in
RIGHT, LOST = 0.9, 0.05  # R2 that is called right, and what a recipe may lose by play
TOLD = 0.7  # R2(action | observation) above which the warning must fire
BAR = (
    "the warning fires on every set of experts alone, whose R2(action | observation) is above 0.7, and on no other; in "
    "each environment some recipe decodes play wrongly from experts alone and rightly (R2 of 0.9) once play is mixed "
    "in, with intervals apart; no recipe loses more than 0.05 by it"
)


def by_lapo(data: Episodes, plan: Plan) -> LatentActions:
    return lapo(data.unlabelled(), None, width=1, base=8, plan=plan.replace(rate=1e-3))


def by_tacit(data: Episodes, plan: Plan) -> LatentActions:
    return tacit(data.unlabelled(), None, points=8, width=16, reach=2, plan=plan.replace(rate=2e-3))


def by_clam(data: Episodes, plan: Plan) -> LatentActions:
    sizes: dict[str, Any] = {"dim": 2, "past": 0, "features": 32, "width": 64, "layers": 1, "hidden": 32}
    plan = plan.replace(steps=2 * plan.steps, rate=1e-3, batch=128)  # a step of states costs a tenth of one of pictures
    return clam(data.unlabelled(), None, labelled=0.0, states=True, plan=plan, **sizes)


METHODS: dict[str, Callable[[Episodes, Plan], LatentActions]] = {"clam": by_clam, "tacit": by_tacit, "lapo": by_lapo}
USUAL = ("clam", "tacit")
ACTING = ("dots/plain",)  # where policies are tried


def folder(home: Path, place: str, name: str) -> Path:
    return home / f"{place} {name}".replace("/", "-").replace(" ", "-")


def recorded(home: Path, place: str) -> None:
    """Both sets, and play to judge on; what is there already is left."""
    size, frames, options = PLACES[place]
    told: dict[str, Any] = {"size": size, "workers": 1, "options": options}
    for name, who in SETS.items():
        collect(place, folder(home, place, name), frames=frames, demonstrator=who, **told)
    collect(place, folder(home, place, "held"), frames=frames // 2, demonstrator="play", seed=1, **told)


def decoded(model: LatentActions, some: Episodes, held: Episodes) -> float:
    """R2 on held-out play of the decoder that the labels of ``some`` give."""
    made, _ = decoder(model, some)
    rows = gather(model, held)
    with torch.inference_mode():
        said = made(rows.latent, rows.before, rows.seen)
    missed, true = (said - rows.action).square().sum(), (rows.action - rows.action.mean(0)).square().sum()
    return float(1 - missed / true)


def acted(model: LatentActions, some: Episodes, place: str, *, plan: Plan) -> float:
    """The share of episodes won by a clone of the expert's latents, decoded by the labels."""
    size, _, options = PLACES[place]
    eyes = (
        Keypoints(frame=some.spec.pictures, points=16, width=16) if model.of == "state" or not model.encoder else None
    )
    policy = follow(model, some, None, encoder=eyes, source="expert", plan=plan)
    opening = partial(opened, place, size=size, options=options)
    return float(rollout(policy, opening, episodes=PLAYED, seed=plan.seed).row()["success"])


def cell(place: str, name: str, method: str, *, seed: int, home: Path, steps: int) -> dict[str, Any]:
    """One recipe on one of the sets with one seed."""
    data, held = (recordings.cache(recordings.open(folder(home, place, n))) for n in (name, "held"))
    warned = forewarned(lapo, data)["determinism"]
    plan = Plan(steps=steps, batch=64, seed=seed, device="cpu")
    model = METHODS[method](data, plan).eval()
    holdout.refuse_overlap(model, held)
    found = {v.name: v.value for v in probes(model, held, kinds=("linear",), seed=seed)}
    some = label(model, data).keep_labels(LABELS, seed=seed)
    row = {"environment": place, "video": name, "recipe": method, "seed": seed, "frames": int(data.lengths.sum())}
    row |= {"r2": warned["r2"], "warned": warned["warned"], "probe": found["linear probe of z"]}
    row |= {"probe with o": found["linear probe of z and o"], "decoded": decoded(model, some, held)}
    acts = place in ACTING and model.of == "frames"  # a follower of latents of states has pictures alone to act by
    row["success"] = acted(model, some, place, plan=plan.replace(rate=2e-3)) if acts else None
    return row


def done(place: str, name: str, method: str, *, seed: int, home: Path, steps: int) -> list[dict[str, Any]]:
    """A cell from the disk if it was finished with the same settings, else made and put there."""
    path = home / "cells" / f"{place}-{name}-{method}-{seed}.json".replace("/", "-").replace(" ", "-")
    began, settings = time.perf_counter(), [steps, LABELS, PLAYED, repr(PLACES[place])]
    rows, made = kept(path, settings, lambda: [cell(place, name, method, seed=seed, home=home, steps=steps)])
    if made:
        row, spent = rows[0], time.perf_counter() - began
        numbers = ", ".join(f"{k} {row[k]:.2f}" for k in ("r2", "probe", "decoded", "success") if row[k] is not None)
        words = "warned" if row["warned"] else "not warned"
        print(f"{place}, {name}, {method}, seed {seed}: {words}; {numbers}; {spent:.0f} s", flush=True)
    return rows


def sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """What came out, in words that follow from the numbers."""
    said = []
    for place in dict.fromkeys(row["environment"] for row in rows):
        for name in SETS:
            some = [row for row in rows if row["environment"] == place and row["video"] == name]
            told = "; ".join(
                f"{m} {over(some, 'probe', recipe=m).value:.2f} and {over(some, 'decoded', recipe=m).value:.2f}"
                + (f", success {100 * won.value:.0f} %" if (won := over(some, "success", recipe=m)).n else "")
                for m in dict.fromkeys(row["recipe"] for row in some)
            )
            words = "warned of" if some[0]["warned"] else "not warned of"
            said.append(f"{place}, {name} (R2(action | observation) {some[0]['r2']:.2f}, {words}): {told}")
    return (
        f"R2 of play's actions by a line on the latents, and by the decoder of {LABELS} labels of the training "
        f"video: {'. '.join(said)}."
    )


def drawn(rows: Sequence[Mapping[str, Any]], axes: Any) -> None:
    """Each recipe in each environment: from experts alone to half play, by three measures."""
    figure, columns = (
        axes.figure,
        {"probe": "line on play", "decoded": f"{LABELS} labels, on play", "success": "success"},
    )
    axes.remove()
    figure.set_size_inches(9.6, 3.8)
    panels = figure.subplots(1, len(columns), sharey=True)
    for panel, (column, title) in zip(panels, columns.items(), strict=True):
        for i, place in enumerate(dict.fromkeys(row["environment"] for row in rows)):
            for j, method in enumerate(dict.fromkeys(row["recipe"] for row in rows)):
                found = [over(rows, column, environment=place, recipe=method, video=v) for v in SETS]
                values = [max(f.value, -0.2) if f.n else math.nan for f in found]
                panel.plot(range(len(SETS)), values, ["-o", "--s"][i], color=f"C{j}", label=f"{method}, {place}")
        panel.set_xticks(
            range(len(SETS)), [f"{v}\nonly" if v == "expert" else v.replace(" and", "\nand") for v in SETS]
        )
        panel.set_title(title, fontsize=9)
        panel.set_ylim(-0.25, 1.05)
    panels[0].set_ylabel("R2, success (below -0.2 at -0.2)")
    panels[0].legend(fontsize=7)


def verdict(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """What play adds to what labels decode, its intervals, and whether all of the bar is met."""
    value: dict[str, Any] = {}
    interval: dict[str, Any] = {}
    passed = all(row["warned"] == (row["r2"] > TOLD) == (row["video"] == "expert") for row in rows)
    for place in dict.fromkeys(row["environment"] for row in rows):
        restored = []
        for method in dict.fromkeys(row["recipe"] for row in rows):
            alone, mixed = (over(rows, "decoded", environment=place, recipe=method, video=v) for v in SETS)
            key = f"{place}, {method}"
            value[key] = {v: f.value for v, f in zip(SETS, (alone, mixed), strict=True)}
            interval[key] = {v: [f.low, f.high] for v, f in zip(SETS, (alone, mixed), strict=True)}
            restored.append(mixed.above(alone) and alone.value < RIGHT <= mixed.value)
            passed = passed and mixed.value > alone.value - LOST
        passed = passed and any(restored)
    return value, interval, passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    parser.add_argument("--home", type=Path, default=Path("out/expertonly"), help="recordings and finished cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--environments", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--methods", nargs="+", default=list(USUAL), choices=list(METHODS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for place in given.environments:
        recorded(given.home, place)
    rows = [
        row
        for seed in range(given.seeds)
        for place in given.environments
        for method in given.methods
        for name in SETS
        for row in done(place, name, method, seed=seed, home=given.home, steps=given.steps)
    ]
    said = sentence(rows)
    print(said)
    if given.out:
        value, interval, passed = verdict(rows)
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/expertonly.py", *sys.argv[1:]]),
            value=value,
            interval=interval,
            n=given.seeds,
            seeds=tuple(range(given.seeds)),
            bar=BAR,
            passed=passed,
            rows=rows,
        ).save(given.out, draw=lambda axes: drawn(rows, axes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
