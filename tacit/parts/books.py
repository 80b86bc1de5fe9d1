"""Books of codes: latents that are one of a few, in books that never die however long training lasts."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit import spread
from tacit.parts.quantize import Bottled, Bottleneck, tally


class Books(Bottleneck):
    """What all books share: there are ``groups`` of them, of ``codes`` each, every one read by ``tokens`` symbols.

    A code that nothing chose for ``patience`` steps is set down anew on something the encoder lately said, for as long
    as training lasts. All that is counted is summed over the processes and every choice is rank 0's, so the books are
    the same everywhere. With ``cosine`` what is read and the codes lie on the unit sphere.
    """

    book: Tensor
    hits: Tensor
    idle: Tensor
    recent: Tensor
    resets: Tensor
    clock: Tensor

    def __init__(
        self,
        *,
        groups: int,
        tokens: int,
        dim: int,
        codes: int,
        cosine: bool,
        commitment: float,
        patience: int,
        every: int,
        memory: int,
    ) -> None:
        if min(groups, tokens, dim, patience, every) < 1 or codes < 2 or memory < 0 or not 0 <= commitment < torch.inf:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 codes and one of all else, no memory and no weight below "
                f"nought; it was given {groups=}, {tokens=}, {dim=}, {codes=}, {patience=}, {every=}, {memory=}, "
                f"{commitment=}."
            )
        if cosine and dim < 2:
            raise ValueError(
                "On a sphere in one dimension there are but two codes; give cosine books a dim of 2 or more."
            )
        self.groups, self.tokens, self.codes, self.cosine = groups, tokens, codes, cosine
        self.commitment, self.patience, self.every = commitment, patience, every
        self.width = self.dim = groups * tokens * dim
        self.starts = tuple(range(0, self.dim, dim))
        self.register_buffer("hits", torch.zeros(groups, codes))  # what the step will count
        self.register_buffer("idle", torch.zeros(groups, codes, dtype=torch.int64))  # steps since last chosen
        self.register_buffer("recent", torch.zeros(groups, max(memory, 4 * codes), dim))
        self.register_buffer("resets", torch.zeros((), dtype=torch.int64))
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64))  # steps taken, plus one for having begun
        self.ticks, self.begun = 0, False  # the clock as plain values, which a GPU need not be asked for
        self.register_load_state_dict_post_hook(_wind)

    def bottle(self, x: Tensor) -> Bottled:
        x_gnd = self.split(x)
        q_gnd, codes_gn, metrics = self.look(x_gnd)
        z = self.joined(self.through(x_gnd, q_gnd), len(x))
        return Bottled(z, self.cost(x_gnd, q_gnd), metrics, self.joined(codes_gn.unsqueeze(-1), len(x)))

    def embed(self, codes: Tensor) -> Tensor:
        """The latent (B, dim) that the codes (B, groups * tokens) stand for."""
        codes_gn = self.checked(codes).view(len(codes), self.groups, self.tokens).transpose(0, 1).flatten(1)
        return self.joined(self._read(codes_gn), len(codes))

    def split(self, x: Tensor) -> Tensor:
        """(B, width) as what each book reads: (groups, B * tokens, D)."""
        return self._onto(x.view(len(x), self.groups, self.tokens, -1).transpose(0, 1).flatten(1, 2))

    def joined(self, z_gnd: Tensor, batch: int) -> Tensor:
        """What ``split`` took apart."""
        return z_gnd.view(self.groups, batch, -1).transpose(0, 1).flatten(1)

    def look(self, x_gnd: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The codes nearest to what was said and their numbers; in training it counts them and remembers what was."""
        if self.training and not self.begun:
            self._begin(x_gnd.detach())
        with torch.no_grad():
            codes_gn = torch.cdist(x_gnd, self._onto(self.book), compute_mode=EXACT).argmin(-1)
            chosen_gnk = F.one_hot(codes_gn, self.codes).to(x_gnd.dtype)
            hits_gk = chosen_gnk.sum(1)
            if self.training:
                self.hits += hits_gk
                self._count(chosen_gnk, x_gnd)
                kept = self.recent.shape[1]
                self.recent.copy_(torch.cat([x_gnd[:, :kept], self.recent], 1)[:, :kept])
            metrics = {**tally(self.whole(hits_gk)), "gap": self._gap()}
            metrics |= {"dead": (self.idle >= self.patience).sum(), "resets": self.resets.clone()}
        return self._read(codes_gn), codes_gn, metrics

    def through(self, x_gnd: Tensor, q_gnd: Tensor) -> Tensor:
        """The codes' values with the encoder's gradient, straight through."""
        return x_gnd + (q_gnd - x_gnd).detach()

    def cost(self, x_gnd: Tensor, q_gnd: Tensor) -> Tensor:
        """What keeps the encoder by its codes, and the codes by the encoder where they are weights."""
        return self.commitment * F.mse_loss(x_gnd, q_gnd.detach())

    @torch.no_grad()
    def after_step(self) -> None:
        """Take up what the step counted, and set down anew the codes that nothing chooses."""
        if not self.training or not self.begun:
            return
        hits = self._follow()
        self.idle.add_(1).mul_(hits == 0)
        self.hits.zero_()
        self.ticks += 1
        self.clock += 1
        if self.ticks % self.every == 0:  # asking is a wait for the GPU, so not at every step
            dead = self.idle >= self.patience
            if dead.any():
                self._replace(dead)

    def _count(self, chosen_gnk: Tensor, x_gnd: Tensor) -> None:
        """Note what a forward said, beside how often each code was chosen; by default nothing."""

    def _follow(self) -> Tensor:
        """How often each code was chosen by all processes; books that follow their inputs do so here."""
        return spread.total(self.hits)

    def _weigh(self, dead: Tensor) -> None:
        """Give codes set down anew what belongs to a code; by default nothing."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _begin(self, x_gnd: Tensor) -> None:
        """Fill the memory and the books from the first batch there is."""
        repeats = -(-self.recent.shape[1] // x_gnd.shape[1])
        self.recent.copy_(x_gnd.repeat(1, repeats, 1)[:, : self.recent.shape[1]])
        self.ticks, self.begun = 1, True
        self.clock.fill_(1)
        self._replace(torch.ones_like(self.idle, dtype=torch.bool))
        self.resets.zero_()

    @torch.no_grad()
    def _replace(self, dead: Tensor) -> None:
        """Put every dead code on a recent encoder output, far from the other codes, and none on top of another."""
        fresh = self.book.detach().clone()
        for group in range(self.groups):
            where = dead[group].nonzero().flatten()
            if len(where):
                living = self._onto(self.book[group, ~dead[group]])
                fresh[group, where] = self._onto(_apart(self.recent[group], living, count=len(where)))
        self.book.copy_(spread.agreed(fresh))
        self._weigh(dead)
        self.idle.masked_fill_(dead, 0)
        self.resets += dead.sum()

    def _onto(self, points: Tensor) -> Tensor:
        return F.normalize(points, dim=-1) if self.cosine else points

    def _read(self, codes_gn: Tensor) -> Tensor:
        return torch.gather(self._onto(self.book), 1, codes_gn.unsqueeze(-1).expand(-1, -1, self.book.shape[-1]))

    def _gap(self) -> Tensor:
        """The least distance between two codes of one book; of very many, those of which it is the turn."""
        book = self._onto(self.book.detach())
        book = book - book.mean(1, keepdim=True)  # far from nought a float would not tell close codes apart
        rows = torch.arange(min(self.codes, TURN), device=book.device) + self.clock * TURN
        rows = rows % self.codes
        itself = rows.unsqueeze(-1) == torch.arange(self.codes, device=book.device)
        return torch.cdist(book[:, rows], book).masked_fill(itself, torch.inf).amin()


class VQ(Books):
    """Discrete latents whose books follow the mean of what chose them, as in LAPO; the encoder commits to its codes."""

    counts: Tensor
    sums: Tensor
    heaps: Tensor

    def __init__(
        self,
        *,
        groups: int = 2,
        tokens: int = 4,
        dim: int = 16,
        codes: int = 64,
        decay: float = 0.999,
        cosine: bool = False,
        commitment: float = 0.05,
        patience: int = 20,
        every: int = 5,
        memory: int = 1024,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must lie in [0, 1).")
        super().__init__(
            groups=groups, tokens=tokens, dim=dim, codes=codes, cosine=cosine,
            commitment=commitment, patience=patience, every=every, memory=memory,
        )  # fmt: skip
        self.decay = decay
        self.register_buffer("book", self._onto(torch.randn(groups, codes, dim)))
        self.register_buffer("counts", torch.ones(groups, codes))  # moving averages, and below what they will take up
        self.register_buffer("sums", self.book.clone())
        self.register_buffer("heaps", torch.zeros(groups, codes, dim))

    def _count(self, chosen_gnk: Tensor, x_gnd: Tensor) -> None:
        self.heaps += chosen_gnk.mT @ x_gnd

    def _follow(self) -> Tensor:
        tally_gkd = spread.total(torch.cat([self.hits.unsqueeze(-1), self.heaps], -1))
        hits, heaps = tally_gkd[..., 0], tally_gkd[..., 1:]
        self.counts.lerp_(hits, 1 - self.decay)
        self.sums.lerp_(heaps, 1 - self.decay)
        self.book.copy_(self._onto(self.sums / _smoothed(self.counts).unsqueeze(-1)))
        self.heaps.zero_()
        return hits

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _begin(self, x_gnd: Tensor) -> None:
        # Light at first, so that the books go where the data are within steps and not after a thousand.
        symbols = spread.total(torch.full_like(self.counts, x_gnd.shape[1]))
        self.counts.copy_((1 - self.decay) * symbols / self.codes)
        super()._begin(x_gnd)

    def _weigh(self, dead: Tensor) -> None:
        # A code reborn weighs what one average step would give it: the first that choose it move it freely.
        light = (self.counts.mean(1, keepdim=True) * (1 - self.decay)).clamp(min=1e-3).expand_as(self.counts)
        self.counts.copy_(torch.where(dead, light, self.counts))
        self.sums.copy_(self.book * _smoothed(self.counts).unsqueeze(-1))


class Learnt(Books):
    """Discrete latents whose books are weights, drawn to what chose them by the loss, as in Genie."""

    def __init__(
        self,
        *,
        groups: int = 1,
        tokens: int = 1,
        dim: int = 32,
        codes: int = 8,
        cosine: bool = True,
        commitment: float = 0.25,
        patience: int = 50,
        every: int = 5,
        memory: int = 1024,
    ) -> None:
        super().__init__(
            groups=groups, tokens=tokens, dim=dim, codes=codes, cosine=cosine,
            commitment=commitment, patience=patience, every=every, memory=memory,
        )  # fmt: skip
        self.book = nn.Parameter(self._onto(torch.randn(groups, codes, dim)))

    def cost(self, x_gnd: Tensor, q_gnd: Tensor) -> Tensor:
        return F.mse_loss(q_gnd, x_gnd.detach()) + super().cost(x_gnd, q_gnd)


class NSVQ(Books):
    """Discrete latents that are trained by noise, as in LAPA: no loss of their own and nothing straight through.

    In training the way to the nearest code is taken in a random direction: what comes after learns to bear an error of
    that size, and its gradient makes it small, moving encoder and codes alike. Trained, it gives the code itself.
    """

    def __init__(
        self,
        *,
        groups: int = 1,
        tokens: int = 4,
        dim: int = 32,
        codes: int = 8,
        patience: int = 20,
        every: int = 5,
        memory: int = 1024,
    ) -> None:
        super().__init__(
            groups=groups, tokens=tokens, dim=dim, codes=codes, cosine=False,
            commitment=0.0, patience=patience, every=every, memory=memory,
        )  # fmt: skip
        self.book = nn.Parameter(torch.randn(groups, codes, dim))

    def through(self, x_gnd: Tensor, q_gnd: Tensor) -> Tensor:
        if not self.training:
            return super().through(x_gnd, q_gnd)
        direction = F.normalize(torch.randn_like(x_gnd), dim=-1)
        return x_gnd + torch.linalg.vector_norm(x_gnd - q_gnd, dim=-1, keepdim=True) * direction


class Residual(Bottleneck):
    """Discrete latents told in ``stages``, as in ViPRA: each is a book like ``book`` on what the earlier left over."""

    def __init__(self, book: Books, *, stages: int = 2) -> None:
        if not isinstance(book, Books) or book.cosine or stages < 1:
            raise ValueError(
                f"Residual was given {stages=} of {type(book).__name__} with cosine={getattr(book, 'cosine', None)}; "
                "it wants one or more of a VQ, Learnt or NSVQ, and what is left over lies on no sphere."
            )
        self.stages = nn.ModuleList([book, *(copy.deepcopy(book) for _ in range(stages - 1))])
        self.width, self.dim, self.codes = book.width, book.dim, book.codes
        self.groups = book.groups * stages
        rows = [book.starts[i : i + book.tokens] for i in range(0, len(book.starts), book.tokens)]
        self.starts = tuple(start for row in rows for _ in range(stages) for start in row)

    def bottle(self, x: Tensor) -> Bottled:
        books = self._books()
        first, x_gnd = books[0], books[0].split(x)
        rest_gnd = x_gnd
        whole_gnd, loss, codes, told = torch.zeros_like(x_gnd), x.new_zeros(()), [], []
        for book in books:
            q_gnd, codes_gn, metrics = book.look(rest_gnd)
            loss = loss + book.cost(rest_gnd, q_gnd)
            whole_gnd, rest_gnd = whole_gnd + q_gnd, rest_gnd - q_gnd.detach()
            codes.append(codes_gn.view(first.groups, len(x), first.tokens))
            told.append(metrics)
        z = first.joined(first.through(x_gnd, whole_gnd), len(x))
        together = torch.stack(codes, 2).transpose(0, 1).flatten(1)  # by group, then stage, then token
        return Bottled(z, loss, _summed(told), together)

    def embed(self, codes: Tensor) -> Tensor:
        """The latent (B, dim) that the codes (B, groups * stages * tokens) stand for."""
        books = self._books()
        parted = self.checked(codes).view(len(codes), books[0].groups, len(books), books[0].tokens).unbind(2)
        latents = [book.embed(own.flatten(1)) for book, own in zip(books, parted, strict=True)]
        return torch.stack(latents).sum(0)

    def _books(self) -> list[Books]:
        return [book for book in self.stages if isinstance(book, Books)]


EXACT = "donot_use_mm_for_euclid_dist"  # the short cut by matrix product loses close codes in rounding
TURN = 512  # codes whose distance to all others is measured in one step


def _wind(books: Any, _: Any) -> None:
    books.ticks = int(books.clock)
    books.begun = books.ticks > 0


def _summed(told: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The stages' numbers as those of one book, and each stage's perplexity: the later are the first to collapse."""
    all_of = {name: torch.stack([metrics[name] for metrics in told]) for name in told[0]}
    metrics = {name: all_of[name].mean() for name in ("usage", "perplexity")} | {"gap": all_of["gap"].min()}
    metrics |= {name: all_of[name].sum() for name in ("dead", "resets")}
    return metrics | {f"perplexity.{stage}": one["perplexity"] for stage, one in enumerate(told)}


def _smoothed(counts: Tensor, small: float = 1e-6) -> Tensor:
    """Laplace's correction: no code weighs nothing, and all together weigh what they did."""
    whole = counts.sum(-1, keepdim=True)
    return (counts + small) / (whole + counts.shape[-1] * small) * whole


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
