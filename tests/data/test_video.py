"""Video by frame number: every frame where it should be, nothing lost where nothing may be, damage named."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tacit.data.video import Damaged, Encoder, Video, resize


def film(count: int, height: int, width: int) -> np.ndarray:
    """A square that moves over coarse colours, another place each frame."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    frames = np.repeat(np.kron(blocks, np.ones((8, 8, 1), np.uint8))[None, :height, :width], count, 0)
    for t in range(count):
        x = 3 * t % (width - 6)
        frames[t, 5:11, x : x + 6] = 255 - t
    return frames


def written(path: Path, frames: np.ndarray, *, lossless: bool | None = None, fps: int = 10) -> Path:
    with Encoder(path, fps=fps, frame=(frames.shape[1], frames.shape[2]), lossless=lossless) as encoder:
        encoder.add(frames)
    return path


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (128, 96)])
def test_small_frames_come_back_bit_for_bit(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = film(21, *size)
    assert (Video(written(tmp_path / "a.mp4", frames), fps=10).frames(0, 21) == frames).all()


@pytest.mark.parametrize(("size", "pixels"), [((144, 160), "yuv420p"), ((145, 161), "yuv444p")])
def test_large_frames_are_compressed_and_stay_close(tmp_path: Path, size: tuple[int, int], pixels: str) -> None:
    frames = film(9, *size)
    path = written(tmp_path / "a.mp4", frames)
    assert av.open(str(path)).streams.video[0].codec_context.pix_fmt == pixels
    got = Video(path, fps=10).frames(0, 9)
    assert 0 < np.abs(got.astype(int) - frames).mean() < 8
    exact = written(tmp_path / "b.mp4", frames, lossless=True)
    assert (Video(exact, fps=10).frames(0, 9) == frames).all()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 59), count=st.integers(1, 60), fps=st.sampled_from([1, 7, 10, 30, 60]))
def test_any_stretch_is_found_in_any_order(tmp_path: Path, first: int, count: int, fps: int) -> None:
    frames, path = film(60, 32, 40), tmp_path / f"{fps}.mp4"
    video = Video(path if path.exists() else written(path, frames, fps=fps), fps=fps)
    count = min(count, 60 - first)
    assert (video.frames(first, count) == frames[first : first + count]).all()
    assert (video.frames(0, 1) == frames[:1]).all()


def test_times_are_whole_numbers_of_frames(tmp_path: Path) -> None:
    container = av.open(str(written(tmp_path / "a.mp4", film(50, 16, 16), fps=30)))
    stream = container.streams.video[0]
    times = [frame.pts * stream.time_base * 30 for frame in container.decode(stream) if frame.pts is not None]
    assert times == list(range(50))
    container.seek(0)
    keys = [packet.is_keyframe for packet in container.demux(stream) if packet.pts is not None]
    assert keys[0]
    assert all(a or b for a, b in itertools.pairwise(keys)), "any frame is at most one from a key frame"


def test_frames_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", film(10, 16, 16))
    with pytest.raises(Damaged, match=r"a.mp4 lacks frame 10 of frames 8 to 11"):
        Video(path, fps=10).frames(8, 4)
    with pytest.raises(Damaged, match="none.mp4 is missing"):
        Video(tmp_path / "none.mp4", fps=10)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(Damaged, match="text.mp4 cannot be opened"):
        Video(tmp_path / "text.mp4", fps=10)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_never_gives_wrong_frames(tmp_path: Path, share: float) -> None:
    frames, path = film(30, 32, 32), tmp_path / "whole.mp4"
    data = (path if path.exists() else written(path, frames)).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(Damaged, match=r"cut\.mp4") as caught:
        Video(cut, fps=10).frames(0, 30)
    assert "\n" not in str(caught.value)


def test_the_hash_of_encoded_frames_tells_episodes_apart(tmp_path: Path) -> None:
    video = Video(written(tmp_path / "a.mp4", film(40, 32, 32)), fps=10)
    marks = {video.digest(first, 8) for first in range(0, 33, 8)}
    assert len(marks) == 5
    assert video.digest(8, 8) in marks
    assert Video(written(tmp_path / "b.mp4", film(20, 32, 32)), fps=10).digest(0, 8) == video.digest(0, 8)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_a_new_pixel_is_the_mean_of_the_area_it_covers(height: int, width: int, tall: int, wide: int) -> None:
    frames = np.random.default_rng([height, width]).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    fine = np.repeat(np.repeat(frames, tall, 1), wide, 2).astype(np.float64)  # each old pixel becomes tall x wide
    want = fine.reshape(3, tall, height, wide, width, 3).mean((2, 4))
    assert np.abs(resize(frames, (tall, wide)) - want).max() <= 0.5001


def test_resizing_keeps_what_needs_no_change_and_the_mean() -> None:
    frames = film(20, 48, 64)
    assert resize(frames, (48, 64)) is frames
    assert abs(resize(frames, (16, 16)).mean() - frames.mean()) < 0.1
