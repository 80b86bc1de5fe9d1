"""How a command is told to look at recordings: the options that every verb of `tacit data` shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from tacit import info as here

if TYPE_CHECKING:
    from tacit.data.episodes import Episodes
    from tacit.data.view import View


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How recordings are to be looked at."""

    camera: Annotated[str | None, arg(metavar="NAME", help="which camera, where there are several")] = None
    fps: Annotated[float | None, arg(metavar="RATE", help="frames a second; never more than were recorded")] = None
    size: Annotated[tuple[int, ...], arg(metavar="H [W]", help="of the pictures, in pixels")] = ()
    crop: Annotated[tuple[int, ...], arg(metavar="TOP LEFT HEIGHT WIDTH", help="only this part of the picture")] = ()
    fit: Annotated[
        Literal["crop", "pad", "stretch"] | None,
        arg(help="how pictures of another shape come to --size: their middle (crop, what is done without), bars"),
    ] = None
    longest: Annotated[
        float, arg(metavar="SECONDS", help="seconds of an episode; longer video is cut in pieces that lose nothing")
    ] = 60.0

    def view(self) -> View:
        from tacit.data.view import View

        if len(self.size) > 2 or any(n < 1 for n in self.size):
            raise here.Unknown(f"--size was given {self.size}; wanted one side, or height and width, in pixels.")
        if self.crop and len(self.crop) != 4:
            raise here.Unknown(f"--crop was given {self.crop}; wanted TOP LEFT HEIGHT WIDTH, in pixels.")
        if self.fit and not self.size:
            raise here.Unknown(f"--fit {self.fit} says how pictures come to a size; give --size H [W] too.")
        size = (self.size[0], self.size[-1]) if self.size else None
        crop: Any = tuple(self.crop) or None
        return View(fps=self.fps, size=size, crop=crop, fit=self.fit or "crop", longest=self.longest)

    def open(self, path: Path) -> Episodes:
        from tacit.data import open as opened

        return opened(path, camera=self.camera, view=self.view())
