"""Bringing recordings in: what is whole arrives, what is damaged is named, a kill costs nothing that was counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.curate import stretches
from tacit.data.episodes import Episodes
from tacit.data.formats import FORMATS
from tacit.data.lerobot import LeRobot
from tacit.data.merge import merge
from tacit.data.reader import Reader, Spec
from tacit.data.transfer import _unique, rounded, transfer
from tacit.data.video import Damaged


def shown(number: int, length: int = 9) -> Episode:
    random = np.random.default_rng(number)
    frames = random.integers(0, 256, (length, 12, 16, 3), dtype=np.uint8)
    return Episode(frames=frames, actions=random.integers(0, 4, length - 1), text=f"do {number}", split="train")


class Broken(Reader):
    """Eight episodes, of which the third cannot be read at all and the sixth breaks off."""

    def __init__(self, *, patience: int = 10**9) -> None:
        self.spec = Spec(frame=(12, 16), space=Space("discrete", 4), fps=5, text=True, name="broken")
        self.lengths, self.patience = np.full(8, 9), patience
        self.faults = {"c.mp4": "it is no video"}

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"n{i}" for i in range(8))

    def episode(self, number: int) -> Episode:
        if self.patience == 0:
            raise KeyboardInterrupt
        self.patience -= 1
        if number in (2, 5):
            raise Damaged(f"n{number} is damaged", good=None if number == 2 else 4)
        return shown(number)

    def prefix(self, number: int, count: int) -> Episode:
        whole = shown(number)
        return whole.replace(frames=whole.frames[:count], actions=whole.actions[: count - 1])  # type: ignore[index]


def test_what_is_damaged_is_named_and_left_out(tmp_path: Path) -> None:
    brought = transfer(Episodes(Broken()), tmp_path / "out")
    assert dict(brought.left) == {"c.mp4": "it is no video", "n2": "n2 is damaged", "n5": "n5 is damaged"}
    assert brought.data.names == ("n0", "n1", "n3", "n4", "n6", "n7")
    for i, number in enumerate((0, 1, 3, 4, 6, 7)):
        got, given = brought.data.episode(i), shown(number)
        assert np.array_equal(got.frames, given.frames) and np.array_equal(got.actions, given.actions)  # type: ignore[arg-type]
        assert (got.text, got.split) == (given.text, given.split)


def test_with_prefixes_it_is_kept_as_far_as_it_is_whole(tmp_path: Path) -> None:
    brought = transfer(Episodes(Broken()), tmp_path / "out", prefixes=True)
    assert list(brought.left) == ["c.mp4", "n2"] and list(brought.cut) == ["n5"]
    assert brought.data.lengths.tolist() == [9, 9, 9, 9, 4, 9, 9]
    assert np.array_equal(brought.data.episode(4).actions, shown(5).actions[:3])  # type: ignore[index]


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stopped_anywhere_the_same_call_goes_on(stop: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        transfer(Episodes(Broken(patience=stop)), tmp_path / "out")
    brought = transfer(Episodes(Broken()), tmp_path / "out")
    assert brought.data.names == ("n0", "n1", "n3", "n4", "n6", "n7") and list(brought.left) == ["c.mp4", "n2", "n5"]
    again = transfer(Episodes(Broken()), tmp_path / "out")
    assert len(again.data) == 6 and dict(again.left) == dict(brought.left)


def test_a_folder_with_other_recordings_is_refused(tmp_path: Path) -> None:
    transfer(Episodes(Broken()), tmp_path / "out")
    with pytest.raises(ValueError, match="other recordings"):
        transfer(Episodes(Broken()).select([0, 1]), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="thesis"):
        transfer(Episodes(Broken()), tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    source = Episodes.of([shown(i) for i in range(6)], space=Space("discrete", 4), fps=5)
    data.save(source, tmp_path / "source", group=20)
    for workers in (1, 2):
        transfer(data.open(tmp_path / "source"), tmp_path / str(workers), workers=workers)
    files = [p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*.*") if p.is_file()]
    assert any(f.suffix == ".mp4" for f in files)
    assert all((tmp_path / "1" / f).read_bytes() == (tmp_path / "2" / f).read_bytes() for f in files)


def test_nothing_readable_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"None of 1 episodes could be read.*n2 is damaged"):
        transfer(Episodes(Broken(), [2]), tmp_path / "out")


def test_its_note_is_plain_json(tmp_path: Path) -> None:
    transfer(Episodes(Broken()), tmp_path / "out")
    [told] = json.loads((tmp_path / "out" / "meta" / "transfer.json").read_text()).values()
    assert told["left"].keys() == {"n2", "n5"} and told["done"]


def test_a_dataset_is_added_to_only_where_that_is_asked_for_and_never_twice(tmp_path: Path) -> None:
    first = Episodes.of([shown(i) for i in range(3)], space=Space("discrete", 4), fps=5)
    data.save(first, tmp_path / "out")
    with pytest.raises(ValueError, match="other recordings"):
        transfer(Episodes(Broken()), tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        transfer(Episodes(Broken(patience=4)), tmp_path / "out", append=True)
    for _ in range(2):
        made = transfer(Episodes(Broken()), tmp_path / "out", append=True).data
        assert made.names[3:] == ("n0", "n1", "n3", "n4", "n6", "n7")
        assert np.array_equal(made.episode(3).frames, shown(0).frames)  # type: ignore[arg-type]


def several(*numbers: int, length: int = 9, fps: float = 5) -> Episodes:
    return Episodes.of([shown(i, length) for i in numbers], space=Space("discrete", 4), fps=fps)


def test_other_recordings_of_the_same_names_and_lengths_are_other_recordings(tmp_path: Path) -> None:
    transfer(several(0, 1), tmp_path / "out")
    made = transfer(several(2, 3), tmp_path / "out", append=True).data
    assert [np.array_equal(made.episode(i).frames, shown(i).frames) for i in range(4)] == [True] * 4  # type: ignore[arg-type]
    for name in "xy":
        data.save(several(*range(ord(name), ord(name) + 3)), tmp_path / name / "same")
    transfer(stretches(data.open(tmp_path / "x" / "same"), [(0, 0, 4)]), tmp_path / "cut")
    with pytest.raises(ValueError, match="other recordings"):  # and not the first one's, as if it were done
        transfer(stretches(data.open(tmp_path / "y" / "same"), [(0, 0, 4)]), tmp_path / "cut")
    transfer(data.open(tmp_path / "x" / "same").keep_labels(3), tmp_path / "few")
    with pytest.raises(ValueError, match="other recordings"):
        transfer(data.open(tmp_path / "x" / "same").keep_labels(9), tmp_path / "few")


def test_other_options_are_not_passed_over_and_a_start_that_wrote_nothing_binds_nobody(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        transfer(several(0, 1), tmp_path / "new", workers=0)
    with pytest.raises(KeyboardInterrupt):
        transfer(Episodes(Broken(patience=1)), tmp_path / "new")
    assert not (tmp_path / "new" / "meta" / "info.json").exists() or len(data.open(tmp_path / "new")) == 1
    with pytest.raises(ValueError, match="could be read"):
        transfer(Episodes(Broken(), [5]), tmp_path / "none")
    assert transfer(Episodes(Broken(), [5]), tmp_path / "none", prefixes=True).data.lengths.tolist() == [4]
    transfer(Episodes(Broken()), tmp_path / "out")
    with pytest.raises(ValueError, match="brought with .*'prefixes': False"):
        transfer(Episodes(Broken()), tmp_path / "out", prefixes=True)


def test_nothing_is_written_into_what_is_read(tmp_path: Path) -> None:
    FORMATS["videos"].write(several(0, 1), tmp_path / "v" / "videos")
    for source, out in (("v", "v/out"), ("v/videos", "v"), ("v", "v")):
        with pytest.raises(ValueError, match="never touched"):
            transfer(data.open(tmp_path / source), tmp_path / out)
    assert len(data.open(tmp_path / "v")) == 2


@pytest.mark.parametrize(("fps", "whole"), [(29.97, 30), (12.5, 12), (59.94, 60), (10.0, 10)])
def test_a_broken_rate_becomes_a_whole_one_whatever_is_read(fps: float, whole: int, tmp_path: Path) -> None:
    source = several(0, 1, 2, length=26, fps=fps)
    FORMATS["arrays"].write(source, tmp_path / "n")
    kinds = [source, source.select([0, 2]), source.keep_labels(9), data.open(tmp_path / "n")]
    kinds += [stretches(source, [(0, 0, 20), (2, 3, 26)])]
    for given in kinds:
        made = rounded(given)
        assert made.spec.fps == whole and len(made) == len(given)
        assert (made.lengths <= given.lengths).all() and made.lengths.sum() >= given.lengths.sum() * whole / fps - 2
        if whole >= fps:
            assert all(np.array_equal(made.episode(i).frames, given.episode(i).frames) for i in range(len(given)))  # type: ignore[arg-type]
            assert made.labelled == given.labelled


def test_names_that_were_numbered_already_stay_apart() -> None:
    assert len(set(_unique(["x", "x", "x (2)", "x"]))) == 4 and _unique(["a", "b"]) == ["a", "b"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("stop", [2, 4])
def test_stopped_and_given_again_it_ends_in_the_same_bytes(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["tacit.data.transfer"], "GROUP", 18)  # two of nine frames
    transfer(Episodes(Broken()), tmp_path / "at once")
    with pytest.raises(KeyboardInterrupt):
        transfer(Episodes(Broken(patience=stop)), tmp_path / "out")
    assert not (tmp_path / "out" / ".partial").exists() and len(LeRobot(tmp_path / "out").lengths) == 2
    transfer(Episodes(Broken()), tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "at once")


def test_the_first_episodes_are_saved_early_and_the_later_ones_in_larger_groups(tmp_path: Path) -> None:
    made = transfer(several(*range(30), length=100), tmp_path / "out").data
    held = np.bincount(made.reader.table["data/file_index"])  # type: ignore[attr-defined]
    assert held.tolist() == [3, 3, 6, 12, 6]


def test_what_a_stop_left_is_not_taken_for_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys.modules["tacit.data.transfer"], "GROUP", 18)
    with pytest.raises(KeyboardInterrupt):
        transfer(Episodes(Broken(patience=4)), tmp_path / "out")
    assert "stopped at 2 of 8 episodes" in data.open(tmp_path / "out").reader.unfinished
    assert "out is not whole: an import was stopped at 2 of 8" in caplog.text and "same command" in caplog.text
    with pytest.raises(ValueError, match="not whole: an import was stopped"):
        merge([tmp_path / "out"], tmp_path / "merged")
    transfer(Episodes(Broken()), tmp_path / "out")
    caplog.clear()
    assert not data.open(tmp_path / "out").reader.unfinished and not caplog.text
    merge([tmp_path / "out"], tmp_path / "merged")
    assert not data.open(tmp_path / "merged").reader.unfinished
    (tmp_path / "out" / "meta" / "label.json").write_text(json.dumps({"model": "m", "of": 9}))
    assert "labelling was stopped at 6 of 9" in data.open(tmp_path / "out").reader.unfinished
    for strange in ("[]", "{", '{"a": 3}'):
        (tmp_path / "out" / "meta" / "transfer.json").write_text(strange)
        (tmp_path / "out" / "meta" / "label.json").write_text(strange)
        assert not data.open(tmp_path / "out").reader.unfinished


def test_of_recordings_that_grew_only_the_new_ones_are_added(tmp_path: Path) -> None:
    FORMATS["videos"].write(several(0, 1, 2), tmp_path / "videos")
    transfer(data.open(tmp_path / "videos"), tmp_path / "out", workers=1)
    FORMATS["videos"].write(several(3, 4), tmp_path / "more")
    for file in (tmp_path / "more").glob("*.mp4"):
        file.rename(tmp_path / "videos" / f"b_{file.name}")
    for _ in range(2):
        made = transfer(data.open(tmp_path / "videos"), tmp_path / "out", workers=1, append=True)
        assert len(made.known) == 3 and len(made.data) == 5 and len(set(made.data.prints)) == 5
    alone = data.open(tmp_path / "videos").select([0, 2])
    made = transfer(alone, tmp_path / "out", workers=1, append=True)
    assert made.known == alone.names and len(made.data) == 5
    transfer(data.open(tmp_path / "videos").select([0, 0]), tmp_path / "twice", workers=1)  # asked for so: kept so
    assert len(data.open(tmp_path / "twice")) == 2
