"""A new body with hardly any labels: what is the video of three other bodies worth, and what beats cloning?

    python bench/bodies.py --out results/bodies.json

Four robots of different joints (see ``arms.py``) reach for a disc, at 32 x 32. Each in turn is the new one: of one,
four or sixteen of its expert trajectories the actions are known. ``ours`` finds latent actions in the unlabelled video
of all four, and ``follow`` makes a policy of them by those labels; ``bc`` clones the labels, ``idm`` labels the new
body's video by them, ``alone`` is ours without the other bodies, ``unseen`` ours whose latents never saw the new one.
As labels are no part of finding latents, one model of all four serves whichever body is new. Returns are scaled by
chance and the noiseless expert on the same episodes; ``all`` is ``bc`` with every label.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import BODIES, Arm
from cells import kept, over

from tacit import data as recordings
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import normalise
from tacit.evaluate.probe import probe
from tacit.evaluate.rollout import Chance, rollout
from tacit.latents.model import LatentActions
from tacit.policies.policy import Policy
from tacit.recipes.bc import bc
from tacit.recipes.follow import follow
from tacit.recipes.idm import idm
from tacit.recipes.tacit import tacit
from tacit.train import Plan

TRAJECTORIES = (1, 4, 16)
TEST = 10_000  # the seed of the policies' own episodes, far from those of the recordings
TIMES = 1.5
BAR = (
    "leave-one-body-out over at least four bodies: with at most 16 labelled trajectories of the new body at least 1.5 "
    "times bc on the same labels; asked here of the mean over bodies and seeds at 1, at 4 and at 16"
)
METHODS = ("ours", "alone", "unseen", "bc", "idm")


@dataclass(frozen=True)
class Terms:
    """All that decides a cell beside body and seed."""

    episodes: int = 160  # of each body, expert and play in turn
    noise: float = 1.0  # of the expert, executed: as a share of half the range of an action
    size: int = 32
    points: int = 16
    batch: int = 32
    latent: int = 600  # steps of a latent model, of one body or of several
    steps: int = 300  # of every policy, and of idm's inverse model
    tries: int = 20
    unseen: bool = False

    def plan(self, steps: int, seed: int) -> Plan:
        return Plan(steps=steps, batch=self.batch, rate=2e-3, precision="bfloat16", seed=seed, device="cpu")


@dataclass
class Room:
    """One body's recordings, and the robots that policies are tried on."""

    body: str
    terms: Terms
    home: Path
    train: Episodes = field(init=False)
    held: Episodes = field(init=False)

    def __post_init__(self) -> None:
        terms, folder = self.terms, self.home / "video" / self.body
        job = functools.partial(Arm, self.body, size=terms.size)
        given: dict[str, Any] = {"demonstrator": ["expert", "play"], "noise": terms.noise, "size": terms.size}
        collect(job, folder, episodes=terms.episodes, workers=1, progress=False, **given)
        self.train, self.held = recordings.cache(recordings.open(folder), size=terms.size, workers=1).split(0.2)

    @functools.cached_property
    def robots(self) -> list[Arm]:
        return [Arm(self.body, size=self.terms.size) for _ in range(10)]

    def few(self, count: int | None, *, seed: int) -> Episodes:
        """The body's video with the labels of ``count`` whole expert trajectories, small budgets within large."""
        experts = np.flatnonzero([source == "expert" for source in self.train.sources])
        picked = np.random.default_rng(seed).permutation(experts)[:count]
        rest = np.setdiff1d(np.arange(len(self.train)), picked)
        both = self.train.select(picked) + self.train.select(rest).unlabelled()
        return both.select(np.argsort(np.concatenate([picked, rest])))  # in the old order: to a pilot the same video

    def earned(self, actor: Any, *, seed: int) -> dict[str, float]:
        """What somebody earns, as a share of the way from chance to the expert on the same episodes."""
        played = rollout(actor, self.robots, episodes=self.terms.tries, seed=TEST + seed)
        floor, ceiling = self.ends(seed)
        assert played.successes is not None
        share = float(normalise(played.returns, floor=floor, ceiling=ceiling).mean())
        return {"return": share, "success": float(played.successes.mean())}

    @functools.lru_cache(maxsize=8)  # noqa: B019  (four rooms live as long as the process)
    def ends(self, seed: int) -> tuple[float, float]:
        who = (Chance(), self.robots[0].expert())
        floor, ceiling = (rollout(w, self.robots, episodes=self.terms.tries, seed=TEST + seed).returns for w in who)
        return float(floor.mean()), float(ceiling.mean())

    __hash__ = object.__hash__


