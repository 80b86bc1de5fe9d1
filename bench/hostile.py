"""Recordings that mean harm, for bench/fuzz.py: small whole ones of every format, ways to spoil them, and bombs."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def sample(name: str, path: Path) -> Path:
    """A small whole recording of a format."""
    import tacit.data as data
    from tacit.clip import Episode, Space
    from tacit.data.episodes import Episodes
    from tacit.data.formats import FORMATS

    random = np.random.default_rng(1)
    episodes = [
        Episode(
            frames=random.integers(0, 256, (6 + i, 16, 16, 3), dtype=np.uint8),
            actions=random.uniform(-1, 1, (5 + i, 2)).astype(np.float32),
            state=random.normal(size=(6 + i, 3)).astype(np.float32),
            text="push",
        )
        for i in range(3)
    ]
    whole = Episodes.of(episodes, space=Space("continuous", 2), fps=10)
    if name == "ogbench":
        whole = Episodes.of([e.replace(frames=None) for e in episodes], space=Space("continuous", 2), fps=10)
    if name in ("lerobot", "lerobot21"):
        data.save(whole, path)
        if name == "lerobot21":
            _older(path)
        return path
    if name == "screen":
        return _recorded(path, episodes[0].frames)
    target = path / "demos.hdf5" if name == "robomimic" else path / "play.npz" if name == "ogbench" else path
    FORMATS[name].write(whole, target)
    return target


def _older(path: Path) -> None:
    """The same dataset as LeRobot's version 2.1 lays it out."""
    import pyarrow.parquet as pq

    from tacit.data.lerobot import LeRobot
    from tacit.data.video import Encoder

    reader = LeRobot(path)
    camera, rows = str(reader.camera), []
    for number, length in enumerate(reader.lengths.tolist()):
        table = pq.read_table(path / "data/chunk-000/file-000.parquet", filters=[("episode_index", "=", number)])
        (path / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path / f"data/chunk-000/episode_{number:06d}.parquet")
        video = path / f"videos/chunk-000/{camera}/episode_{number:06d}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        with Encoder(video, fps=10, frame=(16, 16)) as encoder:
            encoder.add(reader.episode(number).frames)
        rows.append({"episode_index": number, "tasks": ["push"], "length": length})
    info = reader.info | {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "total_chunks": 1,
    }
    shutil.rmtree(path / "meta")
    shutil.rmtree(path / "videos" / camera)
    (path / "data/chunk-000/file-000.parquet").unlink()
    (path / "meta").mkdir()
    (path / "meta/info.json").write_text(json.dumps(info))
    (path / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "push"}) + "\n")
    (path / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _recorded(path: Path, frames: np.ndarray) -> Path:
    from tacit.data.video import Encoder

    path.mkdir(parents=True)
    with Encoder(path / "screen.mp4", fps=10, frame=(16, 16)) as encoder:
        encoder.add(frames)
    events = [{"time_stamp": 0.1 * i, "action": "click", "x": i, "y": 3, "button": "left"} for i in range(4)]
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "metadata.json").write_text(json.dumps({"screen_width": 16, "screen_height": 16, "task": "push"}))
    return path


Mutation = Callable[[bytearray, np.random.Generator], bytes]


def _flip(data: bytearray, random: np.random.Generator) -> bytes:
    for at in random.integers(0, len(data), int(random.integers(1, 64))):
        data[at] ^= 1 << int(random.integers(8))
    return bytes(data)


def _truncate(data: bytearray, random: np.random.Generator) -> bytes:
    return bytes(data[: int(random.integers(0, len(data)))])


def _zero(data: bytearray, random: np.random.Generator) -> bytes:
    at, length = int(random.integers(len(data))), int(random.integers(1, 256))
    data[at : at + length] = bytes(len(data[at : at + length]))
    return bytes(data)


def _absurd(data: bytearray, random: np.random.Generator) -> bytes:
    """Whole numbers of eight bytes, near where headers lie, that say far too much."""
    at = int(random.integers(min(len(data), 2048)))
    data[at : at + 8] = random.choice([b"\xff" * 8, b"\xff" * 4 + b"\0" * 4, b"\0" * 6 + b"\x7f\xff"])[
        : len(data[at : at + 8])
    ]
    return bytes(data)


def _header(data: bytearray, random: np.random.Generator) -> bytes:
    heads = [
        b"\x89HDF\r\n\x1a\n",
        b"PK\x03\x04",
        b"PAR1",
        b"\x89PNG\r\n\x1a\n",
        b"\x93NUMPY\x01\0",
        b"RIFF",
        b"\x80\x04\x95",
    ]
    head = heads[int(random.integers(len(heads)))]
    return head + bytes(data[len(head) :])


