"""The main job on an embedded default: video, a handful of labels, a policy that acts, and what each method made."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tacit import data as recordings
from tacit.data.collect import collect
from tacit.data.crew import answers
from tacit.data.episodes import Episodes
from tacit.envs import Expert, Simulator, simulator
from tacit.evaluate import showing
from tacit.evaluate.report import Report, duration
from tacit.evaluate.rollout import Chance, Rollouts, rollout
from tacit.latents.model import LatentActions, label
from tacit.part import write
from tacit.parts.books import VQ
from tacit.parts.keypoints import Keypoints
from tacit.policies.policy import Policy
from tacit.recipes.bc import bc
from tacit.recipes.follow import follow
from tacit.recipes.idm import idm
from tacit.recipes.lapo import lapo
from tacit.recipes.tacit import tacit
from tacit.rehearsal import STEPS, rehearse
from tacit.train import Plan

BUDGETS = (16, 64, 256, 1024)
LEAST = 5 * BUDGETS[-1] // 2  # frames, half of them an expert's, and not every one begins a transition
OURS = "idm from ours"  # an inverse model that starts from our encoder
Job = tuple[str, int]  # a method and its labels
LONG = {"tacit": 3.0, "lapo": 4.0, "idm": 2.0, OURS: 2.0, "bc": 1.0}  # what jobs take, one in units of another


@dataclass(frozen=True)
class Stage:
    """Where the demo plays and how long it learns: all that decides its numbers beside the seed."""

    env: str = "control/point_mass"
    size: int = 32
    options: dict[str, Any] = field(default_factory=dict)
    distract: str = ""
    strength: float = 0.0
    noise: float = 0.4  # of the demonstrator, so that its video shows more than one way
    frames: int = 10_000  # of the expert, and as many of play
    points: int = 16
    steps: int = 1000  # of every model and every policy alike
    episodes: int = 50

    @property
    def title(self) -> str:
        return self.env + (f" with {self.distract} at strength {self.strength:g}" if self.distract else "")

    @property
    def told(self) -> dict[str, Any]:
        """What the simulator is told beside its name and the size of its pictures."""
        return self.options | ({"distract": self.distract, "strength": self.strength} if self.distract else {})

    def open(self) -> Simulator:
        return simulator(self.env, size=self.size, **self.told)

    def plan(self, seed: int) -> Plan:
        return Plan(steps=self.steps, rate=2e-3, precision="bfloat16", seed=seed, device="cpu")


OPTIONS: dict[str, tuple[int, dict[str, Any], float]] = {  # picture size, simulator options, demonstrator noise
    "control/point_mass": (32, {"repeat": 10, "horizon": 50}, 1.4),
    "atari/pong": (64, {}, 0.1),
    "metaworld/button-press-topdown": (64, {"repeat": 4}, 0.3),
    "dots/plain": (16, {}, 0.4),
}


def demo(
    out: Path = Path("out/demo"),
    *,
    env: str = "control/point_mass",
    seeds: int = 1,
    distract: str = "",
    strength: float = 0.5,
    steps: int = 1000,
    frames: int = 20_000,
    episodes: int = 50,
    pretrained: bool = False,
    workers: int = 2,
    fresh: bool = False,
    dry_run: bool = False,
    results: Path | None = None,
) -> dict[str, Any]:
    """Record video, keep a few labels, train four methods on the same data, let each act, and show what came of it.

    Args:
        out: the folder for everything, the page report.html last.
        env: where to act: control/point_mass, atari/pong or dots/plain, or any other that `tacit collect` knows.
        seeds: how many times to do all of it, each on data of its own.
        distract: lay moving "sprites" or a moving "background" over the picture.
        strength: how much of them, 0 to 3.
        steps: of training, of every model and every policy alike.
        frames: of video, half of an expert and half of play.
        episodes: each policy acts in.
        pretrained: also try an inverse model that starts from our encoder.
        workers: processes, of one thread each.
        fresh: forget finished stages.
        dry_run: record a little, take three steps of everything, tell what all of it would take, write nothing.
        results: also write the claim, its numbers and its figure to this JSON file.
    """
    for name, given in (("seeds", seeds), ("steps", steps), ("episodes", episodes), ("workers", workers)):
        if given < 1:
            raise ValueError(f"{name} is {given}; the demo wants at least 1.")
    if frames < LEAST:
        raise ValueError(f"frames is {frames}; with fewer than {LEAST:,} there are no {BUDGETS[-1]:,} labels to keep.")
    size, options, noise = OPTIONS.get(env, (64, {}, 0.2))
    stage = Stage(
        env=env, size=size, options=options, noise=noise, distract=distract, strength=strength if distract else 0.0,
        steps=steps, frames=frames // 2, episodes=episodes,
    )  # fmt: skip
    stage.open().close()  # what cannot be opened is said before anything is written
    began, before, console = time.perf_counter(), 0.0, Console(stderr=True)
    jobs = list(_jobs(pretrained))
    if dry_run:
        return _tried(stage, jobs, seeds, workers)
    _settled(out, stage, fresh=fresh)
    for seed in range(seeds):
        folder = out / f"seed-{seed}"
        _recorded(stage, folder, seed, workers, console)
        before += sum(_worked(stage, some, folder, seed, workers, console) for some in _waves(jobs))
    report = _report(stage, out, seeds, seconds=before + time.perf_counter() - began)
    report.save(out)
    Console().print(report)
    console.print(f"The page: {out / 'report.html'}")
    if results is not None:
        showing.claimed(report, results, where=stage.title, budgets=BUDGETS)
    return report.plain()


def _report(stage: Stage, out: Path, seeds: int, *, seconds: float) -> Report:
    rows, stages = showing.gathered(out, seeds)
    report = Report(
        f"tacit demo: {stage.title}",
        rows=rows,
        budgets=BUDGETS,
        stages=stages,
        seconds=seconds,
        seeds=tuple(range(seeds)),
    )
    report.headline = showing.headline(report.summary, BUDGETS)
    first = out / "seed-0"
    video = collect(
        stage.env,
        episodes=4,
        demonstrator="play",
        seed=10**6,
        workers=1,
        size=stage.size,
        options=stage.told,
        progress=False,
    )
    model = LatentActions.load(first / "tacit")
    names = {"tacit, 16 labels": "tacit-16", "idm, 16 labels": "idm-16", "bc, 16 labels": "bc-16", "random": "random-0"}
    report.figures["films"] = showing.filmed(first / "rows", names, fps=video.spec.fps)
    report.figures["foreseen"] = showing.foreseen(model, video)
    report.figures["moved"] = showing.moved(model, video)
    report.figures["losses"] = showing.curves(first)
    report.fingerprint = {
        f"seed 0, {who}": recordings.open(first / who, size=stage.size).fingerprint for who in ("expert", "play")
    }
    return report


def _tried(stage: Stage, jobs: list[Job], seeds: int, workers: int) -> dict[str, Any]:
    """What the demo would take, from a little of everything in a folder that is thrown away."""
    console, disk = Console(stderr=True), 2 * stage.frames * stage.size**2 * 3
    few = replace(stage, frames=LEAST // 2, steps=STEPS, episodes=min(10, stage.episodes))
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        _recorded(few, Path(name), 0, workers, console)
        seconds = (time.perf_counter() - began) * stage.frames / few.frames
        for job in jobs:
            began = time.perf_counter()
            told = rehearse(lambda data, plan, job=job: _job(few, Path(name), 0, *job), None, plan=stage.plan(0))
            acting = (time.perf_counter() - began) * stage.episodes / few.episodes
            seconds, disk = seconds + (told["seconds"] + acting) / workers, disk + told["disk_bytes"]
            console.print(f"{' '.join(map(str, job))} works")
    console.print(
        f"{stage.title}: about {duration(seconds * seeds)}, {disk * seeds / 1e6:,.0f} MB. Nothing was written."
    )
    return {"env": stage.env, "dry_run": True, "seeds": seeds, "seconds": seconds * seeds, "disk_bytes": disk * seeds}


def _settled(out: Path, stage: Stage, *, fresh: bool) -> None:
    """An empty or a matching folder; finished stages of other settings are never mistaken for these."""
    note, now = out / "stage.json", json.loads(json.dumps(asdict(stage)))
    if out.exists() and not note.exists() and (held := sorted(p.name for p in out.iterdir())):
        raise FileExistsError(f"{out} holds {held[:3]}, which no demo put there; give another folder.")
    if fresh and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    if note.exists() and (before := json.loads(note.read_text())) != now:
        differing = ", ".join(k for k in now if before.get(k) != now[k])
        raise ValueError(f"{out} holds a demo with another {differing}. Give another folder, or --fresh to start over.")
    write(note, lambda path: Path(path).write_text(json.dumps(now, indent=2)))


def _recorded(stage: Stage, folder: Path, seed: int, workers: int, console: Console) -> None:
    """The video of one seed: an expert's and play, recorded to a dataset and decoded once."""
    for number, who in enumerate(("expert", "play")):
        began, place = time.perf_counter(), folder / who
        if (place / "meta" / "info.json").exists():
            console.print(f"seed {seed}: video of {who} is there already")
        found = collect(
            stage.env, place, frames=stage.frames, demonstrator=who, noise=stage.noise, seed=10 * seed + number,
            workers=workers, size=stage.size, options=stage.told,
        )  # fmt: skip
        recordings.cache(found, workers=workers)
        console.print(f"seed {seed}: {int(found.lengths.sum())} frames of {who}, {time.perf_counter() - began:.0f} s")


