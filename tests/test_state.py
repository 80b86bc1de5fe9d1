"""What the system's errors are told as: the place, and what to do; and in what two runs differ."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tacit.data.file import placed, whole
from tacit.state import ADVICE, advised, alone, differences, named


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_names_the_place_what_is_free_and_what_to_do(number: int, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, whole(tmp_path / "new" / "a.zarr"):
        raise OSError(number, os.strerror(number))
    told = advised(caught.value)
    assert str(tmp_path / "new" / "a.zarr") in told and "bytes are free" in told and "Make room" in told
    assert "Errno" not in told


@pytest.mark.parametrize("number", sorted(ADVICE))
def test_every_advice_names_the_place(number: int) -> None:
    with pytest.raises(OSError) as caught, placed(Path("there/a")):
        raise OSError(number, os.strerror(number))
    assert "there/a" in advised(caught.value) and "Errno" not in advised(caught.value)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("x")
    for place in (tmp_path / "afile", tmp_path / "afile" / "b"):
        with pytest.raises(OSError) as caught, alone(place):
            pass
        assert "afile" in advised(caught.value) and "Give another place" in advised(caught.value)


def test_what_names_its_place_already_and_what_is_said_in_our_own_words_stays() -> None:
    with pytest.raises(OSError) as caught, placed(Path("out")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "inner/file")
    assert "inner/file" in advised(caught.value)
    assert advised(FileNotFoundError("There is no dataset at x.")) == "There is no dataset at x."
    assert advised(OSError(errno.ENOSPC, "The disk is full: step 3.")) == "The disk is full: step 3."


def test_of_many_differences_a_few_are_named_briefly() -> None:
    plan = dict.fromkeys("abcde", 1)
    before = {"model": "x" * 5000, "plan": plan, "recipe": "line"}
    now = {"model": "y" * 5000, "plan": dict.fromkeys(plan, 2), "recipe": "circle"}
    told = named(list(differences(before, now)), first="recipe")
    assert told.startswith("recipe was 'line' and is now 'circle'; model was 'xxx")
    assert told.endswith("; plan.a was 1 and is now 2; and 4 more") and len(told) < 400
    assert named(["a was 1 and is now 2"]) == "a was 1 and is now 2"
