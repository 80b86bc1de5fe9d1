"""A world model that is sure of little: what it believes, expects after an action, and how well that explains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, Space, each, floats
from tacit.part import Part
from tacit.parts.mlp import Layers
from tacit.parts.normal import drawn, nats
from tacit.spread import average

Act = Callable[[Tensor], Tensor]  # from what is believed (B, hidden + unsure) to an action as it is fed in


class Evidence(NamedTuple):
    """How badly a course of actions explains what was seen, in nats a frame: together, minus the bound (ELBO)."""

    blur: Tensor  # what is seen and was not painted so
    surprise: Tensor  # how far what is believed on seeing it lies from what was expected


class Belief(Part):
    """A recurrent state-space model (Hafner et al. 2019): what is certain goes through a GRU, the rest is Gaussian.

    ``of`` says what is seen; frames want an ``encoder`` that makes ``features`` of each. ``grain`` is the deviation, in
    units of what is seen, below which a miss counts for little.
    """

    def __init__(
        self,
        *,
        space: Space,
        features: int,
        seen: int,
        encoder: Part | None = None,
        of: Literal["frames", "state"] = "frames",
        hidden: int = 128,
        unsure: int = 16,
        grain: float = 0.1,
    ) -> None:
        super().__init__()
        if (encoder is None) != (of == "state"):
            raise ValueError(f"A belief of {of} was given {encoder=}; frames want an encoder, and states none.")
        self.encoder = None if encoder is None else copy.deepcopy(encoder).requires_grad_()
        self.space, self.of, self.hidden, self.unsure, self.grain = space, of, hidden, unsure, grain
        self.turn = nn.GRUCell(unsure + space.size, hidden)
        self.expect = Layers(inputs=hidden, dim=2 * unsure, width=hidden, depth=1)
        self.notice = Layers(inputs=hidden + features, dim=2 * unsure, width=hidden, depth=1)
        self.show = Layers(inputs=hidden + unsure, dim=seen, width=hidden, depth=2)
        self.register_buffer("mean", torch.zeros(seen))
        self.register_buffer("spread", torch.tensor(1.0) if of == "frames" else torch.ones(seen))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def dim(self) -> int:
        """How many numbers a belief is."""
        return self.hidden + self.unsure

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.actions is not None and clip.mask is not None
        flat, _ = self.look(clip)
        if self.training and not self.fitted:  # the first batch sets the unit, once
            mean = average(flat.mean((0, 1)))
            around = average((flat - mean).square().mean((0, 1)))
            self.mean.copy_(mean)
            self.spread.copy_((around.mean() if self.of == "frames" else around).sqrt().clamp(min=1e-3))
            self.fitted.fill_(True)
        given = iter(self.fed(clip.actions).unbind(1))
        whole = clip.mask.all(1)  # what was done and is not known cannot be gone on from
        found = self.evidence(clip, lambda _: next(given))
        blur, surprise = ((x * whole).sum() / whole.sum().clamp(min=1) for x in found)
        return blur + surprise, {"blur": blur.detach(), "surprise": surprise.detach()}

    def evidence(self, clip: Clip, act: Act) -> Evidence:
        """What each row (B,) of a clip costs if ``act`` says, from what is believed, what was done at each step."""
        flat, features = self.look(clip)
        wanted = (flat - self.mean) / self.spread
        certain, held = flat.new_zeros(len(clip), self.hidden), flat.new_zeros(len(clip), self.unsure)
        blur, surprise = [], []
        for t in range(clip.time):
            if t:
                certain = self.turn(torch.cat([held, act(torch.cat([certain, held], 1))], 1), certain)
            expected, noticed = self.expect(certain), self.notice(torch.cat([certain, features[:, t]], 1))
            held = drawn(noticed) if self.training else noticed.chunk(2, 1)[0]
            shown = self.show(torch.cat([certain, held], 1))
            blur.append(F.mse_loss(shown, wanted[:, t], reduction="none").mean(1) / (2 * self.grain**2))
            surprise.append(nats(noticed, expected))
        return Evidence(torch.stack(blur).mean(0), torch.stack(surprise).mean(0))

    def believe(self, clip: Clip, before: Tensor, *, done: Tensor, begun: Tensor) -> Tensor:
        """What is believed (B, dim) on seeing one frame, after ``before`` and what was ``done``, if ``begun``."""
        certain, held = before.split([self.hidden, self.unsure], 1)
        certain = torch.where(begun[:, None], self.turn(torch.cat([held, done], 1), certain), 0.0)
        _, features = self.look(clip)
        noticed = self.notice(torch.cat([certain, features[:, 0]], 1))
        return torch.cat([certain, noticed.chunk(2, 1)[0]], 1)

    def look(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """What is to be explained (B, T, seen), and its features (B, T, F)."""
        found = clip.state if self.of == "state" else clip.frames
        if found is None:
            raise ValueError(f"This model looks at {self.of}, and the clip has none; record or bring data that has.")
        if self.encoder is None:
            return found.float(), (found.float() - self.mean) / self.spread
        seen = floats(found)
        return seen.flatten(2), each(self.encoder, seen)

    def fed(self, actions: Tensor) -> Tensor:
        """Actions as they are fed in: one of many as ones and noughts, a vector in half ranges around the middle."""
        if self.space.discrete:
            return F.one_hot(actions.clamp(min=0), self.space.size).float()
        return (actions.nan_to_num() - self.space.low) / (self.space.high - self.space.low) * 2 - 1
