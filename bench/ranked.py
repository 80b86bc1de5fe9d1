"""Does the score without labels put models in the order of what their policies earn?

    python bench/ranked.py --out results/verdict/ranked.json

Five tasks as states; in each, models of seventeen kinds (widths, quantisers, priors, a longer reach, little training,
little video, a narrow network) are trained without a label. Each is scored without labels, and
then acts: two policies clone its latents of the expert's video, and ``LABELS`` labels say what they mean. Beside it
stand what others choose models by: error, delta-PSNR, codes in use (here: effective rank), the published cut ratio, and
a probe, which uses labels. The score was designed on the first two tasks and is tested on the others. Where the
returns of two policies of one model do not go together, they say nothing of the model: such a task is not counted.
Killed, it goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Rows, kept
from nested import Terms, judged, sides

from tacit.data.episodes import Episodes
from tacit.evaluate.claim import Claim
from tacit.evaluate.verdict.exam import Exam
from tacit.evaluate.verdict.score import score
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions
from tacit.latents.stated import Stated
from tacit.parts.books import VQ
from tacit.parts.mlp import Layers
from tacit.parts.quantize import FSQ, Bottleneck, Free, Gaussian
from tacit.train import Plan, fit

DESIGNED = ("control/reacher", "control/point_mass")
TESTED = ("arms/elbow", "arms/crane", "lander/continuous")
LABELS, MOST, GOAL, TRIES, LUCK = 64, 1024, 0.8, 40, 2
AGREED = 0.5  # where the returns of two policies of one model go together less, nothing can tell models apart by them
BAR = (
    "Spearman's correlation of the score without labels with downstream success is at least 0.8 over at least 60 "
    "models (methods x sizes x seeds) on at least four environments, of which two were not used to design it"
)
Kind = tuple[Callable[[], Bottleneck], dict[str, Any]]
KINDS: dict[str, Kind] = {
    **{f"free, {n} numbers": (functools.partial(Free, n), {}) for n in (1, 2, 4, 8, 16)},
    "noisy, 4 numbers": (functools.partial(Free, 4, noise=0.3), {}),
    **{f"Gaussian, beta {b}": (functools.partial(Gaussian, 8, beta=b), {}) for b in (0.01, 0.1, 1.0)},
    **{f"VQ, {n} codes": (functools.partial(VQ, groups=1, tokens=1, dim=8, codes=n), {}) for n in (4, 16, 64)},
    "FSQ, 625 codes": (functools.partial(FSQ, (5, 5, 5, 5)), {}),
    "three steps": (functools.partial(Free, 8), {"reach": 3}),
    "100 steps of training": (functools.partial(Free, 8), {"steps": 100}),
    "three episodes": (functools.partial(Free, 8), {"few": 3}),
    "narrow network": (functools.partial(Free, 8), {"width": 16}),
}
RIVALS = ("FVU", "delta-PSNR", "effective rank", "cut ratio", "probe")


def learnt(name: str, kind: str, seed: int, terms: Terms) -> LatentActions:
    """A model of one kind, without a label."""
    make, how = KINDS[kind]
    train = sides(name, terms, seed=seed)[0].unlabelled()
    data = train.select(range(how["few"])) if "few" in how else train
    torch.manual_seed(seed)
    short, width, reach = make(), how.get("width", 128), how.get("reach", 1)
    state: Any = data.spec.state
    latents = LatentActions(
        encoder=Layers(inputs=state, dim=64, width=width, depth=1),
        inverse=Between(features=64, dim=short.width, width=width),
        bottleneck=short,
        forward=Stated(state=state, features=64, dim=short.dim, width=width),
        of="state",
        reach=reach,
    )
    plan = Plan(steps=how.get("steps", terms.steps), batch=128, rate=2e-3, seed=seed, device="cpu", log_every=1000)
    return fit(latents, data.clips(latents.length), None, plan).eval()


def unseen(held: Episodes) -> Episodes:
    """The states without the pictures that stand beside them to tell episodes apart, and without labels."""
    states = (held.episode(i).replace(frames=None) for i in range(len(held)))
    return Episodes.of(states, space=held.spec.space, fps=held.spec.fps, name=held.spec.name).unlabelled()


def row(name: str, kind: str, seed: int, terms: Terms) -> Rows:
    """One model: its score, what others would say of it, and what a policy of it earns."""
    began = time.perf_counter()
    model, held = learnt(name, kind, seed, terms), sides(name, terms, seed=seed)[1]
    plain = unseen(held)
    found, bare = score(Exam(model, plain, most=MOST, seed=seed)), Exam(model, plain, most=MOST, seed=seed)
    others = {v: bare.judged[v].value for v in ("FVU", "delta-PSNR")}
    others |= {"effective rank": bare.codes["effective rank"].value, "cut ratio": bare.judged["cut and copy"].value}
    played = [judged(model, name, terms, seed=seed, luck=luck) for luck in range(LUCK)]
    first, second = (one["return"] for one in played)
    earned = {"probe": played[0]["probe"], "once": first, "again": second, "return": (first + second) / 2}
    facts = {"environment": name, "kind": kind, "seed": seed, "score": found.value, **others, "parts": found.parts}
    return [facts | earned | {"seconds": round(time.perf_counter() - began, 1)}]


def done(name: str, kind: str, seed: int, *, terms: Terms, home: Path) -> dict[str, Any]:
    """A row from the disk if it was finished with the same settings, else made and put there."""
    path = home / f"{name}-{kind}-{seed}.json".replace("/", "-").replace(" ", "-").replace(",", "")
    rows, made = kept(path, [repr(terms), MOST], lambda: row(name, kind, seed, terms))
    if made:
        told = rows[0]
        parts = " ".join(f"{v:.2f}" for v in told["parts"].values())
        line = f"score {told['score']:.2f} ({parts}), probe {told['probe']:.2f}, return {told['return']:.2f}"
        print(f"{name}, {kind}, seed {seed}: {line} ({told['seconds']} s)", flush=True)
    return rows[0]


def ranks(values: Sequence[float]) -> np.ndarray:
    """The rank of each value; equal ones share theirs."""
    x = np.asarray(values, np.float64)
    return np.array([(x < v).sum() + ((x == v).sum() - 1) / 2 for v in x])


def spearman(rows: Sequence[Mapping[str, Any]], column: str, *, beside: str = "return") -> float:
    """Rank correlation with the return, ranks within each environment and seed, over all of them."""
    one, two = list[np.ndarray](), list[np.ndarray]()
    for key in {(r["environment"], r["seed"]) for r in rows}:
        some = [r for r in rows if (r["environment"], r["seed"]) == key]
        for into, name in ((one, column), (two, beside)):
            found = ranks([np.nan_to_num(r[name] if r[name] is not None else -np.inf, neginf=-1e9) for r in some])
            into.append(found / max(1, len(some) - 1) - 0.5)
    x, y = np.concatenate(one), np.concatenate(two)
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def interval(rows: Sequence[Mapping[str, Any]], column: str, *, draws: int = 500) -> tuple[float, float]:
    """Between what the correlation lies in 95 % of draws of models."""
    random, rows = np.random.default_rng(0), list(rows)
    found = [spearman([rows[i] for i in random.integers(len(rows), size=len(rows))], column) for _ in range(draws)]
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    parser.add_argument("--home", type=Path, default=Path("out/ranked"), help="finished cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="0 chose settings")
    parser.add_argument("--environments", nargs="+", default=[*DESIGNED, *TESTED])
    given = parser.parse_args()
    torch.set_num_threads(1)
    terms = replace(Terms(), labels=LABELS, tries=TRIES)
    rows = [
        done(name, kind, seed, terms=terms, home=given.home)
        for seed in given.seeds
        for name in given.environments
        for kind in KINDS
    ]
    return 0 if concluded(rows, given) else 1


def concluded(rows: Rows, given: argparse.Namespace) -> bool:
    """Say, and write down, what came out."""
    each = {name: [r for r in rows if r["environment"] == name] for name in given.environments}
    told_apart = {name: spearman(some, "once", beside="again") for name, some in each.items()}
    counted = [r for r in rows if told_apart[r["environment"]] >= AGREED]
    halves = {"designed": [r for r in counted if r["environment"] in DESIGNED],
              "tested": [r for r in counted if r["environment"] in TESTED], "all": counted}  # fmt: skip
    halves = {name: some for name, some in halves.items() if some}
    told = {h: {c: spearman(some, c) * (-1 if c in ("FVU",) else 1) for c in ("score", *RIVALS)}
            for h, some in halves.items()}  # fmt: skip
    last = told["tested"] if "tested" in told else told["all"]
    agreed = {h: spearman(some, "once", beside="again") for h, some in halves.items()}
    said = (
        f"On {len(counted)} models the score without labels goes with the return at {told['all']['score']:.2f} "
        f"(Spearman's, within each task), on tasks that it was not designed on at {last['score']:.2f}; there "
        + ", ".join(f"{c} at {last[c]:.2f}" for c in RIVALS)
        + f". The returns of two policies of one model go together at {agreed['all']:.2f}."
    )
    dropped = [f"{name} ({v:.2f})" for name, v in told_apart.items() if v < AGREED]
    said += f" Not counted, as they do not go together there: {', '.join(dropped)}." if dropped else ""
    print(said)
    passed = len(counted) >= 60 and "tested" in told and min(told["all"]["score"], last["score"]) >= GOAL
    if given.out:
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/ranked.py", *sys.argv[1:]]),
            value=told,
            interval={h: {c: list(interval(some, c)) for c in ("score", *RIVALS)} for h, some in halves.items()},
            n=len(counted),
            seeds=tuple(given.seeds),
            bar=BAR,
            passed=bool(passed),
            rows=rows,
            extra={"labels": LABELS, "two policies of one model": agreed | told_apart},
        ).save(given.out, draw=lambda axes: drawn(rows, told, axes))
    return bool(passed)


def drawn(rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any], axes: Any) -> None:
    """The score against the return in each task, and beside it how well each measure orders models."""
    figure, names = axes.figure, list(dict.fromkeys(r["environment"] for r in rows))
    axes.remove()
    figure.set_size_inches(8.4, 4.0)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for i, name in enumerate(names):
        some = [r for r in rows if r["environment"] == name]
        kind = "designed on" if name in DESIGNED else "tested on"
        left.plot([r["score"] for r in some], [r["return"] for r in some], "o", color=f"C{i}", markersize=4,
                  label=f"{name} ({kind})", alpha=0.8)  # fmt: skip
    left.set_xlabel("score without labels")
    left.set_ylabel("normalised return")
    left.legend(fontsize=7)
    at = np.arange(len(RIVALS) + 1)
    for i, (half, values) in enumerate(told.items()):
        right.barh(at + 0.27 * i, [values[c] for c in ("score", *RIVALS)], height=0.25, label=half)
    right.set_yticks(at + 0.27, ["score", *(f"{r} (uses labels)" if r == "probe" else r for r in RIVALS)], fontsize=8)
    right.invert_yaxis()
    right.axvline(GOAL, color="#444444", linewidth=0.8, linestyle=":")
    right.set_xlabel("rank correlation with the return", fontsize=9)
    right.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


if __name__ == "__main__":
    raise SystemExit(main())
