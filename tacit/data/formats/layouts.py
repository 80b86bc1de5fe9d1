"""The two layouts of a Minari dataset: all episodes in one HDF5 file, or a table in a folder for each."""

from __future__ import annotations

import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from tacit.data.formats.arrow import parquet, plain
from tacit.data.formats.hdf import attribute, child, inside, leaves, listed, numbered, opened, rows, shape
from tacit.data.formats.stored import FACTS, fact, naming, roomy, sane
from tacit.data.video import MOST, Damaged

ABOUT = "metadata.json"
NOTE = 2**25  # bytes of a description: Minari writes the bounds of every pixel into it


class Leaf(NamedTuple):
    """One array of an observation or action: its shape without the steps, and whether its rows are JPEG files."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packed: bool = False


class Found(NamedTuple):
    """What an episode holds: its steps, and the arrays of what was seen and done."""

    steps: int
    seen: dict[str, Leaf]
    done: dict[str, Leaf]
    rewards: Leaf | None
    facts: dict[str, Any]


class Layout(ABC):
    """Where Minari's episodes lie: their names, what each holds, and the rows of an array."""

    names: list[str]

    @abstractmethod
    def look(self, name: str) -> Found:
        """What one episode holds, told without reading its rows."""

    @abstractmethod
    def rows(self, name: str, key: str, *, leaf: Leaf) -> np.ndarray:
        """All rows of one array of an episode."""


@final
class Hdf(Layout):
    """All episodes in one HDF5 file."""

    def __init__(self, path: Path, spaces: dict[str, Leaf]) -> None:
        self._file, self._spaces = opened(path), spaces
        with naming(path):
            self.names = numbered(self._file, "episode_")

    def look(self, name: str) -> Found:
        episode = inside(self._file, name)
        looked = {k: self._leaf(f"observations/{k}", d) for k, d in _arrays(episode, "observations").items()}
        acted = {k: self._leaf(f"actions/{k}", d) for k, d in _arrays(episode, "actions").items()}
        steps = {(*d.shape, -1)[0] for d in _arrays(episode, "actions").values()}
        if len(steps) != 1 or min(steps) < 0:
            raise Damaged(f"its actions have {sorted(steps)} rows; wanted the same for all parts of them.")
        for key, data in _arrays(episode, "observations").items():
            if data.shape[:1] != (min(steps) + 1,):
                raise Damaged(
                    f"its observations {key!r} have {data.shape[:1]} rows; {min(steps)} actions want one more."
                )
        paid = child(episode, "rewards")
        rewards = None if paid is None else self._leaf("rewards/", paid)
        facts = {n: fact(n, attribute(episode, n)) for n in FACTS}
        if None in acted.values():
            raise Damaged("its actions are words; wanted numbers.")
        seen, done = ({k: v for k, v in part.items() if v is not None} for part in (looked, acted))
        return Found(min(steps), seen, done, rewards, facts)

    def _leaf(self, key: str, data: Any) -> Leaf | None:
        """What a dataset holds; nothing where it is text."""
        import h5py

        told = self._spaces.get(key)
        if h5py.check_string_dtype(data.dtype) is not None or data.shape is None:
            return None
        vast = h5py.check_vlen_dtype(data.dtype)
        # JPEG files that are all of one length are not told from rows of numbers by how they are stored.
        if vast == np.uint8 or told is not None and told.packed and data.dtype == np.uint8 and data.ndim == 2:
            if data.external or data.is_virtual or data.ndim > 2 or data.id.get_create_plist().get_nfilters():
                raise Damaged(f"{data.name} is packed twice, or lies in other files; refused.")
            if told is None or not told.packed:
                if not len(data):
                    raise Damaged(f"{data.name} has no picture that would tell their size.")
                return Leaf(_size(next(listed(data))), np.dtype("u1"), True)
            return told
        size = shape(data)
        return Leaf(size[1:], data.dtype)

    def rows(self, name: str, key: str, *, leaf: Leaf) -> np.ndarray:
        import h5py

        group, _, inner = key.partition("/")
        data = _arrays(inside(self._file, name), group)[inner]
        if not leaf.packed:
            return rows(data)
        vast = h5py.check_vlen_dtype(data.dtype) is not None
        return unpacked(listed(data) if vast else map(bytes, rows(data)), leaf, count=len(data))


