"""Assigning parts: once, by content, without moving a frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tacit.data as data
from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.partition import assign, partition


def written(path: Path, count: int = 12) -> Episodes:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8) for _ in range(count - 1)]
    episodes = [Episode(frames=p) for p in (*pictures, pictures[0])]  # the last shows what the first shows
    data.save(Episodes.of(episodes, fps=5), path)
    return data.open(path)


def test_it_is_the_split_that_training_makes_and_twins_stay_together(tmp_path: Path) -> None:
    before = written(tmp_path / "d")
    train, held = before.split(0.3)
    after = partition(tmp_path / "d", held=0.3)
    assert after.part("train").prints == train.prints and after.part("valid").prints == held.prints
    assert after.splits[0] == after.splits[-1]
    assert np.array_equal(after.episode(3).frames, before.episode(3).frames)  # type: ignore[arg-type]
    assert after.episode(3).split == after.splits[3]


def test_an_assignment_stays_unless_it_is_asked_for_again(tmp_path: Path) -> None:
    written(tmp_path / "d")
    first = partition(tmp_path / "d", held=0.3, seed=0).splits
    assert partition(tmp_path / "d", held=0.3, seed=1).splits == first
    assert partition(tmp_path / "d", held=0.3, seed=1, again=True).splits != first


def test_stretches_are_told_in_lerobots_own_words_and_read_from_them(tmp_path: Path) -> None:
    written(tmp_path / "d")
    assign(tmp_path / "d", ["train"] * 9 + ["test"] * 3)
    info = tmp_path / "d" / "meta" / "info.json"
    assert json.loads(info.read_text())["splits"] == {"train": "0:9", "test": "9:12"}
    (tmp_path / "d" / "meta" / "tacit.json").unlink()  # as a stranger would have written it
    assert data.open(tmp_path / "d").part("test").rows.tolist() == [9, 10, 11]
    told = json.loads(info.read_text()) | {"splits": {"train": "0:9", "test": "9:99"}}
    info.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="within the 12 episodes"):
        data.open(tmp_path / "d").splits  # noqa: B018


def test_a_part_nobody_assigned_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tacit data split"):
        written(tmp_path / "d").part("train")
    with pytest.raises(ValueError, match="11 parts were given for 12"):
        assign(tmp_path / "d", ["train"] * 11)


def test_of_a_dataset_that_grew_the_new_episodes_are_assigned_and_the_old_ones_stay(tmp_path: Path) -> None:
    written(tmp_path / "d")
    first = partition(tmp_path / "d", held=0.3, seed=1).splits
    random = np.random.default_rng(1)
    new = [Episode(frames=random.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)) for _ in range(9)]
    twin = data.open(tmp_path / "d").episode(2).replace(split="")
    data.save(Episodes.of([*new, twin], fps=5), tmp_path / "d", append=True)
    grown = partition(tmp_path / "d", held=0.3, seed=0).splits
    assert grown[:12] == first and set(grown[12:21]) == {"train", "valid"} and grown[21] == grown[2]
