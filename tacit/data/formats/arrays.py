"""npz and npy: arrays under the names that people give them, an episode a file, or many end to end in one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.file import whole
from tacit.data.formats.archive import Archive
from tacit.data.formats.film import SUFFIXES
from tacit.data.formats.stored import FACTS, HELD, Stored, Told, chosen, fact, frame, naming, rate, sane, space
from tacit.data.reader import Reader
from tacit.data.video import Damaged

WHAT = "numpy arrays: .npz or .npy, an episode a file, or many in one"
EXTRA = ""

NAMES = {
    "frames": ("frames", "video", "images", "image", "observations", "obs"),
    "state": ("state", "states", "observations", "obs"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
}
ENDS = ("episode_ends", "terminals", "dones")


class _Place(NamedTuple):
    """Where an episode lies: in which file, between which rows, and under which name each of its columns."""

    file: Path
    start: int
    stop: int
    names: dict[str, str]


@final
class Arrays(Stored):
    """A folder of .npz or .npy files, or one of them; of each only the headers are read until its rows are wanted."""

    def __init__(self, path: Path, *, camera: str | None = None) -> None:
        files = [path] if path.is_file() else _files(path)
        if not files:
            raise FileNotFoundError(f"{path} holds no .npz and no .npy file; wanted one, or a folder of some.")
        self._camera, self._places = camera, list[_Place]()
        self._open: tuple[Path, Archive] | None = None
        told: list[Told] = []
        for file in files:
            try:
                found = list(self._found(Archive(file), alone=len(files) == 1))
            except Damaged as error:
                if len(files) == 1:
                    raise
                found = [(Told(file.name, fault=str(error)), _Place(file, 0, 0, {}))]
            told += [t for t, _ in found]
            self._places += [p for _, p in found]
        super().__init__(path, told, camera=camera)

    def _found(self, archive: Archive, *, alone: bool) -> Iterator[tuple[Told, _Place]]:
        """The episodes of one file, and where each lies in it."""
        names = self._names(archive)
        heads = {column: archive.head(name) for column, name in names.items()}
        rows = next((h.shape[0] for c, h in heads.items() if c in ("frames", "state") and h.shape), 0)
        if not rows:
            raise Damaged(
                f"{archive.path} holds {archive.names[:12]}; wanted {' or '.join(NAMES['frames'])}, with rows."
            )
        mark = next((n for n in ENDS if n in archive), None)
        # A mark of each step, and not of each frame, says of one episode that it ended.
        many = mark is not None and not (mark != ENDS[0] and archive.head(mark).shape == (rows - 1,))
        ends = archive.ends(mark, rows) if many and mark else np.array([rows])
        facts, fps, held = self._told(archive, len(ends))
        start = 0
        for number, end in enumerate(ends.tolist()):
            told = Told(archive.path.name, end - start, fps=fps, space=held, facts=facts[number])
            told.name += f" episode {number}" if many and len(ends) > 1 else ""
            told.name = f"episode {number}" if alone and len(ends) > 1 else told.name
            with naming(archive.path):
                for column, head in heads.items():
                    sane(head.shape, head.dtype, where=f"its {column}")
                    if len(ends) > 1 and head.shape[:1] != (rows,):
                        raise Damaged(f"its {column} have {head.shape[:1]} rows, its other columns {rows}.")
                    size = (end - start, *head.shape[1:]) if len(ends) > 1 else head.shape
                    told.admit(column, size, dtype=head.dtype)
            yield told, _Place(archive.path, start, end, names)
            start = end

    def _names(self, archive: Archive) -> dict[str, str]:
        """Under which name each column lies in a file."""
        if archive.names == [""]:
            head = archive.head("")
            column = "frames" if frame(head.shape, head.dtype) else "state"
            if column == "state" and len(head.shape) not in (1, 2):
                raise Damaged(
                    f"{archive.path} is {head.dtype} {head.shape}; wanted frames (T, H, W, 3) or state (T, S)."
                )
            return {column: ""}
        usual = NAMES["frames"] if self._camera is None else tuple(archive.names)
        seen = [n for n in usual if n in archive and frame(*archive.head(n)[:2])]
        camera = chosen(seen, self._camera)
        names = {} if camera is None else {"frames": camera}
        for column in HELD[1:]:
            flat = (1, 2) if column == "state" else range(9)
            found = (n for n in NAMES[column] if n in archive and len(archive.head(n).shape) in flat)
            name = next(found, None)
            if name is not None:
                names[column] = name
        return names

    def _told(self, archive: Archive, count: int) -> tuple[list[dict[str, Any]], float, Any]:
        """What a file tells of each of its episodes, of their rate and of their actions."""
        with naming(archive.path):
            values = {n: archive.rows(n) for n in (*FACTS, "fps", "space") if n in archive}
            facts: list[dict[str, Any]] = [{} for _ in range(count)]
            for name in FACTS.keys() & values.keys():
                told = values[name].tolist()
                told = told if isinstance(told, list) and len(told) == count else [told] * count
                for one, value in zip(facts, told, strict=True):
                    one[name] = fact(name, value)
            fps = rate(values["fps"].reshape(-1).tolist()[0]) if "fps" in values else 10.0
            return facts, fps, space(values["space"].item()) if "space" in values else None

    def values(self, number: int, column: str) -> np.ndarray:
        file, start, stop, names = self._places[number]
        if self._open is None or self._open[0] != file:
            self._open = file, Archive(file)
        return self._open[1].rows(names[column], start, stop=stop)


def _files(path: Path) -> list[Path]:
    held = sorted(f for f in path.iterdir() if f.suffix in (".npz", ".npy") and f.is_file())
    return [f for f in held if f.suffix == ".npz"] or held


def recognises(path: Path) -> bool:
    """Whether it is an .npz or .npy file, or a folder of such; beside videos they only say what those do not show."""
    try:
        if not path.is_dir():
            return path.suffix in (".npz", ".npy") and path.is_file()
        return bool(_files(path)) and not any(f.suffix.lower() in SUFFIXES for f in path.iterdir())
    except (OSError, ValueError):
        return False


def read(path: Path, *, camera: str | None = None) -> Reader:
    """The episodes of a folder of files, or of one file."""
    return Arrays(Path(path), camera=camera)


def write(episodes: Episodes, path: Path) -> None:
    """A folder with an .npz for each episode: T frames, T-1 actions, and what is told of it as scalars."""
    with whole(Path(path)) as staged:
        staged.mkdir()
        for number in range(len(episodes)):
            episode = episodes.episode(number)
            values = {column: getattr(episode, column) for column in HELD}
            values |= {name: getattr(episode, name) for name in FACTS if getattr(episode, name) != FACTS[name][0]}
            if episodes.spec.space is not None:
                values["space"] = json.dumps(dataclasses.asdict(episodes.spec.space))
            held: dict[str, Any] = {n: np.asarray(v) for n, v in values.items() if v is not None}
            np.savez_compressed(staged / f"episode_{number:06d}.npz", fps=episodes.spec.fps, **held)
