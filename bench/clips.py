"""Clips from the decoded cache, against decoding them one by one, and against a bare gather of the same bytes.

    python bench/clips.py                                          # the ratios, measured in turn in one run
    python bench/clips.py --out results/clips.json                 # and a file of results with its figure
    python bench/clips.py --length 8 --least 20 --out results/loader.json   # as robot learners draw them

The dataset is written by tacit, without loss, and cached at its own size. The first peer opens the dataset's video once
(generous: most loaders open it for each sample), and for every clip seeks and decodes with PyAV; where torchcodec is
installed (and FFmpeg with it) so does that, which is what LeRobot's loader uses by default. The second indexes the
cache's memory map with places worked out beforehand, and does nothing else: no batch is drawn, no label gathered.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from tacit import data
from tacit.data.clips import Clips
from tacit.data.lerobot import LeRobot
from tacit.data.toys import dots
from tacit.envs.dots import Board
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import bootstrap

MOST = 2.0
MAIN = "videos/observation.images.main"


class Decoded:
    """The same clips, decoded anew each: what a loader without a cache does."""

    def __init__(self, folder: Path, *, length: int) -> None:
        held = LeRobot(folder)
        table, self.fps, self.length = held.table, held.spec.fps, length
        self.firsts = np.round(np.array(table[f"{MAIN}/from_timestamp"]) * self.fps).astype(int)
        files = zip(table[f"{MAIN}/chunk_index"], table[f"{MAIN}/file_index"], strict=True)
        names = [f"{MAIN}/chunk-{chunk:03d}/file-{file:03d}.mp4" for chunk, file in files]
        self.videos = {name: av.open(str(folder / name)) for name in set(names)}
        self.names = names

    def clip(self, episode: int, *, start: int) -> np.ndarray:
        video = self.videos[self.names[episode]]
        stream, first = video.streams.video[0], self.firsts[episode] + start
        assert stream.time_base is not None
        video.seek(int(first / self.fps / stream.time_base), stream=stream)
        frames: list[np.ndarray] = []
        for frame in video.decode(stream):
            assert frame.time is not None
            if round(frame.time * self.fps) >= first:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == self.length:
                break
        return np.stack(frames)


class Coded(Decoded):
    """The same by torchcodec, as LeRobot's loader does it."""

    def __init__(self, folder: Path, *, length: int) -> None:
        from torchcodec.decoders import VideoDecoder

        super().__init__(folder, length=length)
        self.decoders = {name: VideoDecoder(str(folder / name), seek_mode="approximate") for name in self.videos}

    def clip(self, episode: int, *, start: int) -> np.ndarray:
        first = int(self.firsts[episode]) + start
        found = self.decoders[self.names[episode]].get_frames_in_range(start=first, stop=first + self.length)
        return found.data.permute(0, 2, 3, 1).numpy()


def peers(folder: Path, *, length: int) -> dict[str, Decoded]:
    """Who decodes clip by clip: PyAV, and torchcodec where it is."""
    found = {"decode": Decoded(folder, length=length)}
    try:
        found["torchcodec"] = Coded(folder, length=length)
    except (ImportError, RuntimeError):
        print("torchcodec is not here, so PyAV alone is measured", file=sys.stderr)
    return found


def timed(deed: Callable[[], Any], *, clips: int) -> float:
    """Seconds a clip."""
    began = time.perf_counter()
    deed()
    return (time.perf_counter() - began) / clips


