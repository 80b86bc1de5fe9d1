"""One video file: the right frame at the right time in every codec, nothing believed, and damage named."""

from __future__ import annotations

import contextlib
import shutil
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tacit.check.reader import check_reader
from tacit.data import Episodes
from tacit.data.formats import film as film_module
from tacit.data.formats.film import Film
from tacit.data.formats.videos import read, recognises
from tacit.data.video import Damaged
from tacit.data.view import View

CODECS = ("mp4", "webm", "avi", "mov", "mkv")


@pytest.mark.parametrize("suffix", CODECS)
def test_every_codec_gives_every_frame_in_any_piece(studio: Any, tmp_path: Path, suffix: str) -> None:
    path = studio.encoded(tmp_path / f"clip.{suffix}")
    assert recognises(path)
    assert recognises(tmp_path)
    reader = read(tmp_path)
    check_reader(reader)
    assert (reader.lengths.tolist(), reader.spec.fps, reader.spec.frame) == ([40], 10, (32, 128))
    frames = reader.episode(0).frames
    assert frames is not None and studio.shown(frames) == list(range(40))
    film = Film(path)
    for rows in ([0], [39], [17], [3, 29], list(range(13, 31))):
        assert studio.shown(np.stack(list(film.pictures(np.array(rows))))) == rows


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("b.avi", {"codec": "libx264", "bf": "3"}),  # AVI has no presentation times
        ("ten.mkv", {"codec": "libx264", "pixels": "yuv420p10le"}),
        ("gray.mkv", {"pixels": "gray"}),
        ("odd.mkv", {"size": (33, 127), "pixels": "bgr0"}),
        ("raw.h264", {"codec": "libx264", "bf": "3"}),
        ("vp8.mkv", {"codec": "libvpx", "pixels": "yuv420p", "auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("late.mkv", {"times": [100 + k / 10 for k in range(40)]}),
        ("open.mp4", {"codec": "libx264", "bf": "3", "g": "8", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}),
    ],
)
def test_odd_pixels_odd_times_and_reordered_frames(
    studio: Any, tmp_path: Path, name: str, asked: dict[str, Any]
) -> None:
    if asked.get("codec") == "libvpx" and "libvpx" not in av.codecs_available:
        pytest.skip("this PyAV was built without VP8")
    path = studio.encoded(tmp_path / name, **asked)
    if path.suffix == ".h264":  # no container, so no time at all
        path = path.rename(tmp_path / "raw.mp4")
    film = Film(path)
    assert film.shape == asked.get("size", (32, 128))
    assert studio.shown(np.stack(list(film.pictures(np.arange(40))))) == list(range(40))
    for first in (5, 9, 15, 16, 17, 31):
        assert studio.shown(np.stack(list(film.pictures(np.arange(first, 40, 3))))) == list(range(first, 40, 3))


def box(kind: bytes, *content: bytes) -> bytes:
    held = b"".join(content)
    return struct.pack(">I", len(held) + 8) + kind + held


def claimed(count: int) -> bytes:
    """An mp4 of a few bytes whose header claims so many pictures of one byte each."""
    unit = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    entry = box(b"jpeg", b"\0" * 7, b"\1", b"\0" * 16, struct.pack(">HH", 64, 64), b"\0" * 50)
    tables = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        box(b"stts", struct.pack(">IIII", 0, 1, count, 1)),
        box(b"stsc", struct.pack(">IIIII", 0, 1, 1, count, 1)),
        box(b"stsz", struct.pack(">III", 0, 1, count)),
        box(b"stco", struct.pack(">III", 0, 1, 40)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 1000, 1000, 0x55C4, 0)),
        box(b"hdlr", b"\0" * 8, b"vide", b"\0" * 14),
        box(b"minf", box(b"vmhd", b"\0" * 12), tables),
    )
    head = struct.pack(">IIIIIIH", 0, 0, 0, 1000, 1000, 65536, 256) + b"\0" * 10 + unit + b"\0" * 24 + b"\0\0\0\2"
    track = struct.pack(">IIIIII", 3, 0, 0, 1, 0, 1000) + b"\0" * 16 + unit + struct.pack(">II", 64 << 16, 64 << 16)
    data = box(b"ftyp", b"isom\0\0\2\0") + box(b"mdat", b"\0" * 100)
    return data + box(b"moov", box(b"mvhd", head), box(b"trak", box(b"tkhd", track), media))