def found(rooms: Sequence[Room], terms: Terms, *, seed: int, out: Path) -> LatentActions:
    """A latent action model of the video of some bodies; nobody's labels are seen."""
    video = functools.reduce(lambda a, b: a + b, (room.train.unlabelled() for room in rooms))
    return tacit(video, out, points=terms.points, plan=terms.plan(terms.latent, seed))


def cell(room: Room, rooms: Sequence[Room], *, seed: int, home: Path) -> list[dict[str, Any]]:
    """One new body with one seed: a row for each method and number of labelled trajectories."""
    terms, rows = room.terms, list[dict[str, Any]]()
    plan, place = terms.plan(terms.steps, seed), home / f"{room.body}-{seed}"
    models = {
        "ours": found(rooms, terms, seed=seed, out=home / f"joint-{seed}"),
        "alone": found([room], terms, seed=seed, out=place / "alone"),
    }
    if terms.unseen:
        models["unseen"] = found([r for r in rooms if r is not room], terms, seed=seed, out=place / "unseen")
    reads = {name: probe(model, room.held, seed=seed).value for name, model in models.items()}
    known: dict[str, Callable[[Episodes], Policy]] = {
        "bc": lambda some: bc(some, None, plan=plan),
        "idm": lambda some: idm(some, None, source="expert", plan=plan),
    }
    for count in TRAJECTORIES:
        some = room.few(count, seed=seed)
        for name, model in models.items():  # the pilot has no labels: one serves every budget
            # Its eyes begin as the model's and go on learning: those look for what moves, and the disc does not.
            eyes: dict[str, Any] = {"encoder": model.encoder, "source": "expert"}
            policy = follow(model, some, place / f"pilot-{name}", plan=plan, **eyes)
            rows.append({"method": name, "trajectories": count, "probe": reads[name]} | room.earned(policy, seed=seed))
        for name, recipe in known.items():
            rows.append({"method": name, "trajectories": count} | room.earned(recipe(some), seed=seed))
    every = room.few(None, seed=seed)
    rows.append({"method": "all", "trajectories": None} | room.earned(known["bc"](every), seed=seed))
    return [{"body": room.body, "seed": seed, "labels": labels(room, row["trajectories"], seed)} | row for row in rows]


def labels(room: Room, count: int | None, seed: int) -> int:
    return room.few(count, seed=seed).labelled


def done(room: Room, rooms: Sequence[Room], *, seed: int, home: Path) -> list[dict[str, Any]]:
    """A cell from the disk if it was finished with the same terms, else made and put there."""
    began, path = time.perf_counter(), home / f"{room.body}-{seed}.json"
    rows, made = kept(path, asdict(room.terms), lambda: cell(room, rooms, seed=seed, home=home))
    if made:
        line = {m: " ".join(f"{r['return']:.2f}" for r in rows if r["method"] == m) for m in (*METHODS, "all")}
        print(f"{room.body}, seed {seed}, {time.perf_counter() - began:.0f} s: {line}", flush=True)
    return rows


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """How many times bc's mean return ours is at each budget; where bc earns nothing that is infinite, and so told."""
    told: dict[int, dict[str, Any]] = {}
    for count in TRAJECTORIES:
        means = {
            m: over(rows, "return", method=m, trajectories=count)
            for m in METHODS
            if any(r["method"] == m for r in rows)
        }
        ours, theirs = means["ours"].value, means["bc"].value
        entry: dict[str, Any] = {m: {"mean": f.value, "low": f.low, "high": f.high} for m, f in means.items()}
        told[count] = entry | {
            "times": ours / theirs if theirs > 0 else None,
            "holds": ours > 0 and ours >= TIMES * theirs,
        }
    return told


