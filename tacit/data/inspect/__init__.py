"""What is wrong with recordings before anything is trained on them: ``inspect`` looks, counts and says what to do."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tacit.data.episodes import Episodes
from tacit.data.file import placed
from tacit.data.inspect import files, fits, labels, look, pictures, twins
from tacit.data.inspect.films import Film, films, labelled
from tacit.data.inspect.findings import FAIL, GRADES, PASS, WARN, Finding, counted
from tacit.data.inspect.pictures import Marks
from tacit.data.scale import Engine
from tacit.part import write

__all__ = ["FAIL", "GRADES", "PASS", "WARN", "Finding", "Inspection", "inspect"]

FORMAT = "tacit.inspection/1"
RUNS = 4  # without decoding, numbers are read of so many runs of neighbours, which lie in few files
COLOURS = {PASS: "green", WARN: "yellow", FAIL: "bold red"}
Progress = Callable[[int, int], None]


@dataclass
class Inspection:
    """What was found in some recordings: prints a line a finding, saves a page with pictures, knows its exit code."""

    name: str
    findings: list[Finding]
    counts: dict[str, Any] = field(default_factory=dict)  # episodes, frames, looked at, labelled
    names: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    films: list[Film] = field(default_factory=list, repr=False)
    marks: dict[int, Marks] = field(default_factory=dict, repr=False)
    fps: float = 10.0

    @property
    def grade(self) -> str:
        return GRADES[self.code]

    @property
    def code(self) -> int:
        """0 where everything passes, 1 with a warning, 2 with a failure: what a command exits with."""
        return max((GRADES.index(f.grade) for f in self.findings), default=0)

    @property
    def headline(self) -> str:
        """All of it in one sentence."""
        count = {g: sum(f.grade == g for f in self.findings) for g in GRADES}
        told = [counted(count[g], w) for g, w in ((FAIL, "failure"), (WARN, "warning")) if count[g]]
        return f"{' and '.join(told) or 'Nothing wrong'} in {counted(len(self.findings), 'check')}"

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"There is no check {check!r}; there are {', '.join(f.check for f in self.findings)}.")

    def plain(self) -> dict[str, Any]:
        """The inspection as strict JSON, less the pictures."""
        told = {"format": FORMAT, "name": self.name, "grade": self.grade, "code": self.code, **self.counts}
        concerned = sorted({i for f in self.findings for i in f.episodes})
        return told | {
            "findings": [f.plain() for f in self.findings],
            "names": {str(i): self.names[i] for i in concerned if i < len(self.names)},
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML page that stands alone: the findings, and a row of pictures for each episode, worst first."""
        path, text = Path(path), look.page(self)
        with placed(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, lambda staged: Path(staged).write_text(text, encoding="utf-8", errors="backslashreplace"))
        return path

    def __rich__(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for style in ("", "bold"):
            table.add_column(style=style, no_wrap=True)
        table.add_column()
        for finding in sorted(self.findings, key=lambda f: -GRADES.index(f.grade)):
            words = Text(finding.words, style="" if finding.grade != PASS else "dim")
            table.add_row(Text(finding.grade, style=COLOURS[finding.grade]), finding.check, words)
        return Group(table, Text(f"{self.name or 'recordings'}: {self.headline}.", style="bold"))

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=110, color_system=None)
        console.print(self)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def inspect(
    episodes: Episodes,
    *,
    held: Episodes | None = None,
    horizon: float = 0.5,
    decode: bool = True,
    most: int = 200,
    background: bool = True,
    workers: int = 1,
    engine: Engine = "local",
    progress: Progress | None = None,
) -> Inspection:
    """Look for what makes learning from recordings fail; nothing is trained and nothing is written.

    At most ``most`` episodes, evenly spread, are decoded, once each; ``decode=False`` reads tables and labels alone.
    ``held`` is the set that validation will use; ``horizon`` is the length of a clip in seconds; ``progress`` is told
    how many episodes of how many are done. Being without labels is no fault: what needs them says so and passes.
    """
    if not len(episodes) or most < 1 or horizon <= 0:
        raise ValueError(f"Given {len(episodes)} episodes, most {most}, horizon {horizon}; wanted each above 0.")
    space, names, fps = episodes.spec.space, list(episodes.names), episodes.spec.fps
    lost, picked = files.missing(episodes), spread(len(episodes), most)
    ahead = 0 if held is None or not decode else min(len(held), most)
    watched = partial(_watched, workers=workers, engine=engine, progress=progress, total=len(picked) + ahead)
    if decode:
        seen = watched(episodes, picked)
    else:
        picked, seen = neighbours(len(episodes), most), []
    looked = counted(len(picked), "episode")
    if len(picked) < len(episodes):
        looked = f"the {len(picked):,} episodes looked at (of {len(episodes):,})"
    measured = files.lengths(episodes, seen, picked=picked.tolist(), lost=lost, names=names)
    known = {int(i) for i in measured.facts["wrong"]}
    found = [
        *files.unfinished(episodes),
        files.unreadable(episodes, seen, lost=lost, known=known, names=names, looked=looked),
        measured,
        files.short(episodes, horizon=horizon, names=names),
        files.mixed(episodes),
    ]
    marks = pictures.marks(seen, fps=fps)
    if marks:
        found += pictures.findings(marks, seen, names=names, fps=fps, looked=looked, background=background)
    other: list[Film] = []
    if held is not None and decode:
        other = watched(held, spread(len(held), most), done=len(seen))
    found += twins.findings(episodes, seen, held=held, other=other, decode=decode)
    told = (
        {f.number: f.labels for f in seen if f.labels} if decode else labelled(episodes, picked, skip={*lost, *known})
    )
    found += labels.findings(told, space, names=names)
    if decode:
        found += [fits.offset(seen, space), fits.settled(seen, space)]
    counts = {"episodes": len(episodes), "frames": int(episodes.lengths.sum()), "decoded": len(seen), "fps": fps}
    kept = (tuple(names), tuple(episodes.lengths.tolist()))
    return Inspection(episodes.spec.name, found, counts, *kept, films=seen, marks=marks, fps=fps)


def spread(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` numbers, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def neighbours(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` numbers in a few runs: what lies together is read together."""
    if count <= most:
        return np.arange(count)
    size = max(1, most // RUNS)
    firsts = spread(count - size + 1, max(1, most // size))
    return np.unique((firsts[:, None] + np.arange(size)).ravel())[:most]


def _watched(
    episodes: Episodes,
    picked: np.ndarray,
    *,
    workers: int,
    engine: Engine,
    progress: Progress | None,
    total: int,
    done: int = 0,
) -> list[Film]:
    seen = []
    for film in films(episodes, picked, workers=workers, engine=engine):
        seen.append(film)
        if progress is not None:
            progress(done + len(seen), total)
    return seen
