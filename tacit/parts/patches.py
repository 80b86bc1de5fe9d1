"""Pictures as rows of patches, and back: what a transformer reads, and what it paints with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.part import Part
from tacit.parts.attention import SMALL, Queries, Stack, agree
from tacit.parts.conv import fits


class Patches(Part):
    """Cuts pictures (N, C, H, W) into tokens (N, L, dim), row by row, each told where it lies.

    Places are ``learned``, or else waves in two directions, which need no learning and hold ``dim`` to fours.
    """

    places: Tensor | None

    def __init__(
        self, *, frame: tuple[int, int], patch: int, dim: int, channels: int = 3, learned: bool = True
    ) -> None:
        self.frame, self.channels, self.patch, self.dim = (frame[0], frame[1]), channels, patch, dim
        self.grid = grid(frame, patch)
        self.tokens = self.grid[0] * self.grid[1]
        self.first = nn.Linear(channels * patch * patch, dim)
        if learned:
            self.places = nn.Parameter(SMALL * torch.randn(self.tokens, dim))
        else:
            self.register_buffer("places", waves(self.grid, dim), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]  # (N, C, H, W) -> (N, L, dim)
        fits(frames, self.channels, frame=self.frame)
        return self.first(cut(frames, self.patch)) + self.places


class Pictures(Part):
    """Paints pictures (N, C, H, W) from tokens (N, L, dim) that stand as ``Patches`` puts them."""

    def __init__(self, *, frame: tuple[int, int], patch: int, dim: int, channels: int = 3) -> None:
        self.patch, self.dim, self.channels = patch, dim, channels
        self.grid = grid(frame, patch)
        self.last = nn.Linear(dim, channels * patch * patch)

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]  # (N, L, dim) -> (N, C, H, W)
        agree(tokens, (None, self.grid[0] * self.grid[1], self.dim), name="Tokens")
        return joined(self.last(tokens), self.grid, patch=self.patch)


class PatchTransformer(Part):
    """An encoder of single pictures: their patches (N, L, dim) after hearing one another, or ``pooled`` to (N, dim).

    Pictures are taken ``contrast`` times as strong as they are: small things are faint beside where they lie.
    """

    def __init__(
        self,
        *,
        frame: tuple[int, int],
        patch: int,
        dim: int,
        layers: int = 4,
        heads: int = 4,
        channels: int = 3,
        learned: bool = True,
        pooled: bool = False,
        contrast: float = 1.0,
    ) -> None:
        self.dim, self.contrast = dim, contrast
        self.cut = Patches(frame=frame, patch=patch, dim=dim, channels=channels, learned=learned)
        self.grid, self.tokens = self.cut.grid, self.cut.tokens
        self.stack = Stack(dim, layers=layers, heads=heads)
        self.pool = Queries(features=dim, dim=dim, queries=1, heads=heads) if pooled else None

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        tokens = self.stack(self.cut(frames * self.contrast))
        return tokens if self.pool is None else self.pool(tokens)


class Squeezed(Part):
    """An encoder of pictures as very few ``tokens`` of ``dim`` numbers, (N, tokens * dim), that ask another's for all.

    What differs between two pictures is then a vector, and short enough to be an action (StaMo).
    """

    def __init__(
        self, encoder: Part, *, features: int, dim: int, tokens: int = 2, layers: int = 2, heads: int = 4
    ) -> None:
        self.encoder, self.dim = encoder, tokens * dim
        self.ask = Queries(features=features, dim=dim, queries=tokens, layers=layers, heads=heads)

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        return self.ask(self.encoder(frames))


def grid(frame: tuple[int, int], patch: int) -> tuple[int, int]:
    """How many patches high and wide a picture is."""
    if patch < 1 or frame[0] % patch or frame[1] % patch:
        raise ValueError(f"Patches of {patch} pixels do not fill a frame of {tuple(frame)}; choose a divisor of both.")
    return frame[0] // patch, frame[1] // patch


def cut(frames: Tensor, patch: int) -> Tensor:
    """Pictures (N, C, H, W) as their patches (N, L, C * patch * patch), row by row from the top left."""
    rows = frames.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (N, C, high, p, wide, p)
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def joined(pieces: Tensor, size: tuple[int, int], *, patch: int) -> Tensor:
    """What ``cut`` cut: patches (N, high * wide, C * patch * patch) as the pictures they are of."""
    cells = pieces.unflatten(2, (-1, patch, patch)).unflatten(1, size)  # (N, high, wide, C, p, p)
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def waves(size: tuple[int, int], dim: int) -> Tensor:
    """Where each cell of a grid lies, (high * wide, dim): half the numbers for its row and half for its column."""
    if dim % 4:
        raise ValueError(
            f"Waves in two directions, each a sine and a cosine, want dim to be a multiple of 4, not {dim}."
        )
    rates = 10_000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    high, wide = (torch.arange(n)[:, None] * rates for n in size)
    rows, columns = (torch.cat([angles.sin(), angles.cos()], 1) for angles in (high, wide))
    rows, columns = rows[:, None].expand(-1, size[1], -1), columns[None].expand(size[0], -1, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1)
