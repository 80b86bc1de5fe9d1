"""Which part of a dataset an episode belongs to, written down once so that every later run means the same by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tacit.data.episodes import Episodes
from tacit.data.lerobot import LeRobot
from tacit.data.record import ranges
from tacit.part import write

NAMES = ("train", "valid")


def partition(
    path: Path, *, held: float = 0.1, seed: int = 0, names: tuple[str, str] = NAMES, again: bool = False
) -> Episodes:
    """Assign each episode of a native dataset to training or to what is held out, by what it shows; no frame is moved.

    Recordings that show the same are never parted. An assignment that is there already is kept unless ``again``.
    """
    episodes = Episodes(LeRobot(path))
    kept, _ = episodes.split(held, seed=seed)
    if any(episodes.splits) and not again:
        return episodes
    training = set(kept.rows.tolist())
    return assign(path, [names[0] if i in training else names[1] for i in range(len(episodes))])


def assign(path: Path, splits: Sequence[str]) -> Episodes:
    """Write each episode's part beside the dataset, and into ``info.json`` where LeRobot's stretches can say it."""
    reader = LeRobot(path)
    if len(splits) != len(reader.lengths):
        raise ValueError(f"{len(splits)} parts were given for {len(reader.lengths)} episodes; wanted one each.")
    told = [about | {"split": split} for about, split in zip(reader.told, splits, strict=True)]
    extra = {"format": 1} | reader.extra | {"episodes": told}
    info = reader.info | {"splits": ranges(splits)}
    for name, value in (("tacit", extra), ("info", info)):
        text = json.dumps(value, indent=1 if name == "info" else None, allow_nan=False)
        write(path / "meta" / f"{name}.json", lambda staged, text=text: Path(staged).write_text(text))
    return Episodes(LeRobot(path))
