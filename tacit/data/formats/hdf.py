"""HDF5 opened so that it leads to no other file, and read so that what is packed in it cannot swell without bound."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.file import need
from tacit.data.formats.stored import naming, overlap, roomy, sane
from tacit.data.reader import BLOCK
from tacit.data.video import Damaged

SUFFIXES = (".hdf5", ".h5")
CHUNK = 2**28  # bytes of one chunk, unpacked
CHUNKS = 2**18  # chunks that one episode's rows may lie in
NOTE = 2**22  # bytes of an attribute, or of a list of names
REFERENCE = "V16"  # how what is of any length is stored: as a reference into a heap


def opened(path: Path) -> Any:
    """An HDF5 file, to be read; it need not be whole, and one line says if it is not."""
    need("h5py", reading=f"{path.name}, an HDF5 file,")
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the path.")
    with naming(path):
        file = h5py.File(path, "r", locking="best-effort")
        if file.userblock_size or file.id.get_create_plist().get_sizes() != (8, 8):
            raise Damaged("it is laid out as h5py never does; repack it with h5repack.")
        return file


@contextlib.contextmanager
def created(path: Path, *, ordered: bool = False) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A new HDF5 file to write into, and what to call between episodes: it stops the writing once the disk is full."""
    import h5py

    with contextlib.closing(_Sink(path)) as sink:
        with h5py.File(sink, "w", track_order=ordered) as file:
            yield file, sink.check
        sink.check()


