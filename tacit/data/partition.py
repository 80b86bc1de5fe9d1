"""Which part of a dataset an episode belongs to, written down once so that every later run means the same by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tacit.data.episodes import Episodes
from tacit.data.lerobot import any_camera
from tacit.data.record import ranges
from tacit.part import write

NAMES = ("train", "valid")


def partition(
    path: Path, *, held: float = 0.1, seed: int = 0, names: tuple[str, str] = NAMES, again: bool = False
) -> Episodes:
    """Assign each episode of a native dataset to training or to what is held out, by what it shows; no frame is moved.

    Recordings that show the same are never parted. What is assigned already is kept unless ``again``: of a dataset
    that grew, the new episodes alone are assigned.
    """
    episodes = Episodes(any_camera(path))
    training = set(episodes.split(held, seed=seed)[0].rows.tolist())
    told = ("",) * len(episodes) if again else episodes.splits
    if all(told):
        return episodes
    before = {mark: part for mark, part in zip(episodes.prints, told, strict=True) if part}
    new = (before.get(mark) or names[i not in training] for i, mark in enumerate(episodes.prints))
    return assign(path, [part or other for part, other in zip(told, new, strict=True)])


def assign(path: Path, splits: Sequence[str]) -> Episodes:
    """Write each episode's part beside the dataset, and into ``info.json`` where LeRobot's stretches can say it."""
    reader = any_camera(path)
    if len(splits) != len(reader.lengths):
        raise ValueError(f"{len(splits)} parts were given for {len(reader.lengths)} episodes; wanted one each.")
    told = [about | {"split": split} for about, split in zip(reader.told, splits, strict=True)]
    extra = {"format": 1} | reader.extra | {"episodes": told}
    info = reader.info | {"splits": ranges(splits)}
    for name, value in (("tacit", extra), ("info", info)):
        text = json.dumps(value, indent=1 if name == "info" else None, allow_nan=False)
        write(path / "meta" / f"{name}.json", lambda staged, text=text: Path(staged).write_text(text))
    return Episodes(any_camera(path))
