"""Attention: transformers over the patches of a picture, over time, and over both."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.part import Part

SMALL = 0.02  # the spread of learned tokens and places at the start
ROWS = 65_535  # more at once is refused by kernels on GPUs, and the patches of many clips are more (pytorch #142228)


class Attention(nn.Module):
    """Lets every token hear, by many heads, the others of its row, or with ``others`` tokens of that width.

    With ``timed`` the tokens are moments in order, and what is heard depends on how far apart two of them are.
    """

    def __init__(self, dim: int, *, heads: int, others: int | None = None, timed: bool = False) -> None:
        super().__init__()
        if dim % heads or (timed and dim // heads % 2):
            even = "an even number of them each, " if timed else ""
            raise ValueError(f"{dim} numbers a token do not part into {heads} heads, {even}that are alike.")
        self.heads, self.timed = heads, timed
        self.ask = nn.Linear(dim, dim)
        self.tell = nn.Linear(others or dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, others: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:  # (N, L, dim), (N, M, others), (N or 1, 1, L or 1, M) true where one may listen -> (N, L, dim)
        q = self._parted(self.ask(x))
        k, v = map(self._parted, self.tell(x if others is None else others).chunk(2, -1))
        if self.timed:
            q, k = turned(q), turned(k)
        pieces = []
        for start in range(0, max(len(q), 1), ROWS):
            some = slice(start, start + ROWS)
            shown = mask if mask is None or len(mask) == 1 else mask[some]
            pieces.append(F.scaled_dot_product_attention(q[some], k[some], v[some], attn_mask=shown, is_causal=causal))
        heard = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        return self.out(heard.transpose(1, 2).flatten(2))  # the heads back beside one another before they are joined

    def _parted(self, x: Tensor) -> Tensor:  # (N, L, dim) -> (N, heads, L, dim / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """What a transformer repeats, each time normed first: hear one another, hear others if there are any, think.

    Where it is ``alone``, a token does not hear its like.
    """

    def __init__(
        self, dim: int, *, heads: int, others: int | None = None, alone: bool = False, timed: bool = False
    ) -> None:
        super().__init__()
        self.calm = None if alone else nn.LayerNorm(dim)
        self.attend = None if alone else Attention(dim, heads=heads, timed=timed)
        self.still = nn.LayerNorm(dim) if others else None
        self.listen = Attention(dim, heads=heads, others=others) if others else None
        self.think = _thinking(dim)

    def forward(
        self,
        x: Tensor,
        others: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        heard: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        if self.attend is not None and self.calm is not None:
            x = x + self.attend(self.calm(x), mask=mask, causal=causal)
        if self.listen is not None and self.still is not None:
            x = x + self.listen(self.still(x), others, mask=heard)
        return x + self.think(x)


class Stack(nn.Module):
    """Blocks one after the other over rows of tokens that have no order, and a norm: a transformer of one picture."""

    def __init__(
        self, dim: int, *, layers: int, heads: int, others: int | None = None, alone: bool = False, timed: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads=heads, others=others, alone=alone, timed=timed) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        others: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        heard: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        for block in self.blocks:
            x = block(x, others, mask=mask, heard=heard, causal=causal)
        return self.norm(x)


class Causal(Part):
    """A transformer over moments (B, T, dim) that hears only the past, and of it only how long ago it is.

    With ``reach`` a layer hears so many moments back and no more: then a stretch of an episode says the same wherever
    it is cut, as long as ``layers * reach`` moments before it are there.
    """

    def __init__(self, *, dim: int, layers: int = 6, heads: int = 6, reach: int | None = None) -> None:
        self.dim, self.reach = dim, reach
        self.stack = Stack(dim, layers=layers, heads=heads, timed=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # (B, T, dim) -> (B, T, dim)
        agree(x, (None, None, self.dim), name="Moments")
        if self.reach is None:
            return self.stack(x, causal=True)
        every = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        return self.stack(x, mask=every.tril().triu(-self.reach)[None, None])


class SpaceTime(Part):
    """A transformer over the tokens of every frame of a clip: inside each frame, and along each place's past (Genie).

    ``extra`` learned tokens are put behind those of each frame, and come out behind them: what they gather is what is
    read. Frames are told apart in time only by how far apart they are; where a token lies its maker must say.
    """

    def __init__(self, *, dim: int, layers: int = 4, heads: int = 4, extra: int = 0) -> None:
        self.dim, self.extra = dim, extra
        self.tokens = nn.Parameter(SMALL * torch.randn(extra, dim)) if extra else None
        self.blocks = nn.ModuleList(_Frames(dim, heads=heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(  # type: ignore[override]
        self, x: Tensor, *, added: Tensor | None = None, told: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """(B, T, L, dim) to (B, T, L + extra, dim).

        ``added`` (B, T, dim) goes onto every token of its frame. ``told`` (B, M, dim) is heard in every frame, where
        ``known`` (B, M) is true, and does not come out: it has heard the frame, and would carry it on.
        """
        agree(x, (None, None, None, self.dim), name="Tokens")
        batch, time = x.shape[:2]
        if self.tokens is not None:
            x = torch.cat([x, self.tokens.to(x.dtype).expand(batch, time, -1, -1)], 2)
        if added is not None:
            agree(added, (batch, time, self.dim), name="What is added to frames")
            x = x + added[:, :, None]
        count, mask = x.shape[2], None
        if told is not None:
            agree(told, (batch, None, self.dim), name="What is told")
            x = torch.cat([x, told[:, None].expand(-1, time, -1, -1).to(x.dtype)], 2)
            mask = None if known is None else aware(known, before=count)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(x[:, :, :count])


class _Frames(nn.Module):
    """Hear the tokens of the same frame, then the same token of the frames before, then think."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.calm, self.space = nn.LayerNorm(dim), Attention(dim, heads=heads)
        self.still, self.time = nn.LayerNorm(dim), Attention(dim, heads=heads, timed=True)
        self.think = _thinking(dim)

    def forward(self, x: Tensor, *, mask: Tensor | None) -> Tensor:  # (B, T, L, dim), (B, 1, 1, L)
        batch, time, count, _ = x.shape
        if mask is not None:  # a clip's frames lie together in the rows, and so must its mask's
            mask = mask[:, None].expand(-1, time, -1, -1, -1).flatten(0, 1)
        x = x + self.space(self.calm(x).flatten(0, 1), mask=mask).unflatten(0, (batch, time))
        moments = self.still(x).transpose(1, 2).flatten(0, 1)  # (B * L, T, dim)
        x = x + self.time(moments, causal=True).unflatten(0, (batch, count)).transpose(1, 2)
        return x + self.think(x)


