"""What is measured of a model once, for all the checks that ask for it: transitions, latents, and what they lead to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, Space, floats
from tacit.data.episodes import Episodes
from tacit.data.twins import Twins
from tacit.evaluate import holdout
from tacit.evaluate.altered import ended, ending, others, seen, square
from tacit.evaluate.codes import codes, directions
from tacit.evaluate.content import nuisance
from tacit.evaluate.interval import Interval, bootstrap
from tacit.evaluate.latents import align, judge
from tacit.evaluate.probe import (
    AGAIN,
    HELD,
    Side,
    Sides,
    gain,
    gather,
    linear,
    network,
    principal,
    quality,
    tally,
    targets,
)  # fmt: skip
from tacit.evaluate.report import Value
from tacit.evaluate.verdict.adapter import halves
from tacit.parts.flow import flow

Array = NDArray[np.float64]
FINE = 32  # what moves is looked for in a picture of so many cells each way
STEPS, WIDE = 250, 16  # of the rival: an inverse model that learns from the labels alone
TERMS = 16  # main components of a latent, and of a frame, that are multiplied with one another
LABELS = (16, 64, 256)
TRIPS = ("again", "direct", "rest", "change", "back", "forth", "painted", "apart")


@dataclass
class Exam:
    """A model, episodes that it has not seen, and whatever else there is to ask it with."""

    model: holdout.Inferring
    episodes: Episodes
    learnt: Episodes | None = None  # episodes that it was trained on, where they are at hand
    siblings: tuple[holdout.Inferring, ...] = ()  # the same, trained with other seeds
    twins: Twins | None = None
    tracks: tuple[NDArray[Any], ...] | None = None  # what is known to go on by itself, an array an episode
    most: int = holdout.MOST
    seed: int = 0
    told: str = field(init=False)

    def __post_init__(self) -> None:
        self.told = holdout.told(self.episodes)
        self.encodes, self.predicts = halves(self.model)

    @cached_property
    def judged(self) -> dict[str, Value]:
        """What ``tacit evaluate`` measures of latents, by its name."""
        return {v.name: v for v in judge(self.model, self.episodes, most=self.most, seed=self.seed)}

    @cached_property
    def offsets(self) -> list[Value]:
        """At which offset labels go best with latents, and how well at each: as ``align`` tells it."""
        if not self.predicts:  # else it has been measured with all the rest
            return align(self.model, self.episodes, most=self.most, seed=self.seed)
        return [v for name, v in self.judged.items() if "offset" in name]

    @cached_property
    def codes(self) -> dict[str, Value]:
        """Codes in use and dead, perplexity, rank."""
        return {v.name: v for v in codes(self.model, self.episodes, most=self.most, seed=self.seed)}

    @cached_property
    def path(self) -> holdout.Walk:
        return holdout.walk(self.episodes, length=holdout.span(self.model), most=self.most, seed=self.seed)

    @cached_property
    def latents(self) -> Array:
        return holdout.infer(self.model, self.path).astype(np.float64)

    @cached_property
    def pictures(self) -> bool:
        """Whether what is predicted can be shown to the model again: pictures or states as the data have them."""
        with holdout.still(self.model):
            clip = next(clip for _, clip in self.path.batches(holdout.place(self.model), size=8))
            return seen(self.model, clip) is not None

    @cached_property
    def trips(self) -> Array:
        """Sums over each episode of ``TRIPS``: what is left of a latent that went to another scene and came back, and
        what happens where nothing does."""
        table = np.zeros((len(self.path), len(TRIPS)))
        with holdout.still(self.model, seed=self.seed):
            for rows, clip in self.path.batches(holdout.place(self.model)):
                columns = self._travelled(clip, self.path.owner[rows])
                table[rows] = torch.stack(columns, 1).double().cpu().numpy()
        return holdout.summed(table, self.path.owner)

    def _travelled(self, clip: Clip, owner: NDArray[np.int64]) -> list[Tensor]:
        model, back = self.model, seen(self.model, clip)
        there = clip[torch.from_numpy(others(owner)).to(clip.device)]
        same = ending(clip, lambda x: x[:, -2])
        z, rest = model.infer(clip), model.infer(same)
        want, kept = (model.targets(c).float()[:, -1] for c in (clip, same))
        guess = model.predict(clip, z).float()[:, -1]
        lent = model.predict(there, _last(model.infer(there), z[:, -1])).float()[:, -1]
        elsewhere = model.targets(ending(there, lambda x: x[:, -2])).float()[:, -1]
        nothing = model.predict(clip, _last(z, rest[:, -1])).float()[:, -1]
        again = torch.full_like(guess, float("nan"))
        if back is not None:  # z here, put to use elsewhere, read off what it did there, and put to use here
            away = ended(there, back(lent))
            again = model.predict(clip, _last(z, model.infer(away)[:, -1])).float()[:, -1]
        turned = _turned(clip)
        forth, backwards = z[:, -1] - rest[:, -1], model.infer(turned)[:, -1] - rest[:, -1]
        return [
            square(again, want), square(guess, want), square(nothing, kept), square(kept, want),
            square(forth, -backwards), square(forth, torch.zeros_like(forth)),
            square(lent, want), square(elsewhere, want),
        ]  # fmt: skip

    def share(self, *names: str) -> Interval:
        """Of sums over ``TRIPS``: one over another; of more, what the first is above the second, over the rest."""
        columns = self.trips[:, [TRIPS.index(name) for name in names]]
        return bootstrap(columns, lambda rows: _share(*rows.sum(0)))

    @cached_property
    def sides(self) -> Sides | str:
        """Labelled transitions to fit on and to test on, with the latent and with what there is beside it."""
        found = gather(self._views, self.episodes, most=self.most, seed=self.seed)
        return found if isinstance(found, str) else _condensed(found)

    @cached_property
    def effects(self) -> Sides | str:
        """The same with what moved in the picture, and how far, in place of an action: what is known without labels."""
        if self.episodes.spec.frame is None or len(self.episodes) < 2:
            return "what moves is seen in pictures alone, of two episodes or more"
        motion: Any = Motion()
        sides = []
        for part in self.episodes.split(HELD, seed=AGAIN + self.seed):
            path = holdout.walk(part, length=holdout.span(self.model), most=self.most, seed=self.seed, ordered=True)
            if not len(path):
                return "too few frames to fit a probe and to test it"
            inputs = {name: holdout.infer(view, path).astype(np.float64) for name, view in self._views.items()}
            moved = holdout.infer(motion, path).astype(np.float64)
            sides.append(Side(inputs, moved[:, None], path.owner))
        return _condensed(Sides(sides[0], sides[1], Space("continuous", 2)))

    @property
    def _views(self) -> dict[str, Any]:
        return {"z": self.model, "o": View("o"), "change": View("change"), "random": Random(self.seed)}

    def gap(self, sides: Sides) -> Interval:
        """How much more a line tells whose slopes depend on where things are than one of the latent, or of the frame.

        Whatever turns a latent with its scene is undone by such slopes: each number times each component of the frame.
        """
        bound, z, o = (self.read((name,), sides=sides) for name in ("bound", "z", "o"))
        return gain(bound, z if quality(z, sides.space) >= quality(o, sides.space) else o, space=sides.space)

    def read(
        self,
        names: tuple[str, ...],
        *,
        labels: int | None = None,
        kind: str = "linear",
        sides: Sides | None = None,
    ) -> Array:
        """What a probe of these inputs tells, summed over each tested episode; of so many labels, or of all."""
        sides = sides or self.labelled
        rows = self.some(labels) if labels else slice(None)
        x, y = sides.train.joined(names)[rows], targets(sides.train.actions[rows], sides.space)
        discrete, groups = sides.space.discrete, sides.train.owner[rows]
        fitted = (linear if kind == "linear" else network)(x, y, groups=groups, discrete=discrete)  # type: ignore[operator]
        return tally(fitted(sides.test.joined(names)), sides.test.actions, space=sides.space, owner=sides.test.owner)

    @property
    def labelled(self) -> Sides:
        """``sides``, for who knows that there are labels."""
        assert not isinstance(self.sides, str)
        return self.sides

    def rival(self, labels: int) -> Array:
        """What an inverse model tells that has learnt from so many labels and nothing else."""
        sides, rows = self.labelled, self.some(labels)
        y = targets(sides.train.actions[rows], sides.space)
        names = ("o", "change")
        said = taught(sides.train.joined(names)[rows], y, test=sides.test.joined(names), discrete=sides.space.discrete)
        return tally(said, sides.test.actions, space=sides.space, owner=sides.test.owner)

    def some(self, labels: int) -> NDArray[np.int64]:
        """Which transitions have these few labels."""
        order = np.random.default_rng([self.seed, 16]).permutation(len(self.labelled.train.actions))
        return np.sort(order[:labels])

    @property
    def space(self) -> Space:
        return self.labelled.space

    @cached_property
    def nuisance(self) -> Value:
        """How much of what no action moves is read from the latent."""
        return nuisance(self.model, self.episodes, tracks=self.tracks, most=self.most, seed=self.seed)

    @cached_property
    def passive(self) -> Value:
        """The same of a code of the whole picture's change that is as wide as the latent: what hoarding would hold."""
        wide = Principal(self.episodes, self.latents.shape[1], seed=self.seed)
        return nuisance(wide, self.episodes, tracks=self.tracks, most=self.most, seed=self.seed)


