"""How fast recordings come in and are worked on: import against the clock, two processes against one, and check.

    python bench/intake.py                                   # all of it, with an hour of video: about ten minutes
    python bench/intake.py --minutes 5                       # a shorter hour
    python bench/intake.py --out results/intake.json         # and a file of results with its figure
    python bench/intake.py --minutes 12 --parts caching labelling --out results/processes.json

The hour is written as twelve files of five minutes at 256x256 and 30 frames a second, of moving noise, H.264 with a key
frame every 30; each is a copy of the first, which takes as long to decode. One process has one thread, two have one
each. `check --metadata` is timed as a user would: a new interpreter is started, and all of it counts but the start of
the interpreter and its imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

import tacit.data as data
from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.evaluate.claim import Claim
from tacit.latents import LatentActions, label
from tacit.recipes.lapo import lapo
from tacit.train import Plan

BARS = {"import": 5.0, "check": 1.0, "caching": 1.7, "labelling": 1.7}

SAID = {
    "import": "video of 256x256 is imported {:.1f} times faster than real time on two cores",
    "check": "10,000 episodes are checked in {:.2f} s without decoding",
    "caching": "two processes cache {:.2f} times as fast as one",
    "labelling": "two processes label {:.2f} times as fast as one",
}


def filmed(folder: Path, *, minutes: float, size: int = 256, fps: int = 30, files: int = 12) -> Path:
    """So many minutes of video in a folder."""
    folder.mkdir(parents=True)
    count = int(minutes * 60 * fps / files)
    noise = np.random.default_rng(0).integers(0, 255, (size // 8 + 64, size // 8 + 64, 3), np.uint8)
    noise = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(folder / "00.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"g": "30", "preset": "veryfast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for t in range(count):
            x, y = 2 * t % 256, 3 * t % 256
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[y : y + size, x : x + size]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for k in range(1, files):
        shutil.copy(folder / "00.mp4", folder / f"{k:02d}.mp4")
    return folder


def imported(home: Path, *, minutes: float) -> dict[str, float]:
    """How many times faster than it was filmed an hour is brought in, and how memory grows from a twelfth of it."""
    videos, row = filmed(home / "videos", minutes=minutes), {}
    part = home / "part"
    part.mkdir()
    shutil.copy(videos / "00.mp4", part)
    for name, folder in (("twelfth", part), ("imported", videos)):
        began = time.perf_counter()
        command = [sys.executable, "-m", "tacit", "data", "import", str(folder), str(home / name), "--json"]
        told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        row[f"seconds_{name}"] = time.perf_counter() - began
        # The most that any of the processes has held so far: of the hour, if that held more than its twelfth.
        row[f"peak_gb_{name}"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    seconds = row["seconds_imported"]
    return {"part": "import", "ratio": minutes * 60 / seconds, "seconds": seconds, "frames": told["frames"], **row}


def checked(home: Path, *, episodes: int = 10_000) -> dict[str, float]:
    """Seconds that a check without decoding takes for the metadata of so many episodes."""
    random = np.random.default_rng(0)
    state = random.normal(size=(episodes, 20, 4)).astype(np.float32)
    many = Episodes.of([Episode(state=s, text=f"task {i % 7}") for i, s in enumerate(state)], fps=10)
    data.save(many, home / "many", group=20_000)
    from tacit.data.inspect import inspect

    began = time.perf_counter()
    found = inspect(data.open(home / "many"), decode=False)
    seconds = time.perf_counter() - began
    return {"part": "check", "ratio": seconds, "seconds": seconds, "findings": len(found.findings)}


def compared(part: str, deed: Callable[[int, str], str], *, repeats: int) -> tuple[list[dict[str, Any]], str]:
    """One process against two, in turn, and the hash of what either gave."""
    rows, marks = [], set()
    for repeat in range(repeats):
        seconds = {}
        for workers in (1, 2):
            began = time.perf_counter()
            marks.add(deed(workers, "local"))
            seconds[workers] = time.perf_counter() - began
        rows.append(
            {"part": part, "ratio": seconds[1] / seconds[2], "one": seconds[1], "two": seconds[2], "repeat": repeat}
        )
    if len(marks) > 1:
        raise SystemExit(f"{part}: one process and two do not give the same bytes")
    return rows, marks.pop()


def marked(folder: Path, *patterns: str) -> str:
    """One hash of a folder's files."""
    digest = hashlib.blake2b()
    for file in sorted(f for p in patterns for f in folder.rglob(p)):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def cached(home: Path) -> Callable[[int, str], str]:
    """Caching of video at training size."""
    source = data.open(home / "imported")
    source = source.select(np.arange(min(36, len(source))))

    def deed(workers: int, engine: Any) -> str:
        place = home / "cached"
        shutil.rmtree(place, ignore_errors=True)
        made = data.cache(source, size=64, path=place, workers=workers, engine=engine)
        return marked(Path(made.reader.path), "*.npy")  # type: ignore[attr-defined]

    return deed


