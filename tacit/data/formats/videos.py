"""A folder of videos, or one video: each an episode, with actions, states, rewards and times where a file beside it
has them."""

from __future__ import annotations

from pathlib import Path
from typing import final

from tacit.data.episodes import Episodes
from tacit.data.file import whole
from tacit.data.formats.film import SUFFIXES, Film
from tacit.data.formats.reels import LOOK, Reels, alike, found, label, natural, nothing, opened
from tacit.data.formats.sidecar import beside, home, notes, write_notes
from tacit.data.reader import Reader
from tacit.data.video import Damaged, Encoder
from tacit.data.view import View

WHAT = "a folder of videos (mp4, mkv, webm, avi, mov), or one video, with optional .npz, .jsonl or .csv files beside"
EXTRA = ""


def recognises(path: Path) -> bool:
    """Whether it is a video or a folder with one in it."""
    try:
        if path.is_file():
            return path.suffix.lower() in SUFFIXES
        return path.is_dir() and next(found(path, SUFFIXES, most=LOOK), None) is not None
    except (OSError, ValueError):
        return False


def read(path: Path, *, camera: str | None = None, view: View = View()) -> Reader:
    """Every video of a folder as episodes, those below each other of the source that their folder names."""
    if camera is not None:
        raise ValueError(f"The camera {camera!r} was asked for; a folder of videos has none. Give the folder of one.")
    return Videos(Path(path), view=view)


@final
class Videos(Reels):
    """Videos as episodes: what cannot be opened is in ``faults``, and long ones are read in pieces."""

    def __init__(self, path: Path, *, view: View = View()) -> None:
        files = [path] if path.is_file() else sorted(found(path, SUFFIXES), key=natural)
        films, faults = opened(files, lambda file: _noted(Film(file, name=label(file, path))), root=path)
        films, odd = alike(films)
        if not films:
            raise Damaged(nothing(path, faults | odd))
        # A cache goes into the folder: where a file was given, that is the one it lies in.
        super().__init__(
            films, path=path.parent if path.is_file() else path, view=view, name=path.stem, faults=faults | odd
        )
        self.opening = {"path": str(path.absolute()), "view": view.plain()}


def _noted(film: Film) -> Film:
    file = beside(film.path.with_suffix(""))
    if file is not None:
        film.note(notes(file, len(film.times)))
    return film


def write(episodes: Episodes, path: Path) -> None:
    """One video an episode in the folder of its source, exact where it is small, and beside it all that it shows not.

    Episodes longer than a ``View`` allows come back in pieces, unless it is read with ``View(longest=inf)``.
    """
    if episodes.spec.frame is None:
        raise ValueError(f"The data {episodes.spec.name!r} holds no frames; a folder of videos wants pictures.")
    with whole(Path(path)) as staged:
        staged.mkdir()
        for number in range(len(episodes)):
            episode = episodes.episode(number)
            assert episode.frames is not None
            file = staged / home(episode.source) / f"episode_{number:06d}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            with Encoder(file, fps=max(1, round(episodes.spec.fps)), frame=episodes.spec.frame) as encoder:
                encoder.add(episode.frames)
            write_notes(file.with_suffix(".npz"), episode, spec=episodes.spec)
