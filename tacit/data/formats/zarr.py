"""Diffusion Policy's zarr: groups of version 2, all episodes end to end, ``meta/episode_ends`` exclusive.

Chunks are read here and not by zarr, which lets a file name any codec and any size; numcodecs unpacks them, into room
that is set out beforehand.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, final

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.file import need, whole
from tacit.data.formats.archive import ordered
from tacit.data.formats.stored import BROKEN, MANY, Stored, about, chosen, ended, flatly, frame, naming, overlap, sane
from tacit.data.reader import Reader
from tacit.data.video import Damaged, bounded

WHAT = "zarr as Diffusion Policy keeps it: a folder or .zarr.zip with data/action and meta/episode_ends"
EXTRA = "formats"

CHUNK = 2**28  # bytes of one chunk, unpacked
CHUNKS = 2**18  # chunks that one episode's rows may lie in
NOTE = 2**26  # bytes of a description
NAMED = {"actions": ("action", "actions"), "rewards": ("reward", "rewards")}
PICTURE = "imagecodecs_jpeg2k"  # as Diffusion Policy registers it
CODECS = ("blosc", "zstd", "lz4", "zlib", "gzip", PICTURE)


@final
class Store:
    """The files of a zarr by their keys, out of a folder or a zip, and never from anywhere else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = None if path.is_dir() else zipfile.ZipFile(path)
        self._home = path.resolve()

    def read(self, key: str, most: int) -> bytes | None:
        """The bytes under a key, if it is there."""
        if self._zip is None:
            file = self.path / key
            if not file.is_file():
                return None
            if not file.resolve().is_relative_to(self._home):
                raise Damaged(f"{key} leads out of the folder; refused.")
            size = file.stat().st_size
        else:
            if key not in self._zip.NameToInfo:
                return None
            member = self._zip.getinfo(key)
            size = member.file_size
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Damaged(f"{key} is encrypted or packed in a way that zarr does not write.")
        if size > most:
            raise Damaged(f"{key} takes {size} bytes where at most {most} make sense.")
        return file.read_bytes() if self._zip is None else self._zip.read(key)

    def json(self, key: str) -> dict[str, Any] | None:
        """A description, which is small and an object."""
        held = self.read(key, NOTE)
        value = None if held is None else json.loads(held)
        if value is not None and not isinstance(value, dict):
            raise Damaged(f"{key} holds a {type(value).__name__}; wanted an object.")
        return value

    def arrays(self, group: str) -> list[str]:
        """The names of the arrays in a group."""
        if self._zip is None:
            found = [f.parent.name for f in (self.path / group).glob("*/.zarray")]
        else:
            found = [m[1] for n in self._zip.NameToInfo if (m := re.fullmatch(rf"{group}/([^/\\]+)/\.zarray", n))]
        return sorted(n for n in found if n not in (".", ".."))


