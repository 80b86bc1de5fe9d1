"""Mistakes that others shipped in data: planted in small broken doubles, and refused; what is tacit's own passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.check import Broken, check_reader
from tacit.clip import Clip, Episode
from tacit.data import cache, open, save, toys
from tacit.data.clips import Clips
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.envs.dots import WIDE, Board, Dots
from tacit.evaluate import refuse_overlap
from tacit.evaluate.latents import align
from tacit.latents.decode import gather
from tacit.latents.model import LatentActions, carries, label
from tacit.part import Part
from tacit.recipes import tacit as ours
from tacit.recipes.follow import follow
from tacit.recipes.idm import idm
from tacit.train import Plan, fit

BOARD = Board(size=16, goal=False, discrete=True, stride=3.0)


# -- 6. windows cross the ends of episodes -------------------------------------------------------------------------


class Windowed(Episodes):  # type: ignore[misc]
    """Episodes that give clips from the places that ``astray`` makes of the true ones."""

    @staticmethod
    def astray(places: np.ndarray) -> np.ndarray:
        return places

    def clips(self, length: int, **options: Any) -> Clips:
        found = Clips(self, length, **options)
        found._places = found._starts = self.astray(found._places)
        return found


class Crossing(Windowed):  # type: ignore[misc]
    """The last window of an episode begins one frame later, and so ends in the next one."""

    @staticmethod
    def astray(places: np.ndarray) -> np.ndarray:
        return np.where(np.diff(places, append=places[-1]) > 1, places + 1, places)


class Clamped(Windowed):  # type: ignore[misc]
    """The window at an episode's end is the window before it, as clamped indices give."""

    @staticmethod
    def astray(places: np.ndarray) -> np.ndarray:
        return np.where(np.diff(places, append=np.inf) > 1, places - 1, places)


class Paired(Clips):  # type: ignore[misc]
    """A pair at the end of an episode holds its last frame twice."""

    def batch(self, rows: Any) -> Clip:
        clip = super().batch(rows)
        ends = clip.ends[:, None, None, None] if clip.ends is not None else torch.zeros(1)
        assert clip.frames is not None
        last = torch.where(ends, clip.frames[:, -1], clip.frames[:, -2])
        return clip.replace(frames=torch.cat([clip.frames[:, :-2], last[:, None], clip.frames[:, -1:]], 1))


class Twice(Windowed):  # type: ignore[misc]
    def clips(self, length: int, **options: Any) -> Clips:
        return Paired(self, length, **options)


def test_sound_windows_pass(data: Episodes) -> None:
    check_reader(Windowed(data.reader))


@pytest.mark.parametrize("kind", [Crossing, Clamped, Twice])
@pytest.mark.parametrize("length", [2, 4])
def test_windows_that_cross_or_clamp_are_refused(kind: type[Episodes], length: int, data: Episodes) -> None:
    with pytest.raises(Broken, match="a window is a stretch of one episode, with every column in step: window"):
        check_reader(kind(data.reader), length=length)


# -- 7. labels are off by one --------------------------------------------------------------------------------------


class Displacement:
    """Sees exactly what the body did."""

    seen = frozenset[str]()
    past = 0

    def infer(self, clip: Clip) -> Tensor:
        assert clip.state is not None
        way = torch.diff(clip.state[..., :2], dim=1)
        return torch.remainder(way + WIDE / 2, WIDE) - WIDE / 2


def offset(episodes: Episodes) -> float | None:
    return {v.name: v.value for v in align(Displacement(), episodes)}["best offset of the labels"]


def late(episodes: Episodes, by: int) -> Episodes:
    """The same recordings, each label ``by`` steps late."""

    def moved(episode: Episode) -> Episode:
        return dataclasses.replace(episode, actions=np.roll(episode.actions, by, axis=0))  # type: ignore[type-var]

    return Episodes.of([moved(episodes.episode(i)) for i in range(len(episodes))], space=episodes.spec.space)


def simulator() -> Dots:
    return Dots(BOARD)


