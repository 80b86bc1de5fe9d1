"""Video in and out by frame number, and pictures resized by averaging areas."""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, final

import av
import numpy as np
from av.video.reformatter import VideoReformatter

SHARP = (
    128  # frames up to this many pixels a side are stored without loss: at 64 pixels a blurred pixel is a lost object
)

PIXELS = 2**25  # of one picture, more than an 8K screen has: a header may ask for any number
# What FFmpeg may take a file for: a playlist named .mp4 would have it open others.
FILES = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi", "protocol_whitelist": "file"}
SMALL = 256  # pixels a side up to which handing frames from thread to thread takes longer than decoding them


MOST = 2**30  # bytes that one array of an episode may take: a damaged or hostile file may ask for any number
DENSEST = 200  # times its size in the file that a larger array may have: more is a bomb, not compression


class Damaged(ValueError):
    """A file or an episode that cannot be read as its dataset says it should; the message names it.

    ``good`` is how many frames from its first one on are whole, where that is known.
    """

    def __init__(self, message: str, *, good: int | None = None) -> None:
        super().__init__(message)
        self.good = good


def bounded(shape: Iterable[int], dtype: Any, *, where: str, stored: int = 0) -> None:
    """Refuse, before any memory is asked for, an array of one episode that no sane recording holds.

    ``stored`` is what it takes in its file, where that is known: a large file may hold a large array.
    """
    shape = [int(n) for n in shape]
    need = math.prod(shape) * np.dtype(dtype).itemsize
    if min(shape, default=0) < 0 or need > max(MOST, DENSEST * stored):
        raise Damaged(
            f"{where} says it holds {'x'.join(map(str, shape))} of {np.dtype(dtype).name}, {need / 1e9:.1f} GB; one "
            f"episode may take {MOST / 1e9:.1f} GB. It is damaged, or must be cut or made smaller (--size)."
        )