@final
class Array:
    """One array of a store, read by rows."""

    def __init__(self, store: Store, name: str) -> None:
        told = store.json(f"{name}/.zarray")
        if told is None:
            raise Damaged(f"{name} is missing.")
        self.name, self._store = name, store
        self.shape, self._chunks = (tuple(map(_whole, told[k])) for k in ("shape", "chunks"))
        if not isinstance(told["dtype"], str) or told.get("filters") or told.get("zarr_format") != 2:
            raise Damaged(f"{name} is no array of zarr 2 with plain numbers and no filters.")
        self.dtype = np.dtype(told["dtype"])
        sane(self.shape, self.dtype, where=name)
        self._order = "F" if told.get("order") == "F" else "C"
        self._mark = "/" if told.get("dimension_separator") == "/" else "."
        self._empty = np.zeros((), self.dtype)
        if told.get("fill_value") is not None:
            self._empty[...] = float(told["fill_value"]) if self.dtype.kind == "f" else told["fill_value"]
        kind = None if told.get("compressor") is None else told["compressor"]["id"]
        if kind is not None and kind not in CODECS:
            raise Damaged(f"{name} is packed with {str(kind)[:40]!r}; wanted one of {', '.join(CODECS)}.")
        self.kind = kind
        self._bulk = math.prod(self._chunks) * self.dtype.itemsize
        if len(self._chunks) != len(self.shape) or min(self._chunks, default=0) < 1 or self._bulk > CHUNK:
            raise Damaged(f"{name} lies in chunks of {'x'.join(map(str, self._chunks))}; wanted at most {CHUNK} bytes.")

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Some rows, or all."""
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        size = (stop - start, *self.shape[1:])
        bounded(size, self.dtype, where=self.name)
        begin, end = (start, *[0] * (len(size) - 1)), (stop, *self.shape[1:])
        grid = [range(a // c, -(-b // c)) for a, b, c in zip(begin, end, self._chunks, strict=True)]
        if math.prod(map(len, grid)) > CHUNKS:
            raise Damaged(f"{self.name} lies in chunks of {'x'.join(map(str, self._chunks))}, too many to read.")
        out = np.empty(size, self.dtype)
        for place in itertools.product(*grid):
            corner = [p * c for p, c in zip(place, self._chunks, strict=True)]
            overlap(out, self._chunk(self._mark.join(map(str, place))), begin=begin, corner=corner)
        return out

    def _chunk(self, key: str) -> np.ndarray:
        raw = self._store.read(f"{self.name}/{key}", 2 * self._bulk + 2**16)
        if raw is None:  # what is empty throughout need not be written
            return np.broadcast_to(self._empty, self._chunks)
        kind = self.kind
        if kind == PICTURE:
            return _picture(raw, math.prod(self._chunks)).astype(self.dtype, copy=False).reshape(self._chunks)
        if kind is not None:
            raw = _unpacked(raw, kind, self._bulk)
        if len(raw) != self._bulk:
            raise Damaged(f"{self.name}/{key} has {len(raw)} bytes where a chunk of {self._bulk} should be.")
        return np.frombuffer(raw, self.dtype).reshape(self._chunks, order=self._order)  # type: ignore[call-overload]


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise Damaged(f"a size is given as {str(value)[:40]!r}; wanted a whole number.")
    return value


def _unpacked(raw: bytes, kind: str, size: int) -> bytes:
    """The bytes of a chunk, of which a hostile one would make more than its size."""
    if kind in ("zlib", "gzip"):
        engine = zlib.decompressobj(wbits=47)
        out = engine.decompress(raw, size + 1)
        if len(out) > size or not engine.eof:
            raise Damaged("a chunk does not unpack to the size it should have.")
        return out
    import numcodecs  # type: ignore[import-untyped]

    told = {"blosc": int.from_bytes(raw[4:8], "little"), "lz4": int.from_bytes(raw[:4], "little")}
    # Blosc reads on past the end of what it is given, as far as its header says.
    cut = kind == "blosc" and int.from_bytes(raw[12:16], "little") != len(raw)
    if cut or len(raw) < 5 or (told[kind] if kind in told else _zstandard(raw)) != size:
        raise Damaged("a chunk is cut, or says it unpacks to another size than it should have.")
    codec = {"blosc": numcodecs.Blosc, "lz4": numcodecs.LZ4, "zstd": numcodecs.Zstd}[kind]
    room = np.empty(size, np.uint8)
    codec().decode(raw, out=room)
    return room.data  # type: ignore[return-value]


def _zstandard(raw: bytes) -> int:
    """The size that a frame of Zstandard says it has (RFC 8878, 3.1.1.1); -1 if it leaves it open."""
    kind, single = raw[4] >> 6, raw[4] >> 5 & 1
    start, count = 5 + (1 - single) + (0, 1, 2, 4)[raw[4] & 3], (single, 2, 4, 8)[kind]
    return int.from_bytes(raw[start : start + count], "little") + 256 * (kind == 1) if count else -1


def _picture(raw: bytes, size: int) -> np.ndarray:
    import imagecodecs  # type: ignore[import-not-found]

    at = raw.find(b"\xff\x4f\xff\x51")  # where the size is told, before anything is made of it
    wide, high = (int.from_bytes(raw[at + k : at + k + 4], "big") for k in (8, 12))
    if at < 0 or high * wide * 3 != size:
        raise Damaged(f"a picture is {high}x{wide}, or none; its array wants another.")
    return np.asarray(imagecodecs.jpeg2k_decode(raw))


@final
class Zarr(Stored):
    """A folder or a zip; the rows of an episode are read when it is asked for."""

    def __init__(self, path: Path, *, camera: str | None = None) -> None:
        need("numcodecs", reading="zarr")
        with naming(path):
            store = Store(path)
            if store.json(".zgroup") is None:
                raise Damaged("it is no group of zarr 2: .zgroup is missing. Newer ones: write with zarr_format=2.")
            self._arrays = {name: Array(store, f"data/{name}") for name in store.arrays("data")}
            ends = Array(store, "meta/episode_ends")
            if len(ends.shape) != 1 or ends.shape[0] > MANY:
                raise Damaged(f"meta/episode_ends has the shape {ends.shape}; wanted one end for each episode.")
            total = min((a.shape[0] for a in self._arrays.values() if a.shape), default=0)
            self._ends = ordered(ends.rows(), total, where="meta/episode_ends")
            self._names = self._chosen(camera)
            told = flatly(self._ends, store.json(".zattrs"))
            for column, names in self._names.items():
                for name in names:
                    array = self._arrays[name]
                    for one in told:
                        one.admit(column, (one.length, *array.shape[1:]), dtype=array.dtype)
        super().__init__(path, told, camera=camera, name=re.sub(r"(\.zarr)?(\.zip)?$", "", path.absolute().name))

    def _chosen(self, camera: str | None) -> dict[str, tuple[str, ...]]:
        """Which arrays each column is made of."""
        seen = [n for n, a in self._arrays.items() if frame(a.shape, a.dtype)]
        camera = chosen(seen, camera)
        if camera is not None and self._arrays[camera].kind == PICTURE:
            need("imagecodecs", extra="jpeg2000", reading=f"{camera}, which is packed as JPEG 2000,")
        columns: dict[str, tuple[str, ...]] = {"frames": () if camera is None else (camera,)}
        for column, names in NAMED.items():
            columns[column] = tuple(n for n in names if n in self._arrays)[:1]
        others = [n for n in self._arrays if not any(n in names for names in NAMED.values())]
        low = tuple(n for n in others if len(self._arrays[n].shape) in (1, 2))
        columns["state"] = ("state",) if "state" in low else low
        if not columns["frames"] and not columns["state"]:
            raise Damaged(f"data holds {list(self._arrays)[:12]}; wanted pictures, (N, H, W, 3) bytes, or state.")
        return columns

    def values(self, number: int, column: str) -> np.ndarray:
        stop = int(self._ends[number])
        start = stop - int(self.told[number].length)
        parts = [self._arrays[name].rows(start, stop) for name in self._names[column]]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([p.reshape(len(p), math.prod(p.shape[1:])).astype(np.float32) for p in parts], 1)


def recognises(path: Path) -> bool:
    """Whether it is a zarr, folder or zip, that says where its episodes end."""
    try:
        if path.is_dir():
            return (path / "meta" / "episode_ends" / ".zarray").is_file()
        if path.suffix != ".zip" or not path.is_file():
            return False
        with zipfile.ZipFile(path) as file:
            return "meta/episode_ends/.zarray" in file.NameToInfo
    except BROKEN:
        return False


def read(path: Path, *, camera: str | None = None) -> Reader:
    """The episodes of a folder, or of a .zarr.zip."""
    return Zarr(Path(path), camera=camera)


def write(episodes: Episodes, path: Path) -> None:
    """A folder of zarr 2, or a zip of one where the path ends so."""
    need("zarr", reading="writing zarr")
    path = Path(path)
    with whole(path) as staged:
        if path.suffix != ".zip":
            _write(episodes, staged)
            return
        folder = staged.with_name(f"{staged.name}.folder")
        try:
            _write(episodes, folder)
            with zipfile.ZipFile(staged, "w") as file:
                for part in sorted(f for f in folder.rglob("*") if f.is_file()):
                    file.write(part, part.relative_to(folder).as_posix())
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write(episodes: Episodes, folder: Path) -> None:
    import zarr

    total, spec = int(episodes.lengths.sum()), episodes.spec
    # What is all zeros is written too: the sign of a zero is part of what is kept.
    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.open_group(str(folder), mode="w", zarr_format=2)
        root.attrs.update(json.loads(json.dumps(about(episodes))))
        data, meta = root.create_group("data"), root.create_group("meta")
        ends = np.cumsum(episodes.lengths).astype(np.int64)
        meta.create_array("episode_ends", data=ends, chunks=ends.shape)
        # Their loaders want as many actions as frames: the last repeats the one before, and leads nowhere.
        for column, name in (("state", "state"), ("actions", "action"), ("rewards", "reward")):
            value = ended(episodes, column)
            if value is not None:
                value = value[:, None] if column == "actions" and value.ndim == 1 else value
                data.create_array(name, data=value, chunks=(min(total, 2**14), *value.shape[1:]))
        if spec.frame is not None:
            size = (*spec.frame, 3)
            rows = max(1, min(total, 2**20 // math.prod(size)))
            pictures = data.create_array("img", shape=(total, *size), chunks=(rows, *size), dtype="u1")
            for number, stop in enumerate(ends.tolist()):
                pictures[stop - int(episodes.lengths[number]) : stop] = np.asarray(episodes.episode(number).frames)
