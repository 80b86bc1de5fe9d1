"""What latent actions do and fail to do on the toys, each a published or measured phenomenon with its number.

Every model here is a ``LatentActions`` trained by ``fit``; E-numbers and reference values are those of the project's
notes on latent action methods, "CPU-scale experiments". R2 is of a linear read-out on transitions that neither the
model nor the read-out was fitted on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.clip import Clip
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.data.toys import Toy, dots, linear
from tacit.envs.dots import Board
from tacit.evaluate.latents import judge
from tacit.evaluate.probe import probe
from tacit.latents.forward import Change
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.parts.mlp import Flat, Layers
from tacit.parts.outputs import Head
from tacit.parts.quantize import Free
from tacit.train import Plan, fit


class Told(NamedTuple):
    """What a model makes of held-out transitions beside the truth, row by row."""

    latents: np.ndarray
    actions: np.ndarray
    foreign: np.ndarray  # the change of the exogenous state
    said: np.ndarray | None  # what the head that was taught inside training takes the actions for


@torch.inference_mode()
def told(model: LatentActions, clips: Any, foreign: np.ndarray) -> Told:
    clip = clips.batch(np.arange(len(foreign)))
    latents = model.infer(clip)[:, 0]
    said = None if model.label is None else model.label(latents).numpy()
    return Told(latents.numpy(), clip.actions[:, 0].numpy(), foreign, said)


@dataclass(frozen=True)
class Chosen:
    """Some of the clips, numbered from 0."""

    clips: Any
    rows: np.ndarray

    def batch(self, rows: np.ndarray) -> Clip:
        return self.clips.batch(self.rows[rows])


def moved(toy: Toy, which: slice = slice(None)) -> np.ndarray:
    return np.concatenate([np.diff(track, axis=0) for track in toy.exogenous[which]])


def right(said: np.ndarray, truth: np.ndarray) -> float:
    """R2."""
    return float(1 - ((truth - said) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum())


def read(few: np.ndarray, answers: np.ndarray, *, many: np.ndarray) -> np.ndarray:
    """What a linear map fitted on ``few`` says of ``many``."""
    few, many = (np.concatenate([x, np.ones((len(x), 1))], 1) for x in (few, many))
    return many @ np.linalg.lstsq(few, answers, rcond=None)[0]


def explained(latents: np.ndarray, truth: np.ndarray) -> float:
    """R2 on the second half of a linear fit on the first: what the latents hold, however many labels it takes."""
    half = len(latents) // 2
    return right(read(latents[:half], truth[:half], many=latents[half:]), truth[half:])


# -- states that move by action and by noise: everything is linear --------------------------------------------------


@dataclass(frozen=True)
class Pictured:
    """Clips of states, as pictures one pixel high."""

    clips: Clips
    prints: tuple[str, ...] = ()

    def batch(self, rows: np.ndarray) -> Clip:
        return pictured(self.clips.batch(rows))

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]:
        return map(pictured, self.clips.stream(batch, seed=seed, start=start, rank=rank, world=world))


def pictured(clip: Clip) -> Clip:
    assert clip.state is not None
    return clip.replace(frames=clip.state[:, :, None, None])


class Turned(Part):
    """The change of the state, through one matrix: theory's inverse model."""

    def __init__(self, *, features: int, dim: int) -> None:
        self.net = Layers(inputs=features, dim=dim, depth=0)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(goal - seen[:, -1])


SIZE, WIDTH = 64, 8  # numbers in the observation; in the action, in the foreign state and in the latent
HELD = slice(400, 500)


@functools.cache
def straight(spread: float) -> Toy:
    return linear(episodes=500, size=SIZE, actions=WIDTH, exogenous=WIDTH, spread=spread)