def sentence(told: Mapping[int, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """What came out, in words that follow from the numbers."""
    parts = []
    for count, entry in told.items():
        times = "where bc earns nothing" if entry["times"] is None else f"{entry['times']:.1f} times bc"
        others = ", ".join(f"{m} {entry[m]['mean']:.2f}" for m in METHODS if m in entry and m != "ours")
        parts.append(f"{count} labelled: ours {entry['ours']['mean']:.2f}, {times} ({others})")
    said = f"A new body, each of {len(BODIES)} in turn, normalised return: " + "; ".join(parts) + ". "
    gain = {c: e["ours"]["mean"] - e["alone"]["mean"] for c, e in told.items()}
    said += "The other bodies' video adds " + ", ".join(f"{g:+.2f} at {c}" for c, g in gain.items())
    return said + f" to ours; bc with every label earns {over(rows, 'return', method='all').value:.2f}."


def drawn(rows: Sequence[Mapping[str, Any]], axes: Any) -> None:
    """A panel for each body and one for their mean: returns by labelled trajectories."""
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(2.5 * (len(BODIES) + 1), 3.4)
    colours = dict(zip(METHODS, ("#2a6f97", "#e07a2f", "#b05fa8", "#777777", "#4c9a5b"), strict=True))
    for panel, name in zip(figure.subplots(1, len(BODIES) + 1, sharey=True), ["all bodies", *BODIES], strict=True):
        where = {} if name == "all bodies" else {"body": name}
        for shift, method in enumerate(m for m in METHODS if any(r["method"] == m for r in rows)):
            points = [over(rows, "return", method=method, trajectories=c, **where) for c in TRAJECTORIES]
            at = np.arange(len(points)) + 0.06 * (shift - 2)
            panel.plot(at, [p.value for p in points], "o-", markersize=4, color=colours[method], label=method)
            panel.vlines(at, [p.low for p in points], [p.high for p in points], color=colours[method], linewidth=1)
        panel.axhline(over(rows, "return", method="all", **where).value, color="grey", linestyle=":", linewidth=1)
        panel.set_xticks(range(len(TRAJECTORIES)), TRAJECTORIES)
        panel.set_ylim(-0.3, 1.3)
        panel.set_title(name, fontsize=9)
    figure.axes[0].set_ylabel("return (0 chance, 1 expert;\ndotted: bc, every label)", fontsize=8)
    figure.axes[0].legend(fontsize=7)
    figure.supxlabel("labelled trajectories of the new body", fontsize=9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="from 1 on; gantry's seed 1 chose that eyes learn")
    parser.add_argument("--unseen", action="store_true", help="also latents that never saw the new body")
    parser.add_argument("--home", type=Path, default=Path("out/bodies"), help="where video and finished cells are kept")
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    terms, seeds = Terms(unseen=asked.unseen), tuple(range(1, asked.seeds + 1))
    rooms = [Room(body, terms, asked.home) for body in BODIES]
    rows = [row for s in seeds for room in rooms for row in done(room, rooms, seed=s, home=asked.home)]
    for robot in (robot for room in rooms for robot in room.robots):
        robot.close()
    told = ratios(rows)
    said, passed = sentence(told, rows), all(entry["holds"] for entry in told.values())
    print(said)
    if asked.out:
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/bodies.py", *sys.argv[1:]]),
            value={str(count): entry["times"] for count, entry in told.items()},
            interval={
                str(count): {m: [entry[m]["low"], entry[m]["high"]] for m in ("ours", "bc")}
                for count, entry in told.items()
            },
            n=len(seeds) * len(BODIES),
            seeds=seeds,
            bar=BAR,
            passed=passed,
            rows=rows,
            extra={"budgets": {str(count): entry for count, entry in told.items()}, "terms": asdict(terms)},
        ).save(asked.out, draw=lambda axes: drawn(rows, axes))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
