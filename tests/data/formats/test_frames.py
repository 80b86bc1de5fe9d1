"""Folders of pictures: in the order people number, of any size and kind, bit for bit, broken ones named."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tacit.check.reader import check_reader
from tacit.clip import Episode, Space
from tacit.data import Episodes
from tacit.data.formats.frames import read, recognises, write
from tacit.data.reader import Spec
from tacit.data.video import Damaged
from tacit.data.view import View


def picture(level: int, *, height: int = 12, width: int = 16) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), level, np.uint8))


def folder(path: Path, *, count: int = 12, suffix: str = "png", height: int = 12) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        picture(20 * k % 256, height=height).save(path / f"frame{k}.{suffix}")
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp"])
def test_pictures_come_in_the_order_that_people_number(tmp_path: Path, suffix: str) -> None:
    folder(tmp_path / "expert" / "ep1", suffix=suffix)
    folder(tmp_path / "expert" / "ep2", suffix=suffix, count=3)
    assert recognises(tmp_path)
    reader = read(tmp_path)
    check_reader(reader)
    assert (reader.names, reader.sources) == (("expert/ep1", "expert/ep2"), ("expert", "expert"))
    assert (reader.spec.fps, reader.spec.frame, reader.lengths.tolist()) == (10, (12, 16), [12, 3])
    frames = reader.episode(0).frames
    assert frames is not None and np.abs(frames[:, 6, 8, 0] - 20.0 * np.arange(12)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
def test_pictures_of_every_kind_become_red_green_and_blue(tmp_path: Path, mode: str) -> None:
    for k in range(2):
        if mode == "I;16":
            Image.fromarray(np.full((12, 16), 200 << 8, np.uint16)).save(tmp_path / f"{k}.png")
        else:
            picture(200).convert(mode).save(tmp_path / f"{k}.{'jpg' if mode == 'CMYK' else 'png'}")
    frames = read(tmp_path).episode(0).frames
    assert frames is not None and frames.shape == (2, 12, 16, 3)
    assert abs(float(frames.mean()) - 200) < 56 if mode in "1P" else np.abs(frames.astype(int) - 200).max() <= 4


def test_the_rate_is_told_by_a_file_by_timestamps_or_by_the_view(tmp_path: Path) -> None:
    folder(tmp_path / "a")
    assert read(tmp_path, view=View(fps=3)).spec.fps == 3, "nobody says how fast they followed each other"
    assert read(tmp_path, view=View(fps=3)).lengths.tolist() == [12]
    (tmp_path / "meta.json").write_text(json.dumps({"fps": 6, "task": "stack"}))
    reader = read(tmp_path, view=View(fps=3))
    assert (reader.lengths.tolist(), reader.texts) == ([6], ("stack",))
    np.save(tmp_path / "a" / "timestamps.npy", np.arange(12) / 4)
    assert read(tmp_path).spec.fps == 4
    (tmp_path / "a" / "timestamps.npy").unlink()
    (tmp_path / "a" / "timestamps.txt").write_text("\n".join(str(100 + k / 2) for k in range(12)))
    assert read(tmp_path).spec.fps == 2
    (tmp_path / "meta.json").write_text('{"fps": -1}')
    with pytest.raises(Damaged, match="whose fps is -1"):
        read(tmp_path)


@pytest.mark.parametrize("rows", [11, 12])
def test_actions_lie_in_the_folder(tmp_path: Path, rows: int) -> None:
    for k, name in enumerate(("npy", "npz", "csv", "jsonl")):
        held = folder(tmp_path / f"{k}") / f"actions.{name}"
        values = np.arange(rows) % 3
        if name == "npy":
            np.save(held, values)
        elif name == "npz":
            np.savez(held, action=values)
        elif name == "csv":
            held.write_text("action\n" + "".join(f"{v}\n" for v in values))
        else:
            held.write_text("".join(json.dumps({"action": int(v)}) + "\n" for v in values))
    reader = read(tmp_path)
    check_reader(reader)
    assert reader.spec.space == Space("discrete", 3)
    for number in range(4):
        actions = reader.episode(number).actions
        assert actions is not None and actions.tolist() == [k % 3 for k in range(11)]


def test_mixed_sizes_come_to_the_commonest_and_long_ones_come_in_pieces(tmp_path: Path) -> None:
    folder(tmp_path / "a")
    folder(tmp_path / "b")
    folder(tmp_path / "c", height=24)
    picture(9, height=30).save(folder(tmp_path / "a") / "frame5.png")
    reader = read(tmp_path, view=View(longest=0.6, fit="pad"))
    check_reader(reader)
    assert reader.spec.frame == (12, 16)
    assert reader.lengths.tolist() == [7, 6] * 3
    frames = reader.episode(0).frames
    assert frames is not None and (frames[5, :, 8] == 9).all() and (frames[5, :, 0] == 0).all()


def png(width: int, height: int) -> bytes:
    """The header of a picture that nobody has the memory for, and nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", png(30000, 30000), png(10000, 10000), b"half"],
    ids=["none", "text", "huge", "big", "half"],
)
def test_a_picture_that_cannot_be_read_is_named_with_how_many_before_it_can(tmp_path: Path, data: bytes) -> None:
    held = folder(tmp_path / "a") / "frame7.png"
    held.write_bytes(held.read_bytes()[:50] if data == b"half" else data)
    reader = read(tmp_path)
    with pytest.raises(Damaged, match=r"frame7\.png") as caught:
        reader.episode(0)
    assert caught.value.good == 7
    assert "\n" not in str(caught.value)
    blocks: list[Any] = []
    with pytest.raises(Damaged, match=r"frame7\.png"):
        blocks.extend(b for b in reader.blocks(0, count=7))
    assert [len(b) for b in blocks] in ([], [7])
    held.rename(tmp_path / "a" / "frame0.png")
    folder(tmp_path / "b")
    both = read(tmp_path)
    if data == b"half":  # its header can be read, and the rest is not looked at before somebody asks
        with pytest.raises(Damaged, match=r"frame0\.png") as caught:
            both.episode(0)
        assert (both.names, caught.value.good) == (("a", "b"), 0)
        return
    assert both.names == ("b",)
    assert "frame0.png" in both.faults["a"]


