"""A joystick for a body of many joints: what its two axes do depends on what is seen and on what was said."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, Space, each, floats
from tacit.part import Part
from tacit.spread import average


class Joystick(Part):
    """A conditional autoencoder of actions: given the scene and a sentence, ``dim`` numbers in [-1, 1] say the action.

    A person gives the numbers: the paper's axes of a stick. ``language`` turns texts into vectors (N, told). Without an
    encoder the scene is the state. ``neutral`` weighs how far the numbers of recorded actions lie from the middle.
    """

    def __init__(
        self,
        *,
        language: Part,
        told: int,
        space: Space,
        features: int,
        encoder: Part | None = None,
        dim: int = 2,
        width: int = 128,
        neutral: float = 1e-3,
    ) -> None:
        super().__init__()
        if space.discrete:
            raise ValueError(f"A joystick moves vectors, and the space is {space}; give data with continuous actions.")
        self.language, self.space, self.dim, self.neutral = language, space, dim, neutral
        self.encoder = None if encoder is None else copy.deepcopy(encoder).requires_grad_()
        self.inwards = _Told(features + space.size, dim, told=told, width=width)
        self.outwards = _Told(features + dim, space.size, told=told, width=width)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("fitted", torch.tensor(False))

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.actions is not None and clip.mask is not None
        if self.encoder is None and self.training and not self.fitted:  # the first batch sets the unit, once
            state = self._state(clip).float().flatten(0, 1)
            self.mean.copy_(average(state.mean(0)))
            self.spread.copy_(average((state - self.mean).square().mean(0)).sqrt().clamp(min=1e-6))
            self.fitted.fill_(True)
        known = clip.mask.flatten()
        scene, told = self._scene(clip)[:, :-1].flatten(0, 1)[known], self._said(clip, clip.time - 1)[known]
        actions = self._unit(clip.actions.flatten(0, 1)[known])
        z = self._stick(scene, actions, told)
        miss = F.mse_loss(self.outwards(torch.cat([scene, z], 1), told), actions)
        far = z.square().mean()
        return miss + self.neutral * far, {"miss": miss.detach(), "far": far.detach()}

    def held(self, clip: Clip) -> Tensor:
        """How a stick would have been held to do what was done: (B, T-1, dim)."""
        assert clip.actions is not None
        scene, told = self._scene(clip)[:, :-1].flatten(0, 1), self._said(clip, clip.time - 1)
        return self._stick(scene, self._unit(clip.actions.flatten(0, 1)), told).unflatten(0, clip.actions.shape[:2])

    def act(self, observation: Clip, z: Tensor) -> Tensor:
        """The action (B, A) of a stick held so (B, dim), in the last scene of each row and after what was said."""
        scene, told = self._scene(observation)[:, -1], self._said(observation, 1)
        said = self.outwards(torch.cat([scene, z.to(scene)], 1), told)
        half = (self.space.high - self.space.low) / 2
        return (said * half + self.space.low + half).clamp(self.space.low, self.space.high)

    def _stick(self, scene: Tensor, actions: Tensor, told: Tensor) -> Tensor:
        return torch.tanh(self.inwards(torch.cat([scene, actions], 1), told))

    def _scene(self, clip: Clip) -> Tensor:
        if self.encoder is None:
            return (self._state(clip).float() - self.mean) / self.spread
        if clip.frames is None:
            raise ValueError("This joystick looks at frames, and the clip has none; bring data that has.")
        return each(self.encoder, floats(clip.frames))

    def _state(self, clip: Clip) -> Tensor:
        if clip.state is None:
            raise ValueError("This joystick looks at the state, and the clip has none; give it an encoder of frames.")
        return clip.state

    def _said(self, clip: Clip, times: int) -> Tensor:
        if clip.text is None:
            raise ValueError("A joystick is told in words what is wanted, and the clip has no text.")
        vectors: Tensor = self.language(clip.text)
        return vectors.to(clip.device).repeat_interleave(times, 0)

    def _unit(self, actions: Tensor) -> Tensor:
        return (actions.float() - self.space.low) / (self.space.high - self.space.low) * 2 - 1


class _Told(nn.Module):
    """Two layers whose neurons are each scaled and shifted by what was said (FiLM, Perez et al. 2018)."""

    def __init__(self, inputs: int, dim: int, *, told: int, width: int) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, dim)
        self.film = nn.Linear(told, 4 * width)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift, again, on = self.film(told).chunk(4, -1)
        x = F.gelu(self.one(x) * (1 + scale) + shift)
        return self.out(F.gelu(self.two(x) * (1 + again) + on))
