"""A grid of recipes x data x seeds, in processes or on nodes: what is finished is kept, and all of it is one report."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tacit import info as here
from tacit.cell import ENDS, Cell, Method, Recipe, Terms, called
from tacit.data.episodes import Episodes
from tacit.data.scale import Engine, Fault, spread
from tacit.evaluate import grid
from tacit.evaluate.report import Report, duration
from tacit.part import write
from tacit.state import command, differences, recalled
from tacit.train import Interrupted

NOTE = "compare.json"
log = logging.getLogger("tacit")


def compare(
    recipes: Sequence[Recipe],
    data: Sequence[Path],
    out: Path,
    *,
    seeds: int | Sequence[int] = 3,
    terms: Terms = Terms(),
    workers: int = 1,
    engine: Engine = "local",
    fresh: bool = False,
) -> Report:
    """Run every cell that is not finished, and report on all of them; after a kill the same call goes on.

    Recipes, data and seeds may be added to a comparison. A cell that fails is a row with its reason, stops no other,
    and is tried again when this is called again. A cell has one thread, so that more workers change no number.
    """
    cells = planned(recipes, data, seeds=seeds)
    settings = _checked(cells, terms, workers=workers)
    _settled(out, settings, fresh=fresh)
    whole, console = Work(out, terms, cells), Console(stderr=True, highlight=False)
    left = [cell for cell in cells if not whole.done(cell)]
    if len(left) < len(cells):
        console.print(f"{len(cells) - len(left)} of {len(cells)} cells are finished and reused")
    plain = [replace(cell, data=cell.data.absolute()) for cell in left]  # a cluster's processes stand in other folders
    work, began = Work(out.absolute(), terms, plain), time.perf_counter()
    stream = spread(work, stop=len(left), workers=workers, engine=engine)
    try:
        with contextlib.closing(stream) as answers:
            for count, (cell, told) in enumerate(zip(left, answers, strict=True), 1):
                if isinstance(told, Fault) or not work.done(cell):  # its process died, or kept it elsewhere
                    told = work.keep(cell, work.failed(cell, told.why) if isinstance(told, Fault) else told)
                rest = (time.perf_counter() - began) / count * (len(left) - count)
                how = f"failed: {told['failed']}" if told["failed"] else duration(told["seconds"])
                ahead = f", about {duration(rest)} left" if rest else ""
                console.print(f"{cell}: {how}   {count}/{len(left)}{ahead}", markup=False, soft_wrap=True)
    except KeyboardInterrupt as stop:
        done = sum(map(whole.done, cells))
        raise Interrupted(f"Stopped; {done} of {len(cells)} cells are finished. To go on: {command()}") from stop
    return _report([whole.read(cell) for cell in cells], settings, terms, out)


@dataclass(frozen=True)
class Work:
    """The cells of a grid, to be asked for by number, and the file in which each is kept once it is done."""

    out: Path
    terms: Terms
    cells: Sequence[Cell]

    @property
    def ours(self) -> bool:
        """A recipe of the caller's own script can only be made out by running that script again."""
        return all(getattr(cell.recipe, "__module__", "") != "__main__" for cell in self.cells)

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], dict[str, Any]]]:
        yield lambda number: self.answer(self.cells[number])

    def answer(self, cell: Cell) -> dict[str, Any]:
        """The rows of one cell, or why there are none: a failure here is a finding."""
        _level()
        began = time.perf_counter()
        try:
            told = {"rows": list(cell.rows(self.terms, self.out / "runs" / cell.stem)), "failed": ""}
        except Interrupted as stop:
            if multiprocessing.parent_process() is None:
                raise
            return self.failed(
                cell, str(stop)
            )  # this process was asked to stop, or its caller, who hears no more of it
        except Exception as error:
            log.debug("%s failed", cell, exc_info=error)
            known = isinstance(error, ValueError | OSError | ArithmeticError | ImportError)
            told = self.failed(cell, ("" if known else f"{type(error).__name__}: ") + " ".join(str(error).split()))
        return self.keep(cell, told | {"seconds": time.perf_counter() - began})

    def failed(self, cell: Cell, why: str) -> dict[str, Any]:
        """What is told of a cell that has no numbers."""
        return {"rows": [{**cell.row, "labels": None, "taught": 0, "failed": why}], "failed": why, "seconds": 0.0}

    def note(self, cell: Cell) -> Path:
        """Where a cell is kept."""
        return self.out / "cells" / f"{cell.stem}.json"

    def keep(self, cell: Cell, told: dict[str, Any]) -> dict[str, Any]:
        """Write a cell down, whole or not at all."""
        self.note(cell).parent.mkdir(parents=True, exist_ok=True)
        write(self.note(cell), lambda path: Path(path).write_text(json.dumps(told, indent=1)))
        return told

    def read(self, cell: Cell) -> dict[str, Any]:
        """A cell as it was kept."""
        note = self.note(cell)
        found = recalled(note, rows=list, failed=str, seconds=float)
        if not found["rows"] or not all(_tells(row, cell) for row in found["rows"]):
            raise ValueError(f"{note} is damaged: its rows are not those of {cell}")
        return found

    def done(self, cell: Cell) -> bool:
        """Whether a cell has its numbers; one whose file is damaged has none, and is run anew."""
        try:
            return self.note(cell).exists() and not self.read(cell)["failed"]
        except ValueError as error:
            log.warning("%s. %s is run anew.", error, cell)
            return False