class _Sink:
    """A file that never fails the library, which crashes where it closes what could not be written.

    What no longer fits is held in memory, an episode at most, and ``check`` says so.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at, self._held = 0, list[tuple[int, bytes]]()
        self._failed: BaseException | None = None

    def check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self._failed is None and done < len(view):
                done += os.pwrite(self._handle, view[done:], self._at + done)
        except BaseException as error:  # Ctrl-C too: between two lines of this the library is as easily lost
            self._failed = error
        if done < len(view):
            self._held.append((self._at, bytes(view)))
        self._at += len(view)
        return len(view)

    def readinto(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        found = os.pread(self._handle, len(view), self._at)
        view[: len(found)], view[len(found) :] = found, bytes(len(view) - len(found))
        for at, held in self._held:
            first, last = max(at, self._at), min(at + len(held), self._at + len(view))
            if first < last:
                view[first - self._at : last - self._at] = held[first - at : last - at]
        self._at += len(view)
        return len(view)

    read = readinto  # never called; the library knows a file by it

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        ends = (os.fstat(self._handle).st_size, *(at + len(held) for at, held in self._held))
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: max(ends)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int) -> int:
        try:
            if self._failed is None:
                os.ftruncate(self._handle, size)
        except OSError as error:
            self._failed = error
        return size

    def flush(self) -> None:
        """There is nothing that is not written yet."""

    def close(self) -> None:
        os.close(self._handle)


def child(group: Any, name: str, *, depth: int = 0) -> Any:
    """What lies in a group under a name, if it lies in the same file; ``None`` if there is nothing."""
    import h5py

    link = group.get(name, getlink=True) if name in group.keys() else None  # noqa: SIM118  (`in` follows links)
    if link is None:
        return None
    if isinstance(link, h5py.SoftLink) and depth < 8:
        found = group.file if link.path.startswith("/") else group
        for part in link.path.split("/"):
            found = child(found, part, depth=depth + 1) if part not in ("", ".") and found is not None else found
        return found
    if not isinstance(link, h5py.HardLink):
        raise Damaged(f"{group.name}/{name} is a link that leads out of the file, or in circles; refused.")
    return group[name]


def inside(group: Any, name: str, *, kind: str = "Group") -> Any:
    """What lies in a group under a name, which must be there and be a ``Group`` or a ``Dataset``."""
    found = child(group, name)
    if type(found).__name__ != kind:
        raise Damaged(f"{group.name.rstrip('/')}/{name} is missing or is no {kind.lower()}.")
    return found


def leaves(group: Any, *, depth: int = 0) -> dict[str, Any]:
    """Every dataset under a group, by its path from there."""
    found: dict[str, Any] = {}
    for name in group:
        node = child(group, name)
        if type(node).__name__ == "Dataset":
            found[name] = node
        elif type(node).__name__ == "Group" and depth < 8:
            found |= {f"{name}/{k}": v for k, v in leaves(node, depth=depth + 1).items()}
    return found


def shape(data: Any) -> tuple[int, ...]:
    """The shape of a dataset of numbers, once it is sure that they lie in this file."""
    import h5py

    if data.shape is None or data.external or data.is_virtual:
        raise Damaged(f"{data.name} is empty or lies in other files; refused.")
    if data.id.get_type() != h5py.h5t.py_create(data.dtype, logical=True):
        raise Damaged(f"{data.name} holds numbers of a kind of its own; wanted plain ones.")
    sane(data.shape, data.dtype, where=data.name)
    return tuple(data.shape)


def rows(data: Any, start: int = 0, *, stop: int | None = None) -> np.ndarray:
    """Some rows of a dataset of numbers, or all; packed ones are unpacked here, for the library sets no bound."""
    size = shape(data)
    if not size:
        raise Damaged(f"{data.name} is a single number; wanted one row a step.")
    start, stop, _ = slice(start, stop).indices(size[0])
    wanted = (stop - start, *size[1:])
    roomy(wanted, data.dtype, where=data.name)
    if not math.prod(wanted):
        return np.empty(wanted, data.dtype)
    plan = data.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if data.chunks is None:
        return np.frombuffer(_plain(data, start, stop - start, dtype=data.dtype), data.dtype).reshape(wanted)
    if filters not in ([], [1], [2, 1], [2]):
        raise Damaged(f"{data.name} is packed with filters {filters}; wanted gzip or none: h5repack -f GZIP=4.")
    return _unpacked(data, start, stop, packed=filters, dtype=data.dtype)


def _plain(data: Any, start: int, count: int, *, dtype: np.dtype[Any]) -> bytearray:
    """Rows that lie in one piece."""
    each = math.prod(data.shape[1:]) * dtype.itemsize
    offset = data.id.get_offset()
    if offset is None or data.id.get_storage_size() < len(data) * each:
        raise Damaged(f"{data.name} promises {len(data)} rows and was never written, or not in one piece.")
    return _lying(data, offset + start * each, count * each)


def _lying(data: Any, offset: int, count: int) -> bytearray:
    """Bytes of the file, read past the library: where a file lies to it of their number, it writes anywhere."""
    path = Path(data.file.filename)
    if offset + count > path.stat().st_size:
        raise Damaged(f"{data.name} breaks off before its end.")
    held = bytearray(count)
    with path.open("rb") as file:
        file.seek(offset)
        if file.readinto(held) != count:
            raise Damaged(f"{data.name} breaks off before its end.")
    return held


def _unpacked(data: Any, first: int, last: int, *, packed: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    chunk, each = data.chunks, dtype.itemsize
    begin, end = (first, *[0] * (data.ndim - 1)), (last, *data.shape[1:])
    grid = [range(a // c, -(-b // c)) for a, b, c in zip(begin, end, chunk, strict=True)]
    bulk = math.prod(chunk) * each
    if bulk > CHUNK or math.prod(map(len, grid)) > CHUNKS:
        raise Damaged(f"{data.name} lies in chunks of {'x'.join(map(str, chunk))}; repack it with h5repack -l.")
    out = np.empty((last - first, *data.shape[1:]), dtype)
    for place in itertools.product(*grid):
        corner = tuple(p * c for p, c in zip(place, chunk, strict=True))
        info = data.id.get_chunk_info_by_coord(corner)
        if not 0 < info.size <= 2 * bulk + 1024:
            raise Damaged(f"{data.name} lacks the rows from {corner[0]} on, or they swell; they were never written.")
        raw: Any = _lying(data, info.byte_offset, info.size)
        for step, kind in reversed(list(enumerate(packed))):
            if not info.filter_mask >> step & 1:
                raw = _inflated(raw, bulk, where=data.name) if kind == 1 else _unshuffled(raw, each)
        if len(raw) != bulk:
            raise Damaged(f"{data.name} has {len(raw)} bytes where a chunk of {bulk} should be.")
        overlap(out, np.frombuffer(raw, dtype).reshape(chunk), begin=begin, corner=corner)
    return out


def _inflated(raw: bytes | bytearray, most: int, *, where: str) -> bytes:
    engine = zlib.decompressobj()
    out = engine.decompress(raw, most + 1)
    if len(out) > most or not engine.eof:
        raise Damaged(f"{where} has a chunk that does not unpack to the size it should have.")
    return out


def _unshuffled(raw: bytes | bytearray, each: int) -> bytes:
    return np.frombuffer(raw, np.uint8).reshape(each, -1).T.tobytes()


def attribute(node: Any, name: str) -> Any:
    """A small attribute as Python has it, text as text; ``None`` if there is none."""
    import h5py

    if name not in node.attrs:
        return None
    held = node.attrs.get_id(name)
    text = h5py.check_string_dtype(held.dtype)
    if math.prod(held.shape or ()) * held.dtype.itemsize > NOTE or not (text or held.dtype.kind in "biuf"):
        raise Damaged(f"{node.name} has an attribute {name!r} of {held.dtype} {held.shape}; wanted a number or a text.")
    if text and text.length is None:
        raw = next((v for n, v in _attributes(node) if n == name), b"")  # of very many they lie elsewhere
        return next(heaped(node, raw[:16])).rstrip(b"\0").decode() if len(raw) >= 16 else None
    value = np.asarray(node.attrs[name]).reshape(-1).tolist()
    value = value[0] if len(value) == 1 else value
    return value.decode() if isinstance(value, bytes) else value


def words(data: Any) -> list[str]:
    """A short list of names."""
    import h5py

    text = h5py.check_string_dtype(data.dtype)
    if text is None or data.external or data.is_virtual or data.shape is None or data.ndim != 1:
        raise Damaged(f"{data.name} is of {data.dtype} {data.shape}; wanted a list of names.")
    dtype = np.dtype(REFERENCE if text.length is None else f"S{text.length}")
    if not dtype.itemsize or data.size * dtype.itemsize > NOTE:
        raise Damaged(f"{data.name} holds {data.size} names; wanted one for each episode at most.")
    raw = _bare(data, 0, len(data), dtype=dtype)
    names = heaped(data, raw.tobytes()) if text.length is None else raw.tolist()
    return [name.rstrip(b"\0").decode() for name in names]


def listed(data: Any) -> Iterator[bytes]:
    """The rows of a dataset whose rows are bytes of any number, pictures say."""
    for start in range(0, len(data), BLOCK):
        rows = _bare(data, start, min(start + BLOCK, len(data)), dtype=np.dtype(REFERENCE))
        yield from heaped(data, rows.tobytes())


def _bare(data: Any, start: int, stop: int, *, dtype: np.dtype[Any]) -> np.ndarray:
    """Rows of one item each as they lie in the file, in which nothing is packed."""
    if start == stop:
        return np.empty(0, dtype)
    if data.chunks is None:
        return np.frombuffer(_plain(data, start, stop - start, dtype=dtype), dtype)
    return _unpacked(data, start, stop, packed=[], dtype=dtype)


def heaped(node: Any, references: bytes) -> Iterator[bytes]:
    """What lies in the file's heap under references, which name a length, a place and a number (HDF5's III.E)."""
    place, objects = None, dict[int, tuple[int, int]]()
    for count, address, number in struct.iter_unpack("<IQI", references):
        if not count:
            yield b""
            continue
        if address != place:
            place, objects = address, _heap(node, address)
        start, size = objects.get(number, (0, 0))
        if count > size:
            raise Damaged(f"{node.name} refers to {count} bytes of which {size} are there.")
        yield bytes(_lying(node, start, count))


def _heap(node: Any, address: int) -> dict[int, tuple[int, int]]:
    """Where each object of a collection lies, and how large it is."""
    mark, size = struct.unpack("<4s4xQ", _lying(node, address, 16))
    if mark != b"GCOL" or size > Path(node.file.filename).stat().st_size or size > CHUNK:
        raise Damaged(f"{node.name} refers to what is no heap.")
    held, at, found = _lying(node, address, size), 16, dict[int, tuple[int, int]]()
    while at + 16 <= size:
        number, length = struct.unpack_from("<H6xQ", held, at)
        if not number or length > size:
            break
        found[number] = address + at + 16, length
        at += 16 + -(-length // 8) * 8
    return found


def _attributes(node: Any) -> Iterator[tuple[str, bytes]]:
    """The names of a node's attributes and their values as they lie in its header (HDF5's IV.A.2.m)."""
    import h5py

    for kind, body in _messages(node, h5py.h5o.get_info(node.id).addr):
        if kind == 12:
            sizes, version = struct.unpack_from("<HHH", body, 2), body[0]
            name, *rest = (-(-n // 8) * 8 for n in sizes) if version == 1 else sizes
            at = 8 + (version == 3)
            yield bytes(body[at : at + sizes[0]]).rstrip(b"\0").decode(), bytes(body[at + name + sum(rest) :])


def _messages(node: Any, at: int) -> Iterator[tuple[int, bytearray]]:
    """What a header says, of either version, with what it goes on with elsewhere (HDF5's IV.A.1)."""
    head = _lying(node, at, 16)
    newer, flags = head[:4] == b"OHDR", head[5]
    step = 8 if not newer else 6 if flags & 4 else 4
    start, wide = at + 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1), 1 << (flags & 3)
    first = (start + wide, int.from_bytes(_lying(node, start, wide), "little"))
    blocks = [first if newer else (at + 16, int.from_bytes(head[8:12], "little"))]
    for _ in range(256):
        if not blocks:
            return
        start, size = blocks.pop()
        if size > NOTE:
            break
        raw, at = _lying(node, start, size), 0
        while at + step <= size:
            kind, length = struct.unpack_from("<BH" if newer else "<HH", raw, at)
            body = raw[at + step : at + step + length]
            at += step + length
            if kind == 16:
                place, count = struct.unpack_from("<QQ", body)
                blocks.append((place + 4, count - 8) if newer else (place, count))  # a mark before, a sum after
            yield kind, body
    raise Damaged(f"{node.name} has a header that does not end.")


def numbered(names: Iterable[str], prefix: str) -> list[str]:
    """Those that are the prefix and a number, in the order of the numbers."""
    found = [(int(m[1]), n) for n in names if (m := re.fullmatch(rf"{prefix}(\d{{1,18}})", n))]
    return [name for _, name in sorted(found)]


def packing(frames: np.ndarray) -> dict[str, Any]:
    """How pictures are packed: gzip, in chunks of about a quarter of a megabyte."""
    rows = max(1, min(len(frames) - 1, 2**18 // math.prod(frames.shape[1:])))
    return {"compression": "gzip", "shuffle": False, "chunks": (rows, *frames.shape[1:])}
