"""Inverse models that look back by attention: from patches, features or whole windows to what was done in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.clip import each
from tacit.part import Part
from tacit.parts.attention import SMALL, Causal, Queries, SpaceTime, Stack, agree
from tacit.parts.patches import Patches


class Acting(Part):
    """Reads the action between two frames off learned tokens that hear the patches of the second (Genie, AdaWorld).

    The ``dim`` numbers come from ``tokens`` of them in each frame, which hear their own past as every patch does.
    """

    def __init__(
        self,
        *,
        frame: tuple[int, int],
        patch: int,
        dim: int,
        tokens: int = 1,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
        channels: int = 3,
    ) -> None:
        self.dim = dim
        self.cut = Patches(frame=frame, patch=patch, dim=width, channels=channels)
        self.body = SpaceTime(dim=width, layers=layers, heads=heads, extra=tokens)
        self.out = nn.Linear(width, share(dim, tokens))

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:  # type: ignore[override]  # (N, P, C, H, W), (N, C, H, W)
        return self.along(window(seen, goal))[:, -1]

    def along(self, frames: Tensor) -> Tensor:
        """What led to each frame but the first, from it and those before: (B, T, C, H, W) to (B, T - 1, dim)."""
        patches = each(self.cut, frames)
        return self.out(self.body(patches)[:, 1:, self.cut.tokens :]).flatten(2)


class Contrast(Part):
    """What changed in the patches: each hears its frame, then its own past, and then minus now is what is kept (LAPA).

    A convolution without overlap makes ``side`` by ``side`` tokens of the change, ``dim`` numbers together. A still
    picture says the same whatever it shows.
    """

    def __init__(
        self,
        *,
        features: int,
        grid: tuple[int, int],
        dim: int,
        side: int = 2,
        width: int = 256,
        spatial: int = 4,
        layers: int = 4,
        heads: int = 8,
    ) -> None:
        if any(cells % side for cells in grid):
            raise ValueError(f"A grid of {tuple(grid)} patches does not part into {side} by {side}; choose a divisor.")
        self.features, self.grid, self.dim = features, (grid[0], grid[1]), dim
        each = share(dim, side * side)
        self.first = nn.Linear(features, width)
        self.space = Stack(width, layers=spatial, heads=heads)
        self.time = Causal(dim=width, layers=layers, heads=heads)
        self.time.stack.norm = nn.LayerNorm(width, bias=False)  # what is added to both cancels
        self.small = nn.Linear(width, each)
        stride = (grid[0] // side, grid[1] // side)
        self.gather = nn.Conv2d(each, each, stride, stride)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:  # type: ignore[override]  # (N, P, L, F), (N, L, F)
        return self.along(window(seen, goal))[:, -1]

    def along(self, features: Tensor) -> Tensor:
        """What changed at each step, from the frames up to then: (B, T, L, F) to (B, T - 1, dim)."""
        agree(features, (None, None, self.grid[0] * self.grid[1], self.features), name="Features")
        batch, time = features.shape[:2]
        x = self.space(self.first(features).flatten(0, 1)).unflatten(0, (batch, time))
        x = self.time(x.transpose(1, 2).flatten(0, 1))  # (B * L, T, width)
        change = self.small(x[:, 1:] - x[:, :-1]).unflatten(0, (batch, *self.grid))
        maps = self.gather(change.permute(0, 3, 4, 1, 2).flatten(0, 1))  # (B * (T - 1), each, side, side)
        return maps.flatten(2).transpose(1, 2).flatten(1).unflatten(0, (batch, time - 1))


class Reader(Part):
    """Reads what was done off ``queries`` that join the features of each frame, and of their past (UniVLA).

    A frame has so many ``tokens``. Instructions may be ``told``, in tokens of that width: then what they explain need
    not be in the answer. Heard are those ``known``, or else those that are not all zero; in training a sample hears
    none with the odds ``deaf``, so that it reads as well where nothing is said.
    """

    def __init__(
        self,
        *,
        features: int,
        tokens: int,
        dim: int,
        queries: int = 4,
        told: int = 0,
        deaf: float = 0.0,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
    ) -> None:
        self.features, self.tokens, self.dim, self.deaf = features, tokens, dim, deaf
        self.first = nn.Linear(features, width)
        self.places = nn.Parameter(SMALL * torch.randn(tokens, width))
        self.listen = nn.Linear(told, width) if told else None
        self.body = SpaceTime(dim=width, layers=layers, heads=heads, extra=queries)
        self.out = nn.Linear(width, share(dim, queries))

    def forward(  # type: ignore[override]  # (N, P, L, F), (N, L, F), (N, M, told), (N, M)
        self, seen: Tensor, goal: Tensor, *, told: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        return self.along(window(seen, goal), told=told, known=known)[:, -1]

    def along(self, features: Tensor, *, told: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """What led to each frame but the first, from it and those before: (B, T, L, F) to (B, T - 1, dim)."""
        agree(features, (None, None, self.tokens, self.features), name="Features")
        x = self.first(features) + self.places
        words, known = heard(self.listen, told, known=known)
        if known is not None and self.training and self.deaf:
            known = known & (torch.rand(len(known), 1, device=known.device) >= self.deaf)
        x = self.body(x, told=words, known=known)
        return self.out(x[:, 1:, self.tokens :]).flatten(2)

    def further(self, queries: int) -> Reader:
        """A reader that starts as this one, reads by so many ``queries`` more, and is told nothing."""
        was: int = self.arguments["queries"]
        wide = {"queries": was + queries, "dim": self.dim * (was + queries) // was}
        made = Reader(**{**self.arguments, **wide, "told": 0}).to(self.device)
        mine = {name: value for name, value in self.state_dict().items() if not name.startswith("listen.")}
        mine["body.tokens"] = torch.cat([mine["body.tokens"], made.state_dict()["body.tokens"][was:]])
        made.load_state_dict(mine)
        return made


class Asked(Part):
    """Reads what was done by questions put to the features of now and of then, which do not hear one another: cheap."""

    def __init__(
        self, *, features: int, dim: int, queries: int = 4, width: int = 256, layers: int = 2, heads: int = 8
    ) -> None:
        self.dim = dim
        self.read = Queries(features=features, dim=width, queries=queries, layers=layers, heads=heads, frames=2)
        self.out = nn.Linear(width, share(dim, queries))

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:  # type: ignore[override]  # (N, P, L, F), (N, L, F)
        read = self.read(torch.stack([seen[:, -1], goal], 1))
        return self.out(read.unflatten(1, (-1, self.read.dim))).flatten(1)


class Window(Part):
    """Reads what was done off embeddings in a row, each told of those before: at the frame after it (DynaMo, CLAM)."""

    def __init__(
        self, *, features: int, dim: int, width: int = 128, layers: int = 6, heads: int = 4, reach: int | None = None
    ) -> None:
        self.features, self.dim = features, dim
        self.first = nn.Linear(features, width)
        self.body = Causal(dim=width, layers=layers, heads=heads, reach=reach)
        self.out = nn.Linear(width, dim)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:  # type: ignore[override]  # (N, P, F), (N, F)
        return self.along(window(seen, goal))[:, -1]

    def along(self, features: Tensor) -> Tensor:
        """What led to each frame but the first, from it and those before: (B, T, F) to (B, T - 1, dim)."""
        agree(features, (None, None, self.features), name="Embeddings")
        return self.out(self.body(self.first(features))[:, 1:])


def window(seen: Tensor, goal: Tensor) -> Tensor:
    """The frames seen and the one after them, in a row."""
    return torch.cat([seen, goal[:, None]], 1)


def share(dim: int, tokens: int) -> int:
    """How many of ``dim`` numbers each of so many tokens holds."""
    if tokens < 1 or dim % tokens:
        raise ValueError(f"{dim} numbers do not part evenly among {tokens} tokens; make dim a multiple of them.")
    return dim // tokens


def heard(
    listen: nn.Linear | None, told: Tensor | None, *, known: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Instructions as a network reads them, and which are any: where nobody says, those that are not all zero.

    They are tokens (N, M, told), or one vector each (N, told).
    """
    if told is None:
        return None, None
    told = told[:, None] if told.ndim == 2 else told
    if listen is None:
        raise ValueError(f"Instructions were told where none can be heard; build the model with told={told.shape[-1]}.")
    agree(told, (None, None, listen.in_features), name="Instructions")
    return listen(told), (told != 0).any(-1) if known is None else known
