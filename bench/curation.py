"""Defects put into expert recordings of real simulators: which curation score finds them, and what does it save?

Into 30 % of clean demonstrations one kind of defect is put (see ``defects.py``), *executed* in the simulator where it
would be executed in life, so that what is seen follows from what is done. No score sees rewards or marks. Each is held
against the truth (the area under its ROC curve: the chance that a clean episode scores above a defective one), and
against a policy that is cloned from the 70 % it keeps, beside one cloned from all, one from the clean alone and one
from as many at random.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import over
from defects import DEFECTS, NATURAL, PLACES, SHARE, STRUCTURAL, Place, recorded
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tacit.clip import Clip, Space
from tacit.data.collect import opened
from tacit.data.curate import LOOKS, SCORES, keep
from tacit.data.episodes import Episodes
from tacit.envs.simulator import Simulator
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import Interval
from tacit.evaluate.rollout import Chance, rollout
from tacit.part import write
from tacit.parts.mlp import Layers
from tacit.parts.outputs import Head
from tacit.policies.policy import Memory, Policy
from tacit.train import Plan, fit

TEST = 10_000  # the seed from which the policies' own episodes are begun, far from those of the recordings
FOUND, MISSED = 0.85, 0.7  # areas under the curve, half of which is chance
KINDS = {"actions alone": ("actions",), "length alone": ("length",), "with states": ("states", "both")}
BAR = "an answer from all five defects, in at least two environments, over at least five seeds, with intervals"


class Pilot(Policy):
    """Clones the action from the state, standardised by the data it learns from."""

    def __init__(self, *, centre: Sequence[float], spread: Sequence[float], space: Space, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("centre", torch.tensor(centre))
        self.register_buffer("spread", torch.tensor(spread))
        self.net = Layers(inputs=len(centre), dim=width, width=width, depth=1)
        self.head = Head(features=width, space=space, width=0)

    def _read(self, state: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.net((state - self.centre) / self.spread))

    def loss(self, clip: Clip) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        assert clip.state is not None
        cost = self.head.cost(self._read(clip.state[:, :-1]), clip.actions, known=clip.mask)  # type: ignore[arg-type]
        return cost, {}

    def act(self, observation: Clip, memory: Memory | None) -> tuple[torch.Tensor, Memory | None]:
        assert observation.state is not None
        return self.head.decide(self._read(observation.state[:, -1])), memory


def cloned(data: Episodes, *, steps: int, seed: int) -> Pilot:
    """A policy of these demonstrations."""
    state = data.column("state")
    assert state is not None
    spread = state.std(0)
    torch.manual_seed(seed)
    pilot = Pilot(
        centre=state.mean(0).tolist(), spread=np.where(spread > 1e-4, spread, 1).tolist(), space=data.spec.actions
    )
    plan = Plan(steps=steps, batch=256, rate=3e-3, seed=seed, device="cpu")
    return fit(pilot, data.clips(2), None, plan)


@functools.lru_cache(maxsize=1)
def simulators(name: str) -> list[Simulator]:
    """Several of one environment, blind: pictures are most of the time, and nothing here looks at them."""
    blank, found = np.zeros((2, 2, 3), np.uint8), []
    for _ in range(10):
        simulator = opened(name, size=16, options=PLACES[name].options)
        simulator.frame = lambda: blank  # type: ignore[method-assign]
        found.append(simulator)
    return found


@functools.lru_cache(maxsize=8)
def aimless(name: str, tries: int, *, seed: int) -> float:
    """The mean return of random actions on the episodes by which the policies are judged."""
    return float(rollout(Chance(), simulators(name), episodes=tries, seed=TEST + seed).returns.mean())


def auroc(score: np.ndarray, flawed: np.ndarray) -> float:
    """The chance that a clean episode scores above a defective one, ties counting half; NaN is worst."""
    value = np.where(np.isnan(score), -np.inf, score)
    clean, bad = value[~flawed][:, None], value[flawed]
    return float((clean > bad).mean() + (clean == bad).mean() / 2)


def cell(name: str, defect: str, *, seed: int, out: Path) -> dict[str, Any]:
    """One environment, defect and seed: every score against the truth, and against the policy that it would give."""
    path, place, began, spent = (
        cell_file(out, name, defect, seed=seed),
        PLACES[name],
        time.perf_counter(),
        time.process_time(),
    )
    if path.exists() and (told := json.loads(path.read_text()))["settings"] == settings(place):
        return told
    torch.set_num_threads(1)
    blind = simulators(name)
    data, flawed = recorded(blind[0], place, defect=defect, seed=seed)
    tried: dict[tuple[str, ...], tuple[float, float]] = {}  # two scores that keep the same give the same policy

    def judged(kept: Episodes) -> tuple[float, float]:
        if kept.prints not in tried:
            pilot = cloned(kept, steps=place.steps, seed=seed)
            found = rollout(pilot, blind, episodes=place.tries, seed=TEST + seed)
            assert found.successes is not None
            tried[kept.prints] = float(found.successes.mean()), float(found.returns.mean())
        return tried[kept.prints]

    ends = {"keep all": data, "keep clean": data.select(np.flatnonzero(~flawed))}
    top, floor = judged(ends["keep clean"])[1], aimless(name, place.tries, seed=seed)
    rows = []
    for method in [*ends, *SCORES]:
        value = None if method in ends else SCORES[method](data)
        success, earned = judged(ends[method] if value is None else keep(data, value, share=1 - SHARE)[0])
        row = {"environment": name, "defect": defect, "seed": seed, "method": method, "looks": LOOKS.get(method)}
        row |= {"auroc": None if value is None else auroc(value, flawed), "success": success, "return": earned}
        rows.append(row | {"of clean": (earned - floor) / (top - floor)})
    told = {"settings": settings(place), "rows": rows, "seconds": round(time.perf_counter() - began, 1)}
    told["processor"] = round(time.process_time() - spent, 1)  # seconds of it: less than passed where others work too
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, lambda file: Path(file).write_text(json.dumps(told)))
    return told


def cell_file(out: Path, name: str, defect: str, *, seed: int) -> Path:
    return out / name.replace("/", "-") / f"{defect.replace(' ', '-')}-{seed}.json"


def settings(place: Place) -> dict[str, Any]:
    """What a finished cell was made with: with other settings it is made again."""
    told = {k: v for k, v in vars(place).items() if not callable(v)}
    return json.loads(json.dumps(told | {"share": SHARE, "natural": NATURAL, "scores": list(SCORES)}))


def run(cells: Sequence[tuple[str, str, int]], out: Path, *, workers: int) -> list[dict[str, Any]]:
    """Every cell, finished ones from the disk, behind a bar; in the order asked."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[last]}"), TimeRemainingColumn())
    spawn = multiprocessing.get_context("spawn")
    with (
        Progress("cells", *columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        ProcessPoolExecutor(workers, mp_context=spawn) as pool,
    ):
        shown = bar.add_task("", total=len(cells), last="")
        jobs = {
            pool.submit(cell, name, defect, seed=seed, out=out): (name, defect, seed) for name, defect, seed in cells
        }
        found: dict[tuple[str, str, int], dict[str, Any]] = {}
        for job in as_completed(jobs):
            at, told = jobs[job], job.result()
            found[at] = told
            last = f"{at[0]}, {at[1]}, seed {at[2]}: {told['seconds']} s, {told['processor']} s of processor"
            bar.update(shown, advance=1, last=last)
            if not console.is_terminal:
                console.print(f"{len(found)} of {len(cells)}: {last}")
    return [found[at] for at in cells]


def best(rows: Sequence[Mapping[str, Any]], defect: str, *, looks: tuple[str, ...]) -> tuple[str, Interval]:
    """The score of a kind that finds a defect best over all environments: chosen in hindsight, which favours it."""
    found = {m: over(rows, "auroc", defect=defect, method=m) for m in SCORES if LOOKS[m] in looks}
    return max(found.items(), key=lambda item: item[1].value)


def word(found: Interval) -> str:
    """What an area under the curve is called."""
    return "found" if found.value >= FOUND else "missed" if found.value < MISSED else "found in part"


def finding(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rows say to the question, defect by defect: the best score of each kind, and what it finds."""
    told: dict[str, Any] = {}
    for defect in [d for d in DEFECTS if any(row["defect"] == d for row in rows)]:
        for kind, looks in KINDS.items():
            method, found = best(rows, defect, looks=looks)
            entry = {"method": method, "auroc": found.value, "low": found.low, "high": found.high, "word": word(found)}
            told.setdefault(defect, {})[kind] = entry
    return told


def worth(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a policy of what each score keeps returns, beside one of the clean episodes alone."""
    found = {m: over(rows, "of clean", method=m) for m in [*SCORES, "keep all"]}
    return {m: {"mean": f.value, "low": f.low, "high": f.high} for m, f in found.items()}


def sentence(told: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The finding in words, every one of which follows from the numbers."""
    structural = [d for d in told if d in STRUCTURAL]
    missed = sum(told[d]["actions alone"]["word"] == "missed" for d in structural)
    said = f"On {', '.join(dict.fromkeys(row['environment'] for row in rows))}, scores of actions alone miss "
    said += (
        f"{missed or 'none'} of {len(structural)} structural defects. The best of each kind, chosen for each defect: "
    )
    for kind in KINDS:
        best = {d: told[d][kind] for d in told}
        said += f"{kind}, " + ", ".join(f"{d} {e['word']} ({e['method']} {e['auroc']:.2f})" for d, e in best.items())
        said += "; "
    scores = {m: over(rows, "of clean", method=m) for m in [*SCORES, "keep all"]}
    top = max(SCORES, key=lambda m: scores[m].value)
    gain = f"Of the return of a policy of clean data alone, all data give {scores['keep all'].value:.2f}, "
    gain += f"random dropping {scores['chance'].value:.2f}, the best score ({top}) {scores[top].value:.2f}."
    return said.removesuffix("; ") + ". " + gain


def drawn(rows: Sequence[Mapping[str, Any]], axes: Any) -> None:
    """A heat map of scores and defects for each environment, and beside them what the kept data are gains."""
    figure, places = axes.figure, list(dict.fromkeys(row["environment"] for row in rows))
    axes.remove()
    figure.set_size_inches(3.0 + 2.6 * len(places) + 2.6, 4.6)
    *maps, gains = figure.subplots(1, len(places) + 1, sharey=True, width_ratios=[1] * len(places) + [1.1])
    methods = [*SCORES, "keep all", "keep clean"]
    for panel, place in zip(maps, places, strict=True):
        defects = [d for d in DEFECTS if any(r["defect"] == d and r["environment"] == place for r in rows)]
        found = [[over(rows, "auroc", environment=place, defect=d, method=m).value for d in defects] for m in SCORES]
        panel.imshow(found, vmin=0, vmax=1, cmap="RdYlBu", aspect="auto")
        for (i, j), value in np.ndenumerate(found):
            shade = "white" if abs(value - 0.5) > 0.35 else "black"
            panel.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade)
        panel.set_xticks(range(len(defects)), defects, rotation=40, ha="right", fontsize=8)
        panel.set_title(place, fontsize=9)
    looks = {"nothing": "", "length": "", "actions": " (a)", "states": " (s)", "both": " (a, s)"}
    maps[0].set_yticks(range(len(methods)), [m.replace("_", " ") + looks.get(LOOKS.get(m, ""), "") for m in methods])
    maps[0].set_ylim(len(methods) - 0.5, -0.5)
    for i, method in enumerate(methods):
        found = over(rows, "of clean", method=method)
        gains.plot(found.value, i, "o", color="#2a6f97" if method in SCORES else "black")
        if found.known:
            gains.plot([found.low, found.high], [i, i], color="grey", linewidth=1)
    gains.axvline(over(rows, "of clean", method="keep all").value, color="grey", linestyle=":", linewidth=1)
    gains.set_title("return of a policy of what is kept\n(1: of the clean alone; dots: of all)", fontsize=9)
    figure.supxlabel(
        "chance that a clean episode scores above a defective one (a: sees actions, s: states)", fontsize=8
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="from 1 on: seed 0 chose the settings")
    parser.add_argument("--environments", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--defects", nargs="+", default=list(DEFECTS), choices=DEFECTS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/curation"), help="where finished cells are kept")
    parser.add_argument("--results", type=Path, help="a file of results, with its figure beside it")
    asked = parser.parse_args()
    cells = [(n, d, s) for n in asked.environments for s in range(1, asked.seeds + 1) for d in asked.defects]
    told = run(cells, asked.out, workers=asked.workers)
    rows = [row for one in told for row in one["rows"]]
    answer = finding(rows)
    said = sentence(answer, rows)
    print(said)
    if asked.results:
        structural = [d for d in answer if d in STRUCTURAL]
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/curation.py", *sys.argv[1:]]),
            value={d: answer[d]["actions alone"]["auroc"] for d in structural},
            interval={d: [answer[d]["actions alone"][end] for end in ("low", "high")] for d in structural},
            n=len(told),
            seeds=tuple(range(1, asked.seeds + 1)),
            bar=BAR,
            passed=asked.seeds >= 5 and len(asked.environments) >= 2 and set(asked.defects) == set(DEFECTS),
            rows=rows,
            extra={"worth": worth(rows), "best": answer, "seconds": sum(one["seconds"] for one in told)},
        ).save(asked.results, draw=lambda axes: drawn(rows, axes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
