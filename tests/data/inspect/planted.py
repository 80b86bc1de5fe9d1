"""Clean recordings and the defects that are planted in them, shared by the tests of the inspection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.inspect import PASS, Inspection
from tacit.data.toys import dots
from tacit.envs.dots import Board

KEY = "observation.images.main"
LENGTH = 41


def clean(episodes: int = 12, *, board: Board | None = None, seed: int = 3) -> Episodes:
    """Play on an empty board: nothing about it deserves a warning."""
    return dots(board or Board(size=32, goal=False), episodes=episodes, length=LENGTH, seed=seed).episodes


def changed(episodes: Episodes, **plants: Callable[[Episode], Episode]) -> Episodes:
    """The same episodes, those numbered by keyword (``_3``) passed through a function."""
    by_number = {int(k[1:]): change for k, change in plants.items()}
    whole = [by_number.get(i, lambda e: e)(episodes.episode(i)) for i in range(len(episodes))]
    return Episodes.of(whole, space=episodes.spec.space, fps=episodes.spec.fps)


def framed(change: Callable[[np.ndarray], None]) -> Callable[[Episode], Episode]:
    """A defect of the pictures, written into a copy of them."""

    def plant(episode: Episode) -> Episode:
        assert episode.frames is not None
        frames = episode.frames.copy()
        change(frames)
        return episode.replace(frames=frames)

    return plant


def cut(frames: np.ndarray) -> None:
    """Another scene from frame 20 on."""
    frames[20:] = 255 - frames[20:] // 2
    frames[20:, :, :12] = 40


def black(frames: np.ndarray) -> None:
    """Four black frames."""
    frames[12:16] = 0


def fired(inspection: Inspection) -> dict[str, tuple[int, ...]]:
    """The checks that did not pass, and the episodes they name."""
    return {f.check: f.episodes for f in inspection.findings if f.grade != PASS}


def metadata(path: Path, *, episodes: int, length: int = 20, file: int = 1000) -> Path:
    """A LeRobot dataset of many episodes with tables and labels, whose videos are empty files."""
    folders = ("meta/episodes", "data", f"videos/{KEY}")
    for folder in folders:
        (path / folder / "chunk-000").mkdir(parents=True)
    for number, first in enumerate(range(0, episodes, file)):
        n = np.arange(first, min(first + file, episodes))
        at = {f"{k}/{c}": np.full(len(n), v) for k in ("data", f"videos/{KEY}") for c, v in _at(number).items()}
        start = (n - first) * length / 10
        table = {"episode_index": n, "tasks": [["push"]] * len(n), "length": np.full(len(n), length), **at}
        table |= {"dataset_from_index": n * length, "dataset_to_index": (n + 1) * length}
        table |= {f"videos/{KEY}/from_timestamp": start, f"videos/{KEY}/to_timestamp": start + length / 10}
        pq.write_table(pa.table(table), path / f"meta/episodes/chunk-000/file-{number:03d}.parquet")
        frame, random = np.tile(np.arange(length), len(n)), np.random.default_rng(number)
        action = pa.FixedSizeListArray.from_arrays(random.uniform(-1, 1, 2 * len(frame)).astype(np.float32), 2)
        rows = {"action": action, "timestamp": frame / 10, "frame_index": frame, "episode_index": np.repeat(n, length)}
        pq.write_table(pa.table(rows), path / f"data/chunk-000/file-{number:03d}.parquet")
        (path / f"videos/{KEY}/chunk-000/file-{number:03d}.mp4").touch()
    kinds = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64"}
    features = {k: {"dtype": v, "shape": [1], "names": None} for k, v in kinds.items()}
    features |= {"action": {"dtype": "float32", "shape": [2], "names": None}}
    features |= {KEY: {"dtype": "video", "shape": [64, 64, 3], "names": ["height", "width", "channels"]}}
    name = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    info = {"codebase_version": "v3.0", "fps": 10, "total_episodes": episodes, "total_frames": episodes * length}
    info |= {
        "data_path": f"data/{name}.parquet",
        "video_path": f"videos/{{video_key}}/{name}.mp4",
        "features": features,
    }
    (path / "meta" / "info.json").write_text(json.dumps(info))
    return path


def _at(number: int) -> dict[str, int]:
    return {"chunk_index": 0, "file_index": number}