class View:
    """The observation, or its change, made coarse: what is known without any model."""

    seen: frozenset[str] = frozenset()

    def __init__(self, what: str) -> None:
        self.what = what

    def infer(self, clip: Clip) -> Tensor:
        x = holdout.coarse(clip)
        return x[:, :-1] if self.what == "o" else x[:, 1:] - x[:, :-1]


class Motion:
    """How far what changed in the picture has moved, to the right and down, on average."""

    seen: frozenset[str] = frozenset()

    def infer(self, clip: Clip) -> Tensor:
        assert clip.frames is not None
        frames = floats(clip.frames)
        high, wide = frames.shape[-2:]
        small = F.adaptive_avg_pool2d(frames.flatten(0, 1), (min(FINE, high), min(FINE, wide)))
        x = small.unflatten(0, frames.shape[:2])
        before, after = x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1)
        weight = (after - before).abs().sum(1, keepdim=True)
        found = (flow(before, after) * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)
        return found.unflatten(0, (len(clip), clip.time - 1))


class Random:
    """An encoder of two observations that has learnt nothing."""

    seen: frozenset[str] = frozenset()

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def infer(self, clip: Clip) -> Tensor:
        x = holdout.coarse(clip)
        both, random = torch.cat([x[:, :-1], x[:, 1:]], -1), torch.Generator().manual_seed(self.seed)
        weights = torch.randn(both.shape[-1], 64, generator=random).to(both) / both.shape[-1] ** 0.5
        return torch.tanh(4 * both @ weights)


