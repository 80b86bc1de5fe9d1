"""Killed with SIGKILL at random moments, does training end in the same weights, and labelling in the same dataset?

    python bench/kill.py --kills 20                                            # 20 moments of each
    python bench/kill.py --kills 20 --out results/kill.json                    # and a file of results with its figure
    python bench/kill.py --of recordings --out results/kill_recordings.json    # import, append, cache and merge

`lapo` is trained, tiny, on the generated dots: it has a codebook, whose counters, resets and memory are the hardest
thing to resume. What is compared is every byte: the weights, the config, the log but for its speeds, and each file of
the labelled dataset. A killed process is started again in its folder; one that ended before its moment came is
compared, and begun afresh in a new one. Processes are new interpreters, or with --fork copies of this one, which are
quicker to start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tacit import data
from tacit.data.merge import merge
from tacit.data.toys import dots
from tacit.envs.dots import Board
from tacit.evaluate.claim import Claim
from tacit.latents import LatentActions, keep, label
from tacit.recipes.lapo import TINY, lapo
from tacit.state import RESUME, read_state
from tacit.train import Plan

SPEEDS = ("steps_per_s", "waiting_for_data")
ROOT = Path(__file__).resolve().parent.parent


def train(out: Path, *, steps: int, **_: Any) -> None:
    """The run that is killed: small, and saved often."""
    data = dots(Board(size=16), episodes=30, seed=1).episodes
    lapo(data, out, plan=Plan(steps=steps, batch=16, rate=1e-3, log_every=5, save_every=10, average=0.9), **TINY)


def mark(out: Path, *, model: Path, episodes: int, **_: Any) -> None:
    """The labelling that is killed: a file for every few episodes."""
    keep.GROUP = 100
    label(LatentActions.load(model), dots(Board(size=16), episodes=episodes, seed=2).episodes, out)


def bring(out: Path, *, source: Path, append: bool = False, **_: Any) -> None:
    """The import that is killed: a file for every few episodes."""
    sys.modules["tacit.data.transfer"].GROUP = 100  # type: ignore[attr-defined]
    data.transfer(data.open(source / "three"), out, workers=1, append=append, progress=False)


def append(out: Path, *, source: Path, **told: Any) -> None:
    """The same into a dataset that is there already."""
    if not out.exists():
        staged = out.with_name(f"{out.name}.copy")
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(source / "one", staged)
        staged.rename(out)
    bring(out, source=source, append=True)


def decode(out: Path, *, source: Path, **_: Any) -> None:
    """The cache that is killed while it is built."""
    sys.modules["tacit.data.cache"].SHARD = 100  # type: ignore[attr-defined]
    data.cache(data.open(source / "three"), size=24, path=out, workers=1)


def join(out: Path, *, source: Path, **_: Any) -> None:
    """The merging that is killed."""
    merge([source / "one", *sorted(source.glob("part-*")), source / "three"], out)


LEARNING: dict[str, Callable[..., None]] = {"training": train, "labelling": mark}
RECORDINGS: dict[str, Callable[..., None]] = {"import": bring, "append": append, "cache": decode, "merge": join}
JOBS = LEARNING | RECORDINGS


def written(home: Path, *, episodes: int) -> Path:
    """Datasets to work on."""
    sizes = {"one": 10, "three": 4 * episodes} | {f"part-{k:02d}": 10 for k in range(20)}
    for seed, (name, count) in enumerate(sizes.items()):
        data.save(dots(Board(size=16), episodes=count, seed=seed).episodes, home / name, group=200)
    return home


def work(job: str, out: Path, *, told: dict[str, Any]) -> None:
    """What a process that is to be killed does."""
    torch.set_num_threads(1)
    JOBS[job](out, **{k: Path(v) if k in ("model", "source") else v for k, v in told.items()})


@dataclass
class Process:
    """One that can be killed: a new interpreter, or a copy of this one."""

    number: int
    child: subprocess.Popen[bytes] | None = None  # kept, or it would be waited for behind our back

    @classmethod
    def start(cls, job: str, out: Path, *, told: dict[str, Any], fork: bool) -> Process:
        if fork:
            number = os.fork()
            if number == 0:
                try:
                    work(job, out, told=told)
                    os._exit(0)
                except BaseException as error:  # a copy must never come back and go on as if it were the original
                    sys.stderr.write(f"{job}: {error!r}\n")
                    os._exit(1)
            return cls(number)
        command = [sys.executable, __file__, "--job", job, "--into", str(out), "--told", json.dumps(told)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])}
        child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # what it says once its imports are done: no moment is spent on those
        child.stdout.close()
        return cls(child.pid, child)

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, but not for longer than this; whoever ends badly ends everything."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            number, status = os.waitpid(self.number, os.WNOHANG)
            if number:
                if status:
                    raise SystemExit(f"A process ended with status {os.waitstatus_to_exitcode(status)}.")
                return True
            time.sleep(0.002)
        return False

    def kill(self) -> None:
        os.kill(self.number, signal.SIGKILL)
        os.waitpid(self.number, 0)


def told_by(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a finished folder and what must be equal in it."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.name == "run.json":
            content = json.dumps(json.loads(content)["story"]).encode()
        elif path.name == "log.jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            content = json.dumps([{k: v for k, v in row.items() if k not in SPEEDS} for row in rows]).encode()
        yield path.relative_to(folder).as_posix(), content


def fingerprint(folder: Path) -> dict[str, str]:
    return {name: hashlib.blake2b(content, digest_size=16).hexdigest() for name, content in told_by(folder)}


def reached(folder: Path) -> int:
    """How far a killed run had got, in what it would lose nothing of: saved steps, or written episodes."""
    if (folder / RESUME).exists():
        return read_state(folder / RESUME).step
    info, shards = folder / "meta" / "info.json", folder.parent.glob(f".{folder.name}.*.partial/done/*")
    if info.exists() or (folder / "index.json").exists():
        held = data.open(folder)  # it opens, and holds every episode that it counts
        assert not held.damaged()
        return len(held)
    return sum(1 for _ in shards)


def survive(job: str, home: Path, *, told: dict[str, Any], kills: int, chance: random.Random, fork: bool) -> Any:
    """The undisturbed folder, and a row for each kill: its moment, what was saved then, and whether all was equal."""
    whole, rows, waiting = home / f"{job}-whole", list[dict[str, Any]](), list[dict[str, Any]]()
    began = time.monotonic()
    Process.start(job, whole, told=told, fork=fork).ends_within(600)
    span, wanted, attempt = time.monotonic() - began, fingerprint(whole), 0
    while len(rows) < kills or waiting:
        out = home / f"{job}-{attempt}"
        moment = chance.uniform(0, 0.7 * span) if len(rows) + len(waiting) < kills else 600.0
        process = Process.start(job, out, told=told, fork=fork)
        if not process.ends_within(moment):
            process.kill()
            waiting.append({"job": job, "seconds": round(moment, 3), "saved": reached(out), "run": attempt})
            continue
        found = fingerprint(out)
        differs = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        rows += [{**row, "equal": not differs, "differs": differs} for row in waiting]
        waiting.clear()
        attempt += 1
        shutil.rmtree(out)
    return whole, rows


def drawn(rows: list[dict[str, Any]], axes: Any) -> None:
    """When each kill came, and how much had been saved by then."""
    for job, marker in zip(dict.fromkeys(row["job"] for row in rows), "os^v", strict=False):
        for equal, colour in ((True, "#2a6f97"), (False, "#c1121f")):
            some = [row for row in rows if row["job"] == job and row["equal"] == equal]
            if some:
                name = f"{job}, {'equal in every byte' if equal else 'differed'}"
                seconds, saved = [r["seconds"] for r in some], [r["saved"] for r in some]
                axes.scatter(seconds, saved, color=colour, marker=marker, label=name, alpha=0.7)
    axes.set(xlabel="seconds from (re)start to kill", ylabel="steps or episodes saved by then")
    axes.legend(frameon=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=("learning", "recordings"), default="learning", help="which work is killed")
    parser.add_argument("--kills", type=int, default=20, help="moments of each kind of work")
    parser.add_argument("--steps", type=int, default=200, help="steps of the training that is killed")
    parser.add_argument("--episodes", type=int, default=120, help="episodes of the dataset that is labelled")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--fork", action="store_true", help="copies of this process in place of new ones")
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    for name in ("--job", "--into", "--told"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        print("ready", flush=True)
        work(asked.job, Path(asked.into), told=json.loads(asked.told))
        return 0
    chance, sizes = random.Random(asked.seed), {"steps": asked.steps, "episodes": asked.episodes}
    with tempfile.TemporaryDirectory() as home:
        settings: dict[str, Any] = {"kills": asked.kills, "chance": chance, "fork": asked.fork}
        jobs, rows = LEARNING if asked.of == "learning" else RECORDINGS, []
        if asked.of == "recordings":
            sizes["source"] = str(written(Path(home) / "source", episodes=asked.episodes))
        for job in jobs:
            whole, found = survive(job, Path(home), told=sizes, **settings)
            sizes, rows = sizes | ({"model": str(whole)} if job == "training" else {}), rows + found
    equal = sum(row["equal"] for row in rows)
    passed = equal == len(rows) == len(jobs) * asked.kills
    for job in jobs:
        mine = [row for row in rows if row["job"] == job]
        print(
            f"{job}: killed {len(mine)} times in {len({r['run'] for r in mine})} runs, with "
            f"{min(r['saved'] for r in mine)} to {max(r['saved'] for r in mine)} saved; "
            f"{sum(r['equal'] for r in mine)} kills left no trace"
        )
    if asked.out:
        Claim(
            claim=f"Killed with SIGKILL at random moments and started again, {', '.join(jobs)} end in the same bytes "
            "as if nothing had happened.",
            command=shlex.join(["python", "bench/kill.py", *sys.argv[1:]]),
            value=equal / len(rows),
            interval=None,
            n=len(rows),
            seeds=(asked.seed,),
            bar=f"every kill, 20 of each: {', '.join(jobs)}",
            passed=passed,
            rows=rows,
        ).save(asked.out, draw=partial(drawn, rows))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
