"""One face for what a network says about actions, whether they are choices or vectors."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Space
from tacit.part import Part


class Head(Part):
    """Reads actions from features: scores of the choices, or the mean of the vector; ``width=0`` is linear."""

    def __init__(self, *, features: int, space: Space, width: int = 0) -> None:
        super().__init__()
        self.space = space
        self.net: nn.Module = nn.Linear(features, space.size)
        if width:
            self.net = nn.Sequential(
                nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, space.size)
            )

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features).float()

    def cost(self, features: Tensor, actions: Tensor, *, known: Tensor) -> Tensor:
        """Cross-entropy, or squared error in half ranges of the action, over the rows that are ``known``."""
        said = self(features)
        if not known.any():
            return said.sum() * 0.0  # a gradient of zero, so that every process still agrees on which weights have one
        if self.space.discrete:
            return F.cross_entropy(said[known], actions[known])
        half = (self.space.high - self.space.low) / 2
        return ((said[known] - actions[known].float()) / half).square().mean()

    def decide(self, features: Tensor) -> Tensor:
        """The likeliest choice, or the mean inside the bounds."""
        said = self(features)
        return said.argmax(-1) if self.space.discrete else said.clamp(self.space.low, self.space.high)
