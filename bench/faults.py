"""Faults planted in good models and good data, each at three strengths, for ``planted.py`` to see which are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from places import Material, Place, altered, material, trained
from torch import Tensor

from tacit.clip import Clip, Episode
from tacit.data.episodes import Episodes
from tacit.evaluate.verdict import Pair
from tacit.evaluate.verdict.check import Ailment
from tacit.latents.model import LatentActions
from tacit.parts.books import VQ
from tacit.parts.quantize import Gaussian

STRENGTHS = (0, 1, 2)  # each fault says what they are to it


@dataclass(frozen=True)
class Case:
    """What the verdict is given: a model, episodes it has not seen, what it learnt from, and what else there is."""

    model: Any
    held: Episodes
    learnt: Episodes | None = None
    siblings: tuple[Any, ...] = ()
    tracks: tuple[np.ndarray, ...] | None = None
    harmed: Episodes | None = None  # where a fault of what is learnt shows, if it is one: a good model is not ill


@dataclass(frozen=True)
class Base:
    """A good model and its material, and a second seed of it: what faults are planted in."""

    place: Place
    seed: int
    data: Material
    model: LatentActions
    other: LatentActions

    @property
    def case(self) -> Case:
        return Case(self.model, self.data.held, self.data.train, (), self.data.tracks)

    def again(self, train: Episodes, **changes: Any) -> LatentActions:
        """A model of other data, or otherwise trained."""
        return trained(self.place, train, seed=self.seed, **changes)


class Spoilt:
    """A model with something put between it and whoever asks."""

    def __init__(
        self,
        inner: Any,
        *,
        infer: Callable[[Clip], Tensor] | None = None,
        predict: Callable[[Clip, Tensor], Tensor] | None = None,
        past: int = 0,
    ) -> None:
        self.inner, self.past, self.seen = inner, past, inner.seen
        self.infer, self.predict = infer or inner.infer, predict or inner.predict
        self.targets = inner.targets


def middle(base: Base) -> Tensor:
    """The mean latent of the training video."""
    with torch.inference_mode():
        clip = next(base.data.train.clips(2).stream(512))
        return base.model.infer(clip).flatten(0, 1).mean(0)


def leaks_by_width(base: Base, strength: int) -> Case:
    """The latent is the next frame's main components, as many as hold so much of what frames differ by."""
    share = (0.6, 0.8, 0.95)[strength]
    clip = next(base.data.train.clips(1).stream(1024))
    shown = clip.state if base.place.of == "state" else clip.frames.float() / 255  # type: ignore[union-attr]
    flat = shown.flatten(1).double()  # type: ignore[union-attr]
    centre = flat.mean(0)
    _, sizes, axes = torch.linalg.svd(flat - centre, full_matrices=False)
    kept = sizes.square().cumsum(0) / sizes.square().sum() < share
    basis, centre = axes[: int(kept.sum()) + 1].T.float(), centre.float()

    def code(o: Tensor) -> Tensor:
        return (o.flatten(1) - centre) @ basis

    def painted(o: Tensor, z: Tensor) -> Tensor:
        return o + ((z - code(o)) @ basis.T).view_as(o)

    halves: dict[str, Any] = {"encode": lambda o, after: code(after), "predict": painted}
    return replace(base.case, model=Pair(**halves, of=base.place.of, seen=base.model.seen))


def leaks_beside(base: Base, strength: int) -> Case:
    """The prediction is so much of the future itself, which reaches it beside the latent."""
    share, model = (0.15, 0.3, 0.6)[strength], base.model
    return replace(
        base.case,
        model=Spoilt(model, predict=lambda clip, z: torch.lerp(model.predict(clip, z), model.targets(clip), share)),
    )


def collapses(base: Base, strength: int) -> Case:
    """A latent that pays so much for every nat that it says nothing."""
    short = Gaussian(base.place.space.size + 2, beta=(10.0, 30.0, 100.0)[strength])
    return replace(base.case, model=base.again(base.data.train.unlabelled(), short=short, labelled=0.0))


def is_ignored(base: Base, strength: int) -> Case:
    """The forward model hears the mean latent, and its own but faintly."""
    deaf, model, mean = (0.8, 0.9, 1.0)[strength], base.model, middle(base)
    heard = lambda clip, z: model.predict(clip, torch.lerp(z, mean.expand_as(z), deaf))  # noqa: E731
    return replace(base.case, model=Spoilt(model, predict=heard))


def labels_off(base: Base, strength: int) -> Case:
    """The labels lie one step late, one early, or two late."""
    by = (1, -1, 2)[strength]

    def moved(e: Episode) -> Episode:
        assert e.actions is not None
        blank = base.place.space.blank(len(e.actions))
        kept = slice(by, None) if by > 0 else slice(None, by)
        blank[kept] = e.actions[:-by] if by > 0 else e.actions[-by:]
        return e.replace(actions=blank)

    return replace(base.case, held=altered(base.data.held, moved), learnt=None)


