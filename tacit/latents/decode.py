"""From latent actions to real ones with a handful of labels, choosing how by labels held out, never by those fitted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Space
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.latents.model import LatentActions, carries, label
from tacit.part import Part

FOLDS = 5
NEIGHBOURS = 5  # labelled latents that a vote is taken among
GAIN = 3.0  # the most that shrinkage is undone by: beyond it there is more noise than signal
STEPS = 300  # of the network's training
ENOUGH = 128  # labels below which a network is not tried: too few to hold some out and still fit it
LESS = 0.5  # of the ridges' error: what a network or a vote must come to, to answer wishes
FIELDS = ("latent", "before", "seen", "action", "stretch")


@dataclass(frozen=True)
class Labels:
    """Labelled transitions side by side, each with what a decoder may be told and the stretch of video it lies in."""

    latent: Tensor  # (N, D)
    before: Tensor  # (N, D) the latent of the transition before: how things were already moving
    seen: Tensor  # (N, F) the encoder's features of the frame it leaves from
    action: Tensor
    stretch: Tensor  # (N,) labels in a row in one episode share a number

    def __len__(self) -> int:
        return len(self.latent)

    def rows(self, which: Tensor) -> Labels:
        return Labels(*(getattr(self, name)[which] for name in FIELDS))


@dataclass(frozen=True)
class Way:
    """One way to decode: by a ridge, a network or a vote, and what it is told beside the latent itself."""

    kind: str
    memory: bool = True
    looks: bool = False
    kept: int = 0  # how many principal directions of the latents, strongest first; 0 is all
    anchored: bool = False  # no latent is no action: the map goes through the origin
    firmness: float = 3.0  # the ridge's strength, in labels


class Decoder(Part):
    """Turns latents into actions; ``decoder`` finds it, and until then it answers with zeros.

    A vote is taken among the nearest labelled latents: for quantised latents those are the ones with the same code.
    """

    def __init__(
        self, *, space: Space, latent: int, features: int, kind: str = "linear", labels: int = 0, width: int = 64
    ) -> None:
        super().__init__()
        told = 2 * latent + features
        self.register_buffer("basis", torch.eye(latent))  # the latents' principal directions, found without labels
        self.space, self.kind, self.latent, self.features = space, kind, latent, features
        self.register_buffer("weight", torch.zeros(told, space.size))
        self.register_buffer("bias", torch.zeros(space.size))
        self.register_buffer("mean", torch.zeros(told))
        self.register_buffer("unit", torch.ones(told))
        self.register_buffer("anchors", torch.zeros(labels if kind == "vote" else 0, told))
        self.register_buffer("votes", torch.zeros(labels if kind == "vote" else 0, space.size))
        layers = (nn.Linear(told, width), nn.GELU(), nn.Linear(width, space.size))
        self.net = nn.Sequential(*layers) if kind == "mlp" else None

    def scores(self, latent: Tensor, before: Tensor, *, seen: Tensor) -> Tensor:
        """For each choice a score; for a vector its numbers."""
        told = (beside(latent, before, seen=seen, basis=self.basis) - self.mean) * self.unit
        if self.kind == "vote":
            near = torch.cdist(told, self.anchors).topk(min(NEIGHBOURS, len(self.anchors)), largest=False).indices
            return self.votes[near].mean(1)
        said = told @ self.weight + self.bias
        return said if self.net is None else said + self.net(told)

    def forward(self, latent: Tensor, before: Tensor, seen: Tensor) -> Tensor:
        said = self.scores(latent, before, seen=seen)
        return said.argmax(-1) if self.space.discrete else said.clamp(self.space.low, self.space.high)

    @torch.no_grad()
    def unshrunk(self, labels: Labels) -> Decoder:
        """Undo what regression takes off because single latents are noisy: for wishes, which are means and are not.

        What it says of the labelled actions is regressed on them, number by number, and that slope divided out. Choices
        and what is no ridge stay as they are.
        """
        if self.space.discrete or self.kind != "linear":
            return self
        action = labels.action.float()
        said = self.scores(labels.latent, labels.before, seen=labels.seen)
        off, short = action - action.mean(0), said - said.mean(0)
        slope = (off * short).sum(0) / off.square().sum(0).clamp(min=1e-9)
        gain = torch.where(slope > 0, slope.clamp(min=1e-9).reciprocal(), 1.0).clamp(1.0, GAIN)
        self.weight.mul_(gain)
        self.bias.copy_((self.bias - said.mean(0)) * gain + action.mean(0))
        return self

    def fit(self, labels: Labels, way: Way) -> Decoder:
        """Find the map that ``way`` gives for these labels."""
        given, said = _laid(labels, space=self.space, basis=self.basis)
        mean, unit = _scale(given, way, latent=self.latent)
        self.mean.copy_(mean)
        self.unit.copy_(unit)
        given = (given - mean) * unit
        if self.kind == "vote":
            self.anchors.copy_(given)
            self.votes.copy_(said)
            return self.eval()
        bias, [weight] = _ridges(given, said, [way])
        self.bias.copy_(bias)
        self.weight.copy_(weight)
        if self.net is not None:
            self._train(given, said - bias - given @ weight)
        return self.eval()

    def _train(self, given: Tensor, left: Tensor) -> None:
        """What the ridge leaves over, by a small network with weight decay."""
        assert isinstance(self.net, nn.Sequential)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            for layer in (self.net[0], self.net[2]):
                layer.reset_parameters()  # type: ignore[operator]
            optimiser = torch.optim.AdamW(self.net.parameters(), lr=3e-3, weight_decay=0.1, fused=True)
            for _ in range(STEPS):
                loss = F.mse_loss(self.net(given), left)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


@torch.no_grad()
def decoder(model: LatentActions, data: Episodes, *, wishes: bool = False) -> tuple[Decoder, dict[Way, float]]:
    """A decoder from the labels of ``data``, and each way's squared error on stretches of labels held out from it.

    Ridges of every firmness, told of the past or not, of the picture or not, speak together, each by how well it does
    on what it has not seen: with sixteen labels choosing one of them is a lottery. A network or a vote replaces
    them where it does better than the best of them. With ``wishes`` it is for a policy's mean latents: ridges are then
    unshrunk, and something else must be much better at numbers to replace them, for only a straight map takes the mean
    latent to the mean action.
    """
    labels, space, basis = gather(model, data), data.spec.space, principal(model, data)
    assert space is not None
    sizes = [k for k in (2, 4, 8, 16) if k < len(basis)] + [0]
    anchors = (False,) if space.discrete else (False, True)
    choices = itertools.product((False, True), (False, True), sizes, anchors, (0.3, 1.0, 3.0, 10.0, 30.0))
    ridges = [way for way in (Way("linear", *choice) for choice in choices) if not (way.anchored and way.looks)]
    others = [Way("vote", memory) for memory in (False, True)]
    others += [Way("mlp", True, True)] if len(labels) >= ENOUGH else []
    errors = held_out(labels, (*ridges, *others), space=space, basis=basis)
    best, bar = min(others, key=errors.__getitem__), LESS if wishes and not space.discrete else 1.0
    if errors[best] < bar * min(errors[way] for way in ridges):
        made = _fitted(labels, best, space, basis)
    else:
        made = _committee(labels, {way: errors[way] for way in ridges}, space, basis)
    return made.unshrunk(labels) if wishes else made, errors


def _committee(labels: Labels, errors: dict[Way, float], space: Space, basis: Tensor) -> Decoder:
    """The ridges' weighted mean, which is one linear map; the more labels there are, the more the best one counts."""
    made = Decoder(space=space, latent=labels.latent.shape[1], features=labels.seen.shape[1])
    made.basis.copy_(basis)
    misses = np.maximum(list(errors.values()), 1e-12)
    told = np.isfinite(misses).any()  # one label cannot be held out: then all count alike
    worth = (misses.min() / misses) ** (len(labels) / 16) if told else np.ones(len(misses))
    shares = dict(zip(errors, worth / worth.sum(), strict=True))
    given, said = _laid(labels, space=space, basis=basis)
    for ways in _families(errors):
        mean, unit = _scale(given, ways[0], latent=made.latent)
        bias, weights = _ridges((given - mean) * unit, said, ways)
        for way, weight in zip(ways, weights, strict=True):
            slope = weight * unit[:, None]
            made.weight += shares[way] * slope
            made.bias += shares[way] * (bias - mean @ slope)
    return made.eval()


