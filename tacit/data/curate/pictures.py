"""Pictures small enough to hold those of every frame, and how much changes from one to the next."""

from __future__ import annotations

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.reader import BLOCK
from tacit.data.video import resize


def small(episodes: Episodes, number: int, *, side: int = 16) -> np.ndarray:
    """An episode's frames at ``side`` by ``side`` pixels, (T, side, side, 3) uint8, decoded a block at a time."""
    if episodes.spec.frame is None:
        raise ValueError(f"The data {episodes.spec.name!r} holds no frames, and this looks at pictures.")
    row = int(episodes.rows[number])
    return np.concatenate([resize(b, (side, side)) for b in episodes.reader.blocks(row, count=BLOCK)])


def changes(pictures: np.ndarray) -> np.ndarray:
    """How much each pixel moved from one picture to the next, (T-1, side, side), in shares of the range of a byte."""
    after, before = pictures[1:].astype(np.float32), pictures[:-1].astype(np.float32)
    return np.asarray(np.abs(after - before).mean(-1) / 255)
