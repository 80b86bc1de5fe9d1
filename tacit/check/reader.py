"""What a reader promises: episodes as its spec says, windows inside one episode, and splits that share none."""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.check.promise import Broken, equal
from tacit.clip import Episode
from tacit.data.episodes import BETWEEN, COLUMNS, Episodes
from tacit.data.reader import Reader, Spec, content


def check_reader(source: Reader | Episodes, *, length: int = 3, most: int = 64) -> None:
    """Hold a reader, or a set of episodes, to its spec, to windows inside one episode and to splits that share none."""
    episodes = source if isinstance(source, Episodes) else Episodes(source)
    _episodes(source, episodes, most)
    if (episodes.lengths >= length).any():
        _windows(source, episodes, length=length, most=most)
    if len(set(episodes.prints)) < 2:
        return
    train, held = episodes.split(0.25)
    shared = train.overlap(held.prints)
    if shared or len(train) + len(held) != len(episodes) or not len(train) or not len(held):
        raise Broken(
            source,
            "training and held-out data share no episode, and leave none out",
            seen=f"of {len(episodes)} {len(train)} are for training, {len(held)} are held out and {shared} are in both",
            look="Split whole episodes by their content, never windows.",
        )


def _episodes(source: Any, episodes: Episodes, most: int) -> None:
    columns = {name: episodes.column(name) for name in COLUMNS[1:]}
    told = (episodes.sources, episodes.texts, episodes.successes)
    shown: dict[str, str] = {}  # by what they show: prints, which outlive another size or compression
    for number in np.unique(np.linspace(0, len(episodes) - 1, most).astype(int)).tolist():
        episode, printed = episodes.episode(number), episodes.prints[number]
        wrong = _unlike(episode, episodes.spec, int(episodes.lengths[number]))
        if not wrong and not equal(episode, episodes.episode(number)):
            wrong = "read twice it was not the same"
        facts = (episode.source, episode.text, episode.success)
        if not wrong and facts != tuple(column[number] for column in told):
            wrong = f"its source, text and success are {facts}, and listed as {tuple(c[number] for c in told)}"
        if not wrong and shown.setdefault(content(episode), printed) != printed:
            wrong = "it shows what another shows, whose print is another"
        if wrong:
            raise Broken(
                source,
                "an episode is what the reader says of it, each time",
                seen=f"episode {number}: {wrong}",
                look="Compare `episode` with `spec`, `lengths` and the lists of prints, sources and texts.",
            )
        start = int(episodes.starts[number])
        for name, rows in columns.items():
            value = getattr(episode, name)
            if value is not None and (rows is None or not equal(rows[start : start + len(value)], value)):
                raise Broken(
                    source,
                    "a column is its episodes end to end, one row a frame",
                    seen=f"column {name!r} does not hold episode {number} from row {start} on",
                    look="What lies between two frames has a blank row after each episode's last.",
                )


def _unlike(episode: Episode, spec: Spec, length: int) -> str:
    """In what an episode is not as its spec says; nothing if it is."""
    if len(episode) != length:
        return f"it has {len(episode)} frames, and its length is given as {length}"
    wanted: dict[str, tuple[int, ...] | None] = {"frames": spec.frame and (*spec.frame, 3), "state": (spec.state,)}
    wanted |= {"latents": (spec.latent,), "codes": (spec.codes,), "rewards": ()}
    kinds = {"frames": "uint8", "state": "float32", "latents": "float32", "codes": "int64", "rewards": "float32"}
    for name, shape in wanted.items():
        value, has = getattr(episode, name), spec.has(name)
        if value is not None and not has or value is None and has and name not in BETWEEN:
            return f"it {'has' if has is False else 'lacks'} {name}, and the spec says otherwise"
        if value is not None and (value.shape[1:] != shape or value.dtype.name != kinds[name]):
            return f"its {name} are {value.dtype} {value.shape}; wanted {kinds[name]} (T, *{shape})"
    if episode.actions is None:
        return ""
    if spec.space is None:
        return "it has actions, and the spec gives no space"
    try:
        checked = spec.space.check(episode.actions, length - 1)
    except ValueError as error:
        return str(error)
    return "" if checked.dtype == episode.actions.dtype else f"its actions are {episode.actions.dtype}"


def _windows(source: Any, episodes: Episodes, *, length: int, most: int) -> None:
    """Every window is a stretch of one episode, all columns in step; looked at hardest where episodes begin and end."""
    clips: Any = episodes.clips(length)
    counts = np.maximum(0, episodes.lengths - length + 1)
    owner = np.repeat(np.arange(len(episodes)), counts)
    starts = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    if len(clips) != len(owner) or not np.array_equal(clips.episodes, owner):
        raise _astray(source, f"there are {len(clips)} windows of {length} frames where {len(owner)} fit")
    stops = np.cumsum(counts)[counts > 0]
    edges = np.concatenate([stops - 1, stops[:-1]])[:most]
    rows = np.unique(np.concatenate([np.linspace(0, len(owner) - 1, most).astype(int), edges]))
    clip = clips.batch(rows)
    assert clip.ends is not None
    for i, row in enumerate(rows):
        start, episode = int(starts[row]), episodes.episode(int(owner[row]))
        for name in ("frames", "state", "actions", "latents", "rewards"):
            held, given = getattr(episode, name), getattr(clip, name)
            if held is None:
                continue
            stop = start + length - (name in BETWEEN)
            shown = None if given is None else given[i].movedim(1, -1) if name == "frames" else given[i]
            if shown is None or not equal(np.ascontiguousarray(held[start:stop]), shown):
                raise _astray(source, f"window {row} should show {name} {start} to {stop - 1} of episode {owner[row]}")
        if bool(clip.ends[i]) != (start + length == len(episode)):
            raise _astray(source, f"window {row} says wrongly whether its episode ends there")
    space = episodes.spec.space
    known = None if space is None or clip.actions is None else space.labelled(clip.actions)
    if known is not None and (clip.mask is None or not equal(clip.mask, known)):
        raise _astray(source, "the mask does not say which actions somebody recorded")


def _astray(source: Any, seen: str) -> Broken:
    return Broken(
        source,
        "a window is a stretch of one episode, with every column in step",
        seen=seen,
        look="Look at the first and last windows of each episode, and at offsets between frames and actions.",
    )
