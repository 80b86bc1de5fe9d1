"""Parts that are spelled: the same as built in Python, nothing else is called, and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tacit import spelled
from tacit.cli import main
from tacit.data.collect import collect
from tacit.info import Unknown
from tacit.latents.signals import Null, Reversal, Signal
from tacit.part import Part, config
from tacit.parts.books import VQ, Residual
from tacit.parts.nested import Nested
from tacit.parts.quantize import FSQ, Bottleneck, Gaussian


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Nested(FSQ((5, 5, 5), groups=8), slots=8)", Nested(FSQ((5, 5, 5), groups=8), slots=8)),
        (" Residual( VQ(codes=16, decay=0.9), stages=3 ) ", Residual(VQ(codes=16, decay=0.9), stages=3)),
        ("FSQ([3, 3])", FSQ((3, 3))),
        ("Gaussian(4, beta=-0.0)", Gaussian(4, beta=-0.0)),
    ],
)
def test_a_part_is_what_it_is_in_python(text: str, part: Part) -> None:
    assert config(spelled.spelled(text)) == config(part)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Fre(8)", "no part 'Fre'.*mean 'Free'"),
        ("Free()", r"missing a required argument: 'width'; wanted Free\(width, \*, noise=0.0\)"),
        ("Free(8, nois=0.1)", "unexpected keyword argument 'nois'"),
        ("Free(0)", "width"),
        ("Free(8", "spells no part; wanted one such as"),
        ("Free(8).save('here')", "no part 'Free"),
        ("FSQ((5, 5), groups='2')", r"wanted FSQ\(levels"),
        ("Nested(64)", r"wanted Nested\(bottleneck"),
        ("Free(width)", "'width' was given to a part; it may hold numbers"),
        ("Free(**{})", "wanted Free"),
        ("Free(*[8])", "may hold numbers"),
        ("__import__('os')", "no part '__import__'"),
        ("Free(open('here', 'w'))", "no part 'open'"),
        ("Bottleneck()", "no part 'Bottleneck'"),
        ("(" * 5000 + ")" * 5000, "spells no part"),
    ],
)
def test_what_is_no_part_is_refused_and_nothing_of_it_is_run(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        spelled.spelled(text)
    assert not list(tmp_path.iterdir())


def test_a_knob_takes_a_spelling_or_a_folder_or_several_and_of_the_right_kind(tmp_path: Path) -> None:
    folder = FSQ((3, 3)).save(tmp_path / "kept")
    both = [spelled.given(x, kind=Bottleneck, inside="bottleneck") for x in ("FSQ((3, 3))", folder)]
    assert config(both[0]) == config(both[1])
    some = spelled.given(["Null(0.5)", "Reversal()"], kind=Signal, inside="signals")
    assert [config(s) for s in some] == [config(Null(0.5)), config(Reversal())]
    for text in ("FSQ", "FSQ((3, 3)", '["Null()"]', "Nested(" * 50):
        with pytest.raises(ValueError, match="wanted one"):
            spelled.given(text, kind=Bottleneck, inside="bottleneck")
    with pytest.raises(Unknown, match="no saved model"):
        spelled.given(tmp_path / "nothing", kind=Bottleneck, inside="bottleneck")
    with pytest.raises(ValueError, match=r"--bottleneck was given Null\(\); wanted of kind Bottleneck"):
        spelled.given("Null()", kind=Bottleneck, inside="bottleneck")


def test_every_part_is_listed_with_how_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parts", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["FSQ"]["spelled"] == "FSQ(levels, *, groups=1)" and rows["Null"]["for"] == "--signals"
    assert {"VQ", "Learnt", "NSVQ", "Residual", "LFQ", "Sparse", "Rotation", "Nested", "Frozen", "Sentences"} <= {*rows}
    assert not {"Bottleneck", "Signal", "Part"} & {*rows}, "a ground that others stand on does nothing"
    assert all(row["says"] for row in rows.values())


def test_a_recipe_is_trained_with_the_parts_that_were_spelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect("dots/plain", tmp_path / "dots", episodes=12, size=16, workers=1)
    asked = ["train", "lapo", "--data", str(tmp_path / "dots"), "--width", "1", "--base", "8"]
    asked += ["--plan.steps", "2", "--plan.batch", "4", "--out", str(tmp_path / "lapo")]
    onward = "Alone(Painted(frame=(16, 16), frames=2, dim=24, base=8), mask=Moving())"
    parts = ["--bottleneck", "LFQ(6, groups=4)", "--signals", "Null(0.1)", "Composition(0.1)", "--onward", onward]
    assert main([*asked, *parts]) == 0
    model = Part.load(tmp_path / "lapo")
    assert [type(part).__name__ for part in (model.bottleneck, model.onward)] == ["LFQ", "Alone"]
    steps = [json.loads(line) for line in (tmp_path / "lapo" / "log.jsonl").read_text().splitlines()]
    assert all({"null", "composition", "doubt"} <= {*step} for step in steps)
    assert main([*asked, "--bottleneck", "Null()"]) == 1
    assert "wanted of kind Bottleneck" in capsys.readouterr().err
