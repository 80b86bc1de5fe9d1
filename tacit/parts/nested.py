"""Nested dropout: a latent whose beginning means something by itself, so that one model serves at every size."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from tacit.parts.quantize import Bottled, Bottleneck

SETTLED = 0.9  # odds of keeping all once the order is settled


class Nested(Bottleneck):
    """Any bottleneck as an ordered list of ``slots`` of which a sample keeps the first few (FlexLAM, nested dropout).

    In training a sample keeps all with the odds ``whole``, and else a number drawn evenly from 1 up or from the
    ``powers`` of two; one learned vector stands for what is left out. Over the first ``settle`` steps the odds of
    keeping all come to ``SETTLED``: an order is found early, and what is dropped later bends the first slots, which
    would each rather say all there is to say. Trained, ``budget`` slots are kept, all of them where it is None; it may
    be set at any time. A code left out is the number past the last. Latents compose slot by slot, and what the
    budget leaves out stays left out.
    """

    def __init__(
        self,
        bottleneck: Bottleneck,
        *,
        slots: int = 8,
        draw: Literal["even", "powers"] = "even",
        whole: float = 0.1,
        settle: int = 0,
        budget: int | None = None,
    ) -> None:
        if settle < 0:
            raise ValueError(f"Nested was given {settle=}; it wants the steps in which its slots settle, 0 for never.")
        if slots < 2 or bottleneck.dim % slots or draw not in ("even", "powers") or not 0 < whole <= 1:
            raise ValueError(
                f"Nested was given {slots=} for {bottleneck.dim} numbers, {draw=} and {whole=}; it wants 2 or more "
                "slots of equal width, draw='even' or 'powers', and odds above 0 of keeping all."
            )
        self.piece = bottleneck.dim // slots
        starts = sorted({*bottleneck.starts, bottleneck.dim})
        cut = any(a // self.piece != (b - 1) // self.piece for a, b in pairwise(starts))
        if cut or self.piece % bottleneck.unit:
            raise ValueError(
                f"A symbol or a rotation of {type(bottleneck).__name__} tells more than one of {slots} slots; give it "
                f"{slots} groups, tokens or rotations (or a multiple), or Nested fewer slots."
            )
        self.bottleneck, self.slots, self.draw, self.odds = bottleneck, slots, draw, whole
        self.settle = settle
        self.width, self.dim, self.starts = bottleneck.width, bottleneck.dim, bottleneck.starts
        self.groups = getattr(bottleneck, "groups", 1)
        self.null = nn.Parameter(torch.zeros(self.piece))
        owners = torch.tensor([start // self.piece for start in self.starts], dtype=torch.int64)
        self.register_buffer("owners", owners, persistent=False)  # the slot of every symbol
        if settle:
            self.register_buffer("clock", torch.tensor(0))
        self.budget = budget

    @property
    def budget(self) -> int | None:
        """How many slots are kept once trained; None is all."""
        return self._budget

    @budget.setter
    def budget(self, slots: int | None) -> None:
        if slots is not None and not 1 <= slots <= self.slots:
            raise ValueError(f"A budget of {slots} was given; it wants 1 to {self.slots} slots, or None for all.")
        self._budget: int | None = slots
        self.arguments = {**self.arguments, "budget": slots}  # as saved, so used
        left_out = slots is not None and slots < self.slots
        self.codes = self.bottleneck.codes + left_out if self.bottleneck.codes else 0

    def after_step(self) -> None:
        super().after_step()
        if self.settle:
            self.clock.add_(1)

    def bottle(self, x: Tensor) -> Bottled:
        found = self.bottleneck.bottle(x)
        lengths = self._lengths(len(x), x.device)
        kept = torch.arange(self.slots, device=x.device) < lengths.unsqueeze(-1)
        codes = found.codes
        if codes is not None:
            codes = torch.where(kept[:, self.owners], codes, self.bottleneck.codes)
        metrics = {**found.metrics, "slots": lengths.float().mean()}
        return Bottled(self._filled(found.z, kept), found.loss, metrics, codes)

    @property
    def identity(self) -> Tensor:
        return self._budgeted(self.bottleneck.identity.to(self.null.device).expand(self.dim))

    def compose(self, first: Tensor, then: Tensor) -> Tensor:
        return self._budgeted(self.bottleneck.compose(first, then))

    def inverse(self, z: Tensor) -> Tensor:
        return self._budgeted(self.bottleneck.inverse(z))

    def embed(self, codes: Tensor) -> Tensor:
        """The latent (B, dim) that the codes stand for, those left out among them."""
        there = self.checked(codes) < self.bottleneck.codes
        kept = torch.zeros(len(codes), self.slots, dtype=torch.bool, device=codes.device)
        kept[:, self.owners] = there
        return self._filled(self.bottleneck.embed(torch.where(there, codes, 0)), kept)

    def _lengths(self, batch: int, device: torch.device) -> Tensor:
        """How many slots each sample keeps, (B,)."""
        if not self.training:
            return torch.full((batch,), self.budget or self.slots, device=device)
        if self.draw == "powers":
            drawn = 2 ** torch.randint(self.slots.bit_length(), (batch,), device=device)
        else:
            drawn = torch.randint(1, self.slots + 1, (batch,), device=device)
        return torch.where(torch.rand(batch, device=device) < self._chance(), self.slots, drawn)

    def _chance(self) -> Tensor | float:
        """The odds of keeping all, by now."""
        if not self.settle:
            return self.odds
        return self.odds + (SETTLED - self.odds) * (self.clock / self.settle).clamp(max=1)

    def _filled(self, z: Tensor, kept: Tensor) -> Tensor:
        return torch.where(kept.unsqueeze(-1), z.unflatten(-1, (self.slots, self.piece)), self.null).flatten(-2)

    def _budgeted(self, z: Tensor) -> Tensor:
        """``z`` (..., dim) with nothing said in the slots that no latent in use has."""
        return self._filled(z, torch.arange(self.slots, device=z.device) < (self.budget or self.slots))


def shortest(scores: Mapping[int, float], *, within: float = 0.02) -> int:
    """The smallest budget whose held-out score (more is better) falls short of the best by at most ``within``."""
    if not scores or within < 0:
        raise ValueError(
            f"Given {len(scores)} scores and within={within}; wanted a score for some budgets, and 0 or more."
        )
    return min(budget for budget, score in scores.items() if score >= max(scores.values()) - within)
