"""Acting by foresight: say where things will be, then which action leads there."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip, Space, each, floats, pasts
from tacit.part import Part
from tacit.parts.mlp import Layers
from tacit.parts.outputs import Head
from tacit.policies.policy import Memory, Policy, recall
from tacit.spread import average


class Predictive(Policy):
    """Forecasts how the features of the present frame will change, and infers the action that changes them so.

    ``paint`` repaints a frame with its features changed: that is what all video teaches the encoder. All video teaches
    the forecast too. Labels teach the inverse, on changes that were seen and, ``closed`` times as much, on those that
    were forecast, and so teach the forecast what matters.
    """

    hindsight = True

    def __init__(
        self,
        *,
        encoder: Part,
        features: int,
        paint: Part,
        space: Space,
        past: int = 1,
        width: int = 256,
        closed: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.paint, self.past, self.closed = copy.deepcopy(encoder).requires_grad_(), paint, past, closed
        self.foresee = Layers(inputs=features * (past + 1), dim=features, width=width)
        self.head = Head(features=2 * features, space=space, width=width)
        self.register_buffer("scale", torch.tensor(0.0))  # mean squared change of the pictures
        self.register_buffer("unit", torch.tensor(0.0))  # mean squared change of the features

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        seen = floats(clip.frames)  # type: ignore[arg-type]
        here = each(self.encoder, seen)
        before, after = seen[:, :-1].flatten(0, 1), seen[:, 1:].flatten(0, 1)
        now, move = here[:, :-1].flatten(0, 1), (here[:, 1:] - here[:, :-1]).flatten(0, 1)
        if self.training:
            first = 1.0 if not self.scale else 0.01
            self.scale.lerp_(average(F.mse_loss(before, after)), first)
            self.unit.lerp_(average(move.detach().square().mean()), first)
        painted = F.mse_loss(self.paint(before[:, None], now[:, None], move), after) / self.scale.clamp(min=1e-6)
        index = pasts(clip.time - 1, self.past)
        foretold = self.foresee(here[:, index].flatten(0, 1).flatten(1))
        true = move / self._unit
        missed = F.mse_loss(foretold, true.detach())
        actions, known = clip.actions.flatten(0, 1), clip.mask.flatten(0, 1)  # type: ignore[union-attr]
        told = self.head.cost(torch.cat([now, true], 1), actions, known=known)
        acted = self.head.cost(torch.cat([now, foretold], 1), actions, known=known)
        metrics = {"fvu": painted, "forecast": missed, "inverse": told, "miss": acted}
        return painted + missed + told + self.closed * acted, {k: v.detach() for k, v in metrics.items()}

    def foretold(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """The present features (B, F) and how they are going to change, of windows of bytes (B, past + 1, C, H, W)."""
        here = each(self.encoder, floats(window))
        return here[:, -1], self.foresee(here.flatten(1)) * self._unit

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        window, _, memory = recall(observation, memory, past=self.past)
        now, move = self.foretold(window)
        return self.head.decide(torch.cat([now, move / self._unit], 1)), memory

    @property
    def _unit(self) -> Tensor:
        return self.unit.sqrt().clamp(min=1e-6)