@final
class Encoder:
    """One mp4 written frame by frame, with whole-number times, so that frame n is found at n / fps for ever.

    Without loss the codec is H.264 in RGB (4:4:4, quantiser 0), which players built on FFmpeg show and browsers do not;
    with loss it is H.264 in yuv420p, which everything shows. Every second frame is a key frame, so one is always near.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fps: int, frame: tuple[int, int], lossless: bool | None = None
    ) -> None:
        self.path, self.count = Path(path), 0
        self.lossless = max(frame) <= SHARP if lossless is None else lossless
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        lossy = {"preset": "veryfast", "crf": "20"}
        exact = {
            "preset": "superfast",
            "crf": "0",
            "x264-params": "me=dia:subme=0",
        }  # searching harder saves no bytes here
        options = {"g": "2", "bf": "0"} | (exact if self.lossless else lossy)
        codec = "libx264rgb" if self.lossless else "libx264"
        stream: Any = self._container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frame
        odd = frame[0] % 2 or frame[1] % 2
        stream.pix_fmt = self.pixels = "rgb24" if self.lossless else "yuv444p" if odd else "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        if max(frame) <= SMALL:
            stream.codec_context.thread_count = 1
        self._stream = stream

    def add(self, frames: Iterable[np.ndarray]) -> None:
        # One call into C. Between `encode` and `mux` Ctrl-C would lose packets, and the codec holds back those of
        # earlier frames: an episode that was whole would not be.
        deque(map(self._container.mux, map(self._stream.encode, self._timed(frames))), maxlen=0)

    def _timed(self, frames: Iterable[np.ndarray]) -> Iterator[av.VideoFrame]:
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = self.count, self._stream.codec_context.time_base
            self.count += 1
            yield frame

    @property
    def size(self) -> int:
        """Bytes written so far, roughly: what decides when a file is full."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class Video:
    """One video file, kept open and read by frame number."""

    def __init__(self, path: str | os.PathLike[str], *, fps: float) -> None:
        self.path, self.fps = Path(path), fps
        if not self.path.is_file():
            raise Damaged(f"Video {self.path} is missing; copy it back, or leave out the episodes that need it.")
        try:
            self._container = av.open(os.path.abspath(path), options=FILES)
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.options = {"max_pixels": str(PIXELS)}
            if min(self.shape) < 1:
                raise ValueError("its header has no picture size")
        except (av.error.FFmpegError, IndexError, AttributeError, ValueError) as error:
            raise Damaged(f"Video {self.path} cannot be opened ({error}); it is truncated or is no video.") from error
        if max(self.shape) <= SMALL:
            self._stream.codec_context.thread_count = 1
        else:
            self._stream.thread_type = "AUTO"
        self._reformatter = VideoReformatter()
        self._tick = float(self._stream.time_base or Fraction(1, 90000))  # seconds
        self._zero = self._stream.start_time or 0

    @property
    def shape(self) -> tuple[int, int]:
        return self._stream.codec_context.height, self._stream.codec_context.width

    def number(self, pts: int) -> int:
        return round((pts - self._zero) * self._tick * self.fps)

    def _seek(self, number: int) -> None:
        self._container.seek(self._zero + int(number / self.fps / self._tick), stream=self._stream)

    def frames(self, first: int, count: int) -> np.ndarray:
        """Frames ``first`` to ``first + count``, (count, H, W, 3) uint8: all, or an error that says which lack."""
        out = np.empty((count, *self.shape, 3), np.uint8)
        got = np.zeros(count, bool)
        try:
            for number, frame in self._decoded(first):
                if number >= first + count:
                    break
                if number >= first and not frame.is_corrupt:
                    out[number - first] = self._picture(frame)
                    got[number - first] = True
                    if number == first + count - 1 and got.all():
                        break  # a frame further may be a broken one, which nobody asked for
        except av.error.FFmpegError as error:
            good = int(got.sum())
            raise Damaged(f"Video {self.path} breaks off near frame {first + good} ({error}).", good=good) from error
        if not got.all():
            good = int(np.argmin(got))
            asked = f"of frames {first} to {first + count - 1}"
            raise Damaged(f"Video {self.path} lacks frame {first + good} {asked}.", good=good)
        return out

    def _picture(self, frame: Any) -> np.ndarray:
        if frame.format.name == "gbrp":  # RGB already: no conversion
            return np.asarray(frame.to_ndarray())
        # One reformatter for all frames: a frame of its own would set one up anew, which takes longer than decoding.
        return np.asarray(self._reformatter.reformat(frame, format="rgb24").to_ndarray())

    def _decoded(self, first: int) -> Iterator[tuple[int, Any]]:
        self._seek(first)
        for frame in self._container.decode(self._stream):
            if frame.pts is not None:
                yield self.number(frame.pts), frame

    def digest(self, first: int, count: int) -> str:
        """A hash of the encoded frames, which costs no decoding."""
        digest = hashlib.blake2b(digest_size=16)
        self._seek(first)
        for packet in self._container.demux(self._stream):
            if packet.pts is None or self.number(packet.pts) >= first + count:
                break
            if self.number(packet.pts) >= first:
                digest.update(bytes(packet))
        return digest.hexdigest()

    def close(self) -> None:
        self._container.close()


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, H, W, 3) uint8 at another size, each new pixel the mean of the area it covers."""
    height, width = frames.shape[1:3]
    if (height, width) == tuple(size):
        return frames
    out = np.empty((len(frames), *size, 3), np.uint8)
    down, across = _areas(height, size[0]), _areas(width, size[1])
    for start in range(0, len(frames), 16):  # few at a time: floats are four times the bytes
        part = frames[start : start + 16].astype(np.float32)
        part = np.matmul(down, part.reshape(len(part), height, -1)).reshape(len(part), size[0], width, 3)
        out[start : start + 16] = np.rint(np.matmul(across, part))
    return out


@lru_cache(maxsize=32)
def _areas(old: int, new: int) -> np.ndarray:
    """How much of each old pixel a new one covers, rows summing to 1."""
    edges = np.linspace(0, old, new + 1)[:, None]
    pixel = np.arange(old)[None]
    cover = np.clip(np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel), 0, None)
    return (cover / cover.sum(1, keepdims=True)).astype(np.float32)
