"""Do the quantisers stay alive? Every one with four sizes of book over five seeds on recordings of real simulators.

    python bench/collapse.py --out results/collapse.json     # finished runs are kept in --home and not made again

The same small latent action model is trained around each, and its codes are counted on episodes that were held out. A
run has collapsed if fewer than half the codes of any of its books are used there. Codes that the data have no changes
for cannot be used: how many different differences there are between a moment and the next is counted too. A cheetah
that kicks about changes in as many ways as it has joints; a point mass never changes twice alike either, but all of it
in two directions, and a lattice of more numbers than that (FSQ, LFQ) has cells that a sheet does not pass through; in a
BabyAI room of two squares by two, seen in pictures, a few dozen things happen in all. A VQ whose dead codes are not set
down anew stands beside them, to show what the count sees; it has no part in the claim.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit.data.clips import Clips
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.evaluate import codes as counted
from tacit.evaluate import holdout
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import proportion
from tacit.latents.forward import Change
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions
from tacit.latents.stated import Stated
from tacit.part import Part, config, write
from tacit.parts.books import NSVQ, VQ, Learnt, Residual
from tacit.parts.mlp import Flat, Layers
from tacit.parts.quantize import FSQ, LFQ, Bottleneck
from tacit.train import Plan, fit

BAR = (
    "of 20 runs over seeds and sizes of each quantiser none uses fewer than half its codes, where there is use for them"
)
SIZES = (8, 16, 64, 256)
LEVELS = {8: (8,), 16: (4, 4), 64: (8, 8), 256: (8, 6, 5)}  # for 256 what the paper advises, which makes 240
ONE: dict[str, Any] = {
    "groups": 1,
    "tokens": 1,
    "dim": 16,
}  # a latent of one symbol: the hardest to keep alive
QUANTISERS: dict[str, Callable[[int], Bottleneck]] = {
    "VQ": lambda size: VQ(codes=size, **ONE),
    "VQ, cosine": lambda size: VQ(codes=size, cosine=True, **ONE),
    "VQ, 2 books of 4 symbols": lambda size: VQ(codes=size),
    "Learnt": lambda size: Learnt(codes=size, cosine=False, **ONE),
    "Learnt, cosine": lambda size: Learnt(codes=size, **ONE),
    "NSVQ": lambda size: NSVQ(codes=size, **ONE),
    "Residual VQ": lambda size: Residual(VQ(codes=size, **ONE), stages=2),
    "FSQ": lambda size: FSQ(LEVELS[size]),
    "FSQ, 4 groups": lambda size: FSQ(LEVELS[size], groups=4),
    "LFQ": lambda size: LFQ(size.bit_length() - 1),
    "LFQ, 4 groups": lambda size: LFQ(size.bit_length() - 1, groups=4),
}
CONTROL = "VQ, never reset"
ALL = QUANTISERS | {CONTROL: lambda size: VQ(codes=size, patience=10**6, **ONE)}
PLACES: dict[str, dict[str, Any]] = {  # what is recorded, what of it is looked at, over how many seeds
    "cheetah": {"env": "control/cheetah", "of": "state", "episodes": 60, "options": {}, "seeds": 5},
    "point": {"env": "control/point_mass", "of": "state", "episodes": 240, "options": {"repeat": 10}, "seeds": 2},
    "room": {"env": "babyai/GoToObj", "of": "frames", "episodes": 800, "options": {"room_size": 4}, "seeds": 2},
}
PLAN = Plan(steps=600, batch=64, rate=1e-3, device="cpu", log_every=10**6)
SETTING = {"size": 16, "neurons": 128}
MOST = 4096  # held-out transitions that are looked at


def recorded(name: str, home: Path) -> tuple[Episodes, Episodes]:
    """Play in one place, recorded once: the episodes to learn from, and a fifth held out."""
    place = PLACES[name]
    asked: dict[str, Any] = {"episodes": place["episodes"], "options": place["options"], "size": SETTING["size"]}
    data = collect(place["env"], home / "data", demonstrator="play", workers=1, progress=False, **asked)
    kept = [data.episode(i) for i in range(len(data))]
    kept = [e.replace(frames=None) for e in kept] if place["of"] == "state" else kept
    return Episodes.of(kept, space=data.spec.space, fps=data.spec.fps).unlabelled().split(0.2)


def steps(data: Episodes) -> np.ndarray:
    """The difference of each moment and the next, (N, D), as the model sees them: nothing at all is one of them."""
    found = []
    for number in range(len(data)):
        one = data.episode(number)
        seen = one.frames.astype(np.int16) if one.frames is not None else one.state
        assert seen is not None
        found.append(np.diff(seen, axis=0).reshape(len(seen) - 1, -1))
    return np.concatenate(found)


def directions(data: Episodes) -> float | None:
    """In how many directions a state changes beyond what a line says of the state it leaves: so many has its cause."""
    state = data.column("state")
    if data.spec.frame or state is None:
        return None
    last = np.cumsum(data.lengths) - 1
    now = np.delete(state, last, axis=0).astype(np.float64)
    change, known = steps(data).astype(np.float64), np.c_[now, np.ones(len(now))]
    rest = change - known @ np.linalg.lstsq(known, change, rcond=None)[0]
    return counted.rank(rest / change.std(0).clip(1e-9))


def trained(data: Episodes, short: Bottleneck, *, seed: int) -> LatentActions:
    """The same latent action model around any bottleneck: plain networks on the pixels' grey, or on states."""
    width: dict[str, Any] = {"width": SETTING["neurons"], "depth": 1}
    seen: Part = Flat(frame=data.spec.pictures) if data.spec.frame else Layers(inputs=data.spec.state, dim=64, **width)
    inverse = Between(features=seen.dim, dim=short.width, **width)
    told = {"features": seen.dim, "dim": short.dim, **width}
    forward = Change(encoder=seen, **told) if data.spec.frame else Stated(state=data.spec.state, **told)
    model = LatentActions(
        encoder=seen, inverse=inverse, bottleneck=short, forward=forward, of="frames" if data.spec.frame else "state"
    )
    return fit(model, data.clips(model.length), None, PLAN.replace(seed=seed))


