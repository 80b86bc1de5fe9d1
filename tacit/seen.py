"""How a command is told to look at recordings: the options that every verb of `tacit data` shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from tacit import info as here

if TYPE_CHECKING:
    from tacit.data.episodes import Episodes
    from tacit.data.view import View

SIDES = (4, 4096)  # pixels that a picture may be asked to have on a side


def number(kind: type[int] | type[float], metavar: str, *, least: float = -math.inf, most: float = math.inf) -> Any:
    """An option that takes a number within bounds, and says so where it is given another."""
    bounds = f"{f' from {least:g}' if least > -math.inf else ''}{f' to {most:g}' if most < math.inf else ''}"

    def read(words: Sequence[str]) -> float:
        try:
            value = kind(words[0])
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ValueError(f"{words[0]!r} was given; wanted a {'whole ' * (kind is int)}number{bounds}.")
        return value

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    )


Workers = Annotated[int, number(int, "INT", least=1)]
Share = Annotated[float, number(float, "SHARE", least=0.001, most=0.999)]
Side = Annotated[int | None, number(int, "INT", least=SIDES[0], most=SIDES[1])]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How recordings are to be looked at."""

    camera: Annotated[str | None, arg(metavar="NAME", help="which camera, where there are several")] = None
    fps: Annotated[
        float | None,
        number(float, "RATE", least=0.001, most=1e6),
        arg(help="frames a second; never more than were recorded"),
    ] = None
    size: Annotated[
        tuple[int, ...],
        arg(metavar="H [W]", help="of the pictures, in pixels", help_behavior_hint="(default: as recorded)"),
    ] = ()
    crop: Annotated[
        tuple[int, ...],
        arg(
            metavar="TOP LEFT HEIGHT WIDTH",
            help="only this part of the picture, in pixels",
            help_behavior_hint="(default: all of it)",
        ),
    ] = ()
    fit: Annotated[
        Literal["crop", "pad", "stretch"] | None,
        arg(
            metavar="{crop,pad,stretch}",
            help="how pictures of another shape come to the size: their middle, with black bars, or stretched",
            help_behavior_hint="(default: crop)",
        ),
    ] = None
    longest: Annotated[
        float,
        number(float, "SECONDS", least=0.001),
        arg(help="seconds of an episode; longer video is cut in pieces that lose nothing"),
    ] = 60.0

    def view(self) -> View:
        from tacit.data.view import View

        if len(self.size) > 2 or any(not SIDES[0] <= n <= SIDES[1] for n in self.size):
            low, high = SIDES
            given = " ".join(map(str, self.size))
            raise here.Unknown(f"--size was given {given}; wanted one side, or height and width, of {low} to {high}.")
        if self.crop and (len(self.crop) != 4 or min(self.crop) < 0 or min(self.crop[2:]) < 1):
            given = " ".join(map(str, self.crop))
            raise here.Unknown(f"--crop was given {given}; wanted TOP LEFT HEIGHT WIDTH, in pixels.")
        if self.fit and not self.size:
            raise here.Unknown(f"--fit {self.fit} says how pictures come to a size; give --size H [W] too.")
        size = (self.size[0], self.size[-1]) if self.size else None
        crop: Any = tuple(self.crop) or None
        return View(fps=self.fps, size=size, crop=crop, fit=self.fit or "crop", longest=self.longest)

    def open(self, path: Path) -> Episodes:
        """The recordings at a path; what was asked for and is not there is told apart from what is broken."""
        view = self.view()
        from tacit.data import open as opened
        from tacit.data.view import Unmet

        try:
            return opened(path, camera=self.camera, view=view)
        except Unmet as error:
            raise here.Unknown(str(error)) from error
        except ValueError as error:
            if self.camera is None or f"{self.camera!r} was asked for" not in str(error):
                raise
            raise here.Unknown(str(error)) from error

    def told(self, episodes: Episodes) -> str:
        """The rate and the size that recordings are seen at, what was brought to them, and what that costs."""
        from tacit.data.view import sized

        spec, mixed = episodes.spec, episodes.reader.mixed
        told = f" at {spec.fps:g} a second" + (f", {sized(spec.frame)}" if spec.frame else "")
        asked = {"rates": self.fps, "sizes": self.size}
        several = {k: len(counts) for k, counts in mixed.items() if len(counts) > 1 and not asked[k]}
        if several:
            flags = ", ".join({"rates": "--fps", "sizes": "--size"}[k] for k in several)
            told += f" ({', '.join(f'{n} {k}' for k, n in several.items())} were mixed; choose with {flags})"
        shapes = mixed.get("sizes", {})
        if spec.frame is None or self.crop or (self.fit or "crop") != "crop":
            return told
        lost = {s: 1 - _inside(s, spec.frame) for s in shapes}
        odd = {s: part for s, part in lost.items() if part > 0.01}
        if odd:
            low, high = (f"{100 * f(odd.values()):.0f}" for f in (min, max))
            count = sum(shapes[s] for s in odd)
            told += f"; {count:,} of another shape lose {low if low == high else f'{low} to {high}'} % of their picture"
            told += f" (--size {spec.frame[0]} {spec.frame[1]} --fit pad keeps all)"
        return told


def _inside(shape: tuple[int, int], frame: tuple[int, int]) -> float:
    """The share of a picture that its middle of another shape holds."""
    ratio = shape[0] * frame[1] / (shape[1] * frame[0])
    return min(ratio, 1 / ratio)


@contextmanager
def followed(deed: str, episodes: Episodes, *, shown: bool = True) -> Iterator[None]:
    """A bar that moves as episodes are read, whoever reads them."""
    from tacit.state import bar

    reader, begun = episodes.reader, set[int]()
    with bar(deed, len(episodes), unit="episodes", shown=shown) as advance:

        def noted(read: Callable[..., Any]) -> Callable[..., Any]:
            def asked(number: int, **options: Any) -> Any:
                begun.add(number)
                advance(len(begun))
                return read(number, **options)

            return asked

        vars(reader).update(episode=noted(reader.episode), blocks=noted(reader.blocks))
        try:
            yield
        finally:
            del vars(reader)["episode"], vars(reader)["blocks"]
