"""Behavioural cloning: of true actions, of pseudo-labels, or of latent actions that a decoder then makes real."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from tacit.clip import Clip, Space, each, floats, pasts, stacked
from tacit.part import Part
from tacit.parts.outputs import Head
from tacit.policies.policy import Memory, Policy, recall
from tacit.spread import average


class Cloning(Policy):
    """Says what the demonstrator would do, from the features of the present frame and ``past`` before it.

    With ``space`` the clip's recorded actions are cloned, elsewhere its latents, of which there are ``latent`` numbers.
    ``stack`` is how many frames the encoder sees as one picture.
    ``tuned=False`` leaves the encoder as it came.
    """

    def __init__(
        self,
        *,
        encoder: Part,
        features: int,
        space: Space | None = None,
        latent: int = 0,
        past: int = 1,
        stack: int = 1,
        width: int = 256,
        tuned: bool = True,
    ) -> None:
        super().__init__()
        if (space is None) == (latent == 0):
            raise ValueError("Cloning clones actions (give `space`) or latents (give `latent`): one of the two.")
        self.encoder, self.tuned = copy.deepcopy(encoder).requires_grad_(tuned), tuned
        self.latent, self.stack, self.past = latent, stack, past + stack - 1
        unbounded = Space("continuous", max(1, latent), -1.0, 1.0)
        self.head = Head(features=features * (past + 1), space=space or unbounded, width=width)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(latent))
        self.register_buffer("fitted", torch.tensor(False))

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        time = clip.time - 1
        index = pasts(time, self.past + 1 - self.stack)
        features = self._encoded(clip.frames[:, :-1])[:, index].flatten(0, 1).flatten(1)  # type: ignore[index]
        if self.latent:
            wanted = clip.latents.flatten(0, 1)  # type: ignore[union-attr]
            if self.training and not self.fitted:  # the first batch sets the unit, once
                self.mean.copy_(average(wanted.mean(0)))
                around = average((wanted - self.mean).square().mean(0))
                self.spread.copy_(around.mean().sqrt().clamp(min=1e-6).expand_as(self.spread))
                self.fitted.fill_(True)
            cost = (self.head(features) - (wanted - self.mean) / self.spread).square().mean()
        else:
            cost = self.head.cost(features, clip.actions.flatten(0, 1), known=clip.mask.flatten(0, 1))  # type: ignore[union-attr]
        return cost, {"miss": cost.detach()}

    def said(self, window: Tensor) -> Tensor:
        """What is cloned, for windows of bytes (B, past + 1, C, H, W): an action, or a latent."""
        features = self._encoded(window)[:, self.stack - 1 :].flatten(1)
        return self.head(features) * self.spread + self.mean if self.latent else self.head.decide(features)

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        window, _, memory = recall(observation, memory, past=self.past)
        return self.said(window), memory

    def _encoded(self, frames: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.tuned and torch.is_grad_enabled()):
            return each(self.encoder, floats(stacked(frames, self.stack)))


class Following(Policy):
    """Wishes for a latent action, and decodes it into a real one from what it sees and what just happened.

    ``latents`` is a latent action model and ``decoder`` what was fitted to it: used by their contracts, as one room
    does not import another.
    """

    def __init__(self, *, pilot: Cloning, latents: Part, decoder: Part) -> None:
        super().__init__()
        self.pilot, self.latents, self.decoder = pilot, latents, decoder
        self.past = max(pilot.past, latents.past + 1)  # type: ignore[operator]

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        window, count, memory = recall(observation, memory, past=self.past)
        wish = self.pilot.said(window[:, self.past - self.pilot.past :])
        just = self.latents.infer(Clip(frames=window[:, -2 - self.latents.past :]))[:, -1]  # type: ignore[operator]
        just = torch.where(count[:, None] > 0, just, torch.zeros_like(just))
        seen = self.latents.features(Clip(frames=window[:, -1 - self.latents.past :]))[:, -1]  # type: ignore[operator]
        return self.decoder(wish, just, seen), memory