def used(model: LatentActions, held: Episodes) -> dict[str, Any]:
    """The share of codes that held-out transitions choose, book by book, and how evenly."""
    holdout.refuse_overlap(model, held)
    path = holdout.walk(held, length=holdout.span(model), most=MOST)
    chosen = counted.symbols(model, path)
    assert chosen is not None
    short: Any = model.bottleneck
    hits = counted.counts(chosen, short.codes, groups=short.groups)
    shares = (hits > 0).mean(1)
    told = {"books": shares.tolist(), "share": float(shares.min()), "perplexity": counted.perplexity(hits)}
    return told | {"transitions": len(path), "fvu": left(model, held)}


@torch.no_grad()
def left(model: LatentActions, held: Episodes) -> float:
    """The prediction's error on held-out transitions as a share of that of saying that nothing happens."""
    clips = held.clips(2)
    assert isinstance(clips, Clips)
    clip = clips.batch(np.linspace(0, len(clips) - 1, 512).astype(int))
    wanted, seen = model.targets(clip), model._values(model.raw(clip))[:, 0]
    guess, still = model.predict(clip, model.infer(clip)), model.onward.wanted(seen)[:, None]
    return float((guess - wanted).square().mean() / (still - wanted).square().mean())


class Data:
    """The recordings of one place, opened when the first unfinished run asks for them."""

    def __init__(self, name: str, home: Path) -> None:
        self.name, self.home = name, home / name
        self.sides: tuple[Episodes, Episodes] | None = None

    def open(self) -> tuple[Episodes, Episodes]:
        if self.sides is None:
            self.sides = recorded(self.name, self.home)
        return self.sides

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What there is to tell apart: different changes, and the directions that they have."""
        path = self.home / "changes.json"
        place = {k: v for k, v in PLACES[self.name].items() if k != "seeds"} | {"size": SETTING["size"]}
        if not path.exists() or (told := json.loads(path.read_text()))["place"] != place:
            differences, train = steps(self.open()[1]), steps(self.open()[0])
            told = {"place": place, "changes": len(np.unique(differences, axis=0))}
            told |= {"changes_trained": len(np.unique(train, axis=0)), "directions": directions(self.open()[1])}
            write(path, lambda file: Path(file).write_text(json.dumps(told)))
        return {k: v for k, v in told.items() if k != "place"}


def run(data: Data, name: str, *, size: int, seed: int) -> tuple[dict[str, Any], bool]:
    """One run, from the disk if it is finished; and whether it was."""
    path = data.home / f"{name.replace(', ', '-').replace(' ', '-')}-{size}-{seed}.json"
    torch.manual_seed(seed)
    short = ALL[name](size)
    place = {k: v for k, v in PLACES[data.name].items() if k != "seeds"}
    settings = {"plan": vars(PLAN), "setting": SETTING, "place": place, "most": MOST, "bottleneck": config(short)}
    asked = json.loads(json.dumps(settings))
    if path.exists() and (told := json.loads(path.read_text()))["settings"] == asked:
        return told["row"] | data.facts | {"enough": data.facts["changes"] >= short.codes}, True
    train, held = data.open()
    began = time.perf_counter()
    model = trained(train, short, seed=seed)
    row = {
        "data": data.name,
        "quantiser": name,
        "size": size,
        "seed": seed,
        "codes": short.codes,
        **used(model, held),
        **data.facts,
    }
    row |= {"resets": sum(int(v) for k, v in model.state_dict().items() if k.endswith("resets"))}
    row |= {"seconds": round(time.perf_counter() - began, 2)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, lambda file: Path(file).write_text(json.dumps({"settings": asked, "row": row})))
    return row | data.facts | {"enough": data.facts["changes"] >= short.codes}, False


def line(row: dict[str, Any]) -> str:
    """One run in words."""
    word = "collapsed" if row["share"] < 0.5 else "alive"
    word = word if row["enough"] else f"of {row['changes']} changes"
    said = f"{row['data']}, {row['quantiser']}, {row['codes']} codes, seed {row['seed']}: {row['share']:.2f} used, "
    return said + f"perplexity {row['perplexity']:.1f}, FVU {row['fvu']:.2f}, {word}"


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the rows come to: the runs that count, place by place, those that collapsed, and the worst of each kind."""
    asked = [row for row in rows if row["quantiser"] != CONTROL]
    able = [row for row in asked if row["enough"]]
    fallen = [row for row in able if row["share"] < 0.5]
    places: dict[str, Any] = {}
    for place in dict.fromkeys(row["data"] for row in rows):
        here, short = ([row for row in some if row["data"] == place] for some in (able, fallen))
        idle = [row for row in rows if row["data"] == place and row["enough"] and row["quantiser"] == CONTROL]
        kinds = {name: [r["share"] for r in here if r["quantiser"] == name] for name in QUANTISERS}
        facts = next(row for row in rows if row["data"] == place)
        places[place] = {
            **{key: facts[key] for key in ("changes", "directions")},
            "runs": len(here),
            "alive": len(here) - len(short),
            "collapsed": sorted({(row["quantiser"], row["codes"]) for row in short}),
            "least": {name: min(shares) for name, shares in kinds.items() if shares},
            "excused": sum(row["data"] == place and not row["enough"] for row in asked),
            "never_reset": {"runs": len(idle), "collapsed": sum(row["share"] < 0.5 for row in idle)},
        }
    return {"runs": len(able), "alive": len(able) - len(fallen), "places": places}


