"""The commands from outside: exit codes, JSON, likely words, dry runs that write nothing, and a whole path on a toy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tacit.data
from tacit import info
from tacit.cli import COMMANDS, main
from tacit.train import Interrupted

ROOT = Path(__file__).parent.parent
TINY = ("--plan.steps", "4", "--plan.batch", "8")
SMALL = {"tacit": ("--points", "4", "--width", "8", "--reach", "2"), "bc": ("--points", "4", "--width", "8")}
SMALL |= {"idm": ("--hidden", "16"), "follow": (), "lapo": ("--codes", "8", "--width", "1", "--base", "8")}
SMALL |= {"laom": ("--dim", "16", "--width", "32", "--features", "32", "--channels", "8", "--reach", "2")}
COLLECT = ("collect", "dots/plain", "dots", "--episodes", "60", "--size", "16", "--workers", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, latent actions and two policies, each made by its command."""
    home, before = tmp_path_factory.mktemp("path"), Path.cwd()
    os.chdir(home)
    try:
        assert main(COLLECT) == 0
        for recipe in ("tacit", "lapo", "bc"):
            assert (
                main(["train", recipe, "--data", "dots", "--out", recipe, "--held", "0.3", *SMALL[recipe], *TINY]) == 0
            )
        follow = ("train", "follow", "tacit", "--data", "dots", "--out", "policy", "--labels", "32", "--held", "0.3")
        assert main([*follow, *TINY]) == 0
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def home(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command that succeeds says to a machine."""
    capsys.readouterr()
    code, said = main([*words, "--json"]), capsys.readouterr()
    assert code == 0, said.err
    return json.loads(said.out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code and the complaint of a command that must not succeed."""
    capsys.readouterr()
    code, said = main(words), capsys.readouterr()
    assert code != 0
    assert said.out == ""
    assert "Traceback" not in said.err
    return code, said.err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("name", ["collect", "label", "evaluate", "info", "recipes", "parts"])
def test_help_of_a_command_shows_how_it_is_used(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"  tacit {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", info.cards())
def test_help_of_a_recipe_tells_its_card_and_every_knob(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    card = info.cards()[name]
    assert all(field in said for field in ("Paper:", "Differs:", "Published:", "Ours:", "--plan.steps", "--dry-run"))
    for knob in card.knobs:
        assert (f"--{knob.replace('_', '-')}" if card.knobs[knob] else knob.upper()) in said


@pytest.mark.parametrize(
    ("words", "likely"),
    [
        (["trian"], "'train'"),
        (["train", "lpao"], "'lapo'"),
        (["collect", "dots/plian", "out"], "'dots/plain'"),
        (["collect", "CartPole-v11", "out"], "'CartPole-v1'"),
        (["evaluate", "random", "--env", "control/pointmass"], "'control/point_mass'"),
        (["train", "tacit", "--data", "dots", "--out", "x", "--pionts", "3"], "--points"),
        (["train", "tacit", "--data", "dots", "--out", "x", "--plan.step", "3"], "--plan.steps"),
        (["collect", "dots/plain", "out", "--episode", "3"], "--episodes"),
    ],
)
def test_a_slip_of_the_finger_is_answered_with_the_likely_word(
    words: list[str], likely: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, complaint = refused(capsys, *words)
    assert code == 2
    assert likely in complaint
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train"],
        ["train", "--data", "dots"],
        ["train", "bc", "--data", "dots"],
        ["collect", "dots/plain"],
        ["collect", "dots/plain", "out", "--options", "wrap"],
        ["collect", "dots/plain", "out", "--demonstrator", "exprt"],
        ["evaluate", "random"],
        ["evaluate", "nothing", "--env", "dots/plain"],
        ["label", "nothing", "--data", "dots", "--out", "out"],
        ["train", "bc", "--data", "dots", "--out", "out", "--plan.precision", "half"],
    ],
)
def test_what_was_asked_wrongly_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *words)[0] == 2


# What is here


def test_info_tells_a_machine_what_a_number_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, "info")
    assert facts["tacit"] == tacit.__version__
    assert facts["versions"]["torch"] and facts["threads"] >= 1 and facts["cores"] >= 1 and facts["device"]
    assert main(["info"]) == 0
    assert "tacit[babyai]" in capsys.readouterr().out


def test_recipes_tells_a_machine_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert {card["name"] for card in told(capsys, "recipes")} == set(info.cards())


def test_help_is_there_without_torch() -> None:
    asked = "from tacit.cli import main; main(['--help']); main(['train', '--help']); main(['recipes'])"
    code = f"import sys; {asked}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


# The whole path