@torch.no_grad()
def gather(model: LatentActions, data: Episodes) -> Labels:
    """Every labelled transition of ``data`` with what ``model`` infers of it and of the transition before."""
    mask = data.mask
    if not mask.any():
        raise ValueError(
            "No transition is labelled; decoding latents needs a few: keep some with data.keep_labels(count)."
        )
    model.eval()
    owners = np.repeat(np.arange(len(data)), data.lengths)
    found: list[Labels] = []
    for number in np.unique(owners[mask]):
        known = np.flatnonzero(mask[owners == number])
        episode = data.episode(int(number))
        assert episode.actions is not None
        first = max(0, int(known[0]) - 1 - model.past)
        clip = model.glimpse(episode, slice(first, int(known[-1]) + 2))
        latents, features = model.infer(clip)[0].float().cpu(), model.features(clip)[0].float().cpu()
        if not (latents.isfinite().all() and features.isfinite().all()):
            raise ValueError(
                "The model's latents or features are not finite, so nothing can be read from them: train it anew."
            )
        at = torch.from_numpy(known - first)
        before = torch.where(at[:, None] + first > 0, latents[(at - 1).clamp(min=0)], 0.0)
        stretch = torch.from_numpy(np.concatenate([[0], np.cumsum(np.diff(known) > 1)])) + (
            int(found[-1].stretch[-1]) + 1 if found else 0
        )
        action = torch.from_numpy(np.array(episode.actions[known]))
        found.append(Labels(latents[at], before, features[at], action, stretch))
    return Labels(*(torch.cat([getattr(f, name) for f in found]) for name in FIELDS))


