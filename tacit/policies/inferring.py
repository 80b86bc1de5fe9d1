"""Acting as what was seen is best explained: a policy taught by a world model, and by no label."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip
from tacit.part import Part
from tacit.parts.mlp import Layers
from tacit.parts.normal import drawn, nats
from tacit.policies.policy import Memory, Policy


class Inferring(Policy):
    """Proposes actions from what a frozen ``world`` believes, and learns those that best explain what came of them.

    The world is used by its contract: ``evidence`` and ``believe`` of a state-space model, and ``fed``. Vectors are
    drawn with a gradient to their mean and deviation, choices as one of many with the gradient of the soft choice
    (Gumbel). ``weight`` holds what is proposed to what one would say without seeing anything.
    """

    hindsight = True

    def __init__(self, *, world: Part, width: int = 128, weight: float = 1e-3, heat: float = 1.0) -> None:
        super().__init__()
        self.world, self.weight, self.heat = copy.deepcopy(world).requires_grad_(False), weight, heat
        self.space = world.space
        size = self.space.size if self.space.discrete else 2 * self.space.size
        self.net = Layers(inputs=world.dim, dim=size, width=width)

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        costs: list[Tensor] = []

        def act(belief: Tensor) -> Tensor:
            said = self.net(belief)
            costs.append(self._nats(said))
            return self._drawn(said)

        found = self.world.evidence(clip, act)  # type: ignore[operator]
        blur, surprise, bold = found.blur.mean(), found.surprise.mean(), torch.stack(costs).mean()
        metrics = {"blur": blur.detach(), "surprise": surprise.detach(), "bold": bold.detach()}
        return blur + surprise + self.weight * bold, metrics

    def start(self, batch: int) -> Memory:
        memory = {"belief": torch.zeros(batch, self.world.dim), "done": torch.zeros(batch, self.space.size)}
        return {**memory, "begun": torch.zeros(batch, dtype=torch.bool)}

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        memory = self.start(len(observation)) if memory is None else memory
        kept = {k: v.to(observation.device) for k, v in memory.items()}
        belief = self.world.believe(observation, kept["belief"], done=kept["done"], begun=kept["begun"])  # type: ignore[operator]
        said = self.net(belief)
        if self.space.discrete:
            action = said.argmax(1)
        else:
            half = (self.space.high - self.space.low) / 2
            action = (torch.tanh(said.chunk(2, 1)[0]) + 1) * half + self.space.low
        done = self.world.fed(action)  # type: ignore[operator]
        return action, {"belief": belief, "done": done, "begun": torch.ones_like(kept["begun"])}

    def _drawn(self, said: Tensor) -> Tensor:
        if self.space.discrete:
            return F.gumbel_softmax(said, tau=self.heat, hard=True)
        return torch.tanh(drawn(said))

    def _nats(self, said: Tensor) -> Tensor:
        """How far what is proposed (B, ...) is from every choice alike, or from the unit Gaussian: (B,)."""
        if self.space.discrete:
            chances = said.log_softmax(1)
            return (chances.exp() * chances).sum(1) + math.log(self.space.size)
        return nats(said)
