"""Further costs of a latent action model: what a latent should be beside enough to predict the next frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip
from tacit.data.augment import jitter, shift
from tacit.part import Part
from tacit.parts.flow import flow, warp
from tacit.parts.mlp import Layers

if TYPE_CHECKING:
    from tacit.latents.model import LatentActions
    from tacit.latents.step import Step


class Signal(Part):
    """One further cost, told everything about a training step; it is added to the loss ``weight`` times."""

    weight: float
    ahead: int = 1  # steps that a clip must lead on from the present for it

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say what it costs; give it a method `cost`.")


class Null(Signal):
    """Where nothing changed the latent says so: how far it is from that, in units of how far it is elsewhere.

    What says so is the bottleneck's ``identity``: zero, and of rotations no turn, whose numbers are not zero.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        now, nothing = step.now(model.raw(step.clip)), model.bottleneck.identity
        return _share(between(model, step, pairs=torch.stack([now, now], 1)) - nothing, step.found.z - nothing)


class Reversal(Signal):
    """The latent back is the latent forth the other way round: false wherever something cannot be undone."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        pairs = step.at(model.raw(step.clip))
        forth, back = between(model, step, pairs=torch.cat([pairs, pairs.flip(1)])).chunk(2)
        return _share(back - model.bottleneck.inverse(forth), forth - model.bottleneck.identity)


class Composition(Signal):
    """Two latents in a row come to the latent of both steps: their sum, or what the bottleneck calls composing."""

    ahead = 2

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        raw = model.raw(step.clip)[:, model.past :]
        pairs = torch.cat([raw[:, [0, 1]], raw[:, [1, 2]], raw[:, [0, 2]]])
        one, two, both = between(model, step, pairs=pairs, each=1).chunk(3)
        return _share(model.bottleneck.compose(one, two) - both, both - model.bottleneck.identity)


class Arrow(Signal):
    """The same change in another light and another place is alike, the change backwards is not, nor are others'.

    After CoMo: what stays when time is reversed, the background and how things look, cannot be told by such a latent.
    """

    def __init__(self, weight: float = 0.1, *, heat: float = 0.1, pad: int = 2) -> None:
        if heat <= 0:
            raise ValueError(f"heat is {heat}; wanted a temperature above 0.")
        self.weight, self.heat, self.pad = weight, heat, pad

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        pairs = step.at(model.raw(step.clip))
        if model.of == "state":
            raise ValueError("Arrow changes the light of pictures; a model of states has none.")
        other = jitter(shift(pairs, self.pad))
        z = F.normalize(between(model, step, pairs=torch.cat([pairs, other, pairs.flip(1)])), dim=-1)
        own, alike, back = z.chunk(3)
        said = own @ torch.cat([alike, back]).T / self.heat
        return F.cross_entropy(said, torch.arange(len(own), device=said.device))


class Motion(Signal):
    """What moved in the recording moves alike in the prediction (ViPRA): what moves is little of a picture.

    Brought back by the flow that was seen, the prediction must show the present again, wherever flow explains what
    changed. To say that nothing happens costs 1. Moves of up to ``reach`` pixels are seen, by default an eighth of the
    picture.
    """

    def __init__(self, weight: float = 0.1, *, reach: float | None = None) -> None:
        self.weight, self.reach = weight, reach

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        now, then, guess = step.present, step.wanted, step.guess.float()
        if now.ndim != 4 or now.shape[1] != 3:
            raise ValueError(f"Motion is seen in pictures; {type(model.onward).__name__} predicts {tuple(now.shape)}.")
        move = flow(now, then, reach=self.reach)
        guessed, still, found = ((warp(x, move) - now).square().mean(1) for x in (guess, now, then))
        explained = found < still  # elsewhere nothing moved, or something was uncovered that has no place to go back to
        return (guessed * explained).sum() / (still * explained).sum().clamp(min=1e-6)


class Covariance(Signal):
    """No feature of the encoder says what another says (DynaMo): mean squared covariance of two of them."""

    def __init__(self, weight: float = 0.04) -> None:
        self.weight = weight

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        rows = step.features.flatten(0, -2).float()
        rows = rows - rows.mean(0)
        squares = (rows.T @ rows / max(1, len(rows) - 1)).square()
        count = squares.shape[0]
        return (squares.sum() - squares.diagonal().sum()) / max(1, count * (count - 1))


class Body(Signal):
    """The latent also leads the body's own state to where it was next (villa-X): the action, not the scenery."""

    def __init__(self, *, state: int, dim: int, width: int = 128, weight: float = 1.0) -> None:
        self.weight = weight
        self.net = Layers(inputs=state + dim, dim=state, width=width)

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        if step.clip.state is None:
            raise ValueError("Body wants the body's state in every clip, and these have none; bring data that has.")
        now, then = step.at(step.clip.state.float()).unbind(1)
        moved = then - now
        miss = F.mse_loss(self.net(torch.cat([now, step.found.z], -1)).float(), moved)
        return miss / moved.square().mean().clamp(min=1e-6)


