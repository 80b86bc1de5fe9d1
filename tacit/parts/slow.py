"""``Slow``: a copy of a part that follows it at a distance, for targets that must not run away."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tacit.part import Part


class Slow(Part):
    """A frozen moving average of a part; the owner calls ``follow`` with the original in its own ``after_step``."""

    def __init__(self, part: Part, memory: float = 0.999) -> None:
        if not 0 <= memory <= 1:
            raise ValueError(f"memory is {memory}; it must lie in [0, 1]: 0 copies at once, 1 never moves.")
        self.memory = memory
        self.part = copy.deepcopy(part).requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.part(*args, **kwargs)

    @torch.no_grad()
    def follow(self, source: Part) -> None:
        """Move the weights a little towards ``source``; what is counted and not learned is copied."""
        mine, theirs = dict(self.part.named_parameters()), dict(source.named_parameters())
        if mine.keys() != theirs.keys():
            odd = sorted(mine.keys() ^ theirs.keys())
            raise ValueError(
                f"Slow cannot follow a part with other weights ({', '.join(odd[:3])}); "
                "give the part that it was copied from."
            )
        if mine:
            torch._foreach_lerp_(list(mine.values()), [theirs[name].detach() for name in mine], 1 - self.memory)
        for name, buffer in source.named_buffers():
            self.part.get_buffer(name).copy_(buffer)

    def after_step(self) -> None:
        """Nothing of its own: only the owner knows whom to follow."""

    def train(self, mode: bool = True) -> Slow:
        super().train(mode)
        self.part.eval()  # a target neither samples nor counts
        return self
