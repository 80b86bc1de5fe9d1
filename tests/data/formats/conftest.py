"""Videos of pictures that show their own number, in every codec that tests ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

CODECS = {
    "mp4": ("libx264", "yuv420p", {"g": "12"}),
    "webm": ("libvpx-vp9", "yuv420p", {"g": "12", "deadline": "realtime"}),
    "avi": ("mpeg4", "yuv420p", {"g": "12", "b": "4000000"}),
    "mov": ("mjpeg", "yuvj420p", {}),
    "mkv": ("ffv1", "bgr0", {}),
}


def painted(number: int, *, height: int = 32, width: int = 128) -> np.ndarray:
    """A picture that shows its number as ten bars, black and white, from the left."""
    bits = np.array([number >> b & 1 for b in range(10)], np.uint8) * 255
    row = bits[np.arange(width) * 10 // width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def shown(frames: np.ndarray) -> list[int]:
    """The numbers that painted pictures show, of whatever size."""
    width = frames.shape[2]
    middles = [(2 * b + 1) * width // 20 for b in range(10)]
    return (
        (frames[:, frames.shape[1] // 2, middles].mean(-1) > 127).astype(int) * (1 << np.arange(10))
    ).sum(1).tolist()  # fmt: skip


def encoded(
    path: Path,
    numbers: Sequence[int] = range(40),
    *,
    codec: str | None = None,
    pixels: str = "",
    times: Sequence[float] | None = None,
    fps: int = 10,
    size: tuple[int, int] = (32, 128),
    turn: int = 0,
    **options: str,
) -> Path:
    """A video of painted pictures, at these times in seconds where they are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own, kind, usual = CODECS.get(path.suffix[1:], ("libx264", "yuv420p", {}))
    usual = {"movflags": "faststart"} | usual if path.suffix == ".mp4" and "movflags" not in options else usual
    inner = {k: v for k, v in (usual | options).items() if k != "movflags"}
    outer = {k: v for k, v in (usual | options).items() if k == "movflags"}
    with av.open(str(path), "w", options=outer) as container:
        stream: Any = container.add_stream(codec or own, rate=fps, options=inner)
        stream.height, stream.width = size
        stream.pix_fmt = pixels or kind
        if turn:
            stream.set_display_rotation(turn)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for k, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(painted(number, height=size[0], width=size[1]), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[k] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@dataclass(frozen=True)
class Studio:
    """What tests of videos film with: pictures of numbers, the numbers that pictures show, and videos of them."""

    painted: Any = staticmethod(painted)
    shown: Any = staticmethod(shown)
    encoded: Any = staticmethod(encoded)


@pytest.fixture(scope="session")
def studio() -> Studio:
    return Studio()
