"""Bottlenecks: what a latent action may be, from anything at all to one of a few codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit import spread
from tacit.part import Part


class Bottled(NamedTuple):
    """What comes through a bottleneck: the latent, what it cost, what to watch, and the codes where there are any."""

    z: Tensor  # (B, dim)
    loss: Tensor
    metrics: dict[str, Tensor]
    codes: Tensor | None = None  # (B, tokens of all groups), int64


class Bottleneck(Part):
    """What all bottlenecks share: ``width`` numbers go in, ``dim`` come out, and the sums are done in float32."""

    width: int
    dim: int

    def forward(self, x: Tensor) -> Bottled:  # type: ignore[override]
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ValueError(
                f"{type(self).__name__} was given {tuple(x.shape)} and wants (B, {self.width}); "
                f"let the layer before it put out {self.width} numbers."
            )
        with torch.autocast(x.device.type, enabled=False):
            return self.bottle(x.float())

    def bottle(self, x: Tensor) -> Bottled:
        """Squeeze (B, width) float32 numbers."""
        raise TypeError(f"{type(self).__name__} does not say how it squeezes; give it a method `bottle`.")


class Free(Bottleneck):
    """No bottleneck but the width, and in training a little noise, so that no meaning hides in the last digits."""

    def __init__(self, width: int, *, noise: float = 0.0) -> None:
        self.width, self.dim, self.noise = width, width, noise

    def bottle(self, x: Tensor) -> Bottled:
        z = x + self.noise * torch.randn_like(x) if self.training and self.noise else x
        return Bottled(z, x.new_zeros(()), {"spread": x.detach().std(0, correction=0).mean()})


class Gaussian(Bottleneck):
    """A noisy latent that pays for every nat it carries beyond ``floor`` a dimension; without noise once trained."""

    def __init__(self, dim: int, *, beta: float = 1e-3, floor: float = 0.0) -> None:
        if beta < 0 or floor < 0:
            raise ValueError(f"beta is {beta} and floor is {floor}; neither may be negative.")
        self.width, self.dim, self.beta, self.floor = 2 * dim, dim, beta, floor

    def bottle(self, x: Tensor) -> Bottled:
        mean, spread_log = x.chunk(2, 1)
        variance_log = spread_log.clamp(-12, 8)
        cost = 0.5 * (mean.square() + variance_log.exp() - 1 - variance_log).mean(0)  # nats a dimension
        z = mean + (variance_log / 2).exp() * torch.randn_like(mean) if self.training else mean
        nats = cost.detach()
        metrics = {"nats": nats.sum(), "alive": (nats > 0.05).float().mean()}
        return Bottled(z, self.beta * cost.clamp(min=self.floor).sum(), metrics)


class VQ(Bottleneck):
    """Discrete latents: ``groups`` books of ``codes``, each read by ``tokens`` symbols, as in LAPO.

    The books are no weights: they follow the mean of what chose them. A code that nothing chose for ``patience``
    steps is set down anew on something the encoder lately said, for as long as training lasts. All that is
    counted is summed over the processes and every choice is rank 0's, so the books are the same everywhere.
    """

    book: Tensor
    counts: Tensor
    sums: Tensor
    hits: Tensor
    heaps: Tensor
    idle: Tensor
    recent: Tensor
    resets: Tensor
    clock: Tensor

    def __init__(
        self,
        *,
        groups: int = 2,
        tokens: int = 4,
        dim: int = 16,
        codes: int = 64,
        decay: float = 0.999,
        commitment: float = 0.05,
        patience: int = 20,
        every: int = 5,
        memory: int = 1024,
    ) -> None:
        if min(groups, tokens, dim, patience, every) < 1 or codes < 2:
            raise ValueError(
                f"VQ needs at least 2 codes and one of all else; "
                f"it was given {groups=}, {tokens=}, {dim=}, {codes=}, {patience=}, {every=}."
            )
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must lie in [0, 1).")
        self.groups, self.tokens, self.codes = groups, tokens, codes
        self.decay, self.commitment, self.patience, self.every = decay, commitment, patience, every
        self.width = self.dim = groups * tokens * dim
        self.register_buffer("book", torch.randn(groups, codes, dim))
        self.register_buffer("counts", torch.ones(groups, codes))  # moving averages, and below what they will take up
        self.register_buffer("sums", self.book.clone())
        self.register_buffer("hits", torch.zeros(groups, codes))
        self.register_buffer("heaps", torch.zeros(groups, codes, dim))
        self.register_buffer("idle", torch.zeros(groups, codes, dtype=torch.int64))  # steps since last chosen
        self.register_buffer("recent", torch.zeros(groups, max(memory, 4 * codes), dim))
        self.register_buffer("resets", torch.zeros((), dtype=torch.int64))
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64))  # steps taken, plus one for having begun
        self.ticks, self.begun = 0, False  # the clock as plain values, which a GPU need not be asked for
        self.register_load_state_dict_post_hook(_wind)

    def bottle(self, x: Tensor) -> Bottled:
        x_gnd = x.view(len(x), self.groups, self.tokens, -1).transpose(0, 1).flatten(1, 2)  # N: samples by tokens
        if self.training and not self.begun:
            self._begin(x_gnd.detach())
        with torch.no_grad():
            codes_gn = torch.cdist(x_gnd, self.book, compute_mode=EXACT).argmin(-1)
            chosen_gnk = F.one_hot(codes_gn, self.codes).to(x.dtype)
            hits_gk = chosen_gnk.sum(1)
            if self.training:
                self.hits += hits_gk
                self.heaps += chosen_gnk.mT @ x_gnd
                self._remember(x_gnd)
        q_gnd = self._read(codes_gn)
        z_gnd = x_gnd + (q_gnd - x_gnd).detach()  # straight through: the gradient of the code is the encoder's
        loss = self.commitment * F.mse_loss(x_gnd, q_gnd)
        metrics = {**_tally(hits_gk), "dead": (self.idle >= self.patience).sum(), "resets": self.resets.clone()}
        codes = codes_gn.view(self.groups, len(x), self.tokens).transpose(0, 1).flatten(1)
        return Bottled(self._joined(z_gnd, len(x)), loss, metrics, codes)

    def embed(self, codes: Tensor) -> Tensor:
        """The latent (B, dim) that the codes (B, groups * tokens) stand for."""
        if codes.ndim != 2 or codes.shape[1] != self.groups * self.tokens:
            raise ValueError(
                f"VQ.embed was given codes of shape {tuple(codes.shape)}; wanted (B, {self.groups * self.tokens})."
            )
        codes_gn = codes.view(len(codes), self.groups, self.tokens).transpose(0, 1).flatten(1)
        return self._joined(self._read(codes_gn), len(codes))

    @torch.no_grad()
    def after_step(self) -> None:
        """Take up what the step counted, and set down anew the codes that nothing chooses."""
        if not self.training or not self.begun:
            return
        tally = spread.total(torch.cat([self.hits.unsqueeze(-1), self.heaps], -1))
        hits, heaps = tally[..., 0], tally[..., 1:]
        self.counts.lerp_(hits, 1 - self.decay)
        self.sums.lerp_(heaps, 1 - self.decay)
        self.book.copy_(self.sums / _smoothed(self.counts).unsqueeze(-1))
        self.idle.add_(1).mul_(hits == 0)
        self.hits.zero_()
        self.heaps.zero_()
        self.ticks += 1
        self.clock += 1
        if self.ticks % self.every == 0:  # asking is a wait for the GPU, so not at every step
            dead = self.idle >= self.patience
            if dead.any():
                self._replace(dead)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _begin(self, x_gnd: Tensor) -> None:
        """Fill the memory and the books from the first batch there is."""
        repeats = -(-self.recent.shape[1] // x_gnd.shape[1])
        self.recent.copy_(x_gnd.repeat(1, repeats, 1)[:, : self.recent.shape[1]])
        self.ticks, self.begun = 1, True
        self.clock.fill_(1)
        # Light at first, so that the books go where the data are within steps and not after a thousand.
        symbols = spread.total(torch.full_like(self.counts, x_gnd.shape[1]))
        self.counts.copy_((1 - self.decay) * symbols / self.codes)
        self._replace(torch.ones_like(self.idle, dtype=torch.bool))
        self.resets.zero_()

    def _remember(self, x_gnd: Tensor) -> None:
        kept = self.recent.shape[1]
        self.recent.copy_(torch.cat([x_gnd[:, :kept], self.recent], 1)[:, :kept])

    def _replace(self, dead: Tensor) -> None:
        """Put every dead code on a recent encoder output, far from the other codes, and none on top of another."""
        fresh = self.book.clone()
        for group in range(self.groups):
            where = dead[group].nonzero().flatten()
            if len(where):
                living = self.book[group, ~dead[group]]
                fresh[group, where] = _apart(self.recent[group], living, count=len(where))
        self.book.copy_(spread.agreed(fresh))
        # A code reborn weighs what one average step would give it: the first that choose it move it freely.
        light = (self.counts.mean(1, keepdim=True) * (1 - self.decay)).clamp(min=1e-3).expand_as(self.counts)
        self.counts.copy_(torch.where(dead, light, self.counts))
        self.sums.copy_(self.book * _smoothed(self.counts).unsqueeze(-1))
        self.idle.masked_fill_(dead, 0)
        self.resets += dead.sum()

    def _read(self, codes_gn: Tensor) -> Tensor:
        return torch.gather(self.book, 1, codes_gn.unsqueeze(-1).expand(-1, -1, self.book.shape[-1]))

    def _joined(self, z_gnd: Tensor, batch: int) -> Tensor:
        return z_gnd.view(self.groups, batch, -1).transpose(0, 1).flatten(1)


class FSQ(Bottleneck):
    """Codes without a book: each number is rounded to one of its levels; nothing to collapse."""

    codes: int

    def __init__(self, levels: Sequence[int], *, groups: int = 1) -> None:
        if not levels or min(levels) < 2 or groups < 1:
            raise ValueError(
                f"FSQ was given levels {tuple(levels)} in {groups} groups; "
                "it wants at least one of each, and no level below 2."
            )
        if math.prod(levels) > 2**20:
            raise ValueError(
                f"FSQ levels {tuple(levels)} make {math.prod(levels)} codes; take fewer levels and more groups."
            )
        self.levels, self.groups, self.codes = tuple(levels), groups, math.prod(levels)
        self.width = self.dim = groups * len(self.levels)

    def bottle(self, x: Tensor) -> Bottled:
        levels = torch.tensor(self.levels, device=x.device, dtype=x.dtype)
        half = torch.div(levels, 2, rounding_mode="floor")
        reach = (levels - 1) * (1 + 1e-3) / 2  # a hair beyond the outermost level, so that it can be reached
        offset = (1 - levels % 2) / 2  # an even number of levels has none in the middle
        x_bgl = x.view(len(x), self.groups, -1)
        # Nought comes out as nought, where there are levels enough to give it one; two levels part at nought.
        bounded = torch.tanh(x_bgl + torch.atanh(offset / reach) * (levels > 2)) * reach - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        digits = (rounded.detach().round() + half).long()
        codes = (digits * self._places(x.device)).sum(-1)
        hits = torch.zeros(self.groups, self.codes, device=x.device)
        hits.scatter_add_(1, codes.T, torch.ones_like(codes.T, dtype=hits.dtype))
        return Bottled(self._valued(rounded), x.new_zeros(()), _tally(hits), codes)

    def embed(self, codes: Tensor) -> Tensor:
        """The latent (B, dim) that the codes (B, groups) stand for."""
        if codes.ndim != 2 or codes.shape[1] != self.groups:
            raise ValueError(f"FSQ.embed was given codes of shape {tuple(codes.shape)}; wanted (B, {self.groups}).")
        levels = torch.tensor(self.levels, device=codes.device)
        digits = codes.unsqueeze(-1) // self._places(codes.device) % levels
        return self._valued((digits - levels // 2).float())

    def _valued(self, rounded: Tensor) -> Tensor:
        """Whole numbers around nought as the numbers from -1 to 1 that the latent is made of."""
        levels = torch.tensor(self.levels, device=rounded.device)
        return torch.where(levels == 2, 2 * rounded + 1, rounded / (levels // 2)).flatten(1)

    def _places(self, device: torch.device) -> Tensor:
        return torch.tensor([math.prod(self.levels[:i]) for i in range(len(self.levels))], device=device)


EXACT = "donot_use_mm_for_euclid_dist"  # the short cut by matrix product loses close codes in rounding


def _wind(vq: Any, _: Any) -> None:
    vq.ticks = int(vq.clock)
    vq.begun = vq.ticks > 0


def _smoothed(counts: Tensor, small: float = 1e-6) -> Tensor:
    """Laplace's correction: no code weighs nothing, and all together weigh what they did."""
    whole = counts.sum(-1, keepdim=True)
    return (counts + small) / (whole + counts.shape[-1] * small) * whole


