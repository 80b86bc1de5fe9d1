"""The demo as a whole, tiny, on the toy of dots: what it writes, and that nothing is lost or done twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tacit.demo import BUDGETS, _jobs, _waves, demo

TINY: dict[str, Any] = {"env": "dots/plain", "steps": 4, "frames": 2800, "episodes": 3, "workers": 2}
METHODS = ("tacit", "lapo", "idm", "bc")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    demo(out, **TINY, results=out.parent / "claim.json")
    return out


def told(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def again(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def test_a_row_for_every_method_and_budget_with_what_a_reader_of_the_file_wants(made: Path) -> None:
    report = told(made)
    rows = {(row["method"], row["labels"]): row for row in report["rows"]}
    assert {(method, n) for method in METHODS for n in BUDGETS} < rows.keys()
    ends = rows.keys() - {(method, n) for method in METHODS for n in BUDGETS}
    assert {method for method, _ in ends} == {"all labels", "random", "expert"}
    scale = rows["expert", 0]["return"] - rows["random", 0]["return"]
    for row in rows.values():
        far = (row["return"] - rows["random", 0]["return"]) / scale
        assert row["normalised"] == pytest.approx(far), "0 is chance and 1 the expert, on these very episodes"
    assert all(
        {"seed", "success", "return", "episodes"} <= row.keys() and row["episodes"] == 3 for row in rows.values()
    )
    assert {"seconds", "versions", "command", "summary"} <= report.keys()
    assert all({"mean", "low", "high", "method", "labels"} <= entry.keys() for entry in report["summary"])
    claim = json.loads((made.parent / "claim.json").read_text())
    assert claim["passed"] is False and claim["rows"] == report["rows"], "a few steps prove nothing"


def test_run_again_it_reuses_what_is_finished_and_says_so(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = again(made, tmp_path)
    slow = out / "seed-0" / "rows" / "tacit-0.json"
    slow.write_text(json.dumps(json.loads(slow.read_text()) | {"seconds": 5000.0}))
    demo(out, **TINY)
    said = capsys.readouterr().err
    assert "13 of 13 stages are finished and reused" in said and "video of expert is there already" in said
    assert told(out)["rows"] == told(made)["rows"]
    assert told(out)["seconds"] > 5000 / TINY["workers"], "the time of what is reused counts too"


def test_what_a_kill_took_is_made_again_to_the_same_rows(made: Path, tmp_path: Path) -> None:
    out = again(made, tmp_path)
    seed = out / "seed-0"
    shutil.rmtree(seed / "play")
    shutil.rmtree(seed / "tacit")
    for lost in ("tacit-0.json", "bc-64.json", "random-0.json"):
        (seed / "rows" / lost).unlink()
    (out / "report.json").unlink()
    demo(out, **TINY)
    assert told(out)["rows"] == told(made)["rows"]


def test_a_folder_of_other_settings_is_refused_and_begun_anew_where_asked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun(Exception):
        pass

    def begun(*_: Any) -> None:
        raise Begun

    out = again(made, tmp_path)
    with pytest.raises(ValueError, match="another steps.*--fresh"):
        demo(out, **TINY | {"steps": 5})
    assert told(out)["rows"] == told(made)["rows"]
    monkeypatch.setattr("tacit.demo._recorded", begun)
    with pytest.raises(Begun):
        demo(out, **TINY | {"steps": 5}, fresh=True)
    assert [p.name for p in out.iterdir()] == ["stage.json"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"episodes": 0}, "episodes is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"frames": 100}, "2,560"),
        ({"env": "dots/plane"}, "dots/plain"),
        ({"distract": "sprite"}, "sprites"),
        ({"distract": "sprites", "strength": 9.0}, "strength"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(wrong: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        demo(tmp_path / "out", **TINY | wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_something_else_is_left_alone(fresh: bool, tmp_path: Path) -> None:
    (tmp_path / "aunt.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="which no demo put there"):
        demo(tmp_path, **TINY, fresh=fresh)
    assert [p.name for p in tmp_path.iterdir()] == ["aunt.txt"]


def test_a_rehearsal_tries_everything_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = demo(tmp_path / "out", **TINY | {"steps": 1000}, seeds=2, dry_run=True)
    assert found["dry_run"] and found["seconds"] > 1 and found["disk_bytes"] > 1e6
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert "idm 16 works" in said and "Nothing was written" in said


def test_what_starts_from_our_encoder_waits_until_there_is_one() -> None:
    first, last = _waves(list(_jobs(pretrained=True)))
    assert ("tacit", 0) in first and {name for name, _ in last} == {"idm from ours"}
    assert list(_waves(list(_jobs(pretrained=False)))) == [first]
