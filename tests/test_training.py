"""`tacit train`: a recipe's knob is not taken for an option of the command, and nothing is trained over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tacit.cli import main
from tacit.data.collect import collect
from tacit.part import Part

SMALL = ("--plan.steps", "2", "--plan.batch", "4")


@pytest.fixture
def dots(tmp_path: Path) -> Path:
    collect("dots/plain", tmp_path / "dots", episodes=12, size=16, workers=1)
    return tmp_path / "dots"


def test_a_knob_that_is_called_like_an_option_has_a_name_of_its_own(dots: Path, tmp_path: Path) -> None:
    asked = [
        "train",
        "chunks",
        "--data",
        str(dots),
        "--letters",
        "8",
        "--longest",
        "2",
        "--past",
        "0",
        *SMALL,
        "--out",
        str(tmp_path / "chunks"),
    ]
    assert main([*asked, "--chunks-size", "20"]) == 0
    policy = Part.load(tmp_path / "chunks")
    assert policy.units.arguments["size"] == 20 and policy.encoder.arguments["frame"] == (16, 16)


def test_neither_recordings_nor_a_model_nor_what_is_not_ours_is_trained_over(
    dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ("--points", "4", "--width", "8", *SMALL, "--data", str(dots))
    assert main(["train", "tacit", *tiny, "--out", str(tmp_path / "latents")]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("mine")
    held = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    kept = str(tmp_path / "latents")
    for words, says in (
        (("tacit", *tiny, "--out", str(dots)), "holds recordings"),
        (("tacit", *tiny, "--out", str(tmp_path / "mine")), "no training wrote"),
        (("follow", kept, *tiny[4:], "--out", kept), "model that is given here"),
    ):
        capsys.readouterr()
        assert main(["train", *words]) == 2
        assert says in capsys.readouterr().err
    assert {path: path.read_bytes() for path in held} == held
    assert main(["train", "tacit", *tiny, "--labels", "-1", "--out", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("text", ["", "null", "{}", json.dumps({"story": 3, "finished": False})])
def test_a_damaged_note_of_a_run_is_named(
    dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    asked = [
        "train",
        "tacit",
        "--points",
        "4",
        "--width",
        "8",
        *SMALL,
        "--data",
        str(dots),
        "--out",
        str(tmp_path / "a"),
    ]
    assert main(asked) == 0
    (tmp_path / "a" / "run.json").write_text(text)
    capsys.readouterr()
    assert main(asked) == 1
    assert "run.json is damaged" in capsys.readouterr().err


def test_a_dry_run_of_label_writes_nothing_whatever_its_budget(dots: Path, tmp_path: Path) -> None:
    asked = [
        "train",
        "flexlam",
        "--slots",
        "2",
        "--levels",
        "3",
        "--features",
        "16",
        "--channels",
        "4",
        "--neurons",
        "16",
    ]
    model = str(tmp_path / "flex")
    assert main([*asked, "--base", "8", *SMALL, "--data", str(dots), "--out", model]) == 0
    raw = tmp_path / "raw"
    collect("dots/plain", raw, episodes=4, size=16, workers=1)
    before = sorted(raw.rglob("*"))
    for budget in ("0", "1"):
        words = ["label", model, "--data", str(raw), "--budget", budget, "--out", str(tmp_path / "none"), "--dry-run"]
        assert main(words) == 0
    assert sorted(raw.rglob("*")) == before and not (tmp_path / "none").exists()
