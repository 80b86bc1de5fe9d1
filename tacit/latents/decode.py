"""From latent actions to real ones with a handful of labels, choosing how by labels held out, never by those fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip, Space
from tacit.data.episodes import Episodes
from tacit.latents.model import LatentActions
from tacit.part import Part

FIELDS = ("latent", "before", "seen", "action", "stretch")
NEIGHBOURS = 5  # labelled latents that a vote is taken among
MLP_STEPS = 200


@dataclass(frozen=True)
class Way:
    """One way to decode: with what map, told what beside the latent, and from how many of the latent's numbers."""

    kind: str  # "linear", "mlp" or "vote"
    memory: bool  # told the previous latent too: it says how things were already moving
    looks: bool  # told the encoder's features of the present frame too
    kept: int  # how many latent numbers, those that say most about the labels first; 0 is all
    firmness: float = 1.0  # ridge strength, in labels


@dataclass(frozen=True)
class Labels:
    """Labelled transitions side by side: latent, the one before it, features, action, and which stretch each lies in."""

    latent: Tensor
    before: Tensor
    seen: Tensor
    action: Tensor
    stretch: Tensor

    def __len__(self) -> int:
        return len(self.latent)

    def rows(self, which: Tensor) -> Labels:
        return Labels(*(getattr(self, name)[which] for name in FIELDS))


class Decoder(Part):
    """Turns latents into actions by the map of one ``Way``; ``fit`` finds the map, until then it answers with zeros.

    A vote is taken among the nearest labelled latents: for quantised latents those are the ones with the same code.
    """

    def __init__(
        self, *, space: Space, latent: int, features: int, kind: str, memory: bool, looks: bool, kept: int, labels: int, width: int = 64
    ) -> None:
        super().__init__()
        self.space, self.kind, self.memory, self.looks = space, kind, memory, looks
        kept = kept or latent
        told = kept * (1 + memory) + features * looks
        self.register_buffer("order", torch.arange(kept))
        self.register_buffer("mean", torch.zeros(told))
        self.register_buffer("spread", torch.ones(told))
        self.register_buffer("weight", torch.zeros(told, space.size))
        self.register_buffer("bias", torch.zeros(space.size))
        anchors = labels if kind == "vote" else 0
        self.register_buffer("anchors", torch.zeros(anchors, told))
        self.register_buffer("votes", torch.zeros(anchors, space.size))
        layers = (torch.nn.Linear(told, width), torch.nn.GELU(), torch.nn.Linear(width, space.size))
        self.net = torch.nn.Sequential(*layers) if kind == "mlp" else None

    def scores(self, latent: Tensor, before: Tensor, seen: Tensor | None) -> Tensor:
        """For each choice a score, for a vector its numbers."""
        told = (self._told(latent, before, seen) - self.mean) / self.spread
        if self.kind == "vote":
            near = torch.cdist(told, self.anchors).topk(min(NEIGHBOURS, len(self.anchors)), largest=False).indices
            return self.votes[near].mean(1)
        said = told @ self.weight + self.bias
        return said if self.net is None else said + self.net(told)

    def forward(self, latent: Tensor, before: Tensor, seen: Tensor | None) -> Tensor:
        said = self.scores(latent, before, seen)
        return said.argmax(-1) if self.space.discrete else said.clamp(self.space.low, self.space.high)

    def fit(self, labels: Labels, firmness: float) -> Decoder:
        """Find the map from these labels; larger ``firmness`` trusts them less."""
        said = _said(labels.action, self.space)
        self.order.copy_(_telling(labels, said)[: len(self.order)])
        told = self._told(labels.latent, labels.before, labels.seen)
        self.mean.copy_(told.mean(0))
        self.spread.copy_(self._units(told - told.mean(0)))
        told = (told - self.mean) / self.spread
        if self.kind == "vote":
            self.anchors.copy_(told)
            self.votes.copy_(said)
            return self.eval()
        self.bias.copy_(said.mean(0))
        gram = told.T @ told + firmness * torch.eye(told.shape[1])
        self.weight.copy_(torch.linalg.solve(gram, told.T @ (said - said.mean(0))))
        if self.net is not None:
            self._train(labels, said)
        return self.eval()

    def _told(self, latent: Tensor, before: Tensor, seen: Tensor | None) -> Tensor:
        parts = [latent[:, self.order]] + ([before[:, self.order]] if self.memory else []) + ([seen] if self.looks else [])
        return torch.cat(parts, 1).float()  # type: ignore[arg-type]

    def _units(self, centred: Tensor) -> Tensor:
        """One unit for all latent numbers, one for all features: what hardly moves must not be blown up to unit size."""
        kept = len(self.order) * (1 + self.memory)
        blocks = [b for b in (centred[:, :kept], centred[:, kept:]) if b.shape[1]]
        return torch.cat([b.square().mean().sqrt().clamp(min=1e-6).expand(b.shape[1]) for b in blocks])

    def _train(self, labels: Labels, said: Tensor) -> None:
        """What the ridge leaves over, by a small network with weight decay; few labels and few steps."""
        assert self.net is not None
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            for layer in (self.net[0], self.net[2]):
                layer.reset_parameters()  # type: ignore[operator]
            torch.nn.init.zeros_(self.net[2].weight)
            torch.nn.init.zeros_(self.net[2].bias)
            optimiser = torch.optim.AdamW(self.net.parameters(), lr=3e-3, weight_decay=0.1)
            for _ in range(MLP_STEPS):
                loss = F.mse_loss(self.scores(labels.latent, labels.before, labels.seen), said)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