def _repeat(data: bytearray, random: np.random.Generator) -> bytes:
    at = int(random.integers(len(data)))
    return bytes(data[:at] + data[: at // 2] + data[at:])


HOSTILE = [10**18, -1, -(2**63), 1e308, None, True, "../../../../etc/passwd", "/etc/passwd", [], {}, "{a.__class__}", 0]


def _json(data: bytearray, random: np.random.Generator) -> bytes:
    """Another value, of another type or beyond all measure, at one place of a JSON text."""
    lines = data.decode(errors="replace").splitlines() if data.count(b"\n{") else [data.decode(errors="replace")]
    which = int(random.integers(len(lines)))
    try:
        value = json.loads(lines[which])
    except ValueError:
        return _flip(data, random)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(inner, dict | list):
                walk(inner)

    walk(value if isinstance(value, dict | list) else [value])
    if places:
        node, key = places[int(random.integers(len(places)))]
        node[key] = HOSTILE[int(random.integers(len(HOSTILE)))]
    lines[which] = json.dumps(value)
    return "\n".join(lines).encode()


BYTES: list[Mutation] = [_flip, _truncate, _zero, _absurd, _header, _repeat]


def mutate(path: Path, random: np.random.Generator) -> str:
    """Spoil one file of a recording; in which way."""
    files = sorted(f for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file())
    file = files[int(random.integers(len(files)))]
    data = bytearray(file.read_bytes())
    if random.random() < 0.04:
        file.unlink()
        return f"{file.name} removed"
    if not data:
        file.write_bytes(random.bytes(64))
        return f"{file.name} filled"
    textual = file.suffix in (".json", ".jsonl") or file.name.startswith(".z")
    way = _json if textual and random.random() < 0.8 else BYTES[int(random.integers(len(BYTES)))]
    file.write_bytes(way(data, random))
    return f"{file.name} {way.__name__[1:]}"


def bombs(name: str, path: Path) -> list[Path]:
    """Files that are small and claim to be huge, or that lead somewhere else."""
    made: list[Path] = []

    def folder(word: str) -> Path:
        made.append(path / word)
        made[-1].mkdir(parents=True)
        return made[-1]

    if name in ("arrays", "ogbench"):
        header = np.lib.format.header_data_from_array_1_0(np.zeros(0, np.uint8)) | {"shape": (40_000, 1000, 1000, 3)}
        place = folder("zip") / "play.npz"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(
                "frames.npy" if name == "arrays" else "observations.npy", "w", force_zip64=True
            ) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for _ in range(300):
                    member.write(bytes(10**7))
            for key in ("actions.npy", "terminals.npy", "../../escaped.npy"):
                with archive.open(key, "w") as member:
                    np.lib.format.write_array(member, np.zeros((5, 2), np.float32))
        with zipfile.ZipFile(folder("object") / "play.npz", "w") as archive, archive.open("frames.npy", "w") as member:
            np.lib.format.write_array(member, np.array([print, {}], object), allow_pickle=True)
    if name in ("robomimic", "minari"):
        import h5py

        for word in ("huge", "external", "link"):
            file = folder(word) / ("demos.hdf5" if name == "robomimic" else "main_data.hdf5")
            with h5py.File(file, "w") as h5:
                inner = h5.create_group("data/demo_0/obs") if name == "robomimic" else h5.create_group("episode_0")
                inner.parent.attrs["num_samples"] = 5
                key = "image" if name == "robomimic" else "observations"
                if word == "huge":
                    inner.create_dataset(key, (10**6, 1000, 1000, 3), "u1", chunks=(1, 100, 100, 3), compression="gzip")
                elif word == "external":
                    inner.create_dataset(key, (5, 4, 4, 3), "u1", external=[("/etc/passwd", 0, 240)])
                else:
                    inner[key] = h5py.ExternalLink("/etc/passwd", "/")
                inner.parent["actions"] = np.zeros((5, 2), np.float32)
                if name == "minari":
                    inner["actions"] = np.zeros((5, 2), np.float32)
            if name == "minari":
                (file.parent / "metadata.json").write_text(json.dumps({"data_format": "hdf5", "total_episodes": 1}))
    if name == "zarr":
        place = folder("huge")
        for key, shape in (("data/img", [10**6, 1000, 1000, 3]), ("data/action", [10**9, 2])):
            (place / key).mkdir(parents=True)
            (place / "data/.zgroup").write_text('{"zarr_format": 2}')
            about = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": "|u1", "compressor": None}
            (place / key / ".zarray").write_text(json.dumps(about | {"fill_value": 0, "order": "C", "filters": None}))
        import zarr

        root = zarr.open_group(str(place), mode="a", zarr_format=2)
        root.create_array("meta/episode_ends", data=np.array([10**6]))
    if name in ("frames", "videos", "screen"):
        place = folder("huge")
        for word in ("a.png", "b.png"):
            (place / word).write_bytes(_picture(60_000))
    return made


def _picture(side: int) -> bytes:
    """A PNG of a few megabytes that unfolds to gigabytes."""
    rows = zlib.compressobj(1)
    body = b"".join(rows.compress(bytes(side * 1000)) for _ in range(60)) + rows.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
