"""Data: recordings in, clips out; the native format, the decoded cache, and nothing that trains."""

from __future__ import annotations

import os
from pathlib import Path

from tacit.data.cache import Cached, cache
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.data.lerobot import LeRobot
from tacit.data.reader import Joined, Memory, Reader, Spec, content
from tacit.data.record import Writer, save
from tacit.data.video import Damaged

__all__ = [
    "Cached",
    "Clips",
    "Damaged",
    "Episodes",
    "Joined",
    "LeRobot",
    "Memory",
    "Reader",
    "Spec",
    "Writer",
    "cache",
    "content",
    "open",
    "save",
]


def open(
    path: str | os.PathLike[str], *, size: int | tuple[int, int] | None = None, camera: str | None = None
) -> Episodes:
    """The episodes of a dataset folder, or of a cache; with ``size`` their frames are of that size, decoded once."""
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(
            f"There is no dataset at {folder}: the folder does not exist. Check the path, or collect one there."
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; wanted the folder of a LeRobotDataset v3.0.")
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"There is no dataset at {folder}: the folder is empty. Collect or copy one there.")
    cached = (folder / "index.json").exists()
    episodes = Episodes(Cached(folder) if cached else LeRobot(folder, camera=camera))
    if not len(episodes):
        raise ValueError(f"The dataset at {folder} holds no episodes; record or copy some first.")
    return episodes if size is None else cache(episodes, size=size)
