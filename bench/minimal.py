"""Whether a latent action holds the action and not the distractor, with labels on one episode in a hundred.

    python bench/minimal.py --out results/minimal.json       # all recipes, three seeds, two environments: 45 minutes

Two environments with something in the picture that no action moves, whose true state is recorded: the toy's second dot,
and sprites over dm_control's point mass. Every recipe learns from the same video; labels are on 1 % of the episodes it
learns from. Each is judged twice: by its whole latent, and by what those labels read out of it (``decoder``, which
policies use too: as many numbers as the action has). Held-out episodes alone are probed, with a line and with a
network, for the action and for the exogenous state and its change; of these the largest R2 counts. Every latent is
shown to a probe with the one before it, for a thing that has momentum cannot be told from one step; ``told`` is what
the true places tell a line of the action so.
Killed, it goes on where it was; what is finished lies in ``--home``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import kept, over
from torch import Tensor

from tacit import data as recordings
from tacit.clip import Clip
from tacit.data.collect import collect, exogenous
from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.claim import Claim
from tacit.evaluate.probe import AGAIN, HELD, linear, network
from tacit.latents.decode import decoder
from tacit.latents.supervised import Supervised
from tacit.parts.keypoints import Keypoints
from tacit.parts.outputs import Head
from tacit.recipes.laom import laom
from tacit.recipes.laom_labels import laom_labels
from tacit.recipes.lapo import lapo
from tacit.recipes.tacit import tacit
from tacit.recipes.univla import univla
from tacit.train import Plan, fit

SHARE = 0.01  # of the episodes that may carry labels
BARS = 0.9, 0.1  # R2 of the action at least, and of what is exogenous at most
BAR = "with labels on at most 1 % of episodes under distractors, R2(action | z) >= 0.9 and R2(exogenous | z) <= 0.1"
MOST = 2048  # transitions that a probe is fitted on, and as many that it is tested on
OURS = "tacit, read by labels"
TOY: dict[str, Any] = {"distractor": 0.8, "goal": False, "wrap": False, "room": 4.0}
MASS: dict[str, Any] = {"distract": "sprites", "strength": 0.5, "repeat": 25, "horizon": 20}
PLACES = {  # episodes, the side of the pictures, and how the world is opened
    "dots/plain": (600, 32, TOY),
    "control/point_mass": (1500, 32, MASS),
}
NETS: dict[str, Any] = {"size": 8, "hidden": 128, "reach": 3, "shift": 2}
EYES: dict[str, Any] = {"dim": 32, "width": 64, "layers": 2, "heads": 4}


def plan(steps: int, *, seed: int, rate: float) -> Plan:
    return Plan(steps=steps, batch=64, rate=rate, seed=seed, device="cpu")


def ours(few: Episodes, steps: int, *, seed: int) -> Any:
    return tacit(few.unlabelled(), None, points=12, width=16, reach=2, plan=plan(steps, seed=seed, rate=2e-3))


def by_lapo(few: Episodes, steps: int, *, seed: int) -> Any:
    return lapo(few.unlabelled(), None, width=1, base=8, plan=plan(steps, seed=seed, rate=1e-3))


def by_laom(few: Episodes, steps: int, *, seed: int) -> Any:
    sizes: dict[str, Any] = {"channels": 8, "features": 64, "width": 128, "reach": 3, "shift": 2}
    return laom(few.unlabelled(), None, dim=256, plan=plan(steps, seed=seed, rate=1e-3), **sizes)


def by_laom_labels(few: Episodes, steps: int, *, seed: int) -> Any:
    return laom_labels(few, None, dim=256, weight=1.0, plan=plan(steps, seed=seed, rate=1e-3), **NETS)


def narrow(few: Episodes, steps: int, *, seed: int) -> Any:
    """No more numbers than an action has, and labels that outweigh the prediction: nothing else should fit."""
    size = few.spec.actions.size
    return laom_labels(few, None, dim=size, weight=10.0, labelled=0.5, plan=plan(steps, seed=seed, rate=1e-3), **NETS)


def by_univla(few: Episodes, steps: int, *, seed: int) -> Any:
    patch = few.spec.pictures[0] // 4
    half = plan(steps // 2, seed=seed, rate=1e-3)  # in each of two stages
    return univla(few.unlabelled(), None, patch=patch, plan=half, **EYES)


def by_idm(few: Episodes, steps: int, *, seed: int) -> Any:
    """The labels alone, in the network of ours: what it says the action was is its latent."""
    torch.manual_seed(seed)
    eyes = Keypoints(frame=few.spec.pictures, points=12, width=16)
    head = Head(features=3 * eyes.dim, space=few.spec.actions, width=128)
    made = Supervised(encoder=eyes, features=eyes.dim, head=head, past=1)
    made = fit(made, few.clips(3, labelled=1.0), None, plan(steps, seed=seed, rate=2e-3))
    made.infer = made.said  # type: ignore[assignment]
    return made


METHODS: dict[str, Callable[..., Any]] = {
    "tacit": ours, "idm": by_idm, "laom_labels": by_laom_labels, "lapo": by_lapo,
    "univla": by_univla, "laom_labels, narrow": narrow, "laom": by_laom,
}  # fmt: skip


class Recalled:
    """The latent of a transition and of the one before it, side by side."""

    def __init__(self, model: Any) -> None:
        self.model, self.past = model, getattr(model, "past", 0) + 1
        self.seen = holdout.prints(model)

    def infer(self, clip: Clip) -> Tensor:
        z: Tensor = self.model.infer(clip)
        return torch.cat([z, torch.cat([z[:, :1] * 0, z[:, :-1]], 1)], -1)


class Readout(Recalled):
    """What a few labels read out of a model's latents: as many numbers as the action has, and nothing else."""

    def __init__(self, model: Any, few: Episodes) -> None:
        super().__init__(model)
        self.read, _ = decoder(model, few)

    def infer(self, clip: Clip) -> Tensor:
        z, before = super().infer(clip).chunk(2, -1)
        seen = self.model.features(clip)[:, :-1]
        rows = (x.flatten(0, 1) for x in (z, before))
        return self.read.scores(*rows, seen=seen.flatten(0, 1)).unflatten(0, z.shape[:2])