def test_more_frames_than_bytes_are_refused_before_they_are_indexed(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(claimed(50))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 50, "the header is one that is believed"
    path.write_bytes(claimed(10**9))
    with pytest.raises(Damaged, match=r"clip\.mp4 claims 1000000000 frames in \d+ bytes"):
        Film(path)


def test_pictures_larger_than_any_video_are_refused_before_they_are_decoded(
    studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"YUV4MPEG2 W30000 H30000 F10:1 C420jpeg\nFRAME\n" + b"\0" * 1000)
    with pytest.raises(Damaged, match=r"clip\.mp4"):
        Film(tmp_path / "clip.mp4")
    path = studio.encoded(tmp_path / "good.mkv", range(3))
    monkeypatch.setattr(film_module, "PIXELS", 32 * 128 - 1)
    with pytest.raises(Damaged, match=r"good\.mkv claims pictures of 128x32"):
        Film(path)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_camera_that_was_held_upright_is_seen_upright(studio: Any, tmp_path: Path, turn: int) -> None:
    path = studio.encoded(tmp_path / "clip.mp4", [77] * 3, turn=turn)
    film = Film(path)
    frame = next(iter(film.pictures(np.array([0]))))
    assert frame.shape[:2] == film.shape == ((128, 32) if turn % 180 else (32, 128))
    upright = np.rot90(frame, -(turn // 90))  # undone: it was turned counter-clockwise by so much
    assert studio.shown(upright[None]) == [77]


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file_tells_how_many_of_its_first_frames_are_whole(
    studio: Any, tmp_path: Path, suffix: str, share: float
) -> None:
    asked = {"bf": "2"} if suffix == "mp4" else {}
    whole = studio.encoded(tmp_path / f"whole.{suffix}", range(37, 137), **asked)
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(len(data) * share)])
    try:
        reader = read(tmp_path)
        number = reader.names.index("cut." + suffix)
    except ValueError:
        assert "cut." + suffix in reader.faults
        assert suffix == "mov" or (suffix, share) == ("mp4", 0.3), "cut within its header, or before it"
        return
    with pytest.raises(Damaged, match=rf"cut\.{suffix}") as caught:
        reader.episode(number)
    good = caught.value.good
    assert good is not None and 0 < good < 100
    assert f"{good - 1}" in str(caught.value)
    frames: list[np.ndarray] = []
    with contextlib.suppress(Damaged):
        for block in reader.blocks(number, count=1):
            frames.extend(block)
    assert studio.shown(np.stack(frames)) == list(range(37, 37 + good)), "each is the frame it should be"
    # What a plain decoder gives of the file, up to its first error, is no more than this.
    plain = 0
    with av.open(str(cut)) as container:
        try:
            for frame in container.decode(video=0):
                plain += not frame.is_corrupt
        except av.error.FFmpegError:
            pass
    assert good >= plain - 2


def test_a_cut_file_is_still_good_in_its_first_pieces(studio: Any, tmp_path: Path) -> None:
    whole = studio.encoded(tmp_path / "whole.mp4", range(100))
    data = whole.read_bytes()
    whole.write_bytes(data[: int(len(data) * 0.8)])
    reader = read(tmp_path, view=View(longest=2))
    first = reader.episode(0).frames
    assert first is not None and studio.shown(first) == list(range(21))
    assert set(Episodes(reader).damaged()) == {len(reader.lengths) - 1}


def test_a_frame_that_was_overwritten_is_found(studio: Any, tmp_path: Path) -> None:
    path = studio.encoded(tmp_path / "clip.mkv", range(40), codec="ffv1", slicecrc="1", g="1", level="3")
    film = Film(path)
    with av.open(str(path)) as container:
        spots = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at, size = spots[25]
    data[at + size // 2 : at + size // 2 + 40] = b"\xff" * 40
    path.write_bytes(data)
    try:
        got = list(film.pictures(np.arange(40)))
    except Damaged as error:
        assert "clip.mkv" in str(error)
    else:
        assert studio.shown(np.stack(got))[:25] == list(range(25))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(CODECS)), st.integers(0, 2**32 - 1))
def test_bytes_changed_anywhere_give_frames_or_one_clear_line(
    studio: Any, tmp_path: Path, suffix: str, seed: int
) -> None:
    whole = tmp_path / "whole" / f"clip.{suffix}"
    if not whole.exists():
        studio.encoded(whole, range(12))
    random, data = np.random.default_rng(seed), bytearray(whole.read_bytes())
    for at in random.integers(0, len(data), int(random.integers(1, 40))):
        data[at] = random.integers(256)
    folder = tmp_path / "bent"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / f"clip.{suffix}").write_bytes(data)
    try:
        reader = read(folder)
        assert len(reader.prints) == len(reader.lengths)
        for number in range(min(4, len(reader.lengths))):
            assert len(reader.episode(number)) == reader.lengths[number]
    except (ValueError, OSError) as error:
        assert "\n" not in str(error)
        assert f"clip.{suffix}" in str(error) or "bent" in str(error)
    assert [f.name for f in folder.iterdir()] == [f"clip.{suffix}"], "nothing is written"


def test_what_is_no_video_is_a_fault_and_never_an_error_while_one_is_left(studio: Any, tmp_path: Path) -> None:
    studio.encoded(tmp_path / "a" / "good.mp4", range(10))
    (tmp_path / "a" / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na/good.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "many.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/a/good.mp4'\n")
    Image.fromarray(studio.painted(3)).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "picture.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shutil.copy(tmp_path / "a" / "good.mp4", tmp_path / ".hidden.mp4")
    reader = read(tmp_path)
    assert reader.names == ("a/good.mp4",)
    wrong = {"a/zero.mp4", "text.mp4", "list.mp4", "many.mp4", "picture.mp4", "sound.mp4"}
    assert set(reader.faults) == wrong
    assert all(why and "\n" not in why for why in reader.faults.values())
    assert "is empty" in reader.faults["a/zero.mp4"]
    assert "holds no picture" in reader.faults["sound.mp4"]
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(Damaged, match="holds nothing that can be read") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
