"""Two bottlenecks side by side: one that has learnt and is done, and one that takes up what the first leaves over."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tacit.parts.quantize import Bottled, Bottleneck


class Beside(Bottleneck):
    """A bottleneck that learns beside one that no longer does; the latent is the new one's alone (UniVLA).

    What is given is first the old one's share. In training the forward model hears both, so that the new one need not
    say what the old one can. In ``alone`` of the samples it hears a learned ``blank`` in the old one's place, as it
    always will in use, and from those the new one learns nothing: they would ask it for what the old one says.
    """

    def __init__(self, old: Bottleneck, new: Bottleneck, *, alone: float = 0.1) -> None:
        if not 0 < alone < 1:
            raise ValueError(f"alone is {alone}; it wants a share between 0 and 1.")
        self.old, self.new, self.alone = copy.deepcopy(old).requires_grad_(False).eval(), new, alone
        self.width, self.dim = old.width + new.width, new.dim
        self.codes, self.starts, self.groups = new.codes, new.starts, getattr(new, "groups", 1)
        self.unit = new.unit
        self.blank = nn.Parameter(torch.zeros(old.dim))

    def bottle(self, x: Tensor) -> Bottled:
        given, rest = x.split([self.old.width, self.new.width], 1)
        old, new = self.old(given), self.new(rest)
        z, beside = new.z, old.z
        if self.training:
            lost = torch.rand(len(x), 1, device=x.device) < self.alone
            z, beside = torch.where(lost, z.detach(), z), torch.where(lost, self.blank, beside)
        metrics = new.metrics | {f"old.{name}": value for name, value in old.metrics.items()}
        return Bottled(z, new.loss, metrics, new.codes, beside)

    @property
    def identity(self) -> Tensor:
        nothing: Tensor = self.new.identity
        return nothing

    def compose(self, first: Tensor, then: Tensor) -> Tensor:
        both: Tensor = self.new.compose(first, then)
        return both

    def inverse(self, z: Tensor) -> Tensor:
        back: Tensor = self.new.inverse(z)
        return back

    def embed(self, codes: Tensor) -> Tensor:
        """The latent that the new one's codes stand for."""
        found: Tensor = self.new.embed(codes)
        return found

    def train(self, mode: bool = True) -> Beside:
        super().train(mode)
        self.old.eval()  # it neither counts nor sets codes down anew
        return self