def recorded(name: str, home: Path) -> Path:
    """Play in one environment; what is there already is read."""
    episodes, size, options = PLACES[name]
    folder = home / name.replace("/", "-")
    collect(name, folder, episodes=episodes, demonstrator="play", size=size, workers=1, options=options)
    return folder


def parted(folder: Path, *, seed: int) -> tuple[Episodes, Episodes]:
    """What is learnt from, with labels on one whole episode in a hundred, and what is held out."""
    train, held = recordings.cache(recordings.open(folder)).split(0.2)
    chosen = np.random.default_rng([seed, 5]).permutation(len(train))[: int(SHARE * len(train))]
    mask = np.isin(np.repeat(np.arange(len(train)), train.lengths), chosen) & train.mask
    return Episodes(train.reader, train.rows, labels=mask), held


def judged(model: Any, held: Episodes, tracks: Sequence[np.ndarray]) -> dict[str, float]:
    """R2 of the action, and the largest of all R2 of what is exogenous: its state and its change, by either probe."""
    flat, actions, state = np.concatenate(list(tracks)), held.column("actions"), held.column("state")
    assert actions is not None and state is not None
    owner, sides = np.repeat(np.arange(len(held)), held.lengths), []
    for part in held.split(HELD, seed=AGAIN):
        mine = np.flatnonzero(np.isin(held.rows, part.rows))
        path = holdout.walk(part, length=holdout.span(model), most=MOST, ordered=True)
        at = np.flatnonzero(np.isin(owner, mine))[path.at]
        wanted = np.concatenate([actions[at], flat[at + 1] - flat[at], flat[at]], 1).astype(np.float64)
        places = np.concatenate([state[at + 1] - state[at], state[at] - state[np.maximum(at - 1, 0)]], 1)
        sides.append((holdout.infer(model, path).astype(np.float64), wanted, path.owner, places.astype(np.float64)))
    (x, y, groups, true), (x_test, y_test, _, true_test) = sides
    many, few = actions.shape[1], flat.shape[1]
    blocks = {"action": slice(0, many), "change": slice(many, many + few), "state": slice(many + few, None)}
    found: dict[str, float] = {}
    for name, columns in blocks.items():
        unit = np.maximum(y[:, columns].std(0), 1e-9)
        one, other = y[:, columns] / unit, y_test[:, columns] / unit
        for kind, probe in (("linear", linear), ("network", network)):
            found[f"{name}, {kind}"] = explained(probe(x, one, groups=groups, discrete=False)(x_test), other)  # type: ignore[operator]
        if name == "action":
            found["told"] = explained(linear(true, one, groups=groups, discrete=False)(true_test), other)
    found["action"] = max(found["action, linear"], found["action, network"])
    found["exogenous"] = max(v for k, v in found.items() if k.split(",")[0] in ("change", "state"))
    return found | {"numbers": float(x.shape[1])}


def explained(said: np.ndarray, wanted: np.ndarray) -> float:
    """R2 of all columns together."""
    return float(1 - np.square(said - wanted).sum() / np.square(wanted - wanted.mean(0)).sum())


