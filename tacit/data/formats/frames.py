"""A folder of frame folders: each an episode, its pictures in the order of their names."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from tacit.data.episodes import Episodes
from tacit.data.file import whole
from tacit.data.formats import film
from tacit.data.formats.reels import LOOK, PIXELS, Reel, Reels, alike, found, label, natural, nothing, opened
from tacit.data.formats.sidecar import home, notes, write_notes
from tacit.data.reader import Reader
from tacit.data.video import Damaged
from tacit.data.view import View

WHAT = "a folder of folders of pictures (png, jpg, bmp, webp), each an episode, with an optional actions file inside"
EXTRA = ""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
KINDS = ("PNG", "JPEG", "BMP", "WEBP")
SIDES = ("actions.npz", "actions.npy", "actions.jsonl", "actions.csv")
TIMES = ("timestamps.npy", "timestamps.jsonl", "timestamps.csv", "timestamps.txt", "timestamps")
FPS = 10.0  # where nobody says how fast the pictures followed each other


def recognises(path: Path) -> bool:
    """Whether it is a folder that holds pictures, two at least in one place, and no video."""
    try:
        if not path.is_dir() or next(found(path, film.SUFFIXES, most=LOOK), None) is not None:
            return False
        homes: set[Path] = set()
        for picture in found(path, SUFFIXES, most=LOOK):
            if picture.parent in homes:
                return True
            homes.add(picture.parent)
    except (OSError, ValueError):
        pass
    return False


def read(path: Path, *, camera: str | None = None, view: View = View()) -> Reader:
    """Every folder of at least two pictures as an episode, its source the folders above it."""
    if camera is not None:
        raise ValueError(f"The camera {camera!r} was asked for; folders of pictures have none. Give the folder of one.")
    return Frames(Path(path), view=view)


@final
class Sheets(Reel):
    """The pictures of one folder; where nothing says when each was taken, ``fps`` does."""

    def __init__(self, path: Path, *, name: str, files: list[Path], fps: float) -> None:
        self.path, self.name, self.files = path, name, files
        with _picture(files[0]) as first:
            self.shape = (first.height, first.width)
        self.times, self.rate = np.arange(len(files)) / fps, fps
        side = next((path / s for s in SIDES if (path / s).is_file()), None)
        if side is not None:
            self.note(notes(side, len(files)))
        times = next((path / s for s in TIMES if (path / s).is_file()), None)
        if times is not None and self.notes.times is None:
            self.note(replace(self.notes, times=notes(times, len(files)).times))

    def digest(self, rows: np.ndarray) -> bytes:
        """Of the files themselves, which takes as long as reading them; one that is gone shows nothing."""
        digest = hashlib.blake2b(digest_size=16)
        for row in rows.tolist():
            with contextlib.suppress(OSError), open(self.files[row], "rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        return digest.digest()

    def pictures(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        for row in rows.tolist():
            with _picture(self.files[row]) as picture:
                frame = _shown(picture)
            yield frame


@final
class Frames(Reels):
    """Frame folders as episodes: long ones in pieces, what cannot be opened in ``faults``."""

    def __init__(self, path: Path, *, view: View = View()) -> None:
        folders: dict[Path, list[Path]] = {}
        for file in found(path, SUFFIXES):
            folders.setdefault(file.parent, []).append(file)
        few = {
            label(f, path): "it holds a single picture; wanted two at least" for f, p in folders.items() if len(p) < 2
        }
        several = sorted((f for f, p in folders.items() if len(p) > 1), key=natural)

        def open_(folder: Path) -> Sheets:
            files = sorted(folders[folder], key=lambda f: natural(Path(f.name)))
            about = _about(folder) or _about(path)
            fps = about.get("fps", view.fps or FPS)
            if not isinstance(fps, int | float) or not (math.isfinite(fps) and fps > 0):
                raise Damaged(
                    f"{folder} has a meta.json whose fps is {str(fps)[:40]}; wanted frames a second, above 0."
                )
            sheets = Sheets(folder, name=label(folder, path), files=files, fps=float(fps))
            text = next((str(about[k]) for k in ("text", "task", "instruction") if isinstance(about.get(k), str)), None)
            sheets.notes = sheets.notes if sheets.notes.text or not text else replace(sheets.notes, text=text)
            return sheets

        reels, faults = opened(several, open_, root=path)
        reels, odd = alike(reels)
        faults = few | faults | odd
        if not reels:
            raise Damaged(nothing(path, faults))
        super().__init__(reels, path=path, view=view, name=path.name, faults=faults)
        self.opening = {"path": str(path.absolute()), "view": view.plain()}


def write(episodes: Episodes, path: Path) -> None:
    """One folder of png pictures an episode in the folder of its source, and in it all that they show not."""
    if episodes.spec.frame is None:
        raise ValueError(f"The data {episodes.spec.name!r} holds no frames; a folder of pictures wants some.")
    with whole(Path(path)) as staged:
        staged.mkdir()
        for number in range(len(episodes)):
            episode = episodes.episode(number)
            if len(episode) < 2:
                raise ValueError(f"Episode {number} has one frame; a folder of pictures wants two at least.")
            folder = staged / home(episode.source) / f"episode_{number:06d}"
            folder.mkdir(parents=True)
            assert episode.frames is not None
            for k, frame in enumerate(episode.frames):
                Image.fromarray(frame).save(folder / f"{k:06d}.png", compress_level=1)
            write_notes(folder / "actions.npz", episode, spec=episodes.spec)


@contextlib.contextmanager
def _picture(file: Path | io.BytesIO, *, where: str = "") -> Iterator[Image.Image]:
    """A picture of a sane size, decoded when asked for; any way in which it may be broken, as one that names it."""
    where = where or str(file)
    try:
        with Image.open(file, formats=KINDS) as picture:
            if picture.width * picture.height > PIXELS:
                raise Damaged(f"{where} claims {picture.width}x{picture.height}; a frame may have {PIXELS} pixels.")
            yield picture
    except Damaged:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise Damaged(
            f"{where} cannot be read ({' '.join(str(error).split())[:200]}); it is no whole picture."
        ) from error


def _shown(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I"):  # sixteen bits
        shown = np.clip(np.asarray(picture, np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(shown[..., None], 3, 2)
    return np.asarray(picture.convert("RGB"))


def _about(folder: Path) -> dict[str, Any]:
    """The ``meta.json`` of a folder: ``fps``, and the ``task``."""
    file = folder / "meta.json"
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_bytes()[: 2**24])
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file} cannot be read ({str(error)[:200]}); mend it or take it away.") from error
    return value if isinstance(value, dict) else {}


def stored(data: bytes | None, *, where: str) -> np.ndarray:
    """A picture that lies as bytes in a file of another kind, (H, W, 3)."""
    if not data:
        raise Damaged(f"{where} lacks its picture.")
    with _picture(io.BytesIO(data), where=where) as picture:
        return _shown(picture)