def test_collect_records_and_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, *COLLECT)  # a second time: it is there already
    assert facts["episodes"] == 60 and facts["success"] == 1.0
    assert facts["labels"] == facts["frames"] - 60
    assert len(tacit.data.open(home / "dots")) == 60


def test_collect_keeps_the_labels_that_were_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--size", "8", "--workers", "1", "--options", "wrap=false", "discrete=true")
    facts = told(capsys, "collect", "dots/plain", "some", "--frames", "30", "--labels", "2", *few)
    data = tacit.data.open(home / "some")
    assert facts["frames"] >= 30
    assert data.select([0, 1]).labelled == facts["labels"] > 0
    assert data.spec.space is not None and data.spec.space.discrete and data.spec.frame == (8, 8)


def test_train_tells_what_it_made(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ("train", "tacit", "--data", "dots", "--out", "tacit", "--held", "0.3", *SMALL["tacit"], *TINY)
    facts = told(capsys, *again)
    assert facts["model"] == "LatentActions" and facts["losses"]["tacit"] > 0
    assert facts["episodes"] < 60  # those held back are not trained on
    assert main(again) == 0
    said = capsys.readouterr().out
    assert "Next: tacit train follow tacit --data dots" in said and "tacit check tacit --data dots" in said


def test_a_label_budget_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, "train", "bc", "--data", "dots", "--out", "few", "--labels", "16", *SMALL["bc"], *TINY)
    assert facts["labels"] == 16


def test_label_writes_a_dataset_that_carries_latents(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, "label", "lapo", "--data", "dots", "--out", "labelled", "--workers", "2")
    data = tacit.data.open(home / "labelled")
    assert (len(data), data.spec.latent) == (60, facts["dim"])
    assert data.spec.codes > 0
    latents = data.column("latents")
    assert latents is not None and np.isfinite(data.episode(0).latents).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["policy", "bc"])
def test_evaluate_a_policy(model: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, "evaluate", model, "--env", "dots/plain", "--episodes", "6", "--out", f"judged-{model}")
    values = {value["name"]: value for value in facts["values"]}
    assert values["success"]["n"] == 6
    assert 0 <= values["success"]["low"] <= values["success"]["value"] <= values["success"]["high"] <= 1
    assert values["return"]["low"] <= values["return"]["high"]
    assert (home / f"judged-{model}" / "report.html").stat().st_size > 1000


