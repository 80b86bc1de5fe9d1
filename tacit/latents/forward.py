"""Forward models: from what was seen and a latent action to what comes after, in pixels or in features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.part import Part
from tacit.parts.conv import Mlp
from tacit.parts.keypoints import Repaint
from tacit.parts.mlp import Layers
from tacit.parts.slow import Slow
from tacit.parts.unet import UNet


class Onward(Part):
    """What every forward model promises beside its prediction: what it predicts of a frame, and what a miss costs."""

    denoises = False  # whether it is shown in training, under noise, what it is to say (as the keyword ``goal``)
    heeds = False  # whether its cost is shown the two frames (N, 2, ...) that it is about (as the keyword ``pair``)

    def wanted(self, frames: Tensor) -> Tensor:
        """What this is to predict of the next frames (N, ...): by default themselves."""
        return frames

    def cost(self, guess: Tensor, wanted: Tensor) -> Tensor:
        return F.mse_loss(guess, wanted)

    def follow(self, encoder: Part) -> None:
        """Take after the encoder that has just learnt; by default nothing here lags behind it."""


class Pixels(Onward):
    """Predicts the next picture itself."""


class Painted(Pixels):
    """The next picture by a U-Net over the stacked past, with the latent at both ends of the way down (LAPO)."""

    def __init__(self, *, frame: tuple[int, int], frames: int, dim: int, base: int = 24) -> None:
        super().__init__()
        self.net = UNet(channels=3 * frames, frame=frame, base=base, dim=dim)

    def wanted(self, frames: Tensor) -> Tensor:
        """The next pictures alone, of those that come with others before them in one stack."""
        return frames[:, -3:]

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        return self.net(seen.flatten(1, 2), z)


class Moved(Pixels):
    """The present picture repainted with its keypoints moved by the latent (ours)."""

    def __init__(self, *, frame: tuple[int, int], points: int, width: int = 32) -> None:
        super().__init__()
        self.net = Repaint(frame=frame, points=points, width=width)

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        return self.net(seen, features, z)


class Ahead(Onward):
    """The next frame's features as a slow copy of the encoder sees them; the inverse alone teaches it (LAOM)."""

    def __init__(
        self, *, encoder: Part, features: int, dim: int, width: int = 1024, blocks: int = 3, memory: float = 0.999
    ) -> None:
        super().__init__()
        self.slow = Slow(encoder, memory=memory)
        self.net = Mlp(inputs=features + dim, dim=features, width=width, depth=blocks, again=dim)

    def wanted(self, frames: Tensor) -> Tensor:
        with torch.no_grad():
            return self.slow(frames).float()

    def follow(self, encoder: Part) -> None:
        self.slow.follow(encoder)

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        return self.net(torch.cat([features[:, -1].detach(), z], -1))


class Change(Onward):
    """A forward model of features that do not learn: the present ones and what a latent adds to them."""

    def __init__(self, *, encoder: Part, features: int, dim: int, width: int = 192, depth: int = 2) -> None:
        if any(p.requires_grad for p in encoder.parameters()):
            raise ValueError(
                f"{type(encoder).__name__} learns, and what it learns would be to see nothing; predict what a slow "
                "copy of it sees (Ahead), or give an encoder that is frozen."
            )
        self.encoder = encoder
        self.net = Layers(inputs=features + dim, dim=features, width=width, depth=depth)

    def wanted(self, frames: Tensor) -> Tensor:
        """What this is to predict of the next pictures (N, C, H, W)."""
        return self.encoder(frames)

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        now = features[:, -1]
        return now + self.net(torch.cat([now, z], -1))