def cell(name: str, method: str, seed: int, *, home: Path, steps: int) -> list[dict[str, Any]]:
    """One recipe in one environment with one seed: a row for its whole latent, and one for what labels read of it."""
    began, folder = time.perf_counter(), home / name.replace("/", "-")
    few, held = parted(folder, seed=seed)
    model = METHODS[method](few, steps, seed=seed).eval()
    spent, tracks = time.perf_counter() - began, exogenous(folder, held)
    views = {method: Recalled(model)} | ({} if method == "idm" else {f"{method}, read by labels": Readout(model, few)})
    facts = {"environment": name, "recipe": method, "seed": seed, "labels": few.labelled, "episodes": len(few)}
    facts["labelled episodes"] = int(np.logical_or.reduceat(few.mask, few.starts).sum())
    return [facts | {"method": k, **judged(v, held, tracks), "training": round(spent, 1)} for k, v in views.items()]


def done(name: str, method: str, seed: int, *, home: Path, steps: int) -> list[dict[str, Any]]:
    """A cell from the disk if it was finished with the same settings, else made and put there."""
    path = home / "cells" / f"{name}-{method}-{seed}.json".replace("/", "-").replace(" ", "")
    began, settings = time.perf_counter(), [steps, MOST, repr(PLACES[name])]
    rows, made = kept(path, settings, lambda: cell(name, method, seed, home=home, steps=steps))
    if made:
        told = "; ".join(f"{r['method']}: action {r['action']:.2f}, exogenous {r['exogenous']:.2f}" for r in rows)
        print(f"{name}, seed {seed}, {time.perf_counter() - began:.0f} s. {told}", flush=True)
    return rows


def sentence(rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> str:
    """What came out, in words that follow from the numbers."""
    said = []
    for place in places:
        one = next(row for row in rows if row["environment"] == place)
        names = dict.fromkeys(row["method"] for row in rows)
        both = {m: [over(rows, k, environment=place, method=m).value for k in ("action", "exogenous")] for m in names}
        told = ", ".join(f"{m} {a:.2f} and {e:.2f}" for m, (a, e) in both.items())
        limit = over(rows, "told", environment=place, method=OURS).value
        said.append(
            f"on {place} with {one['labels']} labels, of {one['labelled episodes']} of {one['episodes']} episodes "
            f"(true places tell {limit:.2f} of the action): {told}"
        )
    return "R2 of the action and of what is exogenous, from held-out latents: " + "; ".join(said) + "."


def drawn(rows: Sequence[Mapping[str, Any]], axes: Any, places: Sequence[str]) -> None:
    """Every latent as a point, for each environment: to the right the action, upwards the distractor."""
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(5.2 * len(places), 4.6)
    for number, place in enumerate(places, 1):
        panel = figure.add_subplot(1, len(places), number)
        panel.fill_between([BARS[0], 1.02], -0.05, BARS[1], color="#d8ecd8")
        for i, method in enumerate(METHODS):
            for view, mark in ((method, "o"), (f"{method}, read by labels", "^")):
                a, e = (over(rows, c, environment=place, method=view) for c in ("action", "exogenous"))
                if a.n:
                    panel.plot(max(a.value, -0.05), max(e.value, -0.05), mark, color=f"C{i}", label=view, markersize=7)
        panel.set_xlim(-0.08, 1.02)
        panel.set_ylim(-0.06, 1.02)
        panel.set_title(place, fontsize=9)
        panel.set_xlabel("R2 of the action (green: what was asked)")
        panel.set_ylabel("R2 of what is exogenous")
    panel.legend(fontsize=6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    parser.add_argument("--home", type=Path, default=Path("out/minimal"), help="recordings and finished cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--environments", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.environments:
        recorded(name, given.home)
    rows = [
        row
        for seed in range(given.seeds)
        for name in given.environments
        for method in given.methods
        for row in done(name, method, seed, home=given.home, steps=given.steps)
    ]
    if not given.out:
        return 0
    places = list(given.environments)
    entries = {
        p: {k: over(rows, k, environment=p, method=OURS) for k in ("action", "exogenous", "told")} for p in places
    }
    passed = all(e["action"].value >= BARS[0] and e["exogenous"].value <= BARS[1] for e in entries.values())
    said = sentence(rows, places)
    print(said)
    Claim(
        claim=said,
        command=shlex.join(["python", "bench/minimal.py", *sys.argv[1:]]),
        value={p: {k: i.value for k, i in e.items()} for p, e in entries.items()},
        interval={p: {k: [i.low, i.high] for k, i in e.items()} for p, e in entries.items()},
        n=given.seeds,
        seeds=tuple(range(given.seeds)),
        bar=f"{BAR}; ours is {OURS}, in every environment",
        passed=bool(passed),
        rows=rows,
    ).save(given.out, draw=lambda axes: drawn(rows, axes, places))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
