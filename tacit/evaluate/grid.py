"""What a grid of runs came to: one table with intervals over seeds, the figures, and the claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tacit.evaluate import page
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import Interval, between, mean, number, summarise
from tacit.evaluate.page import GREY, Figure, ink, plot
from tacit.evaluate.report import Report, duration

# What is told of each latent action model and what it cost: in the rows, and in the table.
COLUMNS = {
    "probe": "probe of z",
    "probe_with_o": "of z and o",
    "nuisance": "nuisance",
    "bits": "bits",
    "fvu": "FVU",
    "shuffled_gap": "shuffled gap",
}
COSTS = {"seconds": "training", "step": "a step", "memory": "memory", "parameters": "parameters"}
CAPTION = (
    "Means and 95 % intervals over seeds, on held-out episodes. The probes are linear: how well true actions are read "
    "from the latent, from it and the observation, and what no action moves from it (0 is best)."
)
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """One line of the table: a recipe on some data, and its means over seeds."""

    data: str
    recipe: str
    told: int  # labels inside the training of the latents
    values: Mapping[str, Interval]
    acting: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # labels -> an entry of `summarise`

    @property
    def name(self) -> str:
        return self.recipe + (f", taught {self.told:,} labels" if self.told else "")


def lines(rows: Rows) -> list[Line]:
    """The rows as lines of the table, in order of first appearance; rows of cells that failed are left out."""
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if not row.get("failed"):
            groups.setdefault((row["data"], row["recipe"], row["taught"] or 0), []).append(row)
    found = []
    for (data, recipe, told), own in groups.items():
        values = {}
        for name in (*COLUMNS, *COSTS):
            each = {row["seed"]: row[name] for row in own if row.get(name) is not None}  # a seed counts once
            values[name] = mean(list(each.values()))
        acting = {e["labels"]: e for e in summarised(own, metric=metric(rows, data))}
        found.append(Line(data, recipe, told, values, acting))
    return found


def metric(rows: Rows, data: str) -> str:
    """What acting is measured by: success, or the return where the environment tells of no success."""
    told = any(row["data"] == data and row.get("success") is not None for row in rows)
    return "success" if told else "return"


def summarised(rows: Rows, *, metric: str) -> list[dict[str, Any]]:
    """One entry a recipe and budget, as the curves want them."""
    acted = [{**row, "method": row["recipe"]} for row in rows if row.get(metric) is not None]
    return summarise(acted, metric) if acted else []


def _cells(rows: Rows, budgets: Sequence[int], *, apart: str) -> tuple[list[str], list[list[str]]]:
    """The table as text: its head, and its lines; columns that nothing is known of are left out."""
    found, names = lines(rows), list(dict.fromkeys(row["data"] for row in rows))
    known = [c for c in COLUMNS if any(line.values[c].n for line in found)]
    head = ["recipe", *(["data"] if len(names) > 1 else []), *(COLUMNS[c] for c in known)]
    measures = dict.fromkeys(metric(rows, name) for name in names)
    head += [f"{' or '.join(measures)}, {n:,} labels" for n in budgets]
    head += [name for c, name in COSTS.items() if any(line.values[c].n for line in found)]

    def told(value: float | None, low: float | None, high: float | None, kind: str = "") -> str:
        reach = between(low, high, metric=kind)
        return number(value, kind) + (f"{apart}{reach}" if reach else "")

    body = []
    for line in found:
        cells = [line.name, *([line.data] if len(names) > 1 else [])]
        cells += [told(v.value, v.low, v.high) for v in (line.values[c] for c in known)]
        for n in budgets:
            entry = line.acting.get(n, line.acting.get(0))  # who needs no label does the same with any number of them
            cells.append("–" if entry is None else told(entry["mean"], entry["low"], entry["high"], entry["metric"]))
        body.append(cells + [_cost(c, line.values[c].value) for c in COSTS if COSTS[c] in head])
    return head, body


def _cost(name: str, value: float) -> str:
    """A cost as a person says it."""
    if not np.isfinite(value):
        return "–"
    if name == "seconds":
        return duration(value)
    if name == "step":
        return f"{1000 * value:.3g} ms"
    return f"{value / 1e6:,.0f} MB" if name == "memory" else f"{value:,.0f}"


def table(rows: Rows, budgets: Sequence[int], *, title: str) -> RenderableType:
    """The table for the terminal, each interval under its mean; no table where every cell failed."""
    head, body = _cells(rows, budgets, apart="\n")
    if not body:
        return Text(title, style="table.title")
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in head:
        shown.add_column(name, justify="left" if name in ("recipe", "data") else "right")
    for cells in body:
        shown.add_row(*cells)
    # Beside the table and not in it, where they would be squeezed to its width: a table may be narrow.
    return Group(Text(title, style="table.title"), shown, Text(CAPTION, style="table.caption"))


def markdown(rows: Rows, budgets: Sequence[int]) -> str:
    """The table to be pasted."""
    head, body = _cells(rows, budgets, apart=", ")
    written = [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *body]]
    return "\n".join([*written, "", CAPTION, ""])


def figures(rows: Rows, budgets: Sequence[int]) -> dict[str, Figure]:
    """What the page shows: for each dataset what labels buy, then what a bit buys, and what it all cost."""
    found: dict[str, Figure] = {}
    names = list(dict.fromkeys(row["data"] for row in rows))
    for name in names:
        entries = summarised([row for row in rows if row["data"] == name], metric=metric(rows, name))
        of = f" on {name}" if len(names) > 1 else ""
        if entries and budgets:
            told = page.summary(entries, budgets=budgets)
            found[f"result on {name}"] = Figure(f"Result{of}", told.body, told.caption)
        if len(budgets) > 1 and any(entry["labels"] in budgets for entry in entries):
            curve = page.curve(entries, budgets=budgets)
            found[f"labels on {name}"] = Figure(curve.title + of, curve.body, curve.caption)
    known = [line for line in lines(rows) if line.values["probe"].n and line.values["bits"].n]
    if known:
        key = "".join(
            f"<li style='--c:var(--s{i % page.SERIES})'><i class=dot></i>{escape(_full(line, names))}</li>"
            for i, line in enumerate(known)
        )
        body = f"<ul class=key>{key}</ul>" + plot(lambda axes, wide: scatter(axes, known), "probe by bits")
        caption = "What a linear probe reads of the true actions against the bits that the latent takes to say: means, "
        found["bits"] = Figure("What bits buy", body, caption + "and 95 % intervals over seeds. High and left is best.")
    if costly := [line for line in lines(rows) if line.values["seconds"].n]:
        found["cost"] = _costs(costly, names)
    found["measured"] = _measured(rows, budgets)
    return found


def _full(line: Line, names: Sequence[str]) -> str:
    return line.name + (f" on {line.data}" if len(names) > 1 else "")


def scatter(axes: Any, found: Sequence[Line], *, inks: Callable[[int], str] = ink) -> None:
    """Each line's probe against its bits, with both intervals."""
    for i, line in enumerate(found):
        x, y = line.values["bits"], line.values["probe"]
        reach = [np.abs([[v.low - v.value], [v.high - v.value]]) if v.known else None for v in (x, y)]
        axes.errorbar(x.value, y.value, xerr=reach[0], yerr=reach[1], fmt="o", color=inks(i), linewidth=1.2)
    axes.set_xlabel("bits", color=GREY)
    axes.set_ylabel("linear probe", color=GREY)