class Principal:
    """The main directions of the change, as many as a latent has numbers."""

    seen: frozenset[str] = frozenset()

    def __init__(self, episodes: Episodes, count: int, *, seed: int) -> None:
        path = holdout.walk(episodes, length=2, most=holdout.MOST, seed=seed)
        change = holdout.infer(View("change"), path).astype(np.float64)  # type: ignore[arg-type]
        self.axes = torch.from_numpy(directions(change)[:, -count:].copy()).float()

    def infer(self, clip: Clip) -> Tensor:
        return View("change").infer(clip) @ self.axes.to(clip.device)


def _condensed(sides: Sides) -> Sides:
    """Pictures in few components, and beside them the latent ``bound`` to where things are."""
    train, test = (replace(s, inputs={**s.inputs, "bound": s.inputs["z"]}) for s in (sides.train, sides.test))
    for name in ("o", "change", "bound"):
        train, test = principal(train, test, name=name)
    return Sides(_bound(train), _bound(test), sides.space)


def _bound(side: Side) -> Side:
    """The latent's main components, the frame, and the products of the main components of both."""
    z, o = side.inputs["bound"][:, -TERMS:], side.inputs["o"]
    products = (z[:, :, None] * o[:, None, -TERMS:]).reshape(len(z), -1)
    return replace(side, inputs={**side.inputs, "bound": np.concatenate([z, o, products], 1)})


def taught(x: Array, y: Array, *, test: Array, discrete: bool, seed: int = 0) -> Array:
    """What a small network that learnt ``y`` from these rows alone says of others."""
    centre, scale = x.mean(0), np.maximum(x.std(0), 1e-3 * max(float(x.std()), 1e-9))
    unit = 1.0 if discrete else np.maximum(y.std(0), 1e-9)
    middle = 0.0 if discrete else y.mean(0)
    ready = [torch.from_numpy((v - centre) / scale).float().clamp(-10, 10) for v in (x, test)]
    wanted = torch.from_numpy((y - middle) / unit).float()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], 8 * WIDE), nn.GELU(), nn.Linear(8 * WIDE, y.shape[1]))
        optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.1)
        for _ in range(STEPS):
            rows = torch.randint(len(wanted), (min(64, len(wanted)),))
            said = net(ready[0][rows])
            cost = F.cross_entropy(said, wanted[rows]) if discrete else F.mse_loss(said, wanted[rows])
            optimiser.zero_grad(set_to_none=True)
            cost.backward()
            optimiser.step()
    with torch.no_grad():
        return np.asarray(net(ready[1]).double().numpy() * unit + middle)


def affine(one: Array, other: Array, *, owner: NDArray[np.int64]) -> Array:
    """What the best affine map from one latent to another misses, summed over each episode it was not fitted on."""
    held = holdout.fold(owner, 2) == 0
    fitted = linear(one[~held], other[~held], groups=owner[~held], discrete=False)
    missed = np.square(fitted(one[held]) - other[held]).sum(1)
    varied = np.square(other[held] - other[~held].mean(0)).sum(1)
    return holdout.summed(np.stack([missed, varied], 1), owner[held])


def _last(latents: Tensor, last: Tensor) -> Tensor:
    return torch.cat([latents[:, :-1], last[:, None]], 1)


def _turned(clip: Clip) -> Clip:
    """The clip with its last two moments exchanged."""

    def swapped(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.cat([x[:, :-2], x[:, -1:], x[:, -2:-1]], 1)

    return clip.replace(frames=swapped(clip.frames), state=swapped(clip.state))


def _share(one: float, other: float, third: float | None = None, fourth: float = 0.0) -> float:
    if third is not None:
        one, other = one - other, third - fourth
    return one / other if other > 0 else float("nan")