def labelled(home: Path) -> Callable[[int, str], str]:
    """Labelling with the reference's networks at 64 pixels."""
    source = data.open(home / "imported")
    source = data.cache(source.select(np.arange(min(8, len(source)))), size=64)
    model = lapo(source, None, plan=Plan(steps=2, batch=8, device="cpu"))
    assert isinstance(model, LatentActions)

    def deed(workers: int, engine: Any) -> str:
        place = home / "labelled"
        shutil.rmtree(place, ignore_errors=True)
        torch.set_num_threads(1)
        label(model, source, place, workers=workers, engine=engine)
        return marked(place, "*.parquet", "*.mp4")

    return deed


def drawn(values: dict[str, float], axes: Any) -> None:
    """Each ratio beside its bar."""
    for place, (name, value) in enumerate(values.items()):
        met = value <= BARS[name] if name == "check" else value >= BARS[name]
        axes.barh(place, value, color="#2a7f62" if met else "#b3261e")
        axes.plot([BARS[name]] * 2, [place - 0.4, place + 0.4], color="black")
    labels = {"import": "import: times real time", "check": "check: seconds for 10,000 episodes"}
    axes.set_yticks(range(len(values)), [labels.get(k, f"{k}: two processes over one") for k in values])
    axes.set(title="What comes in, and how fast (the line is the bar)")
    axes.invert_yaxis()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--parts", nargs="+", choices=list(BARS), default=list(BARS), help="what is reported")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        rows: list[dict[str, Any]] = [checked(home)] if "check" in asked.parts else []
        rows.append(imported(home, minutes=asked.minutes))
        print(rows[-1], flush=True)
        both = {"caching": cached(home), "labelling": labelled(home)}
        deeds, marks = {part: deed for part, deed in both.items() if part in asked.parts}, {}
        for part, deed in deeds.items():
            found, marks[part] = compared(part, deed, repeats=asked.repeats)
            rows += found
            print(rows[-1], flush=True)
        for part, deed in deeds.items():  # last, for what Ray starts goes on in the background
            rows.append({"part": f"{part} over Ray", "equal": deed(2, "ray") == marks[part]})
            print(rows[-1], flush=True)
    values = {part: float(np.median([r["ratio"] for r in rows if r["part"] == part])) for part in asked.parts}
    kept = {k: v <= BARS[k] if k == "check" else v >= BARS[k] for k, v in values.items()}
    passed = all(kept.values()) and all(row["equal"] for row in rows if "equal" in row)
    if asked.out:
        Claim(
            claim="; ".join(SAID[part].format(value) for part, value in values.items()) + ".",
            command=shlex.join(["python", "bench/intake.py", *sys.argv[1:]]),
            value=values,
            interval={k: [min(v), max(v)] for k in asked.parts if (v := [r["ratio"] for r in rows if r["part"] == k])},
            n=len(rows),
            seeds=(0,),
            bar=f"import at least {BARS['import']:g} times real time, check under a second, two processes at least "
            "1.7 times one, Ray the same bytes",
            passed=bool(passed and (asked.minutes >= 60 or "import" not in asked.parts)),
            rows=rows,
        ).save(asked.out, draw=lambda axes: drawn(values, axes))
    print(values)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