@final
class Arrow(Layout):
    """A folder for each episode, whose last row has an action that leads nowhere."""

    def __init__(self, path: Path, spaces: dict[str, Leaf], *, kind: str) -> None:
        self._path, self._spaces, self._kind = path, spaces, kind
        self.names = numbered((p.name for p in path.iterdir() if p.is_dir()), "")
        self._held: tuple[str, Any] | None = None

    def look(self, name: str) -> Found:
        told = description(self._path / name / ABOUT)
        steps = told.get("total_steps")
        if type(steps) is not int or not 0 <= steps < 2**40:
            raise Damaged(f"{name}/{ABOUT} says total_steps is {str(steps)[:40]!r}; wanted how many.")
        parts: dict[str, dict[str, Leaf]] = {"observations": {}, "actions": {}}
        for key, leaf in self._spaces.items():
            group, _, inner = key.partition("/")
            parts[group][inner] = leaf
        facts = {n: fact(n, told.get(n)) for n in FACTS}
        paid = Leaf((), np.dtype("f8"))
        return Found(steps, parts["observations"], parts["actions"], paid, facts)

    def rows(self, name: str, key: str, *, leaf: Leaf) -> np.ndarray:
        if self._held is None or self._held[0] != name:
            self._held = name, self._table(name)
        group, _, inner = key.partition("/")
        column = self._held[1].column(group)
        for part in filter(None, inner.split("/")):
            column = column.field(part.removeprefix("_index_"))
        if leaf.packed:
            return unpacked((column[i].as_py() for i in range(len(column))), leaf, count=len(column))
        count = len(column)
        while hasattr(column, "flatten") and column.type.num_fields:
            column = column.flatten()
        if column.null_count or len(column) != count * math.prod(leaf.shape):
            raise Damaged(f"its {key} have {len(column)} numbers in {count} rows; wanted {leaf.shape} in each.")
        value = column.to_numpy(zero_copy_only=False).reshape(count, *leaf.shape)
        sane(value.shape, value.dtype, where=f"its {key}")
        return value if group == "observations" else value[:-1]

    def _table(self, name: str) -> Any:
        import pyarrow as pa

        try:
            files = sorted((self._path / name).glob(f"part-*.{self._kind}"))
            if len(files) != 1 or not files[0].is_file() or files[0].stat().st_size > MOST:
                raise Damaged(f"its folder holds {len(files)} files part-*.{self._kind}, or a vast one; wanted one.")
            table = parquet(files[0]) if self._kind == "parquet" else plain(files[0])
        except pa.ArrowException as error:
            raise Damaged(str(error)) from error
        return table


def _arrays(episode: Any, group: str) -> dict[str, Any]:
    """The datasets of a part of an episode; one that is the whole part has no name."""
    found = child(episode, group)
    if found is None:
        raise Damaged(f"{episode.name}/{group} is missing.")
    return {"": found} if type(found).__name__ == "Dataset" else leaves(found)


def _size(raw: bytes) -> tuple[int, ...]:
    from PIL import Image

    wide, high = Image.open(io.BytesIO(raw), formats=["JPEG"]).size
    return high, wide, 3


def unpacked(pictures: Iterator[bytes], leaf: Leaf, *, count: int) -> np.ndarray:
    """Frames from JPEG files, each of the size that was told before any is decoded."""
    from PIL import Image

    high, wide = leaf.shape[:2]
    roomy((count, high, wide, 3), np.dtype("u1"), where="its pictures")
    frames = np.empty((count, high, wide, 3), np.uint8)
    for number, raw in enumerate(pictures):
        picture = Image.open(io.BytesIO(raw), formats=["JPEG"])
        if picture.size != (wide, high):
            raise Damaged(f"its picture {number} is {picture.size[1]}x{picture.size[0]}; wanted {high}x{wide}.")
        frames[number] = np.asarray(picture.convert("RGB"))
    return frames


def description(file: Path) -> dict[str, Any]:
    """A metadata.json."""
    with naming(file):
        if not file.is_file() or file.stat().st_size > NOTE:
            raise Damaged(f"it is missing, or of more than {NOTE} bytes.")
        value = json.loads(file.read_text("utf-8"))
        if not isinstance(value, dict):
            raise Damaged(f"it holds a {type(value).__name__}; wanted an object.")
        return value
