"""What is told apart in a grid, and what is compared where nobody acts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tacit.cell import Terms
from tacit.comparison import compare, planned
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.latents.model import LatentActions
from tacit.recipes.tacit import TINY
from tacit.recipes.tacit import tacit as found
from tacit.train import Plan


def test_data_without_labels_are_compared_by_their_latents_alone(tmp_path: Path) -> None:
    quiet = collect("dots/plain", tmp_path / "quiet", episodes=20, labels="none", size=16, workers=1)
    assert quiet.spec.space is None
    plan = {"steps": 4, "batch": 8}
    report = compare(
        [mine_unlabelled], [tmp_path / "quiet"], tmp_path / "out", seeds=1, terms=Terms((), plan=plan, most=64)
    )
    [row] = report.rows
    assert row["fvu"] > 0 and row["probe"] is None and "success" not in row and row["bits"] >= 0


def mine_unlabelled(data: Episodes, out: Path | None, *, plan: Plan = Plan()) -> LatentActions:
    """Somebody's own method, which is shown no label."""
    assert data.labelled == 0
    return found(data, out, plan=plan, **TINY)


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    cells = planned(["bc"], [tmp_path / "a" / "video", tmp_path / "b" / "video"], seeds=1)
    assert [cell.name for cell in cells] == ["a-video", "b-video"]
    assert len({cell.stem for cell in cells}) == 2


def test_a_folder_given_twice_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(planned(["bc"], [Path("video"), tmp_path / "video"], seeds=1)) == 1
