"""The demo's bar is decided by the rows, by one metric as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tacit.evaluate.report import Report
from tacit.evaluate.showing import claimed

BUDGETS = (16, 64)
GOOD = {"tacit": (0.9, 0.8), "bc": (0.2, 0.15), "idm": (0.5, 0.4)}


def rows(**changes: tuple[float, float]) -> list[dict[str, Any]]:
    """Three seeds, a hair apart; each method has a success and a normalised return."""
    return [
        {"method": method, "labels": n, "seed": seed, "episodes": 50, "return": 1.0}
        | {"success": success + 0.01 * seed, "normalised": value + 0.01 * seed}
        for method, (success, value) in (GOOD | changes).items()
        for n in BUDGETS
        for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"bc": (0.4, 0.15)}, True),  # success does not reach it, the return does
        ({"bc": (0.2, 0.4)}, True),
        ({"bc": (0.4, 0.4)}, False),
        ({"idm": (0.95, 0.4)}, True),
        ({"idm": (0.95, 0.9)}, False),
        ({"bc": (0.4, 0.15), "idm": (0.5, 0.9)}, False),  # neither metric meets all of it
    ],
)
def test_one_metric_must_meet_the_whole_bar(
    changes: dict[str, tuple[float, float]], passed: bool, tmp_path: Path
) -> None:
    report = Report("demo", rows=rows(**changes), budgets=BUDGETS, seeds=(0, 1, 2))
    made = claimed(report, tmp_path / "claim.json", where="a table", budgets=BUDGETS)
    assert made.passed is passed and made.value["16"] == pytest.approx(0.91)


def test_seeds_that_scatter_do_not_pass(tmp_path: Path) -> None:
    scattered = rows()
    for row in scattered:
        if row["method"] == "tacit":
            row["success"], row["normalised"] = ((0.9, 0.8), (0.1, 0.0), (1.0, 1.0))[row["seed"]]
    report = Report("demo", rows=scattered, budgets=BUDGETS, seeds=(0, 1, 2))
    assert not claimed(report, tmp_path / "claim.json", where="a table", budgets=BUDGETS).passed
