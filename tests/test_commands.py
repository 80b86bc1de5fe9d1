"""Commands on data of states alone, hints that can be followed, and a policy that is told what to do."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tacit.data
from tacit import info
from tacit.cli import main
from tacit.clip import Clip, Space
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.hints import onward
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.policies import Cloning
from tacit.policies.instructed import Instructed
from tacit.policies.joystick import Joystick

QUICK = ("--plan.steps", "4", "--plan.batch", "8")
CLAM = ("clam", "--states", "--features", "16", "--width", "16", "--layers", "1", "--heads", "2", "--hidden", "16")
AIME = ("aime", "--hidden", "32", "--unsure", "8", "--length", "4")


class Words(Part):
    """For each text a vector, and a note of what was read."""

    def __init__(self, dim: int = 3) -> None:
        self.dim, self.heard = dim, set[str]()

    def forward(self, texts: Sequence[str]) -> Tensor:  # type: ignore[override]
        self.heard |= set(texts)
        return torch.tensor([[len(text), 1.0, -1.0] for text in texts])


def copied(data: Episodes, place: Path, **changes: Any) -> None:
    """The same as brought from elsewhere: no note says in which environment it was recorded."""
    made = [data.episode(i).replace(**changes) for i in range(len(data))]
    space = data.spec.space if "actions" not in changes else None
    tacit.data.save(Episodes.of(made, space=space, fps=data.spec.fps), place)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording of pictures and states, and its likes without the note, the pictures, or the actions."""
    place = tmp_path_factory.mktemp("commands")
    whole = collect("dots/plain", place / "both", episodes=60, noise=0.5, size=16, workers=1)
    copied(whole, place / "brought")
    copied(whole, place / "states", frames=None, text="go there")
    copied(whole, place / "video", actions=None)
    return place


@pytest.fixture
def home(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize("recipe", [CLAM, AIME, ("lila", "words", "--hidden", "16")], ids=lambda words: words[0])
def test_states_alone_are_enough_for_what_learns_from_them(
    recipe: tuple[str, ...], home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "model", lambda name, **_: Words())
    words = ["train", *recipe, *QUICK, "--data", "states", "--out", f"of-{recipe[0]}", "--held", "0.3", "--json"]
    assert main([*words, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "frames" not in told["stages"][0]["clip"] and not (home / words[-4]).exists()
    assert ("determinism" in told) == (recipe == CLAM), "who nearly always does the same is warned of by states, too"
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert 2 < told["episodes"] < 60 and all(loss > 0 for loss in told["losses"].values())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["bc"], 1, "holds no frames, and this learns from pictures; give data that has some, or learn from states"),
        (["bc", "--encoder", "eyes"], 1, "holds no frames, and this learns from pictures"),
        (["idm", "--encoder", "eyes"], 1, "holds no frames, and this learns from pictures"),
        (["tacit"], 1, "holds no frames, and this learns from pictures"),
        ([*CLAM, "--size", "8"], 2, "states holds no pictures, and --size is the side of pictures; leave it out"),
        ([*CLAM, "--stream"], 2, "states holds no pictures, and --stream is for decoding them; leave it out"),
    ],
)
def test_what_wants_pictures_says_so_where_there_are_none(
    words: list[str], code: int, says: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Cloning(encoder=Keypoints(frame=(16, 16), points=2, width=8), features=4, space=Space("continuous", 2)).save("eyes")
    assert main(["train", *words, *QUICK, "--data", "states", "--out", "none"]) == code
    assert says in capsys.readouterr().err and not (home / "none").exists()


def followed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What a training names as the next commands, each of them run."""
    capsys.readouterr()
    assert main(["train", *words, *QUICK]) == 0
    said = capsys.readouterr().out
    next_ = re.findall(r"^(?:Next:|Is it any good\?) tacit (.+)$", said, flags=re.MULTILINE)
    small = {"evaluate": ("--episodes", "2"), "train": QUICK, "check": ("--most", "64"), "label": ()}
    for line in next_:
        shutil.rmtree("out", ignore_errors=True)
        asked = shlex.split(line)
        assert main([*asked, *small[asked[0]]]) == 0, capsys.readouterr().err
    return next_


def test_what_is_named_as_the_next_step_can_be_taken(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ("--points", "4", "--width", "8")
    small = ("tacit", *tiny, "--reach", "2")
    assert followed(capsys, *CLAM, "--data", "both", "--out", "a") == ["label a --data both --out out/labelled"]
    assert followed(capsys, *CLAM, "--data", "states", "--out", "b", "--held", "0.3")[1:] == ["check b --data states"]
    [label] = followed(capsys, *small, "--data", "video", "--out", "c")
    assert label == "label c --data video --out out/labelled"  # no label says what its latents mean
    [follow] = followed(capsys, *small, "--data", "both", "--out", "d", "--size", "8")
    assert follow == "train follow d --data both --out out/policy --size 8"
    assert followed(capsys, "bc", *tiny, "--data", "both", "--out", "e") == ["evaluate e --env both"]


def test_a_policy_of_data_from_elsewhere_is_told_to_name_an_environment(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *AIME, *QUICK, "--data", "states", "--out", "f"]) == 0
    said = capsys.readouterr().out
    assert "Next: tacit evaluate f --env ENV" in said and "Part.load('f/policy').act(" in said
    assert main(["evaluate", "f", "--env", "dots/plain", "--episodes", "2"]) == 0
    assert isinstance(Part.load("f/policy"), tacit.policies.Policy)
    assert main(["evaluate", "f", "--env", "states"]) == 2
    assert "states does not say in which environment it was recorded" in capsys.readouterr().err


def agent(*, listens: bool = True) -> Instructed:
    """A policy that can be told what to do: by a text if it listens, and by a video."""
    language: dict[str, Any] = {"language": Words(), "told": 3} if listens else {}
    eyes = Keypoints(frame=(16, 16), points=2, width=8)
    return Instructed(encoder=eyes, features=4, space=Space("continuous", 2), window=4, width=16, **language).eval()


def test_who_waits_for_a_person_or_an_instruction_says_how_it_is_told(home: Path) -> None:
    where: dict[str, Any] = {"data": home / "both", "seen": tacit.data.open(home / "both")}
    stick = Joystick(language=Words(), told=3, space=Space("continuous", 2), features=4).eval()
    told = onward(stick, Path("stick"), **where)
    assert "Part.load('stick').act(Clip(state=state, text=('what is wanted',)), z)" in told and "tacit " not in told
    assert stick.act(Clip(state=torch.zeros(1, 1, 4), text=("what is wanted",)), torch.zeros(1, 2)).shape == (1, 2)
    for listens in (True, False):
        told = onward(agent(listens=listens), Path("agent"), **where)
        assert ("--text" in told) == listens and ".shown(clip).save(" in told


def test_a_policy_that_listens_is_given_a_text(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"agent": agent(), "deaf": agent(listens=False)}
    monkeypatch.setattr(info, "folder", lambda name, **_: Path(name))
    monkeypatch.setattr(info, "model", lambda name, **_: made[str(name)])

    asked, language = ["evaluate", "agent", "--env", "both", "--episodes", "2", "--json"], made["agent"].language
    assert main(asked) == 0 and "text" not in json.loads(capsys.readouterr().out)["rows"][0]
    assert isinstance(language, Words) and not language.heard
    assert main([*asked, "--text", "go left"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["text"] == "go left" and language.heard == {"go left"}
    for name in ("deaf", "random"):
        assert main(["evaluate", name, "--env", "both", "--text", "go"]) == 2
        assert "This policy listens to no --text" in capsys.readouterr().err