def crosses_ends(base: Base, strength: int) -> Case:
    """Pieces of other episodes are strung together, so that windows span two."""
    length, random = (4, 6, 8)[strength], np.random.default_rng(base.seed)

    def strung(data: Episodes) -> Episodes:
        episodes = [data.episode(i) for i in range(len(data))]
        pieces = [_piece(e, at, length) for e in episodes for at in range(0, len(e) - length, length)]
        order = random.permutation(len(pieces))
        groups = np.array_split(order, max(8, len(order) // 8))
        joined = [_joined([pieces[i] for i in group], base.place) for group in groups if len(group) > 1]
        return Episodes.of(joined, space=data.spec.space, fps=data.spec.fps)

    train, held = strung(base.data.train), strung(base.data.held)
    return Case(base.again(train), held, train)


def is_distracted(base: Base, strength: int) -> Case:
    """Something that no action moves changes more than the body does, and nobody says what matters."""
    data = material(base.place, foreign=(2.0, 3.0, 4.0)[strength], seed=base.seed)
    model = base.again(data.train.unlabelled(), labelled=0.0)
    return Case(model, data.held, data.train, (), data.tracks, data.held)


def is_too_expert(base: Base, strength: int) -> Case:
    """Only an expert was filmed, with so much noise in what it does."""
    data = material(base.place, who="expert", noise=(0.0, 0.05, 0.1)[strength], seed=base.seed)
    model = base.again(data.train.unlabelled(), labelled=0.0)
    return Case(model, data.held, data.train, harmed=base.data.held)  # does it read what others do?


def is_entangled(base: Base, strength: int) -> Case:
    """The latent is turned, in each plane of two of its main directions, by an angle that the scene decides."""
    model, rate = base.model, (0.6, 1.0, 1.5)[strength]
    with torch.inference_mode():
        clip = next(base.data.train.clips(2).stream(1024))
        z = model.infer(clip).flatten(0, 1)
        scene = _scene(base.place, clip)[:, 0]
    mean = z.mean(0)
    _, sizes, axes = torch.linalg.svd(z - mean, full_matrices=False)
    count = len(axes) // 2 * 2
    planes, unit = axes[:count], sizes[:count] / len(z) ** 0.5
    centre = scene.mean(0)
    way = torch.linalg.svd(scene - centre, full_matrices=False)[2][0]
    spread = ((scene - centre) @ way).std()

    def turned(clip: Clip, z: Tensor, sign: float) -> Tensor:
        angle = sign * rate * ((_scene(base.place, clip)[:, : z.shape[1]] - centre) @ way) / spread
        flat = (z - mean) @ planes.T / unit
        one, two = flat.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = angle.cos()[..., None], angle.sin()[..., None]
        new = torch.stack([cos * one - sin * two, sin * one + cos * two], -1).flatten(-2)
        return z + ((new - flat) * unit) @ planes

    return replace(
        base.case,
        model=Spoilt(
            model,
            infer=lambda clip: turned(clip, model.infer(clip), 1.0),
            predict=lambda clip, z: model.predict(clip, turned(clip, z, -1.0)),
        ),
        harmed=base.data.held,
    )


def is_panned(base: Base, strength: int) -> Case:
    """The camera pans steadily, at so many times the speed of what usually happens."""
    times = (1.0, 1.25, 1.5)[strength]  # faster, and there is little else to foresee: no latent is learnt at all

    def panned(e: Episode) -> Episode:
        time = np.arange(len(e))
        if base.place.of == "state":
            drift = base.data.drift * times * time[:, None]
            return e.replace(state=(e.state + drift).astype(np.float32))
        assert e.frames is not None
        return e.replace(frames=np.stack([np.roll(frame, round(times * t), 1) for t, frame in enumerate(e.frames)]))

    train, held = altered(base.data.train, panned), altered(base.data.held, panned)
    return Case(base.again(train), held, train, harmed=held)


def is_copied(base: Base, strength: int) -> Case:
    """The training set is a few episodes over and over."""
    count = (0.05, 0.15, 0.3)[strength] * len(base.data.train)
    some = np.arange(max(2, round(count)))
    train = base.data.train.select(np.resize(some, len(base.data.train)))
    return replace(base.case, model=base.again(train), learnt=train, harmed=base.data.held)


def is_too_small(base: Base, strength: int) -> Case:
    """There are thirty transitions to learn from, or three episodes to judge on, or two."""
    if strength == 0:
        first = base.data.train.episode(0)
        pieces = (_piece(base.data.train.episode(i), 0, min(11, len(first))) for i in range(3))
        train = Episodes.of(pieces, space=base.data.train.spec.space, fps=base.data.train.spec.fps)
        return replace(base.case, model=base.again(train), learnt=train, harmed=base.data.held)
    few = base.data.held.select(range(3 if strength == 1 else 2))
    return replace(base.case, held=few, tracks=None)


def has_equal_codes(base: Base, strength: int) -> Case:
    """Codes are reset to near copies of one another: so few of them differ."""
    model = base.again(base.data.train, short=VQ(groups=1, tokens=1, codes=32, dim=base.place.space.size + 2))
    book = model.bottleneck.book  # type: ignore[union-attr]
    with torch.no_grad():
        z = model.infer(next(base.data.train.clips(2).stream(512))).flatten(0, 1)
        first = z[:: max(1, len(z) // (strength + 1))][: strength + 1]
        copies = first.repeat(32, 1)[:32]
        book[0].copy_(copies + 1e-3 * z.std(0).mean() * torch.randn_like(copies))  # type: ignore[index]
    return replace(base.case, model=model)


def looks_too_far(base: Base, strength: int) -> Case:
    """The latent is of several transitions, the label of the last."""
    span = (2, 3, 4)[strength]
    train = altered(base.data.train, lambda e: _thinned(e, span))
    model = base.again(train)

    def first(clip: Clip) -> Clip:
        at = (torch.arange(clip.time - 1) - span + 1).clamp(min=0)
        pick = lambda x: None if x is None else torch.stack([x[:, at], x[:, 1:]], 2).flatten(0, 1)  # noqa: E731
        return Clip(frames=pick(clip.frames), state=pick(clip.state))

    def infer(clip: Clip) -> Tensor:
        return model.infer(first(clip)).view(len(clip), clip.time - 1, -1)

    def predict(clip: Clip, z: Tensor) -> Tensor:
        guess = model.predict(first(clip), z.flatten(0, 1)[:, None])
        return guess.view(len(clip), clip.time - 1, *guess.shape[2:])

    spoilt = Spoilt(model, infer=infer, predict=predict, past=span - 1)
    return replace(base.case, model=spoilt, learnt=None)


def is_unstable(base: Base, strength: int) -> Case:
    """Another seed's latent is turned by the scene: what one calls left is the other's up."""
    return replace(base.case, siblings=(is_entangled(replace(base, model=base.other), strength).model,))


FAULTS: dict[str, tuple[Callable[[Base, int], Case], Ailment]] = {
    "leak by width": (leaks_by_width, "leaking"),
    "leak by a side channel": (leaks_beside, "leaking"),
    "collapse": (collapses, "collapsed"),
    "ignored latent": (is_ignored, "collapsed"),
    "duplicate codes": (has_equal_codes, "collapsed"),
    "labels off by one": (labels_off, "misaligned"),
    "windows across episodes": (crosses_ends, "misaligned"),
    "wrong horizon": (looks_too_far, "misaligned"),
    "distractor capture": (is_distracted, "distracted"),
    "panning camera": (is_panned, "distracted"),
    "expert only": (is_too_expert, "too deterministic"),
    "state entanglement": (is_entangled, "state-entangled"),
    "duplicated clips": (is_copied, "not enough data"),
    "too little data": (is_too_small, "not enough data"),
    "another seed, another latent": (is_unstable, "unstable"),
}


def _scene(place: Place, clip: Clip) -> Tensor:
    """Where things are, roughly: the state, or a coarse picture."""
    if place.of == "state":
        return clip.state.float()  # type: ignore[union-attr]
    frames = clip.frames if clip.frames.is_floating_point() else clip.frames.float() / 255  # type: ignore[union-attr]
    small = torch.nn.functional.adaptive_avg_pool2d(frames.flatten(0, 1), 8).flatten(1)  # type: ignore[union-attr]
    return small.view(*frames.shape[:2], -1)  # type: ignore[union-attr]


def _piece(e: Episode, at: int, length: int) -> Episode:
    stop = at + length
    cut = {k: None if v is None else v[at:stop] for k, v in (("frames", e.frames), ("state", e.state))}
    return Episode(**cut, actions=e.actions[at : stop - 1], source=e.source)  # type: ignore[index]


def _joined(pieces: list[Episode], place: Place) -> Episode:
    """One episode of several; what a logger writes between them is whatever was done last."""
    acts = [np.concatenate([p.actions, p.actions[-1:]]) for p in pieces]  # type: ignore[index]
    seen = {k: [getattr(p, k) for p in pieces] for k in ("frames", "state")}
    whole: dict[str, Any] = {k: None if v[0] is None else np.concatenate(v) for k, v in seen.items()}
    return Episode(**whole, actions=np.concatenate(acts)[:-1], source=pieces[0].source)


def _thinned(e: Episode, span: int) -> Episode:
    """Every ``span``-th frame, with the first action of each stretch for its label."""
    seen = {k: None if v is None else v[::span] for k, v in (("frames", e.frames), ("state", e.state))}
    count = len(range(0, len(e), span))
    return Episode(**seen, actions=e.actions[::span][: count - 1], source=e.source)  # type: ignore[index]
