"""One video file of whatever container and codec, frame by frame in order of time, nothing believed that it claims."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, final

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from tacit.data.formats.reels import PIXELS, Reel
from tacit.data.video import SMALL, Damaged
from tacit.data.view import rate

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
# Containers that hold pictures and nothing else: a playlist of that suffix would have other files opened.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,m4v,h264,hevc,obu,av1,nut,mjpeg,"
    "y4m,yuv4mpegpipe,dv,rm,swf"
)
BOXES, BOX = 2**17, 2**26  # how many boxes of an mp4 are looked at, and how much of each
FIRST = 300  # packets tried until one gives a picture
BEHIND = 16  # frames a codec may hold back: the farthest that a cut file's last ones may lie out of order


@final
class Film(Reel):
    """One video file: its packets read once, without decoding more than the first picture, then frames as asked."""

    def __init__(self, path: Path, *, name: str = "") -> None:
        self.path, self.name = path, name or path.name
        if not path.stat().st_size:
            raise Damaged(f"{path} is empty; copy it again or take it away.")
        _believable(path)
        try:
            with self._opened() as (container, stream):
                self._survey(container, stream)
        except (av.error.FFmpegError, IndexError) as error:
            raise Damaged(f"{path} cannot be opened ({_said(error)}); it is truncated or no video.") from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        with av.open(os.path.abspath(self.path), options=options, metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams:
                raise Damaged(f"{self.path} holds no picture: sound alone, or none of its streams is video.")
            stream = streams[0]
            codec = stream.codec_context
            if codec is None:
                raise Damaged(f"{self.path} is of a codec that is not known here; convert it.")
            codec.options = {"max_pixels": str(PIXELS)}
            pixels = codec.width * codec.height
            if pixels > PIXELS:
                raise Damaged(f"{self.path} claims pictures of {codec.width}x{codec.height}; wanted {PIXELS} pixels.")
            if pixels <= SMALL**2:
                codec.thread_count = 1
            else:  # each thread holds pictures of its own
                codec.thread_count = min(4, os.cpu_count() or 1)
                stream.thread_type = "AUTO"
            yield container, stream

    def _survey(self, container: Any, stream: Any) -> None:
        """What all packets say: when each frame is shown, from where one can decode, and whether any is missing."""
        stamps: list[int | None] = []
        marks = bytearray()
        keys: list[int | None] = []
        picture, seen, last, ends = None, 0, None, 0.0
        hide = stream.codec_context.name == "vp8"
        for packet in self._packets(container, stream):
            seen += 1
            if picture is None and seen <= FIRST:
                with contextlib.suppress(av.error.FFmpegError):
                    picture = next(iter(packet.decode()), None)
            if packet.is_discard or (hide and not bytes(packet)[:1][0] & 0x10):  # made to be decoded, not to be shown
                continue
            stamp = packet.pts if packet.pts is not None else packet.dts
            if not keys and not packet.is_keyframe:
                continue  # what comes before the first key frame cannot be decoded
            if packet.is_keyframe:
                keys.append(stamp)
            stamps.append(stamp)
            marks += hashlib.blake2b(packet, digest_size=8).digest()
            last = packet.dts
            ends = max(ends, float(((stamp or 0) + (packet.duration or 0)) * (stream.time_base or 0)))
        if picture is None:
            with contextlib.suppress(av.error.FFmpegError):
                picture = next(iter(stream.codec_context.decode(None)), None)
        if picture is None or not stamps:
            raise Damaged(f"{self.path} holds no frame that can be decoded; it is truncated or no video.")
        self._turn = round(getattr(picture, "rotation", 0) / 90) % 4
        self.shape = (picture.width, picture.height) if self._turn % 2 else (picture.height, picture.width)
        self._marks = np.frombuffer(bytes(marks), np.uint64)
        self._clock(container, stream, stamps=stamps, keys=keys)
        self._miss(container, stream, seen=seen, last=last, ends=ends)

    def _clock(self, container: Any, stream: Any, *, stamps: list[int | None], keys: list[int | None]) -> None:
        told = [s for s in stamps if s is not None]
        shuffled = container.format.name == "avi" and stream.codec_context.has_b_frames  # AVI knows one order alone
        told_rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        tick = float(stream.time_base or 0)
        sure = len(told) == len(stamps) == len(set(told)) and tick > 0
        self._stamps: np.ndarray | None = None  # none where frames can only be counted from the first
        if sure:
            first = min(told) if keys[0] is None or shuffled else keys[0]
            order = np.argsort(told, kind="stable")
            self._marks = self._marks[order[len(told) - sum(s >= first for s in told) :]]
            told = sorted(s for s in told if s >= first)
            if not shuffled:
                self._stamps = np.array(told, np.int64)
                self._keys = sorted(k for k in keys if k is not None and k >= first)
            self.times = (np.array(told, np.float64) - told[0]) * tick
        else:
            self.times = np.arange(len(stamps)) / float(told_rate or 25)
        self.rate = rate(self.times, where=str(self.path))

    def _miss(self, container: Any, stream: Any, *, seen: int, last: int | None, ends: float) -> None:
        """Notice a file that was cut: it lacks frames or time that its own header promises."""
        kind, promised, extent = container.format.name, stream.frames, None
        if not self.fault and "mov" in kind and promised > seen:
            self.fault = f"{promised - seen} of the {promised} frames that it promises are missing"
        if not self.fault and kind == "avi" and promised > seen + 2 + 0.02 * promised:
            self.fault = f"{promised - seen} of the {promised} frames that it promises are missing"
        if not self.fault and "matroska" in kind:
            extent = _seconds(stream.metadata.get("DURATION"))
            if extent is None and container.duration is not None and len(container.streams) == 1:
                extent = container.duration / av.time_base
            if extent is not None and extent > ends + max(0.25, 2 / (self.rate or 10)):
                self.fault = f"it ends after {ends:.4g} of the {extent:.4g} seconds that it promises"
        if not self.fault or self._stamps is None or last is None or self.rate is None:
            return
        # The last frames may lack some between them that were to be decoded later: what follows such a hole is not
        # whole from the first frame on.
        times, stamps = self.times, self._stamps
        holes = np.flatnonzero((np.diff(times) > 1.5 / self.rate) & (stamps[1:] > last))
        holes = holes[holes >= len(times) - BEHIND]
        if len(holes):
            self.times, self._stamps = times[: holes[0] + 1], stamps[: holes[0] + 1]

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The whole packets of a file; where they break off, the file's fault is noted."""
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    self.fault = self.fault or "its last frame is cut off"
                    return
                if packet.size:
                    yield packet
        except av.error.FFmpegError as error:
            self.fault = self.fault or f"it breaks off ({_said(error)})"

    def digest(self, rows: np.ndarray) -> bytes:
        """Of the packets that they are decoded from, back to the key frame before the first."""
        first = 0
        if self._stamps is not None:
            before = [k for k in self._keys if k <= self._stamps[rows[0]]]
            first = int(np.searchsorted(self._stamps, before[-1])) if before else 0
        digest = hashlib.blake2b(self._marks[first : rows[-1] + 1].tobytes(), digest_size=16)
        digest.update((rows - first).astype("<i8").tobytes())
        return digest.digest()

    def pictures(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The pictures of these rows, which rise, decoded from the key frame before the first of them on."""
        wanted, turner = rows.tolist(), VideoReformatter()
        done, why = 0, ""
        try:
            with self._opened() as (container, stream):
                for row, frame in self._frames(container, stream, first=wanted[0]):
                    if row < wanted[done]:
                        continue
                    if row > wanted[done] or frame.is_corrupt:
                        break
                    yield self._picture(frame, turner)
                    done += 1
                    if done == len(wanted):
                        return
        except (av.error.FFmpegError, IndexError) as error:
            why = f" ({_said(error)})"
        where = f"after frame {wanted[done - 1]}" if done else f"at or before frame {wanted[0]}"
        raise Damaged(f"{self.path} is damaged {where} of {len(self.times)}{why}.")

    def _picture(self, frame: Any, turner: VideoReformatter) -> np.ndarray:
        if frame.width * frame.height > PIXELS:
            raise Damaged(f"{self.path} holds a picture of {frame.width}x{frame.height}.")
        if frame.format.name != "gbrp":  # RGB already: no conversion
            frame = turner.reformat(frame, format="rgb24")
        return np.rot90(frame.to_ndarray(), self._turn)

    def _frames(self, container: Any, stream: Any, *, first: int) -> Iterator[tuple[int, Any]]:
        """Decoded frames with their row, from one at or before ``first`` on."""
        output = enumerate(_output(self._from(container, stream, first=first), stream.codec_context))
        for count, frame in output:
            if self._stamps is None:
                yield count, frame
            elif frame.pts is not None:
                row = int(np.searchsorted(self._stamps, frame.pts))
                if row < len(self._stamps) and self._stamps[row] == frame.pts:
                    yield row, frame

    def _from(self, container: Any, stream: Any, *, first: int) -> Iterator[Any]:
        """Packets from a key frame on that is not shown after ``first``: a container may seek to a later one."""
        if self._stamps is not None and first:
            wanted = int(self._stamps[first])
            for key in [k for k in self._keys if k <= wanted][:-4:-1]:
                if key == self._keys[0]:
                    break
                with contextlib.suppress(av.error.FFmpegError):
                    container.seek(key, stream=stream)
                    packets = self._packets(container, stream)
                    head = next(packets, None)
                    if head is not None and head.pts is not None and head.is_keyframe and head.pts <= wanted:
                        return itertools.chain([head], packets)
            with contextlib.suppress(av.error.FFmpegError):
                container.seek(min(0, int(self._keys[0])), stream=stream)
        return self._packets(container, stream)


def _believable(path: Path) -> None:
    """Refuse an mp4 that claims more samples than it has bytes: FFmpeg would build an index of them all."""
    size, at = path.stat().st_size, 0
    with open(path, "rb") as file:
        for _ in range(BOXES):
            head = file.read(16)
            length = int.from_bytes(head[:4]) if head[:4] != b"\0\0\0\1" else int.from_bytes(head[8:16])
            if len(head) < 8 or length < 8 or not head[4:8].isascii():
                return
            if head[4:8] in (b"moov", b"moof"):
                file.seek(at)
                held = file.read(min(length, BOX))
                for claim in re.finditer(rb"stsz.{4}(.{4})(.{4})|trun.{4}(.{4})", held, re.DOTALL):
                    each, count, run = (int.from_bytes(n or b"") for n in claim.groups())
                    if count * each > size or run > size:
                        raise Damaged(f"{path} claims {count or run} frames in {size} bytes; it is damaged.")
            at += length
            if at >= size:
                return
            file.seek(at)


def _output(packets: Iterable[Any], codec: Any) -> Iterator[Any]:
    """The frames of these packets, up to the first packet that is damaged: what follows is built on it."""
    fault, begun = None, False
    for packet in packets:
        try:
            for frame in packet.decode():
                begun = True
                yield frame
        except av.error.FFmpegError as error:
            fault = error
            if begun:
                break
    with contextlib.suppress(av.error.FFmpegError):
        yield from codec.decode(None)  # what the codec held back
    if fault is not None:
        raise fault


def _seconds(told: str | None) -> float | None:
    """A time written hours:minutes:seconds."""
    try:
        hours, minutes, seconds = (told or "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _said(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