def test_evaluate_the_ends_of_the_scale(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expert, chance = (
        told(capsys, "evaluate", who, "--env", "dots", "--episodes", "12", "--size", "8")["rows"][0]["success"]
        for who in ("expert", "random")
    )
    assert expert == 1.0
    assert chance < 0.6


def test_a_recording_names_its_environment_and_options(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.recorded("dots/plain") == ("dots/plain", {})
    options = ("--size", "8", "--workers", "1", "--options", "stride=0.5", "wrap=false")
    told(capsys, "collect", "dots/plain", "slow", "--episodes", "1", *options)
    assert info.recorded("slow") == ("dots/plain", {"stride": 0.5, "wrap": False})


def test_latents_are_judged_on_what_was_held_back_only(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, "evaluate", "tacit", "--data", "dots", "--held", "0.3", "--most", "64")
    assert any(value["name"] == "FVU" for value in facts["values"])
    code, complaint = refused(capsys, "evaluate", "tacit", "--data", "dots")
    assert code == 1
    assert "were used in training" in complaint and "--held" in complaint


# Dry runs


@pytest.mark.parametrize("recipe", SMALL)
def test_a_dry_run_of_training_tells_its_cost_and_writes_nothing(
    recipe: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(home)
    model = ("tacit",) if recipe == "follow" else ()
    steps = ("--plan.steps", "1000", "--plan.batch", "8", "--dry-run")
    facts = told(capsys, "train", recipe, *model, "--data", "dots", "--out", "new", *SMALL[recipe], *steps)
    assert len(facts["stages"]) == (2 if recipe == "idm" else 1)
    for stage in facts["stages"]:
        assert stage["clip"]["frames"][0] == 8
        assert stage["seconds"] == pytest.approx(1000 * stage["seconds_per_step"])
    assert facts["memory_bytes"] > 1e6 and facts["disk_bytes"] > facts["frames"] * 16 * 16 * 3
    assert tree(home) == before


def test_a_dry_run_tells_the_size_of_what_training_makes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("train", "tacit", "--data", "dots", "--held", "0.3", *SMALL["tacit"], *TINY)
    tried, done = told(capsys, *asked, "--out", "new", "--dry-run"), told(capsys, *asked, "--out", "tacit")
    assert tried["stages"][0]["parameters"] == done["parameters"]
    assert not (home / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "dots/plain", "new", "--frames", "5000", "--size", "16"],
        ["label", "tacit", "--data", "dots", "--out", "new"],
        ["evaluate", "policy", "--env", "dots", "--out", "new"],
        ["evaluate", "tacit", "--data", "dots", "--held", "0.3", "--out", "new"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_dry_run_writes_nothing(words: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(home)
    assert told(capsys, *words, "--dry-run")["seconds"] > 0
    assert tree(home) == before


# What goes wrong


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["train", "bc", "--data", "none", "--out", "x"], "the path does not exist"),
        (["train", "bc", "--data", "dots", "--out", "bc", "--held", "0.3", *SMALL["bc"]], "holds another run"),
        (["train", "bc", "--data", "dots", "--out", "x", "--labels", "100000"], "labels were asked for"),
        (["train", "bc", "--data", "dots", "--out", "x", "--held", "2"], "wanted a share"),
        (["train", "follow", "bc", "--data", "dots", "--out", "x"], "holds a Cloning; wanted a LatentActions"),
        (["train", "idm", "--data", "dots", "--out", "x", "--encoder", "lapo"], "without encoder"),
        (["label", "bc", "--data", "dots", "--out", "x"], "holds a Cloning; wanted a LatentActions"),
        (["evaluate", "tacit", "--env", "dots/plain"], "do not act"),
        (["evaluate", "bc", "--data", "dots"], "is a policy"),
        ([*COLLECT, "--seed", "1"], "holds another recording"),
    ],
)
def test_an_error_is_one_line_that_says_why(
    words: list[str], why: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, complaint = refused(capsys, *words)
    assert complaint.startswith(f"tacit {words[0]}: ") and complaint.count("\n") == 1
    assert why in complaint
    assert not (home / "x" / "model.safetensors").exists()


def test_traceback_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "bc", "--data", "none", "--out", "x", "--traceback"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and said.rstrip().endswith("Is it spelt right?")


def instead(function: Any, *, words: tuple[str, ...] = (), patch: pytest.MonkeyPatch) -> int:
    patch.setitem(COMMANDS, "info", function)
    return main(["info", *words])


def test_an_error_that_nobody_foresaw_says_where_it_arose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise KeyError("lost")

    assert instead(broken, patch=monkeypatch) == 1
    said = capsys.readouterr().err
    assert "KeyError at test_cli.py" in said and "lost" in said and said.count("\n") == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted("Stopped at step 3.")])
def test_an_interruption_is_exit_code_130(
    stop: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> None:
        raise stop

    assert instead(stopped, patch=monkeypatch) == 130
    assert capsys.readouterr().err.startswith(str(stop) or "Interrupted. The same command goes on")


def test_nothing_but_json_reaches_a_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo shows its table itself: to a person on the standard output, beside JSON on the other."""
    demo = types.ModuleType("tacit.demo")

    def shown(*, seeds: int = 1) -> dict[str, Any]:
        print("a table")
        return {"rows": [seeds], "figures": {"long": "x"}}

    demo.demo = shown  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tacit.demo", demo)
    assert told(capsys, "demo", "--seeds", "3") == {"rows": [3]}
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == "a table\n"


def test_the_demo_takes_what_its_function_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--seeds", "--fresh", "--distract", "--env"))


# As a process


def process(*words: str, cwd: Path) -> subprocess.Popen[str]:
    home = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tacit", *words]
    return subprocess.Popen(command, cwd=cwd, env=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_python_dash_m_is_the_same_command(tmp_path: Path) -> None:
    said, _ = (asked := process("--version", cwd=tmp_path)).communicate(timeout=60)
    assert (asked.returncode, said) == (0, f"tacit {tacit.__version__}\n")
    _, complaint = (asked := process("trian", cwd=tmp_path)).communicate(timeout=60)
    assert asked.returncode == 2 and "'train'" in complaint


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    asked = process("recipes", cwd=tmp_path)
    assert asked.stdout is not None and asked.stderr is not None
    asked.stdout.close()
    assert asked.wait(timeout=60) == 1
    assert asked.stderr.read() == ""
    asked.stderr.close()


def test_training_that_is_stopped_says_how_to_go_on(home: Path) -> None:
    words = ("train", "tacit", "--data", "dots", "--out", "long", *SMALL["tacit"], "--plan.steps", "1000000")
    asked = process(*words, "--plan.save-every", "5", cwd=home)
    until = time.monotonic() + 60
    while not (home / "long" / "resume.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.05)
    asked.send_signal(signal.SIGINT)
    _, said = asked.communicate(timeout=60)
    assert asked.returncode == 130
    assert "tacit train tacit --data dots --out long" in said and "Traceback" not in said