def test_labels_stand_in_step_however_the_data_came_and_out_of_step_are_seen(tmp_path: Path, data: Episodes) -> None:
    recorded = collect(simulator, episodes=40, demonstrator="play", workers=1, progress=False)
    save(recorded, tmp_path / "kept")
    found = [offset(e) for e in (data, recorded, open(tmp_path / "kept"), late(recorded, 1), late(recorded, -1))]
    assert found == [0, 0, 0, 1, -1]


@pytest.mark.parametrize("past", [0, 2])
def test_latents_stand_in_step_however_they_were_cut(
    past: int, sound: Callable[..., LatentActions], held: Episodes
) -> None:
    """Long episodes are labelled in stretches, and few labels gathered from the middle of them."""
    model = sound()
    model.past = past
    inferred = [label(model, held, batch=batch).column("latents") for batch in (512, 5)]
    np.testing.assert_allclose(inferred[0], inferred[1], atol=1e-5)  # type: ignore[arg-type]
    few = held.keep_labels(24, stretch=4)
    told, at = gather(model, few), np.flatnonzero(few.mask)
    np.testing.assert_allclose(told.latent, inferred[0][at], atol=1e-5)  # type: ignore[index]
    np.testing.assert_array_equal(told.action, few.column("actions")[at])  # type: ignore[index]
    assert np.nanmean(np.abs(told.latent.numpy() - inferred[0][at + 1])) > 1e-3  # type: ignore[index]


# -- 8. training and held-out data share episodes ------------------------------------------------------------------


class Careless(Episodes):  # type: ignore[misc]
    """Splits by number, so that a recording that is there twice falls on both sides"""

    def split(self, held: float = 0.1, *, seed: int = 0) -> tuple[Episodes, Episodes]:
        count = round(len(self) * (1 - held))
        return self.select(np.arange(count)), self.select(np.arange(count, len(self)))


def test_a_split_that_shares_an_episode_is_refused(data: Episodes) -> None:
    twice = [data.episode(i) for i in (*range(10), *range(10))]
    check_reader(Episodes.of(twice, space=BOARD.space))
    careless = Careless(Episodes.of(twice, space=BOARD.space).reader)
    with pytest.raises(Broken, match="share no episode, and leave none out: .* 5 are in both"):
        check_reader(careless)
    train, held = careless.split(0.25)
    with pytest.raises(ValueError, match="5 of these 5 episodes were used to train"):
        refuse_overlap(train.prints, held)


# -- 8. what a policy or an inner part was trained on is forgotten, and judged on as if it were new -----------------


def test_a_cloned_policy_remembers_the_data_behind_its_labels_on_the_disk_too(tmp_path: Path) -> None:
    """Labelled anew, and at another size, its episodes are no longer those of the data that they came from."""
    save(toys.dots(Board(size=32), episodes=6, length=8).episodes, tmp_path / "video")
    data = cache(open(tmp_path / "video"), size=16)
    made = idm(data, tmp_path / "out", hidden=8, plan=Plan(steps=1, batch=4))
    assert data.overlap(made.seen) == data.overlap(Part.load(tmp_path / "out" / "policy").seen) == len(data)


def test_the_encoder_of_a_trained_model_remembers_with_it(sound: Callable[..., LatentActions], train: Episodes) -> None:
    model = fit(sound(), train.clips(2), None, Plan(steps=1, batch=4))
    assert model.encoder is not None and train.overlap(model.encoder.seen) == len(train)


def test_latents_of_another_model_are_not_taken_for_this_ones(train: Episodes) -> None:
    """A policy that wishes for one model's latents, decoded as another's, does nothing that anybody did."""
    mine, other = (ours.tacit(train, None, plan=Plan(steps=1, batch=4, seed=seed), **ours.TINY) for seed in (0, 1))
    told = label(mine, train)
    assert carries(mine, told) and not carries(other, told) and not carries(mine, train)
    quick = Plan(steps=1, batch=4)
    found = [follow(other, data.keep_labels(24), None, plan=quick).pilot.mean for data in (told, train)]
    torch.testing.assert_close(*found)
