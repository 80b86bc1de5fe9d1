"""Inverse models: from what was seen up to now and what came after, to what the bottleneck should pass on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.part import Part
from tacit.parts.conv import Impala, Mlp
from tacit.parts.mlp import Layers


class Stacked(Part):
    """A convolution over all frames of the window as one picture with many channels (LAPO)."""

    def __init__(self, *, frame: tuple[int, int], frames: int, dim: int, width: int = 4, features: int = 256) -> None:
        super().__init__()
        self.look = Impala(channels=3 * frames, frame=frame, width=width, dim=features)
        self.out = nn.Linear(features, dim)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:
        window = torch.cat([seen, goal[:, None]], 1).flatten(1, 2)
        return self.out(F.relu(self.look(window)))


class Pair(Part):
    """An MLP on the features of now and then, told both again before each of its blocks (LAOM)."""

    def __init__(self, *, features: int, dim: int, width: int = 1024, blocks: int = 3) -> None:
        super().__init__()
        self.net = Mlp(inputs=2 * features, dim=dim, width=width, depth=blocks)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:
        return self.net(torch.cat([seen[:, -1], goal], -1))


class Between(Part):
    """An inverse model of features that need no further look: a plain network on those of now and of then."""

    def __init__(self, *, features: int, dim: int, width: int = 192, depth: int = 2) -> None:
        self.net = Layers(inputs=2 * features, dim=dim, width=width, depth=depth)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:
        return self.net(torch.cat([seen[:, -1], goal], -1))


class Difference(Part):
    """Then minus now, in a code where that means something.

    Two latents in a row add up to the latent of both steps, the latent back is the latent forth reversed, and no
    change is zero: what others teach with extra losses holds here by construction.
    """

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.dim = features

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:
        return goal - seen[:, -1]
