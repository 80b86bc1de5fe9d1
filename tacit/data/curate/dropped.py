"""``Dropped``: what a curation left out, by name, with the number that condemned it and the reason in words."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

SHOWN = 8  # rows that are printed; all of them are in ``rows``


@dataclass(frozen=True)
class Drop:
    """One episode, or one stretch of one, that was left out."""

    name: str  # what it is called where it comes from; a stretch has its frames behind it: "x.mp4 12-40"
    number: int  # which episode it was, or lay in, of those that were given
    score: float  # NaN where nothing was measured
    why: str
    part: bool = False  # a stretch, the rest of whose episode stays


@final
@dataclass(frozen=True)
class Dropped:
    """The table of what was left out of ``of`` episodes: it prints, it can be counted, and ``plain`` is its JSON."""

    rows: tuple[Drop, ...]
    of: int

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Drop]:
        return iter(self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(row.number for row in self.rows)

    def plain(self) -> list[dict[str, Any]]:
        """The rows in JSON's own types: a score that nobody measured is null."""
        return [asdict(row) | {"score": row.score if math.isfinite(row.score) else None} for row in self.rows]

    def __rich__(self) -> RenderableType:
        cut = [row for row in self.rows if row.part]
        told = f"{len(self) - len(cut) or 'none'} dropped of {self.of} episodes"
        told += f"; stretches cut out: {len(cut)}, of {len({row.number for row in cut})} episodes" if cut else ""
        if not self.rows:
            return Text(told)
        table = Table("episode", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("number", justify="right")
        table.add_column("score", justify="right")
        table.add_column("why")
        for row in self.rows[:SHOWN]:
            score = f"{row.score:.4g}" if math.isfinite(row.score) else "–"
            table.add_row(Text(row.name), str(row.number), score, Text(row.why))
        more = [Text(f"and {len(self) - SHOWN} more (--json tells all)")] if len(self) > SHOWN else []
        return Group(Text(told), table, *more)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=110, color_system=None)
        console.print(self)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]
