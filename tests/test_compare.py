"""The grid as a whole, tiny, on the toy of dots: the right rows, nothing lost by a kill, no cell in another's way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tacit.data
from tacit.cell import Method, Terms
from tacit.cli import main
from tacit.comparison import Work, compare, planned
from tacit.data.collect import collect, opened
from tacit.data.episodes import Episodes
from tacit.evaluate.content import bits
from tacit.evaluate.latents import judge
from tacit.evaluate.probe import probe
from tacit.evaluate.rollout import rollout
from tacit.info import Unknown
from tacit.latents.model import LatentActions, label
from tacit.parts.books import VQ
from tacit.recipes.follow import follow
from tacit.recipes.laom import TINY as NARROW
from tacit.recipes.laom import laom
from tacit.recipes.tacit import TINY
from tacit.recipes.tacit import tacit as found
from tacit.train import Plan

ROOT = Path(__file__).parent.parent
GRID = ("compare", "tacit", "bc", "--data", "video", "--seeds", "2", "--labels", "8")
SMALL = ("--plan.steps", "4", "--plan.batch", "8", "--episodes", "2", "--most", "64", "--held", "0.3")
KNOBS = ("--knobs", "tacit.points=4", "tacit.width=16", "tacit.reach=3", "bc.points=4", "bc.width=16")
CLOCKED = {"seconds", "step", "memory"}  # what differs from run to run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recording, and the grid over it as it comes out when nothing goes wrong."""
    place, before = tmp_path_factory.mktemp("compare"), Path.cwd()
    os.chdir(place)
    try:
        collect("dots/plain", "video", episodes=40, noise=0.4, size=16, workers=1)
        assert main([*GRID, *SMALL, *KNOBS, "--out", "whole"]) == 0
        yield place
    finally:
        os.chdir(before)


def rows(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "report.json").read_text())["rows"]


def numbers(out: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in CLOCKED} for row in rows(out)]


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_help_says_of_every_option_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    options = re.split(r"\s(?=--[a-z])", re.sub(r"[\s│]+", " ", capsys.readouterr().out))
    bare = [told for told in options if re.fullmatch(r"--\S+ (\S+ |\[.*\] )?\(default.*", told)]
    assert len(options) > 30 and not bare


def test_there_is_a_row_for_every_cell_and_budget_with_all_that_was_asked_for(home: Path) -> None:
    found = {(row["recipe"], row["seed"], row["labels"]): row for row in rows(home / "whole")}
    assert found.keys() == {(recipe, seed, 8) for recipe in ("tacit", "bc") for seed in (0, 1)}
    for (recipe, *_), row in found.items():
        assert 0 <= row["success"] <= 1 and row["episodes"] == 2 and row["data"] == "video"
        assert row["seconds"] > 0 and row["steps"] == 4 and row["parameters"] > 100 and row["memory"] > 1e6
        assert ("fvu" in row) == (recipe == "tacit")
    ours = found["tacit", 0, 8]
    assert all(isinstance(ours[k], float) for k in ("probe", "probe_with_o", "nuisance", "bits", "fvu", "shuffled_gap"))
    assert ours["probe"] != found["tacit", 1, 8]["probe"]
    page, table = ((home / "whole" / name).read_text() for name in ("report.html", "table.md"))
    assert "What it cost" in page and "What bits buy" in page
    assert table.count("\n| tacit") == 1 and table.count("\n| bc") == 1


