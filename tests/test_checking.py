"""``tacit check`` from the command line: a model of the house, somebody else's, two side by side, and bad input."""

from __future__ import annotations

import inspect
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tacit import data as recordings
from tacit import info as here
from tacit.cli import main
from tacit.data.collect import collect
from tacit.evaluate.verdict.verdict import REMEDIES
from tacit.recipes.tacit import TINY, tacit
from tacit.train import Plan

ADAPTER = '''
"""A model of a user's own."""
import torch
from beside import CELLS


def load():
    def encode(o, after):
        return (after - o).mean(1).flatten(1)[:, :CELLS]

    return {"encode": encode, "predict": lambda o, z: o}


def blind():
    return {"encode": lambda o, after: torch.full((len(o), 2), float("nan"))}


def bare():
    return object()


def short():
    return {"encode": lambda o, after: torch.zeros(3, 2)}


def mistyped():
    return {"encoder": lambda o, after: torch.zeros(len(o), 2)}


def broken():
    return {}["weights"]


def failing():
    return {"encode": lambda o, after: (o @ torch.zeros(7, 7)).flatten(1)}


def change(o, after):
    return (after - o).mean((1, 3))


def misshapen():
    return {"encode": change, "predict": lambda o, z: o.mean(1)}


def bytes_():
    return {"encode": change, "predict": lambda o, z: 255 * o}
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a model trained on four fifths of it, and a user's file."""
    home = tmp_path_factory.mktemp("check")
    collect("dots/plain", home / "video", episodes=50, demonstrator=["expert", "play"], noise=0.4, size=12, workers=1)
    train, _ = recordings.open(home / "video").split(0.4)
    tacit(train.unlabelled(), home / "latents", plan=Plan(steps=20, batch=16, device="cpu"), **TINY)
    (home / "my_adapter.py").write_text(ADAPTER)
    (home / "beside.py").write_text("CELLS = 8\n")
    return home


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_model_of_the_house_is_judged_on_what_it_has_not_seen(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    found = told(capsys, "check", "latents", "--data", "video", "--most", "256", "--out", "out")
    count = len(recordings.open("video").split(0.4)[1])
    assert found["data"].startswith(f"{count} held-out episodes") and found["verdict"] in {"working", *REMEDIES}
    checks = {check["code"]: check for check in found["checks"]}
    assert "give the episodes" not in checks["C0"]["note"], "those that it was trained on were in the dataset"
    assert "no simulator" not in checks["C9"]["note"], "it was at hand"
    assert json.loads((home / "out" / "verdict.json").read_text())["verdict"] == found["verdict"]
    assert found["headline"] in (home / "out" / "verdict.html").read_text().replace("&#x27;", "'")


def test_somebody_elses_model_is_two_functions_of_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("check", home / "my_adapter.py:load", "--data", home / "video", "--most", "256", "--no-simulator")
    found = told(capsys, *asked)
    assert found["verdict"] == "collapsed", "its predictions do not hear the latent"
    assert found["data"].startswith("50 held-out episodes"), "nothing is known of what it was trained on"


def test_two_models_stand_side_by_side(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    collect("dots/plain", home / "pair", episodes=10, demonstrator="play", size=12, workers=1, options={"body": "pair"})
    asked = ("check", home / "latents", "--data", home / "video", "--compare", home / "my_adapter.py:load")
    found = told(capsys, *asked, "--most", "256", "--no-simulator", "--out", tmp_path, "--body", home / "pair")
    more = {v["name"] for v in next(c for c in found["verdicts"][0]["checks"] if c["code"] == "C4")["more"]}
    assert "of a latent of another body, back from a trip to these scenes" in more
    assert [Path(v["title"].split(" on ")[0]).name for v in found["verdicts"]] == ["latents", "my_adapter.py:load"]
    assert len(json.loads((tmp_path / "verdict.json").read_text())) == 2
    assert "my_adapter.py:load" in (tmp_path / "verdict.html").read_text()


def test_models_are_put_in_order_without_labels(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train, _ = recordings.open(home / "video").split(0.4)
    for steps in (1, 60):
        plan = Plan(steps=steps, batch=32, device="cpu")
        tacit(train.unlabelled(), tmp_path / "many" / f"{steps} steps", plan=plan, **TINY)
    found = told(
        capsys, "check", "--rank", tmp_path / "many", "--data", home / "video", "--most", "256", "--out", tmp_path
    )
    assert [m["model"] for m in found["models"]] == ["60 steps", "1 steps"] and not found["left_out"]
    assert json.loads((tmp_path / "ranking.json").read_text())["models"] == found["models"]
    assert main(["check", "--rank", str(tmp_path / "none"), "--data", str(home / "video")]) == 2
    assert "is not there; wanted a folder that holds folders" in capsys.readouterr().err
    assert main(["check", "--rank", str(home / "video"), "--data", str(home / "video")]) == 2
    assert "holds no saved latent action model" in capsys.readouterr().err
    cut = next((tmp_path / "many" / "1 steps").glob("*.safetensors"))
    cut.write_bytes(cut.read_bytes()[:100])
    found = told(capsys, "check", "--rank", tmp_path / "many", "--data", home / "video", "--most", "64")
    assert [m["model"] for m in found["models"]] == ["60 steps"] and list(found["left_out"]) == ["1 steps"]
    assert main(["check", "--data", str(home / "video")]) == 2
    assert "wanted one model to judge, or --rank DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "code", "why"),
    [
        ("nowhere", 2, "is no saved model"),
        ("nowhere.py:load", 2, "does not exist; wanted FILE.py:FUNCTION"),
        ("my_adapter.py:missing", 1, "has no function 'missing'; it has bare, blind, broken"),
        ("my_adapter.py:bare", 1, "gave object with neither encode nor predict"),
        ("my_adapter.py:blind", 1, "encode gave numbers that are not finite"),
        ("my_adapter.py:short", 1, "a row for each given"),
        ("my_adapter.py:mistyped", 1, "gave 'encoder'; wanted some of encode, predict, features, of, seen"),
        ("my_adapter.py:broken", 1, "could not be loaded: KeyError: 'weights'"),
        ("my_adapter.py:failing", 1, "encode failed, given (64, 3, 12, 12)"),
        ("my_adapter.py:misshapen", 1, "predict must give what it is judged by"),
        ("my_adapter.py:bytes_", 1, "wanted them in [0, 1]"),
    ],
)
def test_what_cannot_be_judged_is_said(
    home: Path, model: str, code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(home / model), "--data", str(home / "video"), "--no-simulator"]) == code
    assert why in capsys.readouterr().err


def test_data_that_were_all_trained_on_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = recordings.open(home / "video").unlabelled()
    tacit(whole, tmp_path / "latents", plan=Plan(steps=2, batch=8, device="cpu"), **TINY)
    assert main(["check", str(tmp_path / "latents"), "--data", str(home / "video")]) == 1
    assert "All 50 episodes" in capsys.readouterr().err


@pytest.mark.parametrize("name", REMEDIES)
def test_what_is_advised_can_be_run(name: str) -> None:
    """Each command names a command, a recipe and knobs that there are."""
    words = shlex.split(REMEDIES[name].command.format(data="out/video"))  # type: ignore[index]
    assert words[0] == "tacit" and words[1] in ("train", "data")
    if words[1] == "train":
        knobs = {w[2:] for w in words if w.startswith("--")} - {"data", "labels", "out", "held"}
        assert knobs <= inspect.signature(here.recipe(words[2])).parameters.keys()
