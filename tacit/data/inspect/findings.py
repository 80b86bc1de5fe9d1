"""``Finding``: what one check says of a set of recordings, and the words that all checks share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from textwrap import shorten
from typing import Any, Literal

import numpy as np

Grade = Literal["PASS", "WARN", "FAIL"]
PASS: Grade = "PASS"
WARN: Grade = "WARN"
FAIL: Grade = "FAIL"
GRADES = (PASS, WARN, FAIL)
NAMED = 3  # episodes named in a line; all of them are in the JSON and on the page


@dataclass(frozen=True)
class Finding:
    """What one check found: a grade, one line for a person, the episodes it concerns, and the numbers behind it."""

    check: str
    grade: Grade
    words: str
    episodes: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.grade not in GRADES:
            raise ValueError(f"A finding's grade is {self.grade!r}; it must be one of {', '.join(GRADES)}.")
        object.__setattr__(self, "words", " ".join(self.words.split()))
        object.__setattr__(self, "episodes", tuple(sorted({int(i) for i in self.episodes})))
        object.__setattr__(self, "facts", strict(self.facts))

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "episodes": list(self.episodes)}


def strict(value: Any) -> Any:
    """``value`` in JSON's own types; what is not a finite number is null."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [strict(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def named(names: Sequence[str], which: Iterable[int], *, notes: dict[int, str] | None = None) -> str:
    """The first few episodes by name, each with its note, and how many more there are."""
    numbers, notes = sorted({int(i) for i in which}), notes or {}
    told = [names[i] + (f" ({notes[i]})" if notes.get(i) else "") for i in numbers[:NAMED]]
    return ", ".join(told) + (f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else "")


def counted(count: int, thing: str) -> str:
    """So many of a thing, in the plural where it is due."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def brief(text: str, width: int = 120) -> str:
    """A text on one line, cut between words where it is long."""
    return shorten(text, width, placeholder=" ...")


def verb(count: int, one: str, *, many: str) -> str:
    """The form of a verb that agrees with a count."""
    return one if count == 1 else many


def percent(share: float) -> str:
    """A share as a person says it; a few of many are never called none, nor nearly all of them all."""
    if 0 < share < 0.001 or 0.999 < share < 1:
        return "under 0.1 %" if share < 0.5 else "over 99.9 %"
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