def _worked(stage: Stage, jobs: list[Job], folder: Path, seed: int, workers: int, console: Console) -> float:
    """All methods on one seed's video, the longest first. What is finished is reused; the seconds it took come back."""
    done = {job: note for job in jobs if (note := folder / "rows" / f"{job[0]}-{job[1]}.json").exists()}
    left = [job for job in jobs if job not in done]
    before = sum(json.loads(note.read_text())["seconds"] for note in done.values()) / workers
    if done:
        console.print(f"seed {seed}: {len(done)} of {len(jobs)} stages are finished and reused")
    if not left:
        return before
    began, crew = time.perf_counter(), answers(_Work(stage, folder, seed, left), stop=len(left), workers=workers)
    costs = [LONG.get(method, 0.2) for method, _ in left]
    with contextlib.closing(crew):
        for count, (name, seconds) in enumerate(crew, 1):
            made = sum(costs[:count]) + sum(costs[count : count + workers - 1]) / 2  # those that run are half done
            rest = (time.perf_counter() - began) / made * (sum(costs) - made) if count < len(left) else 0.0
            console.print(f"seed {seed}: {name} {seconds:.0f} s   {count}/{len(left)}, about {rest:.0f} s left")
    return before


@dataclass(frozen=True)
class _Work:
    """The jobs of one seed, for a crew to ask for by number."""

    stage: Stage
    folder: Path
    seed: int
    jobs: list[Job]
    ours = True

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], tuple[str, float]]]:
        yield lambda number: _job(self.stage, self.folder, self.seed, *self.jobs[number])