@torch.no_grad()
def held_out(labels: Labels, ways: Sequence[Way], *, space: Space, basis: Tensor) -> dict[Way, float]:
    """Each way's squared error on stretches that were not fitted; where there are few stretches, they are cut."""
    groups = labels.stretch
    if len(groups.unique()) < FOLDS:
        groups = torch.arange(len(labels)) * FOLDS // len(labels)
    fold = torch.unique(groups, return_inverse=True)[1] % FOLDS
    given, said = _laid(labels, space=space, basis=basis)
    ridges, others = _families(w for w in ways if w.kind == "linear"), [w for w in ways if w.kind != "linear"]
    errors: dict[Way, list[Tensor]] = {way: [] for way in ways}
    for out in (fold == k for k in range(FOLDS)):
        if not out.any() or out.all():
            continue
        for family in ridges:
            mean, unit = _scale(given[~out], family[0], latent=len(basis))
            bias, weights = _ridges((given[~out] - mean) * unit, said[~out], family)
            missed = ((given[out] - mean) * unit) @ weights + bias - said[out]
            for way, error in zip(family, missed.square().mean(2), strict=True):
                errors[way].append(error)
        for way in others:
            made, held = _fitted(labels.rows(~out), way, space, basis), labels.rows(out)
            scores = made.scores(held.latent, held.before, seen=held.seen)
            errors[way].append((scores - said[out]).square().mean(1))
    return {way: float(torch.cat(found).mean()) if found else float("inf") for way, found in errors.items()}


def beside(latent: Tensor, before: Tensor, *, seen: Tensor, basis: Tensor) -> Tensor:
    """All that a decoder may be told of transitions, (N, 2 D + F), the latents along their principal directions."""
    return torch.cat([latent.float() @ basis, before.float() @ basis, seen.float()], 1)


