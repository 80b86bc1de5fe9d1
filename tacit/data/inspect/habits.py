"""Whether demonstrators leave anything to be found in their video, asked of a sample: cheap enough before training."""

from __future__ import annotations

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.inspect import fits
from tacit.data.inspect.films import GRID, Film, streamed
from tacit.data.inspect.findings import Finding
from tacit.data.inspect.labels import labels
from tacit.data.video import resize

FRAMES, LEAST = 4000, 8  # how many frames are looked at, of how many episodes at least
BYTES = 2**31  # of decoded pictures at most, so that large ones take no longer; but always FEWEST frames
FEWEST = 400


def habits(episodes: Episodes) -> Finding | None:
    """How much of the action is told by what is seen before it, of a sample; nothing where no label is to be seen.

    The sample is the beginning of episodes spread evenly over those with labels: all of each where they are short.
    """
    space = episodes.spec.space
    if space is None:
        return None
    told = np.flatnonzero(np.logical_or.reduceat(episodes.mask, episodes.starts)) if len(episodes) else np.zeros(0)
    if not len(told):
        return None
    frame = episodes.spec.frame or (1, 1)
    budget = int(np.clip(BYTES // (frame[0] * frame[1] * 3), FEWEST, FRAMES))
    wanted = max(LEAST, budget // max(1, int(np.median(episodes.lengths[told]))))
    picked = told[np.unique(np.linspace(0, len(told) - 1, min(len(told), wanted)).round().astype(int))]
    return fits.settled([_begun(episodes, int(i), count=budget // len(picked)) for i in picked], space)


def _begun(episodes: Episodes, number: int, *, count: int) -> Film:
    """The beginning of an episode and what lies beside it; what cannot be read is left to others to say."""
    space, reader, film = episodes.spec.space, episodes.reader, Film(number, int(episodes.lengths[number]))
    assert space is not None
    try:
        if streamed(reader):
            one = episodes.select([number])
            frames = None if episodes.spec.frame is None else next(reader.blocks(int(one.rows[0]), count=count))
            actions, state = one.column("actions"), one.column("state")
        else:
            episode = episodes.episode(number)
            frames, actions, state = episode.frames, episode.actions, episode.state
    except (ValueError, OSError, StopIteration) as error:
        film.why = str(error) or "no frames"
        return film
    film.seen = count = min(count, film.length if frames is None else len(frames))
    film.small = None if frames is None else resize(np.asarray(frames[:count]), (GRID, GRID))
    film.state = None if state is None else np.array(state[:count], np.float32)
    if actions is not None and count > 1:
        film.labels = labels(np.asarray(actions[: count - 1]), space, span=slice(0, count - 1))
    return film
