"""``Report``: named values, each with its interval, its n and the held-out data it was measured on."""

from __future__ import annotations

import dataclasses
import difflib
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from tacit.evaluate import page
from tacit.evaluate.interval import Interval, between, end, number, split, summarise
from tacit.evaluate.page import Figure
from tacit.part import write
from tacit.state import versions

FORMAT = "tacit.report/1"
JSON, HTML = "report.json", "report.html"


@dataclass(frozen=True)
class Value:
    """One measured number: how sure it is, on how many independent things it rests, and on which data."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    data: str = ""  # the held-out data it was measured on
    note: str = ""

    def __post_init__(self) -> None:
        for key in ("value", "low", "high"):
            given = getattr(self, key)
            known = given is not None and math.isfinite(given)
            object.__setattr__(self, key, float(given) if known else None)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{self.name!r} has the interval [{self.low}, {self.high}]; low must not exceed high.")

    @classmethod
    def of(cls, name: str, interval: Interval, *, data: str = "", note: str = "") -> Self:
        return cls(name, interval.value, interval.low, interval.high, interval.n, data, note)


@dataclass
class Report:
    """What was measured, and all that is needed to believe it; prints, saves, loads and merges.

    ``rows`` are raw runs. Where they hold ``method`` and ``labels`` they also become the table and the label-budget
    curve of ``metric``; ``budgets`` names the label counts of the columns, all others are ends of the scale.
    """

    title: str
    headline: str = ""
    values: list[Value] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    metric: str = "success"
    budgets: tuple[int, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)  # seconds each part of the work took
    seconds: float | None = None  # all of the work; the sum of the stages where nobody says otherwise
    seeds: tuple[int, ...] = ()
    fingerprint: dict[str, str] = field(default_factory=dict)  # data set -> print of its content
    command: str = field(default_factory=lambda: _command())
    versions: dict[str, str] = field(default_factory=lambda: {**versions(), "cores": str(os.cpu_count())})
    made: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def add(self, *values: Value) -> Self:
        for value in values:
            if any((v.name, v.data) == (value.name, value.data) for v in self.values):
                where = f" on {value.data}" if value.data else ""
                raise ValueError(f"{value.name!r}{where} is already in the report; give the second one another name.")
            self.values.append(value)
        return self

    def __getitem__(self, name: str) -> Value:
        for value in self.values:
            if value.name == name:
                return value
        near = difflib.get_close_matches(name, [v.name for v in self.values], n=3) or [v.name for v in self.values]
        raise KeyError(f"The report has no value {name!r}; it has {', '.join(near) or 'none'}.")

    @property
    def summary(self) -> list[dict[str, Any]]:
        """The mean and the interval of ``metric`` for each (method, labels)."""
        return summarise([row for row in self.rows if {"method", "labels"} <= row.keys()], self.metric)

    def merge(self, *others: Report) -> Report:
        """All the reports as one, under this one's title; what contradicts itself is refused."""
        whole = dataclasses.replace(
            self, values=list(self.values), rows=list(self.rows), figures=dict(self.figures), seconds=self._total()
        )
        for other in others:
            whole.add(*(v for v in other.values if v not in whole.values))
            known_rows = [strict(row, "rows") for row in whole.rows]
            whole.rows += [row for row in other.rows if strict(row, "rows") not in known_rows]
            whole.figures = _union(whole.figures, other.figures, "figure")
            whole.fingerprint = _union(whole.fingerprint, other.fingerprint, "data set")
            names = [*whole.stages, *(k for k in other.stages if k not in whole.stages)]
            whole.stages = {k: whole.stages.get(k, 0.0) + other.stages.get(k, 0.0) for k in names}
            whole.seconds = (whole.seconds or 0.0) + (other._total() or 0.0)
            whole.seeds = tuple(sorted({*whole.seeds, *other.seeds}))
            whole.budgets = tuple(sorted({*whole.budgets, *other.budgets}))
            for name, value in other.versions.items():
                known = whole.versions.get(name, value)
                whole.versions = {**whole.versions, name: known if value in known.split(", ") else f"{known}, {value}"}
        return whole

    def save(self, folder: str | Path) -> Path:
        """Write report.json and report.html; each appears whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # both are made before either is written, so that a mistake leaves the last good report alone
        plain = json.dumps(self.plain(), indent=1, allow_nan=False, ensure_ascii=False)
        texts = {HTML: self.html(), JSON: plain + "\n"}
        for name, text in texts.items():
            write(folder / name, lambda path, text=text: Path(path).write_text(text, encoding="utf-8"))
        return folder

    def plain(self) -> dict[str, Any]:
        """The report as strict JSON: what is not a finite number is null."""
        plain = {"format": FORMAT, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}
        plain |= {"seconds": self._total(), "summary": self.summary}
        plain["figures"] = plain.pop("figures")  # last, because they are long
        return strict(plain, "report")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The report saved in ``folder`` (or in the named report.json)."""
        path = Path(folder) / JSON if Path(folder).is_dir() else Path(folder)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give a folder that `Report.save` wrote.")
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            plain.pop("summary")
            plain["values"] = [Value(**v) for v in plain["values"]]
            plain["figures"] = {k: Figure(**v) for k, v in plain["figures"].items()}
            return cls(**{**plain, "budgets": tuple(plain["budgets"]), "seeds": tuple(plain["seeds"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is not a report of this version of tacit: {error}") from error

    def html(self) -> str:
        """The report as one page that stands alone."""
        total = self._total()
        facts = {"made": self.made[:16].replace("T", " ") + " UTC", "time": duration(total) if total else ""}
        facts["seeds"] = ", ".join(map(str, self.seeds)) if len(self.seeds) <= 8 else str(len(self.seeds))
        facts["data"] = ", ".join(sorted({v.data for v in self.values if v.data})[:2]) or ", ".join(self.fingerprint)
        shown = {k: v for k, v in facts.items() if v}
        headline = self.headline or self.title
        return page.render(title=self.title, headline=headline, sections=self.sections(), facts=shown)

    def sections(self) -> list[Figure]:
        """The page's sections in order; a caller may insert more and hand them to ``page.render``."""
        summary = self.summary
        found = [page.summary(summary, budgets=self.budgets)] if summary else []
        if summary and len(split(summary, self.budgets)[1]) > 1:
            found.append(page.curve(summary, budgets=self.budgets))
        found += self.figures.values()
        if self.values:
            caption = "Each number with its 95 % interval, the count n it rests on, and the held-out data behind it."
            found.append(Figure("Measured", _table([_told(v) for v in self.values]), caption))
        made = f"<pre>{escape(self.command)}</pre>" if self.command else ""
        prints = {f"print of {k}": v for k, v in self.fingerprint.items()}
        made = _stages(self.stages) + made + _pairs({**self.versions, **prints})
        if self.rows:
            listed = _table(strict(self.rows, "rows"))
            made += f"<details><summary>All {len(self.rows)} runs</summary>{listed}</details>"
        return [*found, Figure("How it was made", made)]

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [Text(self.title, style="bold")]
        if self.headline:
            parts.append(Text(self.headline))
        if self.summary:
            parts += ["", _matrix(self.summary, self.budgets)]
        if self.values:
            listed = Table("measured", box=box.SIMPLE_HEAD, pad_edge=False)
            for name in ("value", "95 % interval", "n"):
                listed.add_column(name, justify="right")
            listed.add_column("on", style="dim")
            for value in self.values:
                low_high = between(value.low, value.high).replace("\u202f", " ")
                listed.add_row(Text(value.name), number(value.value), low_high, str(value.n), Text(value.data))
            parts += ["", listed]
        total = self._total()
        made = [duration(total)] if total else []
        made += [f"seeds {', '.join(map(str, self.seeds))}"] if self.seeds else []
        parts.append(Text(" · ".join([*made, self.command]), style="dim"))
        return Group(*parts)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=110, color_system=None)
        console.print(self)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]

    def _total(self) -> float | None:
        return self.seconds if self.seconds is not None else sum(self.stages.values()) or None


def log(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl, for ``page.losses``, less a last line that a kill cut short."""
    rows: list[dict[str, Any]] = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if round(seconds) < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _matrix(entries: Sequence[Mapping[str, Any]], budgets: Sequence[int]) -> Table:
    """Methods by label budgets, for the terminal."""
    methods, columns, ends = split(entries, budgets)
    metric = str(entries[0]["metric"])
    matrix = Table(metric, box=box.SIMPLE_HEAD, pad_edge=False)
    for labels in columns:
        matrix.add_column(f"{labels:,} labels", justify="right")
    at = {(e["method"], e["labels"]): e for e in entries}

    def cell(entry: Mapping[str, Any] | None) -> Text:
        if entry is None:
            return Text("–")
        told = between(entry["low"], entry["high"], metric=metric)
        text = Text(number(entry["mean"], metric), style="bold")
        return text.append(f"  {told}" if told else "", style="not bold dim")

    for method in methods:
        matrix.add_row(Text(method), *(cell(at.get((method, n))) for n in columns))
    for entry in ends:
        matrix.add_row(Text(end(entry), style="dim"), cell(entry))
    return matrix


def _told(value: Value) -> dict[str, Any]:
    interval = between(value.low, value.high)
    return {
        "value": value.name, "is": number(value.value), "95 % interval": interval, "n": value.n or None,
        "measured on": value.data, "note": value.note,
    }  # fmt: skip


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Any list of rows as an HTML table, its columns in order of first appearance, less those that are empty."""
    named = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in named if any(row.get(name) not in (None, "") for row in rows)]
    head = "".join(f"<th scope=col>{escape(str(c))}</th>" for c in columns)
    body = ""
    for row in rows:
        shown = ((c, row.get(c)) for c in columns)
        told = ((c, number(v) if isinstance(v, float) else "" if v is None else str(v)) for c, v in shown)
        cells = (f'<td data-label="{escape(str(c))}">{escape(text)}</td>' for c, text in told)
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<table class='cells plain'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _stages(seconds: Mapping[str, float]) -> str:
    """Where the time went: one bar a stage."""
    most = max(seconds.values(), default=0.0) or 1.0
    bars = ((name, f"<i style='width:{75 * v / most:.1f}%'></i>{duration(v)}") for name, v in seconds.items())
    return "<dl class=stages>" + "".join(f"<dt>{escape(name)}</dt><dd>{bar}</dd>" for name, bar in bars) + "</dl>"


def _pairs(items: Mapping[str, str]) -> str:
    cells = (f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in items.items())
    return f"<dl class=pairs>{''.join(cells)}</dl>"


def _union(one: Mapping[str, Any], other: Mapping[str, Any], what: str) -> dict[str, Any]:
    for name in one.keys() & other.keys():
        if one[name] != other[name]:
            raise ValueError(f"The reports disagree about the {what} {name!r}; rename it in one before merging.")
    return {**one, **other}


def _command() -> str:
    program = Path(sys.argv[0]).name if sys.argv else ""
    return shlex.join(["tacit" if program in ("", "-c", "__main__.py") else program, *sys.argv[1:]])


def strict(value: Any, where: str) -> Any:
    """``value`` in JSON's own types, or a refusal that says where the trouble lies."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"{where} has the key {wrong[0]!r}; a report's keys are text.")
        return {key: strict(v, f"{where}.{key}") for key, v in value.items()}
    if isinstance(value, Sequence):
        return [strict(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}; a report holds numbers, text, lists and mappings.")
