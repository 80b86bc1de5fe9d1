"""What ``tacit check`` costs on 64 x 64 pictures without labels and simulator: seconds and memory.

    python bench/checked.py --out results/verdict/cost.json

Models of two recipes at their own sizes, trained for three steps: what they have learnt costs nothing. Each is judged
by a process of its own. Wants quiet cores.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tacit.evaluate.claim import Claim

SIZE, FRAMES, RECIPES = 64, 8000, ("lapo", "tacit")
SECONDS, BYTES = 90, 2e9
BAR = "tacit check on 64 x 64 data takes at most 90 seconds on two cores without labels or simulator, and under 2 GB"


def tacit(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "tacit", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def measured(home: Path, recipe: str) -> dict[str, Any]:
    """One model judged, by a process that does nothing else."""
    video, model = home / "video", home / recipe
    if not (model / "config.json").exists():
        tacit("collect", "control/point_mass", video, "--frames", FRAMES, "--size", SIZE, "--demonstrator", "play",
              "--labels", "none", "--options", "repeat=10", "horizon=50")  # fmt: skip
        tacit("train", recipe, "--data", video, "--out", model, "--held", 0.3, "--plan.steps", 3, "--plan.batch", 8)
    began = time.perf_counter()
    job = subprocess.Popen(
        [sys.executable, "-m", "tacit", "check", model, "--data", video, "--no-simulator", "--out", home / "page"],
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(job.pid, 0)
    job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        raise RuntimeError(f"tacit check {model} ended with {job.returncode}.")
    assert isinstance(used, resource.struct_rusage)
    return {"recipe": recipe, "seconds": time.perf_counter() - began, "bytes": used.ru_maxrss * 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    parser.add_argument("--home", type=Path, default=Path("out/checked"), help="the recording and the models")
    parser.add_argument("--again", type=int, default=3, help="times that each is measured")
    given = parser.parse_args()
    rows = [measured(given.home, recipe) for _ in range(given.again) for recipe in RECIPES]
    most = {r: {k: max(row[k] for row in rows if row["recipe"] == r) for k in ("seconds", "bytes")} for r in RECIPES}
    said = "; ".join(f"{r}: at most {v['seconds']:.0f} s and {v['bytes'] / 1e9:.2f} GB" for r, v in most.items())
    said = f"tacit check of a model of {SIZE} x {SIZE} pictures without labels or simulator, with its page: {said}."
    print(said)
    passed = all(v["seconds"] <= SECONDS and v["bytes"] <= BYTES for v in most.values())
    if given.out:
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/checked.py", *sys.argv[1:]]),
            value=most,
            interval={
                r: [min(row["seconds"] for row in rows if row["recipe"] == r), most[r]["seconds"]] for r in RECIPES
            },
            n=given.again,
            seeds=(0,),
            bar=BAR,
            passed=passed,
            rows=rows,
        ).save(given.out, draw=lambda axes: drawn(rows, axes))
    return 0 if passed else 1


def drawn(rows: list[dict[str, Any]], axes: Any) -> None:
    """Each measurement, seconds against memory, and the bar."""
    for i, recipe in enumerate(RECIPES):
        some = [row for row in rows if row["recipe"] == recipe]
        axes.plot([r["bytes"] / 1e9 for r in some], [r["seconds"] for r in some], "o", color=f"C{i}", label=recipe)
    axes.axvline(BYTES / 1e9, color="#888888", linestyle=":")
    axes.axhline(SECONDS, color="#888888", linestyle=":")
    axes.set_xlim(0, 1.1 * BYTES / 1e9)
    axes.set_ylim(0, 1.1 * SECONDS)
    axes.set_xlabel("peak memory, GB")
    axes.set_ylabel("seconds")
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
