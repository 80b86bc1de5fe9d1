"""What is here: the extras are those there are, a knob's comment is its help, and a part remembers where it was."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import pytest
import torch

from tacit import info
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.policies import Cloning

ROOT = Path(__file__).parent.parent


def test_info_knows_every_extra_there_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(info.EXTRAS) == set(project["optional-dependencies"]) - {"envs"}


def test_a_comment_beside_a_knob_is_its_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = (
        "def mine(\n    data,\n    out,\n    *,\n    codes: int = 3,  # of mine\n    width: int = 4,\n):\n    'Says.'\n"
    )
    (tmp_path / "mine.py").write_text(recipe)
    monkeypatch.setattr(info, "RECIPES", tmp_path)
    assert info.cards()["mine"].words == {"codes": "of mine", "width": info.KNOBS["width"]}


def test_every_recipe_has_a_card_and_is_found() -> None:
    known = info.cards()
    assert set(known) == {path.stem for path in (ROOT / "tacit" / "recipes").glob("[!_]*.py")}
    for name, card in known.items():
        parameters = inspect.signature(info.recipe(name)).parameters
        assert list(card.knobs) == [knob for knob in parameters if knob not in ("data", "out")]
        assert (ROOT / "docs" / "recipes" / f"{name}.md").is_file()
        assert card.says.endswith(".") and card.gives and card.page.count("\n\n") == 4


def test_the_nearest_name_is_offered_and_a_far_one_is_not() -> None:
    assert "Did you mean 'lapo'?" in str(info.Unknown.of("recipe", "lpao", known=["bc", "lapo"]))
    assert "Did you mean" not in str(info.Unknown.of("recipe", "zzz", known=["bc", "lapo"]))


def test_a_folder_that_names_no_environment_is_not_taken_for_a_slip_of_the_finger(tmp_path: Path) -> None:
    with pytest.raises(info.Unknown, match="does not say in which environment it was recorded"):
        info.environment(info.recorded(str(tmp_path))[0])


def test_only_pictures_have_sides() -> None:
    assert [info.sides(*given, name="x") for given in ((8, (4, 6)), (None, (4, 6)), (None, None))] == [
        (8, 8),
        (4, 6),
        None,
    ]
    with pytest.raises(info.Unknown, match="x holds no pictures, and --size"):
        info.sides(8, None, name="x")


def eyes() -> Keypoints:
    return Keypoints(frame=(16, 24), points=2, width=4)


def test_a_part_of_a_saved_model_brings_along_what_the_whole_was_trained_on(tmp_path: Path) -> None:
    whole = Cloning(encoder=eyes(), features=4, latent=2)
    whole.seen = frozenset({"an episode"})
    whole.save(tmp_path / "run" / "policy")
    found = info.model(tmp_path / "run", kind=Part, inside="encoder")  # the run's folder stands for its policy
    assert isinstance(found, Keypoints) and "an episode" in found.seen
    assert info.frame(whole) == (16, 24) and info.frame(torch.nn.Linear(1, 1)) is None
    with pytest.raises(ValueError, match="holds a Cloning; wanted a LatentActions"):
        info.model(tmp_path / "run", kind=LatentActions)
    with pytest.raises(info.Unknown, match="no saved model"):
        info.folder(tmp_path)
