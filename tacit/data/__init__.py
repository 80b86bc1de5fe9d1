"""Data: recordings in, clips out; the native format, the decoded cache, and nothing that trains."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tacit.data import collection
from tacit.data.cache import MARK, Cached, cache
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.data.formats import FORMATS, SEEN, lerobot21, recognised
from tacit.data.lerobot import LeRobot
from tacit.data.reader import Joined, Memory, Reader, Spec, content
from tacit.data.record import STAGE, Writer, save
from tacit.data.transfer import Brought, stopped, transfer
from tacit.data.video import Damaged
from tacit.data.view import View, Viewed

__all__ = [
    "Brought",
    "Cached",
    "Clips",
    "Damaged",
    "Episodes",
    "Joined",
    "LeRobot",
    "Memory",
    "Reader",
    "Spec",
    "View",
    "Writer",
    "cache",
    "content",
    "open",
    "save",
    "transfer",
]


log = logging.getLogger("tacit")
LEFT = {"transfer.json", "merge.json", "label.json", "tacit.json", "tasks.parquet", "tasks.jsonl", "episodes"}


def open(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    camera: str | None = None,
    view: View | Mapping[str, Any] = View(),
) -> Episodes:
    """The episodes that lie at ``path``, in whatever format; with ``size`` their frames are of that size, decoded once.

    ``view`` asks for another rate, a part of the picture or another size, seen anew at every reading.
    """
    place, wanted = Path(path), view if isinstance(view, View) else View.of(dict(view))
    if not place.exists():
        raise FileNotFoundError(f"There is nothing at {place}: the path does not exist. Is it spelt right?")
    if place.name.endswith(".partial"):
        raise Damaged(f"{place} is half written by a command that was stopped; give that command again.")
    if place.is_dir() and _begun(place):
        raise Damaged(
            f"{place} lacks meta/info.json: a command was stopped there. Give it again, or tacit data repair."
        )
    if place.is_dir() and not any(place.iterdir()):
        raise FileNotFoundError(
            f"There is nothing at {place}: the folder is empty. Put recordings there, or give another."
        )
    episodes = Episodes(_reader(place, camera, wanted))
    if not len(episodes):
        raise ValueError(f"The dataset at {place} holds no episodes; record or copy some first.")
    return episodes if size is None else cache(episodes, size=size)


Reader.open = staticmethod(open)


def _reader(place: Path, camera: str | None, view: View) -> Reader:
    reader: Reader
    if (place / collection.NOTE).is_file():
        return collection.together(place, lambda member: _member(member, camera, view), camera=camera, view=view)
    if (place / "index.json").exists() or (place / MARK).exists():
        reader = Cached(place)
    elif (place / "meta" / "info.json").exists() and not lerobot21.recognises(place):
        reader = LeRobot(place, camera=camera)
        reader.unfinished = stopped(place, there=len(reader.lengths))
        if reader.unfinished and multiprocessing.parent_process() is None:  # said once, and not by every worker
            log.warning("%s is not whole: %s.", place, reader.unfinished)
    else:
        name = recognised(place)
        if name is None:
            raise ValueError(_unknown(place))
        module = FORMATS[name]
        if name in SEEN:  # their times and sizes differ from file to file, so they are brought to one while decoding
            return cast(Reader, module.read(place, camera=camera, view=view))
        reader = module.read(place, camera=camera)
    return reader if view == View(longest=view.longest) else Viewed(reader, view)


def _begun(place: Path) -> bool:
    """Whether somebody began to write a dataset there, whose video files, of many episodes each, are no recordings."""
    meta = place / "meta"
    if (meta / "info.json").exists() or (place / collection.NOTE).exists():
        return False
    held = {path.name for path in meta.iterdir()} if meta.is_dir() else set()
    return (place / STAGE).is_dir() or bool(held & LEFT)


def _member(place: Path, camera: str | None, view: View) -> Reader:
    if (place / collection.NOTE).exists() or not (place / "meta" / "info.json").is_file():
        raise Damaged(f"{place} is named by a collection and is no dataset; put it back, or merge again.")
    return _reader(place, camera, view)


def _unknown(place: Path) -> str:
    """What was found instead of a dataset, and what would have been one."""
    inside = place.iterdir() if place.is_dir() else [place]
    kinds = Counter("folder" if p.is_dir() else p.suffix or "file without a suffix" for p in inside)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    known = ", ".join(["lerobot", *FORMATS])
    return (
        f"{place} holds no recording in a known format (found: {found}). Known are {known}; tacit data --help says "
        "what each is."
    )
