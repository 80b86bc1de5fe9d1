"""Bottlenecks: what a latent action may be, from anything at all to one of a few codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

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
    codes: Tensor | None = None  # (B, symbols), int64; the columns that one book is read by lie together
    beside: Tensor | None = None  # (B, n): what a forward model hears after z in training, and its `blank` in use


class Bottleneck(Part):
    """What all bottlenecks share: ``width`` numbers go in, ``dim`` come out, and the sums are done in float32."""

    width: int
    dim: int
    codes: int = 0  # what a symbol may say; 0 where the latent is not told in symbols
    starts: tuple[int, ...] = ()  # for every symbol, where in the latent the numbers begin that it tells
    unit: int = 1  # so many numbers in a row mean something only together

    def forward(self, x: Tensor) -> Bottled:  # type: ignore[override]
        if x.ndim != 2 or x.shape[1] != self.width or not len(x):
            raise ValueError(
                f"{type(self).__name__} was given {tuple(x.shape)} and wants (B, {self.width}); "
                f"let the layer before it put out {self.width} numbers, and no batch be empty."
            )
        with torch.autocast(x.device.type, enabled=False):
            return self.bottle(x.float())

    def bottle(self, x: Tensor) -> Bottled:
        """Squeeze (B, width) float32 numbers."""
        raise TypeError(f"{type(self).__name__} does not say how it squeezes; give it a method `bottle`.")

    @property
    def identity(self) -> Tensor:
        """The latent (dim,) of nothing happening, or the one number that it is made of."""
        return torch.zeros(())  # which goes with latents on any device

    def compose(self, first: Tensor, then: Tensor) -> Tensor:
        """The latent (..., dim) of doing ``first`` and ``then`` the other."""
        return first + then

    def inverse(self, z: Tensor) -> Tensor:
        """The latent (..., dim) that undoes ``z``."""
        return -z

    def checked(self, codes: Tensor) -> Tensor:
        """The codes (B, symbols), refused if they are not so many."""
        if codes.ndim != 2 or codes.shape[1] != len(self.starts):
            raise ValueError(
                f"{type(self).__name__}.embed was given codes of shape {tuple(codes.shape)}; "
                f"wanted (B, {len(self.starts)})."
            )
        return codes

    def whole(self, mean: Tensor) -> Tensor:
        """A mean over this process's share of the batch as that over all shares; its gradient is the own share's.

        That is what becomes the gradient of the whole once the processes average theirs. Looking counts alone.
        """
        if not self.training or spread.world() == 1:
            return mean
        return spread.average(mean.detach()) + (mean - mean.detach())


class Free(Bottleneck):
    """No bottleneck but the width, and in training a little noise, so that no meaning hides in the last digits."""

    def __init__(self, width: int, *, noise: float = 0.0) -> None:
        if width < 1 or not 0 <= noise < math.inf:
            raise ValueError(f"Free was given {width=}, {noise=}; it wants 1 or more numbers, and 0 or more noise.")
        self.width, self.dim, self.noise = width, width, noise

    def bottle(self, x: Tensor) -> Bottled:
        z = x + self.noise * torch.randn_like(x) if self.training and self.noise else x
        return Bottled(z, x.new_zeros(()), lively(x))


class Gaussian(Bottleneck):
    """A noisy latent that pays for every nat it carries beyond ``floor`` a dimension; without noise once trained.

    ``beta`` is the same from first step to last. Where it is too low to matter a latent rids itself of its noise, and
    is narrow no more: no deviation sinks under ``sigma``, whatever ``beta`` is.
    """

    def __init__(self, dim: int, *, beta: float = 1e-3, floor: float = 0.0, sigma: float = math.exp(-6)) -> None:
        if dim < 1 or not (0 <= beta < math.inf and 0 <= floor < math.inf and 0 < sigma <= 1):
            raise ValueError(
                f"Gaussian was given {dim=}, {beta=}, {floor=}, {sigma=}; it wants 1 or more numbers, "
                "a beta and a floor of 0 or more, and a sigma above 0 and up to 1."
            )
        self.width, self.dim, self.beta, self.floor, self.sigma = 2 * dim, dim, beta, floor, sigma

    def bottle(self, x: Tensor) -> Bottled:
        mean, spread_log = x.chunk(2, 1)
        variance_log = spread_log.clamp(2 * math.log(self.sigma), 8)
        sigma = (variance_log / 2).exp()
        nats = 0.5 * (mean.square() + variance_log.exp() - 1 - variance_log)
        cost = self.whole(nats.mean(0))  # a dimension
        z = mean + sigma * torch.randn_like(mean) if self.training else mean
        told = cost.detach()
        metrics = {"spread": lively(mean)["spread"], "nats": told.sum(), "alive": (told > 0.05).float().mean()}
        metrics["sigma"] = sigma.detach().mean()  # 1 everywhere: it says nothing; nought: it is not narrow
        return Bottled(z, self.beta * cost.clamp(min=self.floor).sum(), metrics)


class Sparse(Bottleneck):
    """A continuous latent of which few numbers speak at a time, after Garrido et al. 2026 (arXiv 2601.05230).

    ``sparsity`` weighs the mean size of the numbers and tunes what the latent can hold. Three terms leave no cheap way
    to be small: every number keeps a deviation of 1 (``variance``), no two say the same (``covariance``) and each
    varies around nought (``mean``). All are taken over the batch of all processes.
    """

    def __init__(
        self,
        width: int,
        *,
        sparsity: float = 0.01,
        variance: float = 0.1,
        covariance: float = 0.001,
        mean: float = 0.1,
    ) -> None:
        if width < 1 or not all(0 <= weight < math.inf for weight in (sparsity, variance, covariance, mean)):
            raise ValueError(
                f"Sparse was given {width=}, {sparsity=}, {variance=}, {covariance=}, {mean=}; "
                "it wants 1 or more numbers, and weights of 0 or more."
            )
        self.width = self.dim = width
        self.sparsity, self.variance, self.covariance, self.mean = sparsity, variance, covariance, mean

    def bottle(self, x: Tensor) -> Bottled:
        mean = self.whole(x.mean(0))
        centred = x - mean.detach()  # the covariance does not move with the mean, so neither need its gradient
        covariance = self.whole(centred.mT @ centred / len(x))
        narrow = F.relu(1 - (covariance.diagonal() + 1e-4).sqrt()).mean()
        shared = (covariance - covariance.diagonal().diag()).square().sum() / self.width
        loss = self.sparsity * x.abs().mean() + self.variance * narrow
        loss = loss + self.covariance * shared + self.mean * mean.square().mean()
        quiet = (x.detach().abs() < 0.1).float().mean()
        return Bottled(x, loss, {**lively(x), "quiet": quiet, "shared": shared.detach()})


class FSQ(Bottleneck):
    """Codes without a book: each number is rounded to one of its levels; nothing to collapse."""

    steps: Tensor
    places: Tensor

    def __init__(self, levels: Sequence[int], *, groups: int = 1) -> None:
        proper = isinstance(levels, Sequence) and all(isinstance(level, int) and level > 1 for level in levels)
        if not proper or not levels or groups < 1:
            raise ValueError(
                f"FSQ was given {levels=}, {groups=}; it wants for each number of a group how many levels it has, "
                "whole and 2 or more, such as (5, 3), and 1 or more groups."
            )
        if math.prod(levels) > 2**20:
            raise ValueError(
                f"FSQ levels {tuple(levels)} make {math.prod(levels)} codes; take fewer levels and more groups."
            )
        self.levels, self.groups, self.codes = tuple(levels), groups, math.prod(levels)
        self.width = self.dim = groups * len(self.levels)
        self.starts = tuple(range(0, self.dim, len(self.levels)))
        places = [math.prod(self.levels[:i]) for i in range(len(self.levels))]
        self.register_buffer("steps", torch.tensor(self.levels), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def bottle(self, x: Tensor) -> Bottled:
        levels = self.steps.to(x.dtype)
        half = self.steps // 2
        reach = (levels - 1) * (1 + 1e-3) / 2  # a hair beyond the outermost level, so that it can be reached
        offset = (1 - levels % 2) / 2  # an even number of levels has none in the middle
        x_bgl = x.view(len(x), self.groups, -1)
        # Nought comes out as nought, where there are levels enough to give it one; two levels part at nought.
        bounded = torch.tanh(x_bgl + torch.atanh(offset / reach) * (levels > 2)) * reach - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        digits = (rounded.detach().round() + half).long()
        codes = (digits * self.places).sum(-1)
        hits = self.whole(chosen(codes.T, self.codes))
        return Bottled(self._valued(rounded), x.new_zeros(()), tally(hits), codes)

    def embed(self, codes: Tensor) -> Tensor:
        """The latent (B, dim) that the codes (B, groups) stand for."""
        digits = self.checked(codes).unsqueeze(-1) // self.places % self.steps
        return self._valued((digits - self.steps // 2).float())

    def _valued(self, rounded: Tensor) -> Tensor:
        """Whole numbers around nought as the numbers from -1 to 1 that the latent is made of."""
        return torch.where(self.steps == 2, 2 * rounded + 1, rounded / (self.steps // 2)).flatten(1)


class LFQ(Bottleneck):
    """Codes without a book to look up: every number is its sign (lookup-free, as in MAGVIT-2).

    A number is 1 with the odds that ``sharpness`` gives to its size. The loss asks each sample to be sure of its code
    and, ``diversity`` times as much, the batch of all processes to use all codes alike: it is nought where both are.
    Asked for alike (1), the two cancel where all samples have one code, and nothing leads out of there.
    """

    places: Tensor

    def __init__(
        self,
        bits: int,
        *,
        groups: int = 1,
        entropy: float = 0.1,
        diversity: float = 2.0,
        sharpness: float = 1.0,
        commitment: float = 0.25,
    ) -> None:
        weighed = all(0 <= weight < math.inf for weight in (entropy, diversity, commitment))
        if not 1 <= bits <= 20 or groups < 1 or not weighed or not 0 < sharpness < math.inf:
            raise ValueError(
                f"LFQ was given {bits=}, {groups=}, {entropy=}, {diversity=}, {sharpness=}, {commitment=}; it wants "
                "1 to 20 bits in each of one or more groups, a sharpness above 0, and weights of 0 or more."
            )
        self.bits, self.groups, self.codes = bits, groups, 2**bits
        self.entropy, self.diversity, self.sharpness, self.commitment = entropy, diversity, sharpness, commitment
        self.width = self.dim = groups * bits
        self.starts = tuple(range(0, self.dim, bits))
        self.register_buffer("places", 2 ** torch.arange(bits), persistent=False)

    def bottle(self, x: Tensor) -> Bottled:
        x_bgl = x.view(len(x), self.groups, self.bits)
        signs = torch.where(x_bgl > 0, 1.0, -1.0)
        z = x_bgl + (signs - x_bgl).detach()
        codes = ((x_bgl > 0) * self.places).sum(-1)
        doubt, uneven = self._entropies(4 * self.sharpness * x_bgl)
        loss = self.entropy * (doubt + self.diversity * uneven) + self.commitment * F.mse_loss(x_bgl, signs)
        hits = self.whole(chosen(codes.T, self.codes))
        metrics = {**tally(hits), "doubt": doubt.detach(), "uneven": uneven.detach()}
        return Bottled(z.flatten(1), loss, metrics, codes)

    def embed(self, codes: Tensor) -> Tensor:
        """The latent (B, dim) that the codes (B, groups) stand for."""
        bits = self.checked(codes).unsqueeze(-1) // self.places % 2
        return (2.0 * bits - 1).flatten(1)

    def _entropies(self, odds: Tensor) -> tuple[Tensor, Tensor]:
        """Nats of doubt about a sample's code, and how many the batch's use of the codes is short of the most."""
        yes, no = odds.sigmoid(), (-odds).sigmoid()
        doubt = -(yes * F.logsigmoid(odds) + no * F.logsigmoid(-odds)).sum(-1).mean()
        # The bits are independent in a sample, not in the batch: the mean joint is a product of two halves' joints.
        half = (self.bits + 1) // 2
        low, high = _joint(yes[..., :half], no[..., :half]), _joint(yes[..., half:], no[..., half:])
        use = self.whole(torch.einsum("bgi,bgj->gji", low, high).flatten(1) / len(odds))
        return doubt, self.bits * math.log(2) - torch.special.entr(use.clamp(min=1e-12)).sum(-1).mean()


def _joint(yes: Tensor, no: Tensor) -> Tensor:
    """The odds (..., 2**n) of every pattern of n independent bits, the first bit counting least."""
    odds = yes.new_ones((*yes.shape[:-1], 1))
    for bit in range(yes.shape[-1]):
        odds = torch.cat([odds * no[..., bit : bit + 1], odds * yes[..., bit : bit + 1]], -1)
    return odds


def chosen(codes: Tensor, count: int) -> Tensor:
    """How often each of ``count`` codes was chosen in every row of codes (G, N)."""
    hits = torch.zeros(len(codes), count, device=codes.device)
    return hits.scatter_add_(1, codes, torch.ones_like(codes, dtype=hits.dtype))


def tally(hits: Tensor) -> dict[str, Tensor]:
    """Share of codes chosen and the number of codes that would be as uncertain if all were equally likely."""
    shares = hits / hits.sum(-1, keepdim=True)
    return {"usage": (hits > 0).float().mean(), "perplexity": torch.special.entr(shares).sum(-1).exp().mean()}


def lively(z: Tensor) -> dict[str, Tensor]:
    """How far continuous latents (B, D) vary, and the share of numbers with a hundredth of the widest's spread."""
    deviation = z.detach().std(0, correction=0)
    return {"spread": deviation.mean(), "alive": (deviation > 0.01 * deviation.max()).float().mean()}
