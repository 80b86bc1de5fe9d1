"""Forward models: from what was seen and a latent action to what comes after, in pixels or in features."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.part import Part
from tacit.parts.conv import Mlp
from tacit.parts.keypoints import Repaint
from tacit.parts.slow import Slow
from tacit.parts.unet import UNet


class Pixels(Part):
    """Predicts the next picture itself."""

    def wanted(self, frames: Tensor) -> Tensor:
        return frames

    def follow(self, encoder: Part) -> None:
        """Nothing here lags behind the encoder."""


class Painted(Pixels):
    """The next picture by a U-Net over the stacked past, with the latent at both ends of the way down (LAPO)."""

    def __init__(self, *, frame: tuple[int, int], frames: int, dim: int, base: int = 24) -> None:
        super().__init__()
        self.net = UNet(channels=3 * frames, frame=frame, base=base, dim=dim)

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        return self.net(seen.flatten(1, 2), z)


class Moved(Pixels):
    """The present picture repainted with its keypoints moved by the latent (ours)."""

    def __init__(self, *, frame: tuple[int, int], points: int, width: int = 32) -> None:
        super().__init__()
        self.net = Repaint(frame=frame, points=points, width=width)

    def forward(self, seen: Tensor, features: Tensor, z: Tensor) -> Tensor:
        return self.net(seen, features, z)


class Ahead(Part):
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
