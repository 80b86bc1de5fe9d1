"""Inverse models taught true actions: to label with, as the supervised opponent, and to learn an encoder by."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from tacit.clip import Clip, Episode, Space, each, floats
from tacit.data.episodes import Episodes
from tacit.part import Part
from tacit.parts.outputs import Head


class Supervised(Part):
    """Says which action led from one frame to the next, from features of both and of ``past`` frames before."""

    def __init__(self, *, encoder: Part, features: int, head: Head, past: int = 1) -> None:
        super().__init__()
        self.encoder, self.head = copy.deepcopy(encoder).requires_grad_(), head  # the caller's stays as it is
        self.past, self.features = past, features

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        cost = self.head.cost(self._told(clip), clip.actions.flatten(0, 1), known=clip.mask.flatten(0, 1))  # type: ignore[union-attr]
        return cost, {"miss": cost.detach()}

    def said(self, clip: Clip) -> Tensor:
        """The action of every transition, (B, T-1) or (B, T-1, A)."""
        return self.head.decide(self._told(clip)).unflatten(0, (len(clip), clip.time - 1))

    def _told(self, clip: Clip) -> Tensor:
        """Where things are now, and how they moved in each of the last steps: (B * (T-1), F * (past + 2))."""
        frames = floats(clip.frames)  # type: ignore[arg-type]
        seen = each(self.encoder, frames)
        time = torch.arange(clip.time - 1, device=clip.device)
        index = (time[:, None] + torch.arange(-self.past, 2, device=clip.device)).clamp(min=0)
        window = seen[:, index]  # (B, T-1, past + 2, F)
        moved = window[:, :, 1:] - window[:, :, :-1]
        return torch.cat([window[:, :, -2:-1], moved], 2).flatten(0, 1).flatten(1)


class Multistep(Part):
    """Says which action was taken first on the way from one frame to another, up to ``reach`` steps later.

    What is wanted of it is its encoder: over several steps only what actions bring about is of any help.
    """

    def __init__(self, *, encoder: Part, features: int, space: Space, reach: int = 4, width: int = 256) -> None:
        super().__init__()
        if reach < 1:
            raise ValueError(f"reach is {reach}; the later frame must lie at least 1 step ahead.")
        self.encoder, self.reach = copy.deepcopy(encoder).requires_grad_(), reach
        self.head = Head(features=2 * features + 1, space=space, width=width)

    @property
    def length(self) -> int:
        """How many frames a training clip needs for every distance to occur."""
        return self.reach + 1

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        batch, time = len(clip), clip.time - 1
        left = torch.arange(time, 0, -1, device=clip.device).clamp(max=self.reach)  # steps there are from each frame
        steps = 1 + (torch.rand(batch, time, device=clip.device) * left).long()
        said = self.told(clip, steps)
        cost = self.head.cost(said, clip.actions.flatten(0, 1), known=clip.mask.flatten(0, 1))  # type: ignore[union-attr]
        return cost, {"miss": cost.detach()}

    def told(self, clip: Clip, steps: Tensor) -> Tensor:
        """Each frame but the last, the one so many ``steps`` (B, T-1) later, and how many: (B * (T-1), 2 F + 1)."""
        frames = floats(clip.frames)  # type: ignore[arg-type]
        seen = each(self.encoder, frames)
        rows, now = (
            torch.arange(len(clip), device=clip.device)[:, None],
            torch.arange(clip.time - 1, device=clip.device),
        )
        far = (steps / self.reach)[..., None].type_as(seen)
        return torch.cat([seen[:, :-1], seen[rows, now + steps], far], -1).flatten(0, 1)


@torch.inference_mode()
def relabel(model: Supervised, data: Episodes, *, batch: int = 512) -> Episodes:
    """``data`` with ``model``'s word for every action, in memory."""
    model.eval()
    episodes: list[Episode] = []
    for number in range(len(data)):
        episode = data.episode(number)
        assert episode.frames is not None
        said = [model.head.space.blank(0)]  # a single frame has no transition
        for start in range(0, len(episode) - 1, batch):
            first = max(0, start - model.past)
            frames = torch.from_numpy(np.array(episode.frames[first : start + batch + 1]))[None].permute(0, 1, 4, 2, 3)
            said.append(model.said(Clip(frames=frames.to(model.device)))[0, start - first :].cpu().numpy())
        episodes.append(episode.replace(actions=np.concatenate(said)))
    return Episodes.of(episodes, space=data.spec.space, fps=data.spec.fps, name=data.spec.name)