@functools.cache
def fitted(spread: float, labels: int = 0) -> tuple[LatentActions, Told]:
    """The linear model of a linear world, with so many labels inside its training."""
    toy = straight(spread)
    episodes = toy.episodes.select(np.arange(400))
    episodes = episodes.keep_labels(labels, stretch=1) if labels else episodes.unlabelled()
    space = episodes.spec.space
    assert space is not None
    torch.manual_seed(0)
    look = Flat(frame=(1, SIZE))
    model = LatentActions(
        encoder=look,
        inverse=Turned(features=SIZE, dim=WIDTH),
        bottleneck=Free(WIDTH),
        forward=Change(encoder=look, features=SIZE, dim=WIDTH, depth=0),
        label=Head(features=WIDTH, space=space) if labels else None,
        weight=640,  # the head counts in half ranges, here 8 deviations: this is 10 for an action of unit size
    )
    plan = Plan(steps=1000, batch=128, rate=1e-2, warmup=20, clip=0, log_every=1000, device="cpu")
    model = fit(model, Pictured(episodes.clips(2, labelled=0.25 if labels else 0.0)), None, plan)
    held = toy.episodes.select(np.arange(HELD.start, HELD.stop))
    return model, told(model, Pictured(held.clips(2)), moved(toy, HELD))


@pytest.mark.parametrize("spread", [0.5, 0.9])
def test_while_noise_moves_less_than_actions_do_the_latent_is_the_action(spread: float) -> None:
    """E1, reference: R2(a) .994 / .989 and R2(exo) .00 at a spread of .5 / .9. Measured here: .986 / .979 and .00."""
    found = fitted(spread)[1]
    assert explained(found.latents, found.actions) > 0.95
    assert explained(found.latents, found.foreign) < 0.05


@pytest.mark.parametrize("spread", [1.1, 2.0])
def test_once_noise_moves_more_the_latent_is_the_noise(spread: float) -> None:
    """E1, reference: R2(a) .007 / .000 and R2(exo) .985 / .996 at 1.1 / 2. Measured here: .00 and .987 / .999."""
    found = fitted(spread)[1]
    assert explained(found.latents, found.actions) < 0.1
    assert explained(found.latents, found.foreign) > 0.95


def test_few_labels_inside_training_save_what_the_same_labels_after_it_cannot() -> None:
    """E3, reference: 50 labels inside .982, after -.22. Measured here: .96 and -.23."""
    inside = fitted(2.0, labels=50)[1]
    assert inside.said is not None
    assert right(inside.said, inside.actions) > 0.9
    model, free = fitted(2.0)
    few = straight(2.0).episodes.select(np.arange(400)).keep_labels(50, stretch=1).clips(2)
    known = told(model, Chosen(Pictured(few), few.labelled), np.zeros((50, 0)))
    assert right(read(known.latents, known.actions, many=free.latents), free.actions) < 0.2


# -- pictures of a dot: single pairs, as in the reference -------------------------------------------------------------


def pairs(board: Board, *, count: int, seed: int) -> Toy:
    return dots(board, episodes=count, length=2, seed=seed)


def seeing(dim: int, *, shift: int = 0, label: Head | None = None, weight: float = 1.0) -> LatentActions:
    """Plain networks on the pixels, and no bottleneck but the width."""
    torch.manual_seed(0)
    look = Flat(frame=(12, 12))
    return LatentActions(
        encoder=look,
        inverse=Between(features=look.dim, dim=dim),
        bottleneck=Free(dim),
        forward=Change(encoder=look, features=look.dim, dim=dim),
        label=label,
        shift=shift,
        cyclic=True,
        weight=weight,
    )


PLAN = Plan(steps=1500, batch=128, rate=3e-3, log_every=1500, device="cpu")
CLEAN = Board(goal=False, wrap=False, room=6)
CROWDED = Board(goal=False, wrap=False, room=3, distractor=0.8)  # which moves twice as far in a step as the body


@functools.cache
def clean(seed: int) -> Episodes:
    return pairs(CLEAN, count=4000 if seed else 20_000, seed=seed).episodes


