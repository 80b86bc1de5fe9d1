"""Labelling a dataset: what is written is what was inferred, once, and what is there is never mistaken for other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tacit.data
from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.toys import dots
from tacit.envs.dots import Board
from tacit.latents import LatentActions, infer, keep, label
from tacit.latents.forward import Painted
from tacit.latents.inverse import Stacked
from tacit.part import Part
from tacit.parts.books import VQ
from tacit.parts.quantize import Free


def model(bottleneck: Part | None = None, *, past: int = 1, seed: int = 0) -> LatentActions:
    torch.manual_seed(seed)
    short = bottleneck or VQ(groups=1, tokens=2, dim=3, codes=5)
    inverse = Stacked(frame=(12, 12), frames=past + 2, dim=short.width, width=1, features=16)  # type: ignore[arg-type]
    forward = Painted(frame=(12, 12), frames=past + 1, dim=short.dim, base=4)  # type: ignore[arg-type]
    return LatentActions(inverse=inverse, bottleneck=short, forward=forward, past=past)


@pytest.fixture(scope="module")
def data() -> Episodes:
    return dots(Board(size=12), episodes=12, length=9, seed=3).episodes.keep_labels(20)


def equal(one: Episodes, other: Episodes) -> bool:
    names = ("latents", "codes", "actions", "state", "rewards")
    pairs = [(one.column(n), other.column(n)) for n in names]
    return one.prints == other.prints and all(
        (a is None and b is None) or np.array_equal(a, b, equal_nan=True)  # type: ignore[arg-type]
        for a, b in pairs
    )


def test_what_is_written_is_what_was_inferred(data: Episodes, tmp_path: Path) -> None:
    here, there = label(model(), data), label(model(), data, tmp_path / "out")
    assert equal(here, there) and here.spec.latent == 6 and here.spec.codes == 2
    assert there.reader is data.reader  # its frames need no second decoding
    disk = tacit.data.open(tmp_path / "out")
    assert equal(disk, here) and disk.labelled == data.labelled == 20 and disk.sources == data.sources
    columns = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())["features"]
    assert columns["latent_action"]["shape"] == [6] and columns["latent_code"]["dtype"] == "int64"
    for i in range(len(data)):
        frames = data.episode(i).frames
        assert frames is not None and np.array_equal(disk.episode(i).frames, frames)  # type: ignore[arg-type]


def test_latents_without_codes_have_no_column_of_codes(data: Episodes, tmp_path: Path) -> None:
    told = label(model(Free(1)), data, tmp_path)
    assert told.spec.latent == 1 and told.column("codes") is None
    assert "latent_code" not in json.loads((tmp_path / "meta" / "info.json").read_text())["features"]
    assert equal(tacit.data.open(tmp_path), label(model(Free(1)), data))


def test_a_second_call_reads_and_does_not_infer(
    data: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = label(model(), data, tmp_path)
    monkeypatch.setattr(LatentActions, "found", pytest.fail)
    assert equal(label(model(), data, tmp_path), first)


@pytest.mark.parametrize("done", [0, 1, 5, 11])
def test_stopped_anywhere_it_goes_on_where_it_was(
    done: int, data: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "GROUP", 1)
    found, counted = LatentActions.found, [0]

    def counting(self: LatentActions, clip: Any) -> Any:
        if counted[0] == done:
            raise KeyboardInterrupt
        counted[0] += 1
        return found(self, clip)

    monkeypatch.setattr(LatentActions, "found", counting)
    with pytest.raises(KeyboardInterrupt):
        label(model(), data, tmp_path)
    counted[0] = 100
    assert equal(label(model(), data, tmp_path), label(model(), data))
    assert counted[0] == 100 + len(data) - done + len(data)


def test_another_model_or_other_data_are_refused_by_name(data: Episodes, tmp_path: Path) -> None:
    label(model(), data, tmp_path)
    with pytest.raises(ValueError, match=r"holds other latents: the model was LatentActions \w+, and is now LatentAct"):
        label(model(seed=1), data, tmp_path)
    for other in (data.select([0, 1]), data.unlabelled()):
        with pytest.raises(ValueError, match=r"the data was 12 episodes \w+, and is now \d+ episodes"):
            label(model(), other, tmp_path)


def test_a_folder_of_something_else_is_left_alone(data: Episodes, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds \['notes.txt'\], which labelling did not put there"):
        label(model(), data, tmp_path)
    tacit.data.save(data, tmp_path / "recorded")
    before = {p: p.read_bytes() for p in (tmp_path / "recorded").rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match="which labelling did not put there"):
        label(model(), data, tmp_path / "recorded")
    assert {p: p.read_bytes() for p in (tmp_path / "recorded").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("past", [0, 1, 2])
def test_however_an_episode_is_cut_up_its_latents_are_the_same(data: Episodes, past: int) -> None:
    made = model(Free(4), past=past)
    wanted = infer(made, data, number=0, batch=100)[0]
    assert len(wanted) == len(data.episode(0)) - 1
    for batch in (1, 2, 3, 7):
        assert np.allclose(infer(made, data, number=0, batch=batch)[0], wanted, atol=1e-5)


def test_one_frame_has_no_latents_but_is_an_episode_all_the_same(tmp_path: Path) -> None:
    frames = np.zeros((4, 12, 12, 3), np.uint8)
    data = Episodes.of([Episode(frames=frames[:1]), Episode(frames=frames), Episode(frames=frames[:2])])
    told, written = label(model(), data), label(model(), data, tmp_path)
    for one in (told, written):
        widths = [(e.latents.shape, e.codes.shape) for e in map(one.episode, range(3)) if e.latents is not None]  # type: ignore[union-attr]
        assert widths == [((0, 6), (0, 2)), ((3, 6), (3, 2)), ((1, 6), (1, 2))]


def test_latents_that_are_no_numbers_are_refused_and_named(data: Episodes, tmp_path: Path) -> None:
    broken = model(Free(2))
    torch.nn.init.constant_(broken.inverse.out.weight, float("nan"))  # type: ignore[union-attr,arg-type]
    with pytest.raises(ValueError, match="latents of episode 0 are not finite"):
        label(broken, data, tmp_path)


def test_what_has_no_pictures_is_refused(data: Episodes) -> None:
    bare = Episodes.of([Episode(state=np.zeros((3, 2), np.float32))])
    with pytest.raises(ValueError, match="episode has no frames, from which"):
        label(model(), bare)


def test_a_model_in_training_is_left_in_training(data: Episodes) -> None:
    made = model().train()
    before = {k: v.clone() for k, v in made.state_dict().items()}
    label(made, data.select([0]))
    assert made.training and all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


def test_names_go_with_what_is_labelled(data: Episodes, tmp_path: Path) -> None:
    from tacit.data.record import Writer

    with Writer(tmp_path / "d", data.spec) as writer:
        for i in range(3):
            writer.add(data.episode(i), origin=f"film {i}.mp4")
    label(model(), tacit.data.open(tmp_path / "d"), tmp_path / "out")
    assert tacit.data.open(tmp_path / "out").names == ("film 0.mp4", "film 1.mp4", "film 2.mp4")
