"""``Step``: what one training step of a latent action model came to, row by row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tacit.clip import Clip
from tacit.parts.quantize import Bottled


class Step(NamedTuple):
    """What one loss was made of, a row a transition: what the extra signals of a model are told."""

    clip: Clip  # as it was drawn, with all its frames
    ends: Tensor  # (N, 2) int64: the frames of its clip that each transition leads from and to
    found: Bottled  # (N, ...)
    features: Tensor  # (B, T', ...) as the forward model has them, of the frames that were looked at
    guess: Tensor
    wanted: Tensor
    present: Tensor  # what saying "nothing happens" would have said
    pair: Tensor | None = None  # (N, 2, ...): both ends of each transition as the forward model has them

    def now(self, x: Tensor) -> Tensor:
        """What ``x`` (B, T, ...) holds where each transition begins: (N, ...)."""
        return x[self._rows(x), self.ends[:, 0]]

    def at(self, x: Tensor) -> Tensor:
        """What ``x`` (B, T, ...) holds at both ends of each transition: (N, 2, ...)."""
        return x[self._rows(x)[:, None], self.ends]

    def _rows(self, x: Tensor) -> Tensor:
        return torch.arange(len(x), device=x.device).repeat_interleave(len(self.ends) // len(x))