def test_a_single_picture_is_no_recording(tmp_path: Path) -> None:
    folder(tmp_path / "a", count=1)
    assert not recognises(tmp_path)
    assert not recognises(tmp_path / "a" / "frame0.png")
    with pytest.raises(Damaged, match="a: it holds a single picture"):
        read(tmp_path)
    folder(tmp_path / "b")
    assert set(read(tmp_path).faults) == {"a"}
    (tmp_path / "clip.mp4").touch()
    assert not recognises(tmp_path), "pictures beside videos are previews"


@pytest.mark.parametrize("space", [None, Space("discrete", 5), Space("continuous", 2)])
def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path, space: Space | None) -> None:
    random, given = np.random.default_rng(0), []
    for length, source, success in ((6, "expert", True), (4, "play", None)):
        given.append(
            Episode(
                frames=random.integers(0, 256, (length, 10, 14, 3), dtype=np.uint8),
                state=random.normal(size=(length, 3)).astype(np.float32),
                actions=None if space is None else np.stack([space.sample(random) for _ in range(length - 1)]),
                rewards=random.normal(size=length - 1).astype(np.float32),
                text=f"do {length}",
                source=source,
                success=success,
                split="valid",
            )
        )
    write(Episodes.of(given, space=space, fps=12.5), tmp_path / "out")
    reader = read(tmp_path / "out")
    check_reader(reader)
    assert reader.spec == Spec((10, 14), 3, space, 12.5, rewards=True, text=True, name="out")
    for number, wanted in enumerate(given):
        got = reader.episode(number)
        for name in ("frames", "state", "actions", "rewards"):
            assert np.array_equal(getattr(got, name), getattr(wanted, name)) or space is None
        assert (got.text, got.source, got.success, got.split) == (wanted.text, wanted.source, wanted.success, "valid")
        assert got.frames is not None and wanted.frames is not None and (got.frames == wanted.frames).all()
    changed = tmp_path / "out" / "expert" / "episode_000000" / "000003.png"
    prints = reader.prints
    picture(1, height=10, width=14).save(changed)
    again = read(tmp_path / "out").prints
    assert again[0] != prints[0]
    assert again[1] == prints[1]