def _laid(labels: Labels, *, space: Space, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Labels as a fit wants them: what may be told of each, and what is to be said of it."""
    return beside(labels.latent, labels.before, seen=labels.seen, basis=basis), spoken(labels.action, space)


def _families(ways: Iterable[Way]) -> list[list[Way]]:
    """Ridges that differ in nothing but firmness: one decomposition makes them all."""
    found: dict[Way, list[Way]] = {}
    for way in ways:
        found.setdefault(replace(way, firmness=0.0), []).append(way)
    return list(found.values())


def _scale(given: Tensor, way: Way, *, latent: int) -> tuple[Tensor, Tensor]:
    """The mean, and one unit for all latents and one for all features: what hardly moves is noise, not to be blown up.

    What ``way`` is not to be told is multiplied by zero.
    """
    mean = given.mean(0) * (not way.anchored)
    centred, features = given - mean, given.shape[1] - 2 * latent
    moved = centred[:, :latent].square().mean().sqrt().clamp(min=1e-6).reciprocal()
    looked = centred[:, 2 * latent :].square().mean().sqrt().clamp(min=1e-6).reciprocal()
    strong = (torch.arange(latent) < (way.kept or latent)) * moved
    looks = torch.full((features,), float(looked * way.looks if features else 0.0))
    return mean, torch.cat([strong, strong * way.memory, looks])


def _ridges(given: Tensor, said: Tensor, ways: Sequence[Way]) -> tuple[Tensor, Tensor]:
    """What a family of ridges starts from, (S,), and its slopes, (W, 2 D + F, S), of which what is zero has none."""
    bias = said.mean(0) * (not ways[0].anchored)
    told = given.any(0)
    some, slopes = given[:, told], given.new_zeros(len(ways), given.shape[1], said.shape[1])
    values, vectors = _axes(some.T @ some)
    along = vectors.T @ (some.T @ (said - bias))
    firm = torch.tensor([way.firmness for way in ways])[:, None]
    slopes[:, told] = vectors @ (along / (values.clamp(min=0) + firm)[..., None])
    return bias, slopes


def _axes(square: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors; of latents that hardly differ single precision may not find them."""
    try:
        return torch.linalg.eigh(square)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        size = square.diagonal().mean().clamp(min=1e-12).double()
        values, vectors = torch.linalg.eigh(square.double() + 1e-9 * size * torch.eye(len(square), dtype=torch.float64))
        return values.float(), vectors.float()


@torch.no_grad()
def principal(model: LatentActions, data: Episodes, *, episodes: int = 50) -> Tensor:
    """The directions (D, D) in which the latents of ``data`` move the picture, strongest first, found without labels.

    A latent number may vary and yet mean nothing to the forward model; a handful of labels would be spent on telling
    it from those that act. So each is measured by what it does to the prediction before variance is looked at.
    """
    some = data
    if not carries(model, data):
        few = np.linspace(0, len(data) - 1, min(len(data), episodes)).astype(np.int64)
        some = label(model, data.select(few))
    latents = some.column("latents")
    assert latents is not None
    known = torch.from_numpy(latents[np.isfinite(latents).all(1)])
    felt = influence(model, data)
    centred = ((known - known.mean(0)) * felt).double()
    return felt[:, None] * torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).float()


@torch.enable_grad()
def influence(model: LatentActions, data: Episodes, *, count: int = 128, draws: int = 16) -> Tensor:
    """How far each latent number moves the prediction, (D,), the furthest being 1.

    The root mean square of the Jacobian's columns, by random projections of the prediction (Hutchinson).
    """
    clips = Clips(data, model.past + 2)
    clip = clips.batch(np.linspace(0, len(clips) - 1, count).astype(np.int64)).to(model.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        latents = model.eval().infer(clip).detach().requires_grad_()
        guess = model.predict(clip, latents)[:, -1]
        pulls = [
            torch.autograd.grad(guess, latents, torch.randn_like(guess), retain_graph=True)[0][:, -1]
            for _ in range(draws)
        ]
    felt = torch.stack(pulls).square().mean((0, 1)).sqrt().float().cpu()
    return felt / felt.max().clamp(min=1e-12)


def _fitted(labels: Labels, way: Way, space: Space, basis: Tensor) -> Decoder:
    sizes: dict[str, Any] = {"latent": labels.latent.shape[1], "features": labels.seen.shape[1], "labels": len(labels)}
    made = Decoder(space=space, kind=way.kind, **sizes)
    made.basis.copy_(basis)
    return made.fit(labels, way)


def spoken(action: Tensor, space: Space) -> Tensor:
    """Actions as numbers: vectors as they are, and for each choice a one."""
    return F.one_hot(action, space.size).float() if space.discrete else action.float()