def _tells(row: Any, cell: Cell) -> bool:
    """Whether it is a row of this cell, with what a report sorts rows by."""
    return isinstance(row, dict) and cell.row.items() <= row.items() and {"labels", "taught"} <= row.keys()


def planned(recipes: Sequence[Recipe], data: Sequence[Path], *, seeds: int | Sequence[int]) -> list[Cell]:
    """The cells in the order in which they are worked through: seed by seed, so that early on there is one of each."""
    each, paths = _named(recipes), list({Path(path).resolve(): Path(path) for path in data}.values())
    numbers = list(range(seeds) if isinstance(seeds, int) else dict.fromkeys(seeds))
    if not each or not paths or not numbers:
        given = f"{len(each)} recipes, {len(paths)} datasets and {len(numbers)} seeds"
        raise here.Unknown(f"A comparison was given {given}; wanted at least one of each.")
    names, depth = [path.resolve().name for path in paths], 1
    while len(set(names)) < len(names) and depth < 20:  # two folders of one name: by their parents', too
        depth += 1
        names = ["-".join(path.resolve().parts[-depth:]) for path in paths]
    pairs = list(zip(paths, names, strict=True))
    return [Cell(recipe, path, name, seed) for seed in numbers for path, name in pairs for recipe in each]


def _named(recipes: Sequence[Recipe]) -> list[Recipe]:
    """The recipes, each once; cells are kept by their names, so that two of one name would overwrite each other's."""
    each = list(dict.fromkeys(recipes))
    for recipe in each:
        if not isinstance(recipe, str) and not hasattr(recipe, "__name__"):
            raise here.Unknown(
                f"The recipe {recipe!r} has no name to keep its cells by; wanted a function. Wrap it in one of its own "
                "(def), or give the function inside it, and its arguments as Terms(knobs={NAME: {KNOB: VALUE}})."
            )
    names = [called(recipe) for recipe in each]
    if twice := [name for name in names if names.count(name) > 1]:
        raise here.Unknown(
            f"{len(twice)} different recipes are called {twice[0]!r}, and each one's cells are kept by its name: "
            "rename the others, or compare them in folders of their own."
        )
    return each


