"""A forward model that finds the next picture under noise, a little clearer at each of a few steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.latents.forward import Pixels
from tacit.latents.hindsight import share
from tacit.parts.attention import SMALL, Stack, agree
from tacit.parts.noise import Schedule, denoised, spoilt
from tacit.parts.patches import Patches, Pictures

CONTRAST = 2.0  # pictures from -0.5 to 0.5 are weak beside noise of deviation one
RATES = 16  # waves in which a level is told


class Denoised(Pixels):
    """The next picture from noise (diffusion): shown it under noise in training, and asked for it as it is.

    It sees the patches of the present picture under those of the noise, and hears the latent as so many ``tokens``.
    With ``code`` it sees no present picture: the latent is a step in the features, and where they are then is heard
    (StaMo). A prediction goes from one noise that never changes, in ``steps`` steps: it is as repeatable as any other.
    """

    denoises = True
    noise: Tensor

    def __init__(
        self,
        *,
        frame: tuple[int, int],
        patch: int,
        dim: int,
        tokens: int = 2,
        code: bool = False,
        steps: int = 4,
        schedule: Schedule = "cosine",
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
    ) -> None:
        self.dim, self.code, self.steps, self.schedule = dim, code, steps, schedule
        self.cut = Patches(frame=frame, patch=patch, dim=width, channels=3 if code else 6, learned=False)
        self.acts, self.slots = nn.Linear(share(dim, tokens), width), nn.Parameter(SMALL * torch.randn(tokens, width))
        self.when = nn.Sequential(nn.Linear(2 * RATES, width), nn.GELU(), nn.Linear(width, width))
        self.body = Stack(width, layers=layers, heads=heads, others=width)
        self.paint = Pictures(frame=frame, patch=patch, dim=width)
        self.register_buffer("noise", torch.randn(1, 3, *frame))

    def forward(self, seen: Tensor, features: Tensor, z: Tensor, *, goal: Tensor | None = None) -> Tensor:
        agree(z, (None, self.dim), name="Latents")
        where = features[:, -1].flatten(1) + z if self.code else z
        heard = self.acts(where.unflatten(1, (len(self.slots), -1))) + self.slots
        present = None if self.code else seen[:, -1] * CONTRAST
        if goal is None:
            start = self.noise.expand(len(z), -1, -1, -1)
            found = denoised(
                lambda x, level: self._clean(x, level, present, heard), start, steps=self.steps, schedule=self.schedule
            )
        else:
            level = torch.rand(len(z), device=z.device).sqrt()  # more often much noise: there the latent is needed
            noisy = spoilt(goal * CONTRAST, torch.randn_like(goal), level=level, schedule=self.schedule)
            found = self._clean(noisy, level, present, heard)
        return found / CONTRAST

    def _clean(self, noisy: Tensor, level: Tensor, present: Tensor | None, heard: Tensor) -> Tensor:
        """The picture behind ``noisy``, and what the present one has to say of it."""
        shown = noisy if present is None else torch.cat([noisy, present], 1)
        x = self.cut(shown) + self.when(_waves(level))[:, None]
        return self.paint(self.body(x, heard))


def _waves(level: Tensor) -> Tensor:
    """Levels (N,) as sines and cosines (N, 2 * RATES) of ever faster waves."""
    angles = level[:, None] * torch.logspace(0, 2, RATES, device=level.device)
    return torch.cat([angles.sin(), angles.cos()], 1)
