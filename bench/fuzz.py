"""Hostile files: every format's reader against mutated recordings, each read in a process that is watched.

A reader may refuse a file in one clear line or read what is left of it. It may not crash, hang, eat the memory, write
outside its own folder, or run anything. `python bench/fuzz.py --mutants 500 --results results/fuzz.json`
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from hostile import bombs, mutate, sample

LIMIT, MOST = 10.0, 2.0  # seconds, gigabytes
FORESEEN = (ValueError, OSError, ImportError, MemoryError)
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")
SEED = 0


def read(path: Path) -> str:
    """Open a recording and read all of it that can be read; what came of it, in a word."""
    import tacit.data as data

    episodes = data.open(path)
    faults = episodes.damaged()
    for column in ("state", "actions", "rewards"):
        if not faults:
            episodes.column(column)
    return f"read, {len(faults) + len(episodes.reader.faults)} damaged" if faults else "read"


def work(line: Connection, home: str) -> None:
    """The watched process: it reads what it is told to, and says what it did that no reader may do."""
    deeds: list[str] = []

    def watch(event: str, told: tuple[Any, ...]) -> None:
        if event.startswith(WATCHED):
            deeds.append(f"{event} {told[:1]}")
        wrote = event == "open" and isinstance(told[1], str) and set(told[1]) & set("wax+")
        if wrote and not str(told[0]).startswith((home, "/dev/null", "/proc/self")):
            deeds.append(f"wrote {told[0]}")

    import tacit.data  # noqa: F401

    line.send("ready")
    path = line.recv()
    line.send((read(Path(path)), 0.0, []))  # a whole one first: what is imported for it may do as it likes
    sys.addaudithook(watch)
    while True:
        path = line.recv()
        deeds.clear()
        try:
            said = read(Path(path))
        except FORESEEN as error:
            said = f"refused: {' '.join(str(error).split())[:300]}"
            if len(str(error).split()) < 4:
                said = f"CRASH: an unclear error, {type(error).__name__}: {error}"
        except BaseException as error:
            said = f"CRASH: {type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        line.send((said, peak, list(deeds)))


class Watched:
    """A process that reads on demand, replaced when it dies, hangs or has grown."""

    def __init__(self, home: Path, whole: Path) -> None:
        self.home, self.whole = str(home), whole
        self.begin()

    def begin(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.line, theirs = spawn.Pipe()
        self.process = spawn.Process(target=work, args=(theirs, self.home), daemon=True)
        self.process.start()
        theirs.close()
        self.line.recv()
        self.line.send(str(self.whole))
        said = self.line.recv()[0]
        if said != "read":
            raise SystemExit(f"{self.whole}, which is whole, is not read: {said}")

    def ask(self, path: Path) -> tuple[str, float]:
        began = time.perf_counter()
        self.line.send(str(path))
        try:
            if not self.line.poll(LIMIT):
                said, peak, deeds = "CRASH: it hung", 0.0, []
            else:
                said, peak, deeds = self.line.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            said, peak, deeds = f"CRASH: the process ended, {self.process.exitcode}", 0.0, []
        if deeds:
            said = f"CRASH: {deeds[0]}"
        if peak > MOST:
            said = f"CRASH: {peak:.1f} GB of memory"
        if said.startswith("CRASH"):
            self.process.kill()
            self.process.join()
            self.begin()
        return said, time.perf_counter() - began


def fuzz(name: str, *, mutants: int, keep: Path | None = None) -> dict[str, Any]:
    """One format: what became of each mutant."""
    random, said, slowest = np.random.default_rng([SEED, *name.encode()]), Counter(), 0.0
    crashes: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        whole = sample(name, home / "whole" / name)
        watched = Watched(home, whole)
        root = home / "whole" / name
        for k, bomb in enumerate([*bombs(name, home / "bombs"), *[None] * mutants]):
            target, way = bomb, "a bomb"
            if bomb is None:
                shutil.rmtree(home / "mutant", ignore_errors=True)
                shutil.copytree(root, home / "mutant" / name)
                target = home / "mutant" / name / whole.relative_to(root)
                for _ in range(int(random.integers(1, 3))):
                    way = mutate(target, random) if target.exists() else "removed"
            answer, seconds = watched.ask(target)
            slowest = max(slowest, seconds)
            said[answer.split(":")[0].split(",")[0]] += 1
            if answer.startswith("CRASH"):
                crashes.append(f"{name} {k} ({way}): {answer}")
                print(crashes[-1], flush=True)
                if keep is not None and bomb is None:
                    shutil.copytree(home / "mutant", keep / f"{name}-{k}", dirs_exist_ok=True)
        watched.process.kill()
    return {"format": name, "files": sum(said.values()), **said, "slowest_seconds": slowest, "crashes": crashes}


def claimed(rows: list[dict[str, Any]], asked: argparse.Namespace) -> int:
    """The rows as a file of results with its figure."""
    from tacit.evaluate.claim import Claim

    crashes, files = sum(len(row["crashes"]) for row in rows), sum(row["files"] for row in rows)

    def draw(axes: Any) -> None:
        names, left = [row["format"] for row in rows], np.zeros(len(rows))
        for word, colour in (("read", "#2a7f62"), ("refused", "#c9a227"), ("CRASH", "#b3261e")):
            width = np.array([row.get(word, 0) for row in rows], float)
            axes.barh(names, width, left=left, color=colour, label=f"{word.lower()} ({int(width.sum()):,})")
            left += width
        axes.invert_yaxis()
        axes.set(xlabel="mutated recordings", title="Hostile files: read, or refused in one clear line")
        axes.legend(loc="lower right")

    Claim(
        claim=f"Of {files:,} hostile recordings in {len(rows)} formats {crashes} made a reader crash, hang for "
        f"{LIMIT:g} s, take {MOST:g} GB, write where it may not or run code.",
        command=f"python {shlex.join(sys.argv)}",
        value=crashes,
        interval=None,
        n=files,
        seeds=(SEED,),
        bar="none, of at least 500 in each format",
        passed=crashes == 0 and asked.mutants >= 500,
        rows=rows,
    ).save(asked.results, draw=draw)
    return int(crashes > 0)


def main() -> int:
    from tacit.data.formats import FORMATS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=60)
    parser.add_argument("--formats", nargs="*", default=["lerobot", *FORMATS])
    parser.add_argument("--keep", type=Path, help="a folder for the mutants that crashed something")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    rows = []
    for name in asked.formats:
        rows.append(fuzz(name, mutants=asked.mutants, keep=asked.keep))
        print({k: v for k, v in rows[-1].items() if k != "crashes"}, flush=True)
    return claimed(rows, asked) if asked.results else int(any(row["crashes"] for row in rows))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
