"""A prior of actions: the few directions in which a demonstration's actions vary, and a head that speaks in them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip, Space
from tacit.part import Part
from tacit.parts.mlp import Layers
from tacit.parts.outputs import Head
from tacit.spread import average

FAR = 3.0  # times the usual miss: beyond it an action is not of the demonstration's kind


class Manifold(Part):
    """An autoencoder of single actions through ``dim`` numbers in [-1, 1]; with ``depth=0`` all but its ends is linear.

    ``noise`` on the numbers makes what lies between two demonstrated actions decode to something between them.
    """

    def __init__(self, *, space: Space, dim: int, width: int = 32, depth: int = 1, noise: float = 0.05) -> None:
        super().__init__()
        if space.discrete or not 0 < dim <= space.size:
            raise ValueError(
                f"A manifold of {dim} numbers was asked for in {space}; wanted at most as many of a vector."
            )
        self.space, self.dim, self.noise = space, dim, noise
        self.inwards = Layers(inputs=space.size, dim=dim, width=width, depth=depth)
        self.outwards = Layers(inputs=dim, dim=space.size, width=width, depth=depth)
        self.register_buffer("miss", torch.tensor(0.0))  # mean squared, in half ranges, of what it was taught

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.actions is not None and clip.mask is not None
        known = clip.actions[clip.mask]
        z = self.encode(known)
        missed = self._missed(self.decode(z + self.noise * torch.randn_like(z) * self.training), known).mean()
        if self.training:
            self.miss.lerp_(average(missed.detach()), 0.05 if self.miss > 0 else 1.0)
        return missed, {"miss": missed.detach()}

    def encode(self, actions: Tensor) -> Tensor:
        """Where on the manifold actions (..., A) lie, (..., dim), or what of it is nearest."""
        return torch.tanh(self.inwards(self._unit(actions)))

    def decode(self, z: Tensor) -> Tensor:
        """The actions (..., A), inside the bounds, that numbers (..., dim) stand for."""
        low, high = self.space.low, self.space.high
        return (torch.tanh(self.outwards(z)) + 1) / 2 * (high - low) + low

    def within(self, actions: Tensor) -> Tensor:
        """Whether each action (..., A) is of the demonstration's kind: kept by going through the few numbers."""
        return self._missed(self.decode(self.encode(actions)), actions) <= FAR**2 * self.miss

    def _unit(self, actions: Tensor) -> Tensor:
        return (actions.float() - self.space.low) / (self.space.high - self.space.low) * 2 - 1

    def _missed(self, said: Tensor, actions: Tensor) -> Tensor:
        return F.mse_loss(self._unit(said), self._unit(actions), reduction="none").mean(-1)


class Within(Head):
    """A head that says where on a frozen manifold the action lies and, ``apart`` at most, how far off it."""

    def __init__(self, *, features: int, prior: Manifold, width: int = 0, apart: float = 0.0) -> None:
        wide = prior.dim + (prior.space.size if apart else 0)
        super().__init__(features=features, space=Space("continuous", wide), width=width)
        self.prior, self.apart = copy.deepcopy(prior).requires_grad_(False), apart
        self.space = prior.space

    def forward(self, features: Tensor) -> Tensor:
        said = torch.tanh(self.net(features).float())
        action = self.prior.decode(said[..., : self.prior.dim])
        half = (self.space.high - self.space.low) / 2
        return action + self.apart * half * said[..., self.prior.dim :] if self.apart else action