def test_its_numbers_are_those_of_the_functions_called_by_hand(home: Path) -> None:
    row = next(row for row in rows(home / "whole") if (row["recipe"], row["seed"]) == ("tacit", 1))
    train, held = tacit.data.open(home / "video").split(0.3)
    model = found(train.unlabelled(), None, plan=Plan(steps=4, batch=8, rate=2e-3, seed=1), **TINY)
    few = label(model, train).keep_labels(8, seed=1)
    policy = follow(model, few, None, plan=Plan(steps=4, batch=8, rate=2e-3, seed=1))
    judged = {value.name: value.value for value in judge(model, held, most=64, seed=1)}
    assert row["fvu"] == judged["FVU"] and row["shuffled_gap"] == judged["shuffled-latent gap"]
    assert row["probe"] == probe(model, held, most=64, seed=1).value
    assert row["probe_with_o"] == probe(model, held, most=64, seed=1, condition=True).value
    assert row["bits"] == bits(model, held, most=64, seed=1).value
    acted = rollout(policy, lambda: opened("dots/plain", size=16), episodes=2, seed=1)
    assert {name: row[name] for name in acted.row()} == acted.row()


def test_killed_after_its_first_cell_it_goes_on_to_the_same_numbers(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tacit", *GRID, *SMALL, *KNOBS, "--out", str(tmp_path / "out")]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    asked = subprocess.Popen(command, cwd=home, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("out/cells/*.json")) and asked.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    asked.send_signal(signal.SIGKILL)
    assert asked.wait(timeout=60) == -signal.SIGKILL
    before = {path: path.read_text() for path in (tmp_path / "out" / "cells").glob("*.json")}
    assert 0 < len(before) < 4 and not (tmp_path / "out" / "report.json").exists()
    assert main([*GRID, *SMALL, *KNOBS, "--out", str(tmp_path / "out")]) == 0
    assert numbers(tmp_path / "out") == numbers(home / "whole")
    assert all(path.read_text() == text for path, text in before.items()), "what was finished is not done again"


def test_run_again_it_reuses_what_is_finished_and_takes_seeds_and_recipes_on(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(home / "whole", tmp_path / "out"))
    more = [*GRID[:3], "random", "expert", *GRID[3:], *SMALL, *KNOBS, "--out", str(out), "--json"]
    assert main(more) == 0
    said = capsys.readouterr()
    assert "4 of 8 cells are finished and reused" in said.err and "/4" in said.err
    told = json.loads(said.out)
    ends = {row["recipe"]: row for row in told["rows"] if row["seed"] == 0}
    assert ends["expert"]["success"] == 1.0 and ends["random"]["labels"] == 0
    kept = [row for row in told["rows"] if row["recipe"] in ("tacit", "bc")]
    assert kept == rows(home / "whole")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--episodes", "3"), "episodes was 2 and is now 3"),
        (("--plan.steps", "5"), "plan.steps was 4 and is now 5"),
        (("--knobs", *KNOBS[1:3], "tacit.reach=2", *KNOBS[4:]), "recipes.tacit.reach was 3 and is now 2"),
        (("--held", "0.4"), "held was 0.3 and is now 0.4"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_other_settings_are_refused_and_named(
    change: tuple[str, ...], says: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(home / "whole")
    assert main([*GRID, *SMALL, *KNOBS, "--out", "whole", *change]) == 1
    complaint = capsys.readouterr().err
    assert says in complaint and "--fresh" in complaint
    assert files(home / "whole") == before


def test_fresh_begins_anew_and_a_folder_of_something_else_is_left_alone(home: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(home / "whole", tmp_path / "out"))
    only = ("compare", "random", "--data", "video", "--seeds", "1", "--labels", "8", *SMALL, "--out")
    assert main([*only, str(out), "--fresh"]) == 0
    assert [path.name for path in (out / "cells").iterdir()] == ["random-video-0.json"] and not (out / "runs").exists()
    (tmp_path / "aunt").mkdir()
    (tmp_path / "aunt" / "letter.txt").write_text("dear")
    assert main([*only, str(tmp_path / "aunt"), "--fresh"]) == 1
    assert [path.name for path in (tmp_path / "aunt").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text: text[: len(text) // 2], "is damaged: Expecting"),
        (lambda text: "", "is damaged: Expecting value"),
        (lambda text: "[1, 2]", "does not tell its rows and failed and seconds"),
        (lambda text: text.replace('"rows"', '"lines"'), "does not tell its rows"),
        (lambda text: text.replace('"labels": 8', '"lables": 8'), "its rows are not those of tacit on video, seed 1"),
        (lambda text: text.replace('"seed": 1', '"seed": 0'), "its rows are not those of tacit on video, seed 1"),
    ],
    ids=["cut short", "empty", "no object", "no rows", "rows of something else", "another cell's"],
)
def test_a_damaged_cell_is_named_and_is_not_finished(
    spoil: Any, says: str, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(home / "whole", tmp_path / "out"))
    cells = planned(["tacit"], [home / "video"], seeds=2)
    work, hurt = Work(out, Terms(), cells), out / "cells" / "tacit-video-1.json"
    assert all(map(work.done, cells)) and not caplog.text
    hurt.write_text(spoil(hurt.read_text()))
    assert [work.done(cell) for cell in cells] == [True, False]
    assert f"{hurt} is damaged: " in caplog.text and says in caplog.text


def test_a_damaged_cell_is_run_anew(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = Path(shutil.copytree(home / "whole", tmp_path / "out"))
    hurt = out / "cells" / "tacit-video-1.json"
    os.truncate(hurt, 100)
    before = files(out / "cells")
    assert main([*GRID, *SMALL, *KNOBS, "--out", str(out)]) == 0
    assert f"{hurt} is damaged: " in caplog.text and "tacit on video, seed 1 is run anew" in caplog.text
    assert numbers(out) == numbers(home / "whole")
    assert {name for name, when in files(out / "cells").items() if before[name] != when} == {hurt.name}


@pytest.mark.parametrize("text", ['{"recipes": {"tac', "{}", '{"recipes": {}, "data": null}'])
def test_a_damaged_note_of_a_comparison_is_named_with_what_to_do(
    text: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = ("compare", "random", "--data", "video", "--seeds", "1", "--labels", "8", *SMALL, "--out")
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.json").write_text(text)
    assert main([*only, str(out)]) == 1
    complaint = capsys.readouterr().err
    assert f"{out / 'compare.json'} is damaged: " in complaint and f"--fresh to delete {out}" in complaint
    assert (out / "compare.json").read_text() == text
    assert main([*only, str(out), "--fresh"]) == 0 and rows(out)[0]["episodes"] == 2


def test_a_recipe_that_fails_is_a_row_with_its_reason_and_stops_no_other(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("compare", "laom", "tacit", "random", "--data", "video", "--seeds", "1", "--labels", "8", *SMALL)
    knobs = ("laom.reach=50", "tacit.plan.rate=1e38", "tacit.plan.clip=0", "tacit.plan.warmup=0")
    assert main([*asked, "--knobs", *knobs, "--out", str(tmp_path / "out"), "--json"]) == 1
    told = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert "53 frames" in told["laom"]["failed"] and "\n" not in told["laom"]["failed"]
    assert "was not finite" in told["tacit"]["failed"] or "nan" in told["tacit"]["failed"]
    assert "failed" not in told["random"] and told["random"]["episodes"] == 2
    assert main([*asked, "--knobs", *knobs, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "1 of 3 cells are finished" in said.err, "what failed is tried again"
    assert "2 cells failed" in said.out and "53 frames" in said.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "lpao", "--data", "video"], "'lapo'"),
        (["compare", "follow", "--data", "video"], "wants a model"),
        (["compare", "tacit", "--data", "video", "--knobs", "tacit.pionts=3"], "'points'"),
        (["compare", "tacit", "--data", "video", "--knobs", "tacit.points=many"], "wanted int"),
        (["compare", "tacit", "--data", "video", "--knobs", "tacit.plan.step=3"], "'steps'"),
        (["compare", "tacit", "--data", "video", "--knobs", "lapo.codes=3"], "'lapo'"),
        (["compare", "tacit", "--data", "video", "--knobs", "points=3"], "RECIPE.KNOB=VALUE"),
        (["compare", "tacit", "--data", "video", "--env", "dots/plian"], "'dots/plain'"),
        (["compare", "tacit", "--data", "video", "--seeds", "0"], "0 seeds"),
        (["compare", "random", "--data", "video", "--labels"], "nobody acts"),
        (["compare", "tacit", "--data", "video", "--labels", "0"], "at least 1"),
        (["compare", "laom_labels", "--data", "video", "--labels"], "--labels gives none: give --labels N, or --knobs"),
        (["compare", "laom", "--data", "video", "--labels", "--knobs", "laom.labelled=0.25"], "laom.labelled=0 to"),
        (["compare", "bc", "--data", "video", "--labels"], "--labels gives none: give --labels N."),
    ],
    ids=lambda value: " ".join(value[4:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    words: list[str], says: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_labels_than_there_are_and_data_of_nowhere_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="100000 labels were asked for"):
        compare(["bc"], [home / "video"], tmp_path / "out", terms=Terms(labels=(100_000,)))
    tacit.data.save(tacit.data.open(home / "video"), tmp_path / "strange")
    with pytest.raises(Unknown, match="which environment"):
        compare(["bc"], [tmp_path / "strange"], tmp_path / "out", terms=Terms(labels=(8,)))
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_what_all_would_take_and_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(home)
    many = ("--plan.batch", "8", "--plan.steps", "1000", "--episodes", "2", "--most", "64", "--held", "0.3")
    assert main([*GRID, *many, *KNOBS, "--out", "new", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dry_run"] and [row["recipe"] for row in told["rows"]] == ["tacit", "bc"]
    assert told["seconds"] == pytest.approx(2 * sum(row["seconds"] for row in told["rows"]))
    assert told["seconds"] > 1, "a thousand steps of each, and two seeds"
    assert files(home) == before


def mine(data: Episodes, out: Path | None, *, labelled: float = 0.5, plan: Plan = Plan(rate=2e-3)) -> LatentActions:
    """Somebody's own method, which takes labels inside training."""
    assert data.labelled in (8, 16), "it is given the budget's labels and no others"
    return found(data, out, plan=plan, **TINY)


def test_a_method_of_ones_own_that_wants_labels_is_trained_on_each_budget(home: Path, tmp_path: Path) -> None:
    plan = {"steps": 4, "batch": 8}
    terms = Terms(labels=(8, 16), episodes=2, held=0.3, most=64, plan=plan)
    report = compare([mine], [home / "video"], tmp_path / "out", seeds=1, terms=terms)
    assert [(row["recipe"], row["labels"], row["taught"]) for row in report.rows] == [("mine", 8, 8), ("mine", 16, 16)]
    assert Method.of(mine, terms).plan == Plan(rate=2e-3, **plan), "its own plan, as far as nobody says otherwise"
    assert not Method.of("tacit", terms).taught and Method.of("bc", terms).acts


def begun(
    data: Episodes,
    out: Path | None,
    *,
    labelled: float = 0.25,
    bottleneck: VQ = VQ(codes=4, dim=4),
    plan: Plan = Plan(rate=2e-3),
) -> LatentActions:
    """Somebody's own method, whose default is a part."""
    return laom(data, out, labelled=labelled, bottleneck=bottleneck, plan=plan, **NARROW)


@pytest.mark.parametrize(
    ("recipe", "budgets", "seeds"),
    [("laom", (8, 16), [1]), (begun, (16,), [0, 1])],
    ids=["a saved part, two budgets", "a default part, two seeds"],
)
def test_no_cell_and_no_budget_begins_from_what_another_trained(
    recipe: Any, budgets: tuple[int, ...], seeds: list[int], home: Path, tmp_path: Path
) -> None:
    VQ(codes=4, dim=4).save(tmp_path / "book")
    knobs = {"laom": {**NARROW, "labelled": 0.25, "bottleneck": str(tmp_path / "book")}} if recipe == "laom" else {}
    for name, some, each in (("both", budgets, seeds), ("alone", budgets[-1:], seeds[-1:])):
        plan = {"steps": 4, "batch": 8, "rate": 2e-3}
        terms = Terms(some, episodes=1, held=0.3, most=64, plan=plan, knobs=knobs)
        compare([recipe], [home / "video"], tmp_path / name, seeds=each, terms=terms)
    assert numbers(tmp_path / "both")[-1] == numbers(tmp_path / "alone")[0]


def test_states_alone_are_compared_by_what_learns_from_them(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tacit.data.open(home / "video")
    seen = [whole.episode(i).replace(frames=None) for i in range(len(whole))]
    tacit.data.save(Episodes.of(seen, space=whole.spec.space, fps=whole.spec.fps), tmp_path / "states")
    asked = ("--data", str(tmp_path / "states"), "--seeds", "1", *SMALL, "--json", "--knobs")
    clam = ("clam.states=true", "clam.labelled=0", "clam.features=16", "clam.width=16", "clam.layers=1")
    aime = ("aime.hidden=32", "aime.unsure=8", "aime.length=4", "--labels", "8", "--env", "dots/plain")
    for words in (("clam", *asked, *clam, "--labels"), ("aime", *asked, *aime)):
        for dry in (("--dry-run",), ()):
            assert main(["compare", *words, "--out", str(tmp_path / words[0]), *dry]) == 0
            [row] = json.loads(capsys.readouterr().out)["rows"]
            assert row["seconds"] > 0 and "failed" not in row
        assert row["episodes"] == 2 if words[0] == "aime" else row["fvu"] > 0
    acting, video = ("--labels", "8", "--env", "dots/plain"), ("--data", str(home / "video"))
    for words, says in (
        (("clam", *asked, *clam, *acting), "Latents of clam are of states, and a policy that follows latents acts by"),
        (("clam", *asked, *clam, *acting, *video), "Latents of clam are of states"),
        (("tacit", *asked, "tacit.points=4", *acting), "holds no pictures, and a policy that follows latents acts by"),
        (("aime", *asked, *aime, "--size", "8"), "holds no pictures, and --size"),
        (("lila", *asked[:-1]), "lila gives a stick for a person to hold"),
    ):
        assert main(["compare", *words, "--out", str(tmp_path / "none")]) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_recipes_that_cannot_be_told_apart_by_name_are_refused(home: Path, tmp_path: Path) -> None:
    first, second = (lambda data, out: data), (lambda data, out: out)
    assert len(planned([first, first, "bc"], [home / "video"], seeds=1)) == 2, "the same one twice is one"
    for same in ([first, second], ["tacit", found]):
        with pytest.raises(Unknown, match="2 different recipes are called .* rename"):
            compare(same, [home / "video"], tmp_path / "out")
    with pytest.raises(Unknown, match=r"partial.* has no name .* Wrap it in one of its own \(def\)"):
        compare([partial(mine, labelled=0.1)], [home / "video"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_processes_give_the_rows_of_one(home: Path, tmp_path: Path) -> None:
    assert main([*GRID, *SMALL, *KNOBS, "--out", str(tmp_path / "out"), "--workers", "2"]) == 0
    assert numbers(tmp_path / "out") == numbers(home / "whole")


@pytest.mark.slow
def test_a_cluster_that_began_in_another_folder_gives_the_rows_of_one_process(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    ray.shutdown()  # one that another test began would be taken for it
    monkeypatch.chdir(tmp_path)
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    monkeypatch.chdir(home)
    monkeypatch.delattr("tacit.data.scale.answers")  # without which this machine's own processes are asked nothing
    words = ["compare", "bc", *GRID[3:], *SMALL, *KNOBS[:1], *KNOBS[4:], "--out", "clustered", "--engine", "ray"]
    assert main(words) == 0
    assert numbers(home / "clustered") == [row for row in numbers(home / "whole") if row["recipe"] == "bc"]