def measure(folder: Path, *, size: int, length: int, batch: int, batches: int, repeats: int) -> list[dict[str, float]]:
    """Seconds a clip of all three, in turn, ``repeats`` times; their clips are first seen to be equal."""
    cached = data.open(folder, size=size)
    clips = Clips(cached, length)
    frames = np.load(cached.reader.path / "frames.npy", mmap_mode="r")  # type: ignore[attr-defined]
    decoders = peers(folder, length=length)
    starts = np.cumsum(cached.lengths) - cached.lengths
    within = np.concatenate([np.arange(n - length + 1) for n in cached.lengths])  # each window's place in its episode
    owner = clips.episodes

    def ours(first: int) -> None:
        for step in range(first, first + batches):
            clips.batch(clips.draw(step, batch))

    def gather(places: list[np.ndarray]) -> None:
        for at in places:
            frames[at]

    def decode(decoded: Decoded, rows: np.ndarray) -> np.ndarray:
        return np.stack([decoded.clip(int(owner[row]), start=int(within[row])) for row in rows])

    def places(step: int) -> np.ndarray:
        rows = clips.draw(step, batch)
        return (starts[owner[rows]] + within[rows])[:, None] + np.arange(length)

    some = clips.draw(0, batch)[:32]
    from_cache = clips.batch(some).frames
    assert from_cache is not None
    for other in (*(decode(d, some) for d in decoders.values()), frames[places(0)[:32]]):
        if not np.array_equal(from_cache.permute(0, 1, 3, 4, 2).numpy(), other):
            raise SystemExit("They do not give the same clips; nothing can be compared.")
    rows = []
    for repeat in range(repeats + 1):
        first = repeat * batches
        at = [places(step) for step in range(first, first + batches)]
        seconds = {
            "cache": timed(partial(ours, first), clips=batch * batches),
            "gather": timed(partial(gather, at), clips=batch * batches),
        }
        for name, decoder in decoders.items():
            seconds[name] = timed(partial(decode, decoder, clips.draw(first, batch)[:32]), clips=min(batch, 32))
        rows.append(seconds)
    return rows[1:]  # the first round warmed up


def drawn(rows: list[dict[str, float]], axes: Any) -> None:
    """Clips a second of the three, every repeat a point."""
    names = {
        "decode": "PyAV, clip by clip",
        "torchcodec": "torchcodec",
        "cache": "tacit's cache",
        "gather": "bare gather",
    }
    names = {name: label for name, label in names.items() if name in rows[0]}
    for place, name in enumerate(names):
        rates = [1 / row[name] for row in rows]
        middle = float(np.median(rates))
        axes.scatter([place] * len(rates), rates, alpha=0.5, color="#2a6f97")
        axes.annotate(f"{middle:,.0f}", (place, middle), (14, -4), textcoords="offset points")
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.set(xlim=(-0.5, len(names) - 0.3), ylabel="clips a second (one thread)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--length", type=int, default=3, help="frames of a clip: lapo's")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20, help="timed together")
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--least", type=float, default=50.0, help="the bar: times the clips of decoding")
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        toy = dots(Board(size=asked.size, goal=False), episodes=asked.episodes, length=51)
        data.save(toy.episodes, Path(home) / "dots")
        sizes = {name: getattr(asked, name) for name in ("size", "length", "batch", "batches", "repeats")}
        rows = measure(Path(home) / "dots", **sizes)
    ratios = {
        "over_decoding": np.array([min(row["decode"], row.get("torchcodec", np.inf)) / row["cache"] for row in rows]),
        "of_gather": np.array([row["cache"] / row["gather"] for row in rows]),
    }
    found = {name: bootstrap(values, statistic=np.median, method="percentile") for name, values in ratios.items()}
    faster, slower = found["over_decoding"], found["of_gather"]
    passed = faster.value >= asked.least and slower.value <= MOST
    peer = "the faster of PyAV and torchcodec" if "torchcodec" in rows[0] else "PyAV"
    rate = 1 / np.median([row["cache"] for row in rows])
    print(
        f"clips of {asked.length} frames at {asked.size}x{asked.size}: {rate:,.0f} a second, {faster.value:.0f} "
        f"times as many as {peer} decodes (bar {asked.least:.0f}); they take {slower.value:.2f} times as long as a "
        f"gather (bar {MOST:.0f})"
    )
    if asked.out:
        Claim(
            claim=f"Clips from the cache come {faster.value:.0f} times as fast as {peer} decodes them, and take "
            f"{slower.value:.2f} times as long as a bare gather of the same bytes.",
            command=shlex.join(["python", "bench/clips.py", *sys.argv[1:]]),
            value={name: interval.value for name, interval in found.items()},
            interval={name: [interval.low, interval.high] for name, interval in found.items()},
            n=len(rows),
            seeds=(0,),
            bar=f"at least {asked.least:.0f} times the clips of decoding, at most {MOST:.0f} times a gather's time",
            passed=bool(passed),
            rows=[{**row} for row in rows],
        ).save(asked.out, draw=partial(drawn, rows))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