def rehearsed(recipes: Sequence[Recipe], data: Sequence[Path], *, seeds: int, terms: Terms, workers: int) -> Report:
    """What all of it would take, told by a few steps of every recipe on every dataset; writes nothing."""
    cells = planned(recipes, data, seeds=seeds)
    settings, console, rows = _checked(cells, terms, workers=workers, decoded=False), Console(stderr=True), []
    for cell in cells[: len(cells) // seeds]:
        try:
            with _single():
                rows.append(cell.rehearsed(terms))
            console.print(f"{cell}: about {duration(rows[-1]['seconds'])}", markup=False, highlight=False)
        except (ValueError, OSError, ArithmeticError, ImportError, RuntimeError) as error:
            rows.append({**cell.row, "seconds": 0.0, "failed": " ".join(str(error).split())})
            console.print(f"{cell} fails: {rows[-1]['failed']}", markup=False, highlight=False, soft_wrap=True)
    seconds = seeds * sum(row["seconds"] for row in rows) / min(workers, len(cells))
    told = Report(
        f"tacit compare: {', '.join(settings['data'])}", rows=rows, seconds=seconds, seeds=tuple(range(seeds))
    )
    room = seeds * sum(row.get("disk_bytes", 0) for row in rows)
    told.headline = f"{len(cells)} cells: about {duration(seconds)}, {room / 1e6:,.0f} MB of disk. Nothing was written."
    return told


def _checked(cells: Sequence[Cell], terms: Terms, *, workers: int, decoded: bool = True) -> dict[str, Any]:
    """All that must stay the same for finished cells to count; what cannot be is said before anything is written."""
    cards, names = here.cards(), {called(cell.recipe): cell.recipe for cell in cells}
    known = [name for name, card in cards.items() if all(card.knobs.values())]
    methods: dict[str, Method] = {}
    for name, recipe in names.items():
        if recipe in cards and cards[name].gives == "Joystick":
            raise here.Unknown(f"{name} gives a stick for a person to hold, with nothing in it to judge or to let act.")
        if recipe in cards and recipe not in known:
            raise here.Unknown(f"{name} wants a model to begin with: name recipes of latents, and it follows each.")
        if isinstance(recipe, str) and recipe not in (*known, *ENDS):
            raise here.Unknown.of("recipe", recipe, known=(*known, *ENDS))
        if recipe in ENDS and not terms.labels:
            raise here.Unknown(f"{name} does nothing but act, and without --labels nobody acts.")
        if recipe not in ENDS:
            methods[name] = _fitted(name, Method.of(recipe, terms), labels=bool(terms.labels))
    Method.of("follow", terms)
    for name in terms.knobs.keys() - {*names, "follow"}:
        raise here.Unknown.of("recipe in this comparison to set knobs of", name, known=[*names, "follow"])
    if any(n < 1 for n in (*terms.labels, terms.episodes, terms.most)):
        raise here.Unknown(f"Given {terms.labels=}, {terms.episodes=}, {terms.most=}; wanted at least 1 of each.")
    prints = {}
    for path, name in {cell.data: cell.name for cell in cells}.items():
        train, held, source = terms.sides(path, workers=workers, decoded=decoded)
        prints[name] = (train + held).fingerprint
        if terms.labels:
            _seen(methods, train, path=path)
            terms.opening(path, train)().close()
            train.keep_labels(max(terms.labels), source=source or None)
    told = {**asdict(terms), "recipes": {name: terms.knobs.get(name, {}) for name in names}, "data": prints}
    plain: dict[str, Any] = json.loads(json.dumps(told | {"knobs": terms.knobs.get("follow", {})}, default=str))
    return plain


def _fitted(name: str, method: Method, *, labels: bool) -> Method:
    """The method, refused where it wants labels and none are to be given."""
    if method.acts and not labels:
        raise here.Unknown(f"{name} makes a policy of labels, and --labels gives none: give --labels N.")
    if method.taught and not labels:
        to_do = f"give --labels N, or --knobs {name}.labelled=0 to train it without"
        raise here.Unknown(f"{name} takes labels inside its training, and --labels gives none: {to_do}.")
    return method


def _seen(methods: dict[str, Method], data: Episodes, *, path: Path) -> None:
    """Labels make policies of latents that act by pictures: there must be some, and the latents be of them."""
    for name, method in methods.items():
        if not method.acts and (method.stated or data.spec.frame is None):
            why = f"Latents of {name} are of states" if method.stated else f"{path} holds no pictures"
            raise here.Unknown(
                f"{why}, and a policy that follows latents acts by pictures: give --labels without a number, so "
                "that nobody acts."
            )


def _settled(out: Path, now: dict[str, Any], *, fresh: bool) -> None:
    """An empty or a matching folder; finished cells of other settings are never mistaken for these."""
    note = out / NOTE
    if out.exists() and not note.exists() and (held := sorted(p.name for p in out.iterdir())):
        raise FileExistsError(f"{out} holds {held[:3]}, which no comparison put there; give another folder.")
    if fresh and out.exists():
        shutil.rmtree(out)
    try:
        before = recalled(note, recipes=dict, data=dict) if note.exists() else now
    except ValueError as error:
        lost = "Nothing else tells which settings the cells beside it were made with"
        raise ValueError(f"{error}. {lost}: give another folder, or --fresh to delete {out} and begin anew.") from error
    both = {kind: {**before[kind], **now[kind]} for kind in ("recipes", "data")}  # to these more may be added
    alike = {kind: {name: value for name, value in both[kind].items() if name in before[kind]} for kind in both}
    if differing := list(differences(before, {**now, **alike})):
        told = "; ".join(differing)
        raise ValueError(f"{out} holds another comparison: {told}. Give another folder, or --fresh to start over.")
    out.mkdir(parents=True, exist_ok=True)
    write(note, lambda path: Path(path).write_text(json.dumps({**now, **both}, indent=1)))


def _report(found: Sequence[dict[str, Any]], settings: dict[str, Any], terms: Terms, out: Path) -> Report:
    """The report of all cells, written to ``out`` beside the table to be pasted."""
    rows, budgets = [row for told in found for row in told["rows"]], tuple(sorted(set(terms.labels)))
    stages: dict[str, float] = {}
    for told in found:
        name = told["rows"][0]["recipe"]
        stages[name] = stages.get(name, 0.0) + told["seconds"]
    report = Report(f"tacit compare: {', '.join(settings['data'])}", rows=rows, budgets=budgets, stages=stages)
    report.seeds = tuple(sorted({row["seed"] for row in rows}))
    report.fingerprint = {name: settings["data"][name] for name in dict.fromkeys(row["data"] for row in rows)}
    report.headline, report.figures = grid.headline(rows, budgets), grid.figures(rows, budgets)
    report.save(out)
    write(out / "table.md", lambda path: Path(path).write_text(grid.markdown(rows, budgets), encoding="utf-8"))
    return report


@contextlib.contextmanager
def _single() -> Iterator[None]:
    """One thread, as a cell has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _level() -> None:
    """Count the most memory held anew from here, where that can be; elsewhere it is counted since the process began."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
