"""Forward models of states, and what any forward model may be put inside: a present to add to, a mask to count by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import each
from tacit.latents.forward import Onward
from tacit.part import Part
from tacit.parts.mlp import Layers


class Stated(Onward):
    """The next state: the present one, and what its features and the latent say to add. It begins by adding nothing."""

    def __init__(self, *, state: int, features: int, dim: int, width: int = 256, depth: int = 2) -> None:
        self.net = Layers(inputs=features + dim, dim=state, width=width, depth=depth)
        for weight in self.net.net[-1].parameters():
            nn.init.zeros_(weight)  # states come in all units: by chance alone a change would be of another size

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        return self.along(seen[:, -1], features[:, -1], z)

    def along(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        """What follows each state (..., S), by its features and its latent alone."""
        return seen + self.net(torch.cat([features, z.type_as(features)], -1))


class Wrapped(Onward):
    """A forward model around another, which it leaves as it is but in what it says of itself."""

    def __init__(self, inner: Onward) -> None:
        self.inner, self.denoises, self.heeds = inner, inner.denoises, inner.heeds

    def wanted(self, frames: Tensor) -> Tensor:
        return self.inner.wanted(frames)

    def cost(self, guess: Tensor, wanted: Tensor, **told: Any) -> Tensor:
        return self.inner.cost(guess, wanted, **told)

    def follow(self, encoder: Part) -> None:
        self.inner.follow(encoder)

    def forward(self, seen: Tensor, features: Tensor, z: Tensor, **told: Any) -> Tensor:
        return self.inner(seen, features, z, **told)

    def along(self, seen: Tensor, features: Tensor, z: Tensor, **told: Any) -> Tensor:
        """What the inner one says along a clip."""
        return self.inner.along(seen, features, z, **told)


class Onto(Wrapped):
    """Predicts the change: what another forward model says is added to the present, as it wants to see it."""

    def __init__(self, inner: Onward) -> None:
        if inner.denoises:
            raise ValueError(
                f"{type(inner).__name__} is shown what it is to say, which is not the change; use it alone."
            )
        super().__init__(inner)

    def forward(self, seen: Tensor, features: Tensor, z: Tensor, **told: Any) -> Tensor:
        return self.wanted(seen[:, -1]) + self.inner(seen, features, z, **told)

    def along(self, seen: Tensor, features: Tensor, z: Tensor, **told: Any) -> Tensor:
        now = each(self.wanted, seen)
        return now + self.inner.along(seen, features, z, **told)


class Alone(Wrapped):
    """A forward model whose misses count only where a ``mask`` says so: the actor, and not the scenery (MaskLAM).

    ``mask`` is any part that makes weights (N, 1, H, W) from 0 to 1 of the two pictures (N, 2, C, H, W) of a
    transition, as ``Moving`` does; features in tokens count by the ``grid`` of their places. What lies outside counts
    ``rest`` as much: at 0 it is painted anyhow.
    """

    heeds = True

    def __init__(self, inner: Onward, mask: Part, *, grid: Sequence[int] | None = None, rest: float = 0.0) -> None:
        if inner.heeds or not 0 <= rest < 1:
            raise ValueError(f"Given {rest=} around {type(inner).__name__}; rest is a share, and one mask is enough.")
        super().__init__(inner)
        self.mask, self.grid, self.rest, self.heeds = mask.requires_grad_(False), grid, rest, True

    def cost(self, guess: Tensor, wanted: Tensor, *, pair: Tensor) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            weights = self.mask(pair).float().clamp(min=self.rest)
        if weights.shape != (len(pair), 1, *pair.shape[-2:]):
            wanted_ = (len(pair), 1, *pair.shape[-2:])
            raise ValueError(f"{type(self.mask).__name__} gave a mask {tuple(weights.shape)}; wanted {wanted_}.")
        if guess.ndim == 3:
            if self.grid is None or self.grid[0] * self.grid[1] != guess.shape[1]:
                raise ValueError(
                    f"Tokens {tuple(guess.shape)} are masked by their grid, which was given as {self.grid}."
                )
            weights = F.adaptive_avg_pool2d(weights, (self.grid[0], self.grid[1])).flatten(2).transpose(1, 2)
        elif guess.ndim != 4:
            raise ValueError(
                f"Alone masks pictures and tokens; {type(self.inner).__name__} predicts {tuple(guess.shape)}."
            )
        miss = (guess - wanted).square() * weights
        return miss.sum() / (weights.expand_as(miss).sum()).clamp(min=1e-6)