class Flowing(Signal):
    """The latent tells, beside where things are, how the picture flows (LAOF): motion, and not what it looks like.

    Flow needs no labels. It is told over a ``grid`` of cells, from the ``features`` numbers there are of the present;
    to say that nothing flows costs 1. A ``mask``, such a part as ``Alone`` takes, leaves only the actor's.
    """

    def __init__(
        self,
        *,
        features: int,
        dim: int,
        grid: Sequence[int] = (4, 4),
        width: int = 128,
        reach: float | None = None,
        mask: Part | None = None,
        weight: float = 1.0,
    ) -> None:
        self.weight, self.grid, self.reach, self.mask = weight, (grid[0], grid[1]), reach, mask
        self.net = Layers(inputs=features + dim, dim=2 * grid[0] * grid[1], width=width)

    def cost(self, model: LatentActions, step: Step) -> Tensor:
        if step.pair is None or step.pair.ndim != 5:
            raise ValueError("Flowing is seen in pictures; a model of states has none.")
        move = flow(*step.pair.unbind(1), reach=self.reach)
        if self.mask is not None:
            move = move * self.mask(step.pair)
        coarse = F.adaptive_avg_pool2d(move, self.grid).flatten(1)
        now = step.now(step.features).flatten(1)
        said = self.net(torch.cat([now, step.found.z.type_as(now)], -1)).float()
        return F.mse_loss(said, coarse) / coarse.square().mean().clamp(min=1e-6)


def names(signals: Sequence[Part]) -> list[str]:
    """What the metric of each is called: as its class is, and of one class the second ``.2``, the third ``.3``."""
    classes = [type(signal).__name__.lower() for signal in signals]
    counts = [classes[: place + 1].count(name) for place, name in enumerate(classes)]
    return [name if count == 1 else f"{name}.{count}" for name, count in zip(classes, counts, strict=True)]


def between(model: LatentActions, step: Step, *, pairs: Tensor, each: int = 0) -> Tensor:
    """The latent of each pair of moments (N, 2, ...), as evaluation would find it.

    They are of the step's clips, ``each`` so many of one before those of the next, by default as many as it has rows.
    """
    text, each = step.clip.text, each or len(step.ends) // len(step.clip)
    if text is not None:
        text = tuple(t for t in text for _ in range(each))
        text *= len(pairs) // len(text)
    with _calm(model.bottleneck):
        found: Tensor = model.found(Clip(**{model.of: pairs}, text=text)).z  # type: ignore[arg-type]
    return found


@contextlib.contextmanager
def _calm(bottleneck: nn.Module) -> Iterator[None]:
    """Without noise, dropped slots or counting: what is compared is the latents, not their luck."""
    training = bottleneck.training
    try:
        bottleneck.eval()
        yield
    finally:
        bottleneck.train(training)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Mean square as a share of another's, both learning: were one only a unit, all latents would shrink to nothing."""
    return part.float().square().mean() / whole.float().square().mean().clamp(min=1e-6)
