"""What `tacit compare` asks for, and what it tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg

from tacit import info as here
from tacit.commands import Count, Engine, Name, took
from tacit.info import Told

HELP = """\
Run a grid of recipes x data x seeds, and write one table and one page of it.

Each cell trains without labels, is probed on held-out episodes, makes a policy of each label budget, and lets it act.
`random` and `expert` may stand beside the recipes as the ends of the scale. Stopped or killed, the same command goes
on; recipes, data and seeds may be added to it.

  tacit compare tacit lapo bc random --data out/video --out out/compared
  tacit compare lapo laom --data out/video --out out/compared --knobs lapo.codes=16 laom.plan.rate=3e-4
  tacit compare tacit --data out/a out/b --out out/compared --labels --plan.steps 500 --dry-run
"""


Words = Annotated[tuple[str, ...], arg(metavar="RECIPE.KNOB=VALUE ...")]
Source = Annotated[Name, arg(metavar="NAME")]
File = Annotated[Path | None, arg(metavar="FILE.json")]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The grid, and all that decides its numbers but the plans."""

    recipes: Positional[Annotated[tuple[str, ...], arg(metavar="RECIPE ...")]]  # as `tacit recipes` names them
    data: Annotated[tuple[Path, ...], arg(metavar="D ...")]  # dataset folders
    out: Annotated[Path, arg(metavar="OUT")]  # for cells, runs, table.md, report.json and report.html
    seeds: int = 3  # how often, each time with other weights, other labels and other episodes to act in
    labels: tuple[int, ...] = (16, 64, 256)  # budgets; with no number nobody acts
    env: Name = None  # where policies act; where the data were recorded, if not given
    source: Source = None  # whose episodes are labelled and cloned; expert, if there are others beside
    episodes: int = 50  # that each policy acts in
    held: float = 0.2  # share of the episodes that is kept back to judge on
    size: Count = None  # side of the pictures; as they are recorded, if not given
    most: int = 2048  # transitions that are judged
    knobs: Words = ()  # also RECIPE.plan.FIELD=VALUE; follow is a recipe here too
    workers: int = 1  # processes, of one thread each: so many cells at a time
    engine: Engine = "local"  # this machine's processes, or a Ray cluster's that shares the disk of D and OUT
    fresh: bool = False  # forget finished cells
    results: File = None  # also write a file of results, with its figure
    dry_run: bool = False  # take a few steps of each recipe, tell what all of it would take, write nothing


def form() -> type[Any]:
    """What is asked for: ``Asked``, and every field of a plan, which is set for all recipes where it is given."""
    from tacit.train import Plan

    kinds = get_type_hints(Plan)
    fields: list[Any] = []
    for plain in dataclasses.fields(Plan):
        if plain.name != "seed":  # the grid's own
            kind: Any = kinds[plain.name] | None
            fields.append((plain.name, Annotated[kind, arg(help="in every recipe's plan")], None))
    changes = dataclasses.make_dataclass("Changes", fields, frozen=True)
    both: list[Any] = [("grid", OmitArgPrefixes[Asked]), ("plan", changes, dataclasses.field(default=changes()))]
    return dataclasses.make_dataclass("Compare", both, frozen=True)


def knobs(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """RECIPE.KNOB=VALUE words by recipe: numbers and truths as JSON has them, all else as text."""
    found: dict[str, dict[str, Any]] = {}
    for word in given:
        name, sign, value = word.partition("=")
        recipe, dot, knob = name.partition(".")
        if not (sign and dot and knob):
            raise here.Unknown(f"--knobs was given {word!r}; wanted RECIPE.KNOB=VALUE, such as lapo.codes=16.")
        own = found.setdefault(recipe, {})
        try:
            own[knob] = json.loads({"True": "true", "False": "false"}.get(value, value))
        except json.JSONDecodeError:
            own[knob] = value
    return found


def run(told: Any) -> Told:
    """Do what was asked, and tell what came of it; exit code 1 where a cell failed."""
    from tacit.cell import Terms
    from tacit.comparison import compare, rehearsed
    from tacit.evaluate import grid

    asked, plan = told.grid, {k: v for k, v in dataclasses.asdict(told.plan).items() if v is not None}
    same = {k: getattr(asked, k) for k in ("source", "episodes", "held", "size", "most")}
    terms = Terms(tuple(sorted(set(asked.labels))), **same, env=asked.env or "", plan=plan, knobs=knobs(asked.knobs))
    much: dict[str, Any] = {"seeds": asked.seeds, "terms": terms, "workers": asked.workers}
    if asked.dry_run:
        report = rehearsed(asked.recipes, asked.data, **much)
        words: Any = Group(_costs(report.rows), report.headline)
    else:
        report = compare(asked.recipes, asked.data, asked.out, **much, engine=asked.engine, fresh=asked.fresh)
        failed = {
            f"{r['recipe']} on {r['data']}, seed {r['seed']}: {r['failed']}" for r in report.rows if r.get("failed")
        }
        table = grid.table(report.rows, report.budgets, title=report.headline)
        words = Group(table, *sorted(failed), f"The page: {asked.out / 'report.html'}")
    if asked.results is not None and not asked.dry_run:
        grid.claimed(report, asked.results, budgets=report.budgets)
    facts = {k: v for k, v in report.plain().items() if k != "figures"} | {"dry_run": asked.dry_run}
    return Told(facts, words, int(any(row.get("failed") for row in report.rows)))


def _costs(rows: Sequence[dict[str, Any]]) -> Table:
    """What each recipe would take, once."""
    table = Table("recipe", "data", "a cell", "memory", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        memory = f"{row.get('memory_bytes', 0) / 1e6:,.0f} MB"
        table.add_row(row["recipe"], row["data"], row.get("failed") or took(row["seconds"]), memory)
    return table
