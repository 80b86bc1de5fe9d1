"""Stillness: the wait before and after, in which nobody acts and nothing is to be learnt."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tacit.data.curate.dropped import Drop, Dropped
from tacit.data.curate.pictures import changes, small
from tacit.data.curate.stretched import called, stretches
from tacit.data.episodes import Episodes

Where = Literal["frames", "state"]


def movement(episodes: Episodes, *, of: Where | None = None) -> list[np.ndarray]:
    """How much moves in each transition of each episode, one (T-1,) array an episode.

    In pictures it is the change of the part that changes most, a share of the range of a byte; in the state (taken
    where there are no pictures, or if asked for) that of the number that changes most, in its deviation over the set.
    """
    if of is None:
        of = "frames" if episodes.spec.frame is not None else "state"
    if of == "frames":
        return [changes(small(episodes, i)).max((1, 2), initial=0) for i in range(len(episodes))]
    state = episodes.column("state")
    if state is None:
        raise ValueError(f"The data {episodes.spec.name!r} holds no state; look for movement in its frames.")
    unit = state.astype(np.float64).std(0)
    moves = np.abs(np.diff(state, axis=0)) / np.where(unit > 0, unit, 1)
    starts, lengths = episodes.starts.tolist(), episodes.lengths.tolist()
    return [moves[a : a + n - 1].max(1, initial=0) for a, n in zip(starts, lengths, strict=True)]


def trim(
    episodes: Episodes, *, still: float = 0.02, margin: int = 1, least: float = 0.05, of: Where | None = None
) -> tuple[Episodes, Dropped]:
    """Episodes without their still ends; where less than the share ``least`` of one moves, all of it is dropped.

    ``still`` is the most that ``movement`` may say of a transition in which nothing moves; ``margin`` frames of rest
    are left at either end, for a policy must see from where one sets out, and that one stops.
    """
    spans, gone, names = [], [], episodes.names
    for number, moves in enumerate(movement(episodes, of=of)):
        length, lively = len(moves) + 1, np.flatnonzero(moves > still)
        share = len(lively) / max(1, len(moves))
        if not len(lively) or share < least:
            gone.append(Drop(names[number], number, share, f"still: less than {least:.0%} of its transitions move"))
            continue
        start, stop = max(0, int(lively[0]) - margin), min(length, int(lively[-1]) + 2 + margin)
        spans.append((number, start, stop))
        for a, b in ((0, start), (stop, length)):
            if a < b:
                most = float(moves[a : min(b, len(moves))].max(initial=0))
                gone.append(Drop(called(names[number], a, stop=b), number, most, "a still end", part=True))
    if not spans:
        raise ValueError(f"Nothing moves in any of {len(episodes)} episodes (still={still:g}); lower it, or `least`.")
    return stretches(episodes, spans), Dropped(tuple(gone), len(episodes))
