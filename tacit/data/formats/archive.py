"""An .npz or .npy file read by rows: its declared sizes are checked first, and nothing is unpacked onto the disk."""

from __future__ import annotations

import io
import math
import threading
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple, final

import numpy as np

from tacit.data.formats.stored import MANY, naming, sane
from tacit.data.video import Damaged, bounded

KEPT = 2**26  # bytes of an array that are kept, for going back within a compressed one means beginning again
PIECE = 2**20  # bytes, or rows, read at a time
HEADER = 2**14  # bytes: numpy itself refuses longer ones, but only once it has read them
ONE = threading.Lock()  # numpy has Python parse a header, and Python 3.11 miscounts where two threads parse at once


class Head(NamedTuple):
    """What the header of a stored array says, and where its numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns_first: bool
    offset: int


@final
class Archive:
    """The arrays of one .npz file, or the one of an .npy file, under the name that is given for it."""

    def __init__(self, path: Path) -> None:
        self.path, self._files, self._heads, self._kept = path, {}, {}, {}  # type: ignore[var-annotated]
        self._zip: zipfile.ZipFile | None = None
        with naming(path):
            if not path.is_file():
                raise Damaged("it is no file.")
            if path.suffix == ".npy":
                self._members: dict[str, zipfile.ZipInfo | None] = {"": None}
            else:
                self._zip = zipfile.ZipFile(path)
                inside = [i for i in self._zip.infolist() if i.filename.endswith(".npy")]
                self._members = {i.filename.removesuffix(".npy"): i for i in inside}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            member = self._members[name]
            if member is None:
                self._files[name] = self.path.open("rb")
            else:
                assert self._zip is not None
                # Of the other methods some ask for memory by the gigabyte on a file's word.
                if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise Damaged(f"its member {name!r} is encrypted or packed in a way that numpy does not write.")
                self._files[name] = self._zip.open(member)
        return self._files[name]

    def head(self, name: str) -> Head:
        """The shape and type of an array, once they are sure to be as large as what is stored."""
        if name in self._heads:
            return self._heads[name]
        where = f"{self.path}, array {name!r}" if name else str(self.path)
        with naming(where):
            file, member = self._file(name), self._members[name]
            size = self.path.stat().st_size if member is None else member.file_size
            start = io.BytesIO(file.read(HEADER))
            version = np.lib.format.read_magic(start)
            known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in known:
                raise Damaged(f"its header is of version {version}; wanted plain numbers, which need none such.")
            with ONE:
                shape, first, dtype = known[version](start)
            head = Head(tuple(shape), dtype, bool(first) and len(shape) > 1, start.tell())
            if dtype.kind not in "US" or dtype.itemsize and 0 in shape[1:]:
                sane(shape, dtype, where=where)
            said = head.offset + math.prod(shape) * dtype.itemsize
            if said != size or min(shape, default=0) < 0 or (shape and not dtype.itemsize):
                raise Damaged(f"it says it holds {'x'.join(map(str, shape))} of {dtype} and is {size} bytes long.")
        self._heads[name] = head
        return head

    def rows(self, name: str, start: int = 0, *, stop: int | None = None) -> np.ndarray:
        """Some rows of an array, or all."""
        head, where = self.head(name), f"{self.path}, array {name!r}"
        if not head.shape:
            bounded((1,), head.dtype, where=where)
            return self._read(name, head, 0, 1).reshape(())
        start, stop, _ = slice(start, stop).indices(head.shape[0])
        if name not in self._kept:
            size = math.prod(head.shape) * head.dtype.itemsize
            if not head.columns_first and size > KEPT:
                bounded((stop - start, *head.shape[1:]), head.dtype, where=where)
                each = math.prod(head.shape[1:])
                return self._read(name, head, start * each, (stop - start) * each).reshape(-1, *head.shape[1:])
            bounded(head.shape, head.dtype, where=where)
            flat = self._read(name, head, 0, math.prod(head.shape))
            whole = flat.reshape(head.shape[::-1]).T if head.columns_first else flat.reshape(head.shape)
            if size > KEPT:
                return whole[start:stop]
            self._kept[name] = whole
        return np.array(self._kept[name][start:stop])

    def _read(self, name: str, head: Head, start: int, count: int) -> np.ndarray:
        """``count`` numbers from number ``start`` on."""
        with naming(f"{self.path}, array {name!r}"):
            file, each = self._file(name), head.dtype.itemsize
            file.seek(head.offset + start * each)
            held = bytearray(count * each)
            at, view = 0, memoryview(held)
            while at < len(held):
                piece = file.read(min(PIECE, len(held) - at))
                if not piece:
                    raise Damaged("it breaks off before its end.")
                view[at : at + len(piece)] = piece
                at += len(piece)
            return np.frombuffer(held, head.dtype) if each else np.zeros(count, head.dtype)

    def ends(self, name: str, rows: int) -> np.ndarray:
        """Where the episodes end that lie end to end: exclusive ends as they are told, or the rows that are marked."""
        head, where = self.head(name), f"{self.path}, array {name!r}"
        with naming(where):
            if name == "episode_ends":
                if len(head.shape) != 1 or head.shape[0] > MANY:
                    raise Damaged(f"its shape is {head.shape}; wanted one end an episode.")
                return ordered(self.rows(name), rows, where=where)
            if head.shape not in ((rows,), (rows, 1)):
                raise Damaged(f"its shape is {head.shape}; wanted one mark for each of {rows} rows.")
            found: list[int] = []
            for start in range(0, rows, PIECE):
                marks = self.rows(name, start, stop=start + PIECE).reshape(-1)
                found += (np.flatnonzero(marks > 0.5) + start + 1).tolist()
                if len(found) > MANY:
                    raise Damaged(f"it marks more than {MANY} ends of episodes; that is no recording.")
            if rows and (not found or found[-1] != rows):
                found.append(rows)  # the last episode was cut off, and is no less a recording
            return np.array(found, np.int64)


def ordered(ends: np.ndarray, rows: int, *, where: str) -> np.ndarray:
    """Exclusive ends of episodes, once they are sure to rise and to lie within the data."""
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends) or len(ends) > MANY:
        raise Damaged(f"{where}: the ends of episodes are {ends.dtype} {ends.shape}; wanted one whole number each.")
    told = ends.tolist()  # as numbers of any size: unsigned ones wrap when they are subtracted
    if told[0] < 1 or told[-1] > rows or any(a >= b for a, b in zip(told[:-1], told[1:], strict=True)):
        raise Damaged(f"{where}: the ends of episodes do not rise from above 0 to at most {rows}, the rows there are.")
    return ends.astype(np.int64)