class Queries(Part):
    """A few learned questions put to the tokens of one frame, or of several: (N, queries * dim) is what they gather.

    With one question it is attention pooling.
    """

    def __init__(
        self, *, features: int, dim: int, queries: int = 4, layers: int = 1, heads: int = 4, frames: int = 1
    ) -> None:
        self.features, self.dim, self.frames = features, dim, frames
        self.norm = nn.LayerNorm(features)
        self.when = nn.Parameter(SMALL * torch.randn(frames, 1, features)) if frames > 1 else None
        self.asked = nn.Parameter(SMALL * torch.randn(queries, dim))
        self.stack = Stack(dim, layers=layers, heads=heads, others=features, alone=True)

    def forward(self, x: Tensor, *, known: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """What tokens (N, L, features), or (N, frames, L, features) of several frames, say where they are ``known``."""
        x = self.norm(x)
        if self.when is None:
            agree(x, (None, None, self.features), name="Tokens")
        else:
            agree(x, (None, self.frames, None, self.features), name="Tokens")
            x = (x + self.when).flatten(1, 2)
        heard = None if known is None else aware(known.flatten(1))
        return self.stack(self.asked.expand(len(x), -1, -1), x, heard=heard).flatten(1)


def turned(x: Tensor, *, base: float = 10_000.0) -> Tensor:
    """Queries or keys (..., T, E) turned by their time, so that products of two tell only how far apart they are.

    Su et al., RoFormer (2021).
    """
    rates = base ** -torch.linspace(0, 1, x.shape[-1] // 2 + 1, device=x.device)[:-1]
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * rates
    a, b = x.chunk(2, -1)
    sin, cos = angles.sin(), angles.cos()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def aware(known: Tensor, *, before: int = 0) -> Tensor:
    """The mask (N, 1, 1, before + M) under which all hear what is ``known`` (N, M), and all that stands before it."""
    return F.pad(known.bool(), (before, 0), value=True)[:, None, None]


def agree(x: Tensor, wanted: tuple[int | None, ...], *, name: str) -> None:
    """Refuse tensors of another shape than the network was built for; ``None`` is any length."""
    if x.ndim != len(wanted) or any(n is not None and n != m for m, n in zip(x.shape, wanted, strict=True)):
        sizes = ", ".join("any" if n is None else str(n) for n in wanted)
        raise ValueError(f"{name} of shape {tuple(x.shape)} were given where ({sizes}) was wanted.")


def _thinking(dim: int, ratio: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))