def sentence(told: dict[str, Any]) -> str:
    """The finding in words, every one of which follows from the rows."""
    said = (
        f"{told['alive']} of {told['runs']} runs of {len(QUANTISERS)} quantisers end with at least half the codes of "
    )
    said += "every book in use on held-out episodes:"
    for name, place in told["places"].items():
        said += f" {place['alive']} of {place['runs']} on {PLACES[name]['env']} ({place['changes']:,} different changes"
        said += f", in {place['directions']:.1f} directions" if place["directions"] else ""
        said += f"; {place['excused']} runs with more codes than that do not count" if place["excused"] else ""
        if place["collapsed"]:
            said += "; short: " + ", ".join(f"{kind} of {codes}" for kind, codes in place["collapsed"])
        idle = place["never_reset"]
        said += (
            f"; of a VQ without resets {idle['runs'] - idle['collapsed']} of {idle['runs']})," if idle["runs"] else "),"
        )
    return said.removesuffix(",") + "."


def drawn(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """A panel for each environment: the share of codes used by every run, beside what the changes allow."""
    figure, places = axes.figure, list(dict.fromkeys(row["data"] for row in rows))
    axes.remove()
    figure.set_size_inches(5.2 * len(places) + 1.5, 5.0)
    names = [name for name in ALL if any(row["quantiser"] == name for row in rows)]
    for panel, place in zip(figure.subplots(1, len(places), sharey=True, squeeze=False)[0], places, strict=True):
        here = [row for row in rows if row["data"] == place]
        for shift, size in enumerate(SIZES):
            some = [row for row in here if row["size"] == size]
            if some:
                enough = some[0]["enough"]
                label = f"{size} codes" + ("" if enough else f", {some[0]['changes']} changes")
                height = [names.index(row["quantiser"]) + 0.18 * (shift - 1.5) for row in some]
                panel.plot([r["share"] for r in some], height, "o" if enough else "x", ms=4, alpha=0.7, label=label)
        panel.axvline(0.5, color="grey", linestyle=":")
        panel.set_xlim(-0.02, 1.04)
        panel.set_xlabel("share of codes used on held-out episodes, of the worst book")
        panel.set_title(place, fontsize=10)
        panel.legend(fontsize=8, loc="upper left")
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()


def claimed(rows: Sequence[dict[str, Any]], told: dict[str, Any], given: argparse.Namespace) -> None:
    """A file of results with every run, and the figure of them."""
    whole = given.seeds >= 5 and not given.quantisers and len(given.places) == len(PLACES)
    found = {name: proportion(place["alive"], place["runs"]) for name, place in told["places"].items() if place["runs"]}
    Claim(
        claim=sentence(told),
        command=shlex.join(["python", "bench/collapse.py", *sys.argv[1:]]),
        value={name: share.value for name, share in found.items()},
        interval={name: [share.low, share.high] for name, share in found.items()},
        n=told["runs"],
        seeds=tuple(range(given.seeds)),
        bar=BAR,
        passed=whole and told["alive"] == told["runs"],
        rows=list(rows),
        extra={"places": told["places"], "seconds": sum(row["seconds"] for row in rows)},
    ).save(given.out, draw=lambda axes: drawn(rows, axes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--places", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--quantisers", nargs="+", choices=list(ALL), help="some of them; a claim needs all")
    parser.add_argument("--home", type=Path, default=Path("out/collapse"), help="recordings and finished runs")
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    places = [Data(name, given.home) for name in given.places]
    rows = []
    for seed in range(given.seeds):
        for data in places:
            for name in (given.quantisers or ALL) if seed < PLACES[data.name]["seeds"] else ():
                for size in SIZES:
                    row, before = run(data, name, size=size, seed=seed)
                    rows.append(row)
                    print(line(row) + " (kept)" * before, flush=True)
    told = verdict(rows)
    print(sentence(told))
    if given.out:
        claimed(rows, told, given)
    return 0 if told["alive"] == told["runs"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
