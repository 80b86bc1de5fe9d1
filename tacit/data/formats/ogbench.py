"""OGBench: one .npz of all steps end to end, each trajectory's last row with an action that leads nowhere."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.file import whole
from tacit.data.formats.archive import Archive
from tacit.data.formats.stored import HELD, Stored, about, ended, flatly, frame, naming, sane
from tacit.data.reader import Reader
from tacit.data.video import Damaged

WHAT = "OGBench: one .npz with observations, actions and terminals"
EXTRA = ""

KEYS = {"observations", "actions", "terminals"}
OURS = "tacit"  # what the format has no room for, as JSON; its own loader passes over it


@final
class Ogbench(Stored):
    """One file; the rows of an episode are read when it is asked for."""

    def __init__(self, path: Path, *, camera: str | None = None) -> None:
        self._archive = Archive(path)
        missing = sorted(KEYS - set(self._archive.names))
        if missing:
            raise Damaged(f"{path} holds {self._archive.names[:12]}; wanted {', '.join(missing)} too.")
        if camera not in (None, "observations"):
            raise ValueError(f"{camera!r} was asked for; the only camera of {path} is 'observations'.")
        seen = self._archive.head("observations")
        pictures = frame(seen.shape, seen.dtype) is not None
        self._names = {"frames" if pictures else "state": "observations", "actions": "actions"}
        others = {"rewards", "state"} - set(self._names)  # qpos and qvel are what a simulator is set to
        self._names |= {name: name for name in others if name in self._archive}
        rows = seen.shape[0] if seen.shape else 0
        self._ends = self._archive.ends("terminals", rows)
        with naming(path):
            told = flatly(self._ends, self._told())
            for column, name in self._names.items():
                head = self._archive.head(name)
                sane(head.shape, head.dtype, where=f"its {name}")
                if head.shape[:1] != (rows,) or len(head.shape) > 2 and column != "frames":
                    raise Damaged(f"its {name} have the shape {head.shape}; wanted {rows} rows of numbers.")
                for one in told:
                    one.admit(column, (one.length, *head.shape[1:]), dtype=head.dtype)
        super().__init__(path, told, camera=camera)

    def _told(self) -> Any:
        return json.loads(self._archive.rows(OURS).item()) if OURS in self._archive else None

    def values(self, number: int, column: str) -> np.ndarray:
        stop = int(self._ends[number])
        return self._archive.rows(self._names[column], stop - self.told[number].length, stop=stop)


def recognises(path: Path) -> bool:
    """Whether it is one .npz file with the three arrays, and without ends of episodes told otherwise."""
    try:
        names = set(Archive(path).names) if path.suffix == ".npz" and path.is_file() else set()
    except (OSError, ValueError):
        return False
    return names >= KEYS and "episode_ends" not in names


def read(path: Path, *, camera: str | None = None) -> Reader:
    """The trajectories of one file."""
    return Ogbench(Path(path), camera=camera)


def write(episodes: Episodes, path: Path) -> None:
    """One .npz; pictures are its observations where there are any, and state then lies beside them."""
    spec, total = episodes.spec, int(episodes.lengths.sum())
    seen = "state" if spec.frame is None else "frames"
    actions = ended(episodes, "actions")
    if actions is None:
        raise ValueError(f"{spec.name!r} holds no action, and OGBench's loader wants some; write --to arrays instead.")
    terminals = np.zeros(total, np.float32)
    terminals[episodes.starts + episodes.lengths - 1] = 1
    flat = {"actions": actions, "terminals": terminals, OURS: np.asarray(json.dumps(about(episodes)))}
    flat |= {c: v for c in HELD[1:] if c not in (seen, "actions") and (v := ended(episodes, c)) is not None}
    with whole(Path(path)) as staged, zipfile.ZipFile(staged, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in flat.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
        with file.open("observations.npy", "w", force_zip64=True) as member:
            for piece in _observed(episodes, seen, total):
                member.write(piece)


def _observed(episodes: Episodes, column: str, total: int) -> Iterator[bytes]:
    """The observations as an .npy, an episode at a time: all pictures together need not fit in memory."""
    for number in range(len(episodes)):
        value = getattr(episodes.episode(number), column)
        if not number:
            shape = (total, *value.shape[1:])
            header = io.BytesIO()
            told = {"descr": value.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, told)
            yield header.getvalue()
        yield np.ascontiguousarray(value).tobytes()