def _costs(found: Sequence[Line], names: Sequence[str]) -> Figure:
    """One bar a line for the seconds of training, with the other costs beside it."""
    most = max(line.values["seconds"].value for line in found) or 1.0
    bars = ""
    for line in found:
        told = ", ".join(
            f"{_cost(name, line.values[name].value)} {said}" for name, said in COSTS.items() if line.values[name].n
        )
        share = 40 * line.values["seconds"].value / most
        bars += f"<dt>{escape(_full(line, names))}</dt><dd><i style='width:{share:.1f}%'></i>{told}</dd>"
    caption = (
        "Of training what gives the latents, or a policy that wants none; means over seeds. A cell has one thread, or "
    )
    caption += "the GPU. Memory is the most that its process held at a time."
    return Figure("What it cost", f"<dl class=stages>{bars}</dl>", caption)


def _measured(rows: Rows, budgets: Sequence[int]) -> Figure:
    """The whole table on the page."""
    head, body = _cells(rows, budgets, apart=" ")
    top = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    told = ""
    for cells in body:
        both = zip(head, cells, strict=True)
        told += "<tr>" + "".join(f'<td data-label="{escape(n)}">{escape(c)}</td>' for n, c in both) + "</tr>"
    table = f"<table class='cells plain'><thead><tr>{top}</tr></thead><tbody>{told}</tbody></table>"
    return Figure("All of it", table, CAPTION)