def _tally(hits: Tensor) -> dict[str, Tensor]:
    """Share of codes chosen and the number of codes that would be as uncertain if all were equally likely."""
    shares = hits / hits.sum(-1, keepdim=True)
    return {"usage": (hits > 0).float().mean(), "perplexity": torch.special.entr(shares).sum(-1).exp().mean()}


def _apart(pool: Tensor, living: Tensor, *, count: int) -> Tensor:
    """``count`` rows of ``pool`` (P, D), drawn the likelier the farther from ``living`` and from one another."""
    drawn: list[Tensor] = []
    near = torch.ones_like(pool[:, 0])
    if len(living):
        near = torch.cdist(pool, living, compute_mode=EXACT).square().amin(1)
    for _ in range(count):
        weights = torch.where(near.sum() > 0, near, torch.ones_like(near))
        row = pool[torch.multinomial(weights, 1)]
        drawn.append(row)
        reach = (pool - row).square().sum(1)
        near = torch.minimum(near, reach) if len(living) or len(drawn) > 1 else reach
    # Where the pool repeats itself so would the codes: push them apart by what a float can tell and training can use.
    scale = (0.01 * pool.std(0)).clamp(min=1e-3 * float(pool.square().mean().sqrt()) + 1e-6)
    return torch.cat(drawn) + scale * torch.randn(count, pool.shape[1], device=pool.device)