def decoder(model: LatentActions, data: Episodes, *, ways: tuple[Way, ...] | None = None) -> tuple[Decoder, list[tuple[Way, float]]]:
    """The best of ``ways`` for the labels of ``data``, and every way's error on stretches of labels held out from it."""
    labels, space = gather(model, data), data.spec.space
    assert space is not None
    tried = []
    for way in ways or ways_for(len(labels), labels.latent.shape[1]):
        tried.append((way, _held_out(labels, way, space)))
    best = min(tried, key=lambda pair: pair[1])[0]
    return _fitted(labels, best, space), tried


def ways_for(labels: int, latent: int) -> tuple[Way, ...]:
    """What is worth trying: a network only where there are labels to hold some out and still fit it."""
    sizes = [k for k in (2, 4, 8) if k < latent] + [0]
    linear = [
        Way("linear", memory, looks, kept, firmness)
        for memory in (False, True)
        for looks in (False, True)
        for kept in sizes
        for firmness in (0.1, 1.0, 10.0)
    ]
    votes = [Way("vote", memory, False, kept) for memory in (False, True) for kept in sizes]
    networks = [Way("mlp", True, looks, kept) for looks in (False, True) for kept in (sizes[-2:])] if labels >= 128 else []
    return tuple(linear + votes + networks)


@torch.no_grad()
def gather(model: LatentActions, data: Episodes) -> Labels:
    """Every labelled transition of ``data`` with what ``model`` infers of it and of the transition before."""
    mask = data.mask
    if not mask.any():
        raise ValueError("No transition is labelled; decoding latents needs a few: keep some with data.keep_labels(count).")
    model.eval()
    owners = np.repeat(np.arange(len(data)), data.lengths)
    found: list[Labels] = []
    for number in np.unique(owners[mask]):
        known = np.flatnonzero(mask[owners == number])
        episode = data.episode(int(number))
        assert episode.frames is not None and episode.actions is not None
        first = max(0, int(known[0]) - 1 - model.past)
        frames = torch.from_numpy(episode.frames[first : int(known[-1]) + 2])[None].permute(0, 1, 4, 2, 3).to(model.device)
        bottled, features = model.found(Clip(frames=frames)), model.features(Clip(frames=frames))[0]
        latents = bottled.z.float().cpu()
        at = torch.from_numpy(known - first)
        before = torch.where(at[:, None] + first > 0, latents[(at - 1).clamp(min=0)], torch.zeros_like(latents[at]))
        breaks = torch.from_numpy(np.concatenate([[0], np.cumsum(np.diff(known) > 1)]))
        stretch = breaks + (int(found[-1].stretch[-1]) + 1 if found else 0)
        action = torch.from_numpy(np.ascontiguousarray(episode.actions[known]))
        found.append(Labels(latents[at], before, features.float().cpu()[at], action, stretch))
    return Labels(*(torch.cat([getattr(f, name) for f in found]) for name in FIELDS))


def _fitted(labels: Labels, way: Way, space: Space) -> Decoder:
    sizes = {"latent": labels.latent.shape[1], "features": labels.seen.shape[1], "labels": len(labels)}
    made = Decoder(space=space, kind=way.kind, memory=way.memory, looks=way.looks, kept=way.kept, **sizes)
    return made.fit(labels, way.firmness)


def _held_out(labels: Labels, way: Way, space: Space, *, folds: int = 5) -> float:
    """The error on stretches that were not fitted; where there are few stretches, they are cut."""
    groups = labels.stretch
    if len(groups.unique()) < folds:
        groups = torch.arange(len(labels)) * folds // len(labels)
    fold = torch.unique(groups, return_inverse=True)[1] % folds
    errors = []
    for k in range(folds):
        out = fold == k
        if not out.any() or out.all():
            continue
        made, held = _fitted(labels.rows(~out), way, space), labels.rows(out)
        scores = made.scores(held.latent, held.before, held.seen)
        errors.append((scores - _said(held.action, space)).square().mean(1))
    return float(torch.cat(errors).mean()) if errors else float("inf")


def _said(action: Tensor, space: Space) -> Tensor:
    return F.one_hot(action, space.size).float() if space.discrete else action.float()


def _telling(labels: Labels, said: Tensor) -> Tensor:
    """Latent numbers in order of how much each, with its predecessor, says about the action on its own."""
    pairs = torch.stack([labels.latent, labels.before], -1).transpose(0, 1)  # (D, N, 2)
    pairs = pairs - pairs.mean(1, keepdim=True)
    unit = pairs.square().mean().clamp(min=1e-12)
    gram = pairs.transpose(1, 2) @ pairs + unit * torch.eye(2)
    wanted = (said - said.mean(0)).expand(len(pairs), -1, -1)
    fitted = pairs @ torch.linalg.solve(gram, pairs.transpose(1, 2) @ wanted)
    return (wanted - fitted).square().sum((1, 2)).argsort()