def headline(rows: Rows, budgets: Sequence[int]) -> str:
    """One sentence: who does what on the first dataset with the fewest labels, or what a probe reads."""
    done = [row for row in rows if not row.get("failed")]
    failed = len({(r["recipe"], r["data"], r["seed"]) for r in rows if r.get("failed")})
    lost = f" {failed} cell{'s' * (failed > 1)} failed." if failed else ""
    if not done:
        return lost.strip()
    first = [line for line in lines(done) if line.data == done[0]["data"]]
    if budgets:
        at = {line.recipe: line.acting[budgets[0]] for line in first if budgets[0] in line.acting}
        told = ", ".join(f"{name} {number(e['mean'], e['metric'])}" for name, e in at.items())
        kind = metric(done, done[0]["data"])
        if told:
            return f"{kind.capitalize()} with {budgets[0]:,} labels on {done[0]['data']}: {told}.{lost}"
    read = ", ".join(f"{e.name} {number(e.values['probe'].value)}" for e in first if e.values["probe"].n)
    return (f"What a linear probe reads of the actions on {done[0]['data']}: {read}." if read else "Measured.") + lost


def claimed(report: Report, path: Path, *, budgets: Sequence[int]) -> Claim:
    """Write the comparison as a file of results/: a table that can be made again; its bar is that every cell ends."""
    found, failed = lines(report.rows), [row for row in report.rows if row.get("failed")]
    names = list(dict.fromkeys(row["data"] for row in report.rows))
    first = metric(report.rows, names[0])
    entries = summarised([row for row in report.rows if row["data"] == names[0]], metric=first)
    whole = {m for m in (e["method"] for e in entries) if all((m, n) in _pairs(entries) for n in budgets)}
    told = {
        _full(line, names): {
            **{name: value.value for name, value in line.values.items() if value.n},
            **{f"{e['metric']} {n}": e["mean"] for n, e in line.acting.items()},
        }
        for line in found
    }
    reach = {_full(line, names): {n: [v.low, v.high] for n, v in line.values.items() if v.n} for line in found}

    def draw(axes: Any) -> None:
        from tacit.evaluate.showing import labels_curve

        shown = [e for e in entries if e["method"] in whole or e["labels"] not in budgets]
        if budgets and whole:
            labels_curve(axes, shown, budgets=budgets)
        else:
            scatter(axes, [line for line in found if line.values["bits"].n], inks=lambda i: f"C{i}")

    claim = Claim(
        claim=report.headline,
        command=report.command,
        value=told,
        interval=reach,
        n=len({row["seed"] for row in report.rows}),
        seeds=report.seeds,
        bar=f"all {len({(r['recipe'], r['data'], r['seed']) for r in report.rows})} cells end with finite numbers",
        passed=not failed,
        rows=report.rows,
        extra={"summary": entries, "seconds": report.seconds},
    )
    claim.save(path, draw=draw)
    return claim


def _pairs(entries: Rows) -> set[tuple[str, int]]:
    return {(e["method"], e["labels"]) for e in entries}
