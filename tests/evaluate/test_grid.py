"""The table of a comparison: means and intervals over seeds, each line what it should be, and nothing made up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tacit.evaluate import grid
from tacit.evaluate.interval import mean
from tacit.evaluate.report import Report


def row(recipe: str, seed: int, labels: int, **more: Any) -> dict[str, Any]:
    return {"recipe": recipe, "data": "video", "seed": seed, "labels": labels, "taught": 0, **more}


ROWS = [
    *(
        row("lapo", s, n, probe=0.5 + 0.1 * s, bits=4.0, success=0.01 * n, seconds=9.0)
        for s in (0, 1)
        for n in (16, 64)
    ),
    *(row("laom", s, n, taught=n, probe=0.01 * n, success=0.5) for s in (0, 1) for n in (16, 64)),
    *(row("random", s, 0, success=0.1) for s in (0, 1)),
    {**row("clam", 0, 0), "labels": None, "failed": "too short"},
]


def test_a_line_is_a_mean_over_seeds_and_counts_each_seed_once() -> None:
    [lapo, *_] = grid.lines(ROWS)
    assert (lapo.recipe, lapo.values["probe"]) == ("lapo", mean([0.5, 0.6]))
    assert lapo.values["bits"].value == 4.0 and lapo.values["nuisance"].n == 0
    assert {n: entry["mean"] for n, entry in lapo.acting.items()} == {16: pytest.approx(0.16), 64: pytest.approx(0.64)}


def test_latents_that_were_taught_labels_have_a_line_for_each_budget_and_what_failed_has_none() -> None:
    assert [line.name for line in grid.lines(ROWS)] == [
        "lapo", "laom, taught 16 labels", "laom, taught 64 labels", "random",
    ]  # fmt: skip
    assert grid.lines(ROWS)[2].values["probe"].value == pytest.approx(0.64)


def test_the_table_to_paste_has_a_cell_for_every_number_and_a_dash_for_none() -> None:
    head, _, *body = [
        line.strip("| ").split(" | ") for line in grid.markdown(ROWS, (16, 64)).splitlines() if "|" in line
    ]
    assert head == ["recipe", "probe of z", "bits", "success, 16 labels", "success, 64 labels", "training"]
    told = {cells[0]: dict(zip(head, cells, strict=True)) for cells in body}
    assert told["lapo"]["training"] == "9 s" and told["lapo"]["success, 16 labels"].startswith("16")
    assert told["laom, taught 16 labels"]["success, 64 labels"] == "–"
    assert told["random"]["success, 64 labels"].startswith("10")  # who needs no label does the same with any number


def shown(rows: list[dict[str, Any]], budgets: tuple[int, ...]) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as told:
        console.print(grid.table(rows, budgets, title=grid.headline(rows, budgets)))
    return told.get().splitlines()


def test_words_beside_a_narrow_table_are_as_wide_as_the_terminal_and_none_stand_without_a_table() -> None:
    told = shown(ROWS[6:], ())
    assert max(map(len, told[2:4])) < 40, "the table is narrow"
    assert "Means and 95 % intervals over seeds, on held-out episodes. The probes are" in "\n".join(told)
    assert shown(ROWS[-1:], ()) == ["1 cell failed."]


def test_where_an_environment_tells_of_no_success_the_return_is_compared() -> None:
    rows = [row("lapo", seed, 16, success=None, **{"return": 3.0}) for seed in (0, 1)]
    assert "return, 16 labels" in grid.markdown(rows, (16,))
    assert grid.headline(rows, (16,)) == "Return with 16 labels on video: lapo 3."


def test_the_headline_counts_what_failed() -> None:
    assert grid.headline(ROWS, (16, 64)).endswith(" 1 cell failed.")
    assert grid.headline(ROWS[-1:], (16,)) == "1 cell failed."


def test_the_page_shows_what_is_there_and_stands_where_all_failed() -> None:
    assert set(grid.figures(ROWS, (16, 64))) == {"result on video", "labels on video", "bits", "cost", "measured"}
    assert grid.figures(ROWS[-1:], (16, 64)).keys() == {"measured"}


@pytest.mark.parametrize("budgets", [(16, 64), ()])
def test_a_claim_is_passed_where_every_cell_ended(budgets: tuple[int, ...], tmp_path: Path) -> None:
    for rows, passed in ((ROWS[:-1], True), (ROWS, False)):
        report = Report("grid", headline=grid.headline(rows, budgets), rows=list(rows), seeds=(0, 1))
        grid.claimed(report, tmp_path / "told.json", budgets=budgets)
        told = json.loads((tmp_path / "told.json").read_text())
        assert told["passed"] is passed and told["rows"] == list(rows)
        assert told["value"]["lapo"]["probe"] == pytest.approx(0.55)
        assert "<svg" in (tmp_path / "told.svg").read_text()
