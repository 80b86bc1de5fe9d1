"""Dreams: new video from a latent action model and what it expects to be done, a frame at a time."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip, Episode
from tacit.data.episodes import Episodes
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.parts.mlp import Layers
from tacit.parts.normal import drawn, parted
from tacit.spread import average


class Dreamer(Part):
    """A small generator of video: a prior of latent actions, given what is seen, drives a frozen latent action model.

    The prior is one Gaussian for each frame, so that what is done varies as it did in the video it was learnt from.
    """

    def __init__(self, *, latents: LatentActions, features: int, width: int = 128) -> None:
        super().__init__()
        self.latents = copy.deepcopy(latents).requires_grad_(False)
        self.prior = Layers(inputs=features, dim=2 * latents.dim, width=width)
        self.register_buffer("mean", torch.zeros(latents.dim))
        self.register_buffer("spread", torch.ones(latents.dim))
        self.register_buffer("fitted", torch.tensor(False))

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            z = self.latents.infer(clip).flatten(0, 1)
            seen = self.latents.features(clip)[:, :-1].flatten(0, 1)
        if self.training and not self.fitted:  # the first batch sets the unit, once
            self.mean.copy_(average(z.mean(0)))
            self.spread.copy_(average((z - self.mean).square().mean(0)).sqrt().clamp(min=1e-6))
            self.fitted.fill_(True)
        mean, spread = parted(self.prior(seen))
        off = ((z - self.mean) / self.spread - mean) / spread.exp()
        cost = (0.5 * off.square() + spread).mean()
        return cost, {"unlikely": cost.detach()}

    def expected(self, seen: Tensor) -> Tensor:
        """A latent action drawn for each frame's features (B, F): (B, D)."""
        return drawn(self.prior(seen)) * self.spread + self.mean

    def train(self, mode: bool = True) -> Dreamer:
        super().train(mode)
        self.latents.eval()  # what is frozen neither samples nor counts
        return self


@torch.no_grad()
def dream(
    dreamer: Dreamer, data: Episodes, *, count: int, length: int = 16, seed: int = 0, borrowed: bool = False
) -> Episodes:
    """``count`` new episodes of ``length`` frames, each begun with a real frame of ``data`` (and the past it wants).

    What is done in them is drawn from the prior or, ``borrowed``, was done in another stretch of ``data``. What comes
    of it is predicted frame by frame, each from bytes as they would be recorded, so that no number hides in between.
    """
    model, clips = dreamer.latents.eval(), data.unlabelled().clips(dreamer.latents.past + length)
    random = np.random.default_rng(seed)
    rows, others = (random.integers(len(clips), size=count) for _ in range(2))  # type: ignore[arg-type]
    episodes: list[Episode] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for first in range(0, count, 64):
            part = slice(first, first + 64)
            begun = clips.batch(rows[part]).steps(0, model.past + 1).frames.to(model.device)  # type: ignore[union-attr]
            lent = model.infer(clips.batch(others[part]).to(model.device)) if borrowed else None  # type: ignore[union-attr]
            frames = _dreamt(dreamer, begun, length, lent=lent)
            bytes_ = frames[:, model.past :].permute(0, 1, 3, 4, 2).cpu().numpy()
            episodes += [Episode(frames=np.ascontiguousarray(film), source="dream") for film in bytes_]
    return Episodes.of(episodes, space=data.spec.space, fps=data.spec.fps, name="dreams")


def _dreamt(dreamer: Dreamer, frames: Tensor, length: int, *, lent: Tensor | None) -> Tensor:
    """Bytes (B, past + length, C, H, W) that begin with ``frames`` (B, past + 1, ...)."""
    model = dreamer.latents
    for step in range(length - 1):
        window = frames[:, -1 - model.past :]
        clip = Clip(frames=torch.cat([window, window[:, -1:]], 1))  # the last is not looked at: it is to be predicted
        z = dreamer.expected(model.features(clip)[:, -2]) if lent is None else lent[:, model.past + step]
        after = model.predict(clip, F.pad(z[:, None], (0, 0, model.past, 0)))[:, -1]
        if after.shape[1:] != frames.shape[2:]:
            raise ValueError(
                f"This model predicts {tuple(after.shape[1:])} and not pictures {tuple(frames.shape[2:])}; dream with "
                "one whose forward model paints, such as those of the recipes tacit and lapo."
            )
        painted = ((after + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)
        frames = torch.cat([frames, painted[:, None]], 1)
    return frames