@functools.cache
def calm(dim: int, shift: int) -> LatentActions:
    """A model of the dot alone; without the shift there is less to learn, and fewer and smaller steps do."""
    plan = PLAN if shift else PLAN.replace(steps=1200, batch=64)
    return fit(seeing(dim, shift=shift), clean(0).clips(2), None, plan)


def place(clip: Clip) -> Tensor:
    """Where the dot is: all that the observation can add to a latent."""
    assert clip.state is not None
    return clip.state[:, -2, :2]


def gauge(model: LatentActions) -> tuple[float, float]:
    """R2 of the action from the latent alone, and of any kind from the latent and the place."""
    alone = probe(model, clean(1)).value
    both = probe(model, clean(1), condition=True, kind="nonlinear", observe=place).value
    assert alone is not None and both is not None
    return alone, both


def checked(model: LatentActions) -> dict[str, float]:
    return {value.name: value.value for value in judge(model, clean(1)) if value.value is not None}


@pytest.mark.slow
def test_a_latent_entangled_with_the_state_is_cured_by_shifting_the_inverses_pictures() -> None:
    """E6, reference: R2(a) .15 alone and .92 with o at two numbers, .13 / .02 / .07 alone at three; .998 once shifted.

    Three numbers here, as two are at the mercy of the seed (E11). Measured: .17 alone, .996 with o; shifted .998.
    """
    alone, both = gauge(calm(3, 0))
    assert alone < 0.5  # what the model knows of the action it says in terms of where the dot is,
    assert both > 0.9  # for it does know
    alone, both = gauge(calm(3, 4))
    assert alone > 0.95
    assert both - alone < 0.05


@pytest.mark.slow
def test_a_wide_latent_copies_the_future_unless_pictures_are_shifted() -> None:
    """E5, reference: an unrelated next frame comes through .95 at 64 numbers, -.01 once shifted. Measured: .96, < -1.

    Reconstruction is no witness: it ranks the leaking model first.
    """
    plain, shifted = checked(calm(64, 0)), checked(calm(64, 4))
    assert plain["cut and copy"] > 0.8
    assert shifted["cut and copy"] < 0.2
    assert plain["FVU"] < shifted["FVU"]
    alone = probe(calm(64, 4), clean(1)).value
    assert alone is not None and alone > 0.95  # and the shifted one still tells the action (.999)


@functools.cache
def crowded(seed: int) -> Toy:
    return pairs(CROWDED, count=4000 if seed else 20_000, seed=seed)


@functools.cache
def beset(labels: int) -> tuple[LatentActions, Told]:
    """A model of the dot beside its distractor, with so many labels inside its training."""
    episodes = crowded(0).episodes
    episodes = episodes.keep_labels(labels) if labels else episodes.unlabelled()
    space = episodes.spec.space
    assert space is not None
    head = Head(features=8, space=space) if labels else None
    model = seeing(8, shift=2, label=head, weight=10)
    plan = PLAN.replace(decay=0.3 if labels else 0.0)  # against learning so few labels by heart
    model = fit(model, episodes.clips(2, labelled=0.5 if labels else 0.0), None, plan)
    return model, told(model, crowded(1).episodes.clips(2), moved(crowded(1))[:, :2])


@pytest.mark.slow
def test_a_distractor_takes_the_latent_and_few_labels_inside_training_take_it_back() -> None:
    """E7, reference: R2(a) .000 and R2(exo) .870 unlabelled; 128 labels inside .74, after .09; exo stays (.85).

    Eight numbers and a room of 3 here, for speed. Measured: .07 and .92; inside .65, after -.01; exo stays (.95).
    """
    model, free = beset(0)
    assert explained(free.latents, free.actions) < 0.2
    assert explained(free.latents, free.foreign) > 0.7
    few = crowded(0).episodes.keep_labels(128).clips(2)
    known = told(model, Chosen(few, few.labelled), np.zeros((128, 0)))
    after = right(read(known.latents, known.actions, many=free.latents), free.actions)
    inside = beset(128)[1]
    assert inside.said is not None
    assert after < 0.2
    assert right(inside.said, inside.actions) > 0.5