def _jobs(pretrained: bool) -> Iterator[Job]:
    """The longest first; 0 labels stands for all budgets in turn, where they share one model."""
    yield "tacit", 0
    yield "lapo", 0
    yield from (("idm", n) for n in BUDGETS)
    yield "bc", -1  # all labels
    yield from (("bc", n) for n in BUDGETS)
    yield "random", 0
    yield "expert", 0
    if pretrained:
        yield from ((OURS, n) for n in BUDGETS)


def _waves(jobs: list[Job]) -> Iterator[list[Job]]:
    """Jobs that may run side by side: what starts from our encoder waits until there is one."""
    for late in (False, True):
        if some := [job for job in jobs if (job[0] == OURS) == late]:
            yield some


def _job(stage: Stage, folder: Path, seed: int, method: str, labels: int) -> tuple[str, float]:
    """Train one method, let it act, and leave its rows behind."""
    began = time.perf_counter()
    rows, films = [], {}
    simulators = [stage.open() for _ in range(10)]
    for budget, actor in _actors(stage, folder, seed, method, labels):
        seen: Rollouts = rollout(actor, simulators, episodes=stage.episodes, seed=1000 + seed, record=2)
        name = "all labels" if labels < 0 else method
        rows.append({"method": name, "labels": budget, "seed": seed, **seen.row()})
        films[f"{method}-{budget}"] = np.concatenate(seen.films)
    for one in simulators:
        one.close()
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    for name, film in films.items():
        write(folder / "rows" / f"{name}.npy", lambda path, film=film: np.save(open(path, "wb"), film))  # noqa: SIM115
    seconds = time.perf_counter() - began
    told = json.dumps({"rows": rows, "seconds": seconds}, indent=1)
    write(folder / "rows" / f"{method}-{labels}.json", lambda path: Path(path).write_text(told))
    return f"{method} {labels or ''}".replace("-1", "on all labels").strip(), seconds


def _actors(stage: Stage, folder: Path, seed: int, method: str, labels: int) -> Iterator[tuple[int, Any]]:
    """Each policy that a method makes, with the number of labels it cost."""
    if method in ("random", "expert"):  # the ends of the scale
        yield 0, Chance(seed) if method == "random" else Expert(noise=0.0, seed=seed)
        return
    expert, play = (recordings.open(folder / who, size=stage.size) for who in ("expert", "play"))
    whole, plan = expert + play.unlabelled(), stage.plan(seed)
    if method == "bc":
        few = expert if labels < 0 else expert.keep_labels(labels, seed=seed)
        yield few.labelled, bc(few, folder / f"bc-{labels}", points=stage.points, plan=plan)
        return
    if method.startswith("idm"):
        few = whole.keep_labels(labels, seed=seed, source="expert")
        eyes = Policy.load(folder / "tacit-16").latents.encoder if method == OURS else None  # type: ignore[attr-defined]
        place = folder / f"{method}-{labels}"
        yield labels, idm(few, place, encoder=eyes, source="expert", plan=plan)
        return
    model = _model(stage, folder, method, whole.unlabelled(), plan)
    told = label(model, whole)
    for budget in BUDGETS:
        few = told.keep_labels(budget, seed=seed, source="expert")
        eyes = None if model.encoder is not None else Keypoints(frame=(stage.size, stage.size), points=stage.points)
        yield budget, _follow(model, few, folder, method, budget, encoder=eyes, plan=plan)


def _model(stage: Stage, folder: Path, method: str, video: Episodes, plan: Plan) -> LatentActions:
    if method == "tacit":
        return tacit(video, folder / "tacit", points=stage.points, plan=plan)
    small = VQ(codes=16, groups=2, tokens=2, dim=8)
    return lapo(video, folder / "lapo", width=1, base=8, bottleneck=small, plan=plan)


def _follow(
    model: LatentActions, few: Episodes, folder: Path, method: str, budget: int, *, encoder: Any, plan: Plan
) -> Policy:
    policy = follow(model, few, folder / f"{method}-pilot", encoder=encoder, source="expert", plan=plan)
    policy.save(folder / f"{method}-{budget}")
    return policy
