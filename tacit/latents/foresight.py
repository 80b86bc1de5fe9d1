"""Forward models that look ahead by attention: what becomes of a frame, or of a window, given latent actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import each
from tacit.latents.forward import Onward, Pixels
from tacit.latents.hindsight import heard, share
from tacit.part import Part
from tacit.parts.attention import SMALL, Causal, SpaceTime, Stack, agree, aware
from tacit.parts.patches import Patches, Pictures, grid
from tacit.parts.slow import Slow


class Patched(Pixels):
    """The next picture painted from the patches of this one, which ask a few action tokens what became of them (LAPA).

    The encoder learns nothing from here: else its features would bring what the latent is there to say.
    """

    def __init__(
        self,
        *,
        frame: tuple[int, int],
        patch: int,
        features: int,
        dim: int,
        tokens: int = 4,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
    ) -> None:
        if tokens < 2:
            raise ValueError(
                "Patched lets patches choose whom to ask among action tokens; one is no choice: take Added."
            )
        high, wide = grid(frame, patch)
        self.features, self.tokens = features, high * wide
        self.first = nn.Linear(features, width)
        self.acts = _Acts(dim, tokens, width=width)
        self.body = Stack(width, layers=layers, heads=heads, others=width)
        self.paint = Pictures(frame=frame, patch=patch, dim=width)

    def forward(self, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        agree(features, (None, None, self.tokens, self.features), name="Features")
        return self.paint(self.body(self.first(features[:, -1].detach()), self.acts(z)))


class Raw(Pixels):
    """What is painted from raw patches, onto which latents are added; ``_body`` says how they hear one another."""

    def __init__(
        self,
        *,
        frame: tuple[int, int],
        patch: int,
        dim: int,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
        channels: int = 3,
    ) -> None:
        self.cut = Patches(frame=frame, patch=patch, dim=width, channels=channels)
        self.show = nn.Linear(dim, width)
        self.body = self._body(width, layers=layers, heads=heads)
        self.paint = Pictures(frame=frame, patch=patch, dim=width, channels=channels)

    def _body(self, width: int, *, layers: int, heads: int) -> nn.Module:
        raise TypeError(f"{type(self).__name__} does not say how its patches hear one another; give it a `_body`.")


class Added(Raw):
    """The next picture from the raw patches of this one, onto each of which the latent is added (AdaWorld).

    What an encoder made of the pictures is not looked at: it may have learnt to bring the future along.
    """

    def _body(self, width: int, *, layers: int, heads: int) -> nn.Module:
        return Stack(width, layers=layers, heads=heads)

    def forward(self, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        agree(z, (len(frames), self.show.in_features), name="Latents")
        return shaded(self.paint(self.body(self.cut(frames[:, -1]) + self.show(z)[:, None])))


class Unrolled(Raw):
    """The next pictures of a whole clip, from the raw patches so far and the latents so far, each added to its frame's
    patches (Genie).

    A single latent (N, dim) goes with the last frame, and nothing before it is seen: what led there is not known.
    """

    def _body(self, width: int, *, layers: int, heads: int) -> nn.Module:
        return SpaceTime(dim=width, layers=layers, heads=heads)

    def forward(self, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        return _last(self, frames, features, z)

    def along(self, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:
        """What follows each frame, from it, those before and their latents: all (B, T, ...)."""
        agree(z, (*frames.shape[:2], self.show.in_features), name="Latents")
        patches = each(self.cut, frames)
        after = self.body(patches, added=self.show(z))
        return shaded(self.paint(after.flatten(0, 1))).unflatten(0, frames.shape[:2])


class Foreseen(Onward):
    """Predicts what the encoder sees in the next frame: as it is, if it has no weights to learn, else a slow copy."""

    def __init__(self, *, encoder: Part, memory: float) -> None:
        fixed = next(encoder.parameters(), None) is None  # a public model holds its weights elsewhere, and is large
        self.eye = encoder if fixed else Slow(encoder, memory=memory)

    def wanted(self, frames: Tensor) -> Tensor:
        return self.eye(frames).float()

    def follow(self, encoder: Part) -> None:
        if isinstance(self.eye, Slow):
            self.eye.follow(encoder)


class Features(Foreseen):
    """The next frame's features from this one's, code tokens and instructions that hear one another (UniVLA).

    Instructions ``told`` must come from a text encoder, never from the inverse model: that has seen what comes next.
    """

    def __init__(
        self,
        *,
        encoder: Part,
        features: int,
        tokens: int,
        dim: int,
        codes: int = 4,
        told: int = 0,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
        memory: float = 0.999,
    ) -> None:
        super().__init__(encoder=encoder, memory=memory)
        self.features, self.tokens = features, tokens
        self.first = nn.Linear(features, width)
        self.places = nn.Parameter(SMALL * torch.randn(tokens, width))
        self.acts = _Acts(dim, codes, width=width)
        self.listen = nn.Linear(told, width) if told else None
        self.body = Stack(width, layers=layers, heads=heads)
        self.out = nn.Linear(width, features)

    def forward(  # type: ignore[override]  # (N, P, C, H, W), (N, P, L, F), (N, dim), (N, M, told), (N, M)
        self,
        frames: Tensor,
        features: Tensor,
        z: Tensor,
        *,
        told: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        agree(features, (None, None, self.tokens, self.features), name="Features")
        x = torch.cat([self.first(features[:, -1]) + self.places, self.acts(z)], 1)
        words, known = heard(self.listen, told, known=known)
        mask = None if known is None else aware(known, before=x.shape[1])
        x = x if words is None else torch.cat([x, words.to(x.dtype)], 1)
        return self.out(self.body(x, mask=mask)[:, : self.tokens])


class Rolled(Foreseen):
    """The next embeddings of a whole window, from the embeddings and latents so far (DynaMo).

    Only their direction is said, at length one: the cost is one less the cosine. With ``memory=0`` the target is the
    encoder as it is, and no gradient goes that way.
    A single latent (N, dim) goes with the last frame, and nothing before it is seen: what led there is not known.
    """

    def __init__(
        self,
        *,
        encoder: Part,
        features: int,
        dim: int,
        width: int = 128,
        layers: int = 6,
        heads: int = 4,
        reach: int | None = None,
        memory: float = 0.0,
    ) -> None:
        super().__init__(encoder=encoder, memory=memory)
        self.features, self.dim = features, dim
        self.first = nn.Linear(features + dim, width)
        self.body = Causal(dim=width, layers=layers, heads=heads, reach=reach)
        self.out = nn.Linear(width, features)

    def forward(self, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        return _last(self, frames, features, z)

    def wanted(self, frames: Tensor) -> Tensor:
        return F.normalize(super().wanted(frames), dim=-1)

    def along(self, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:
        """What follows each frame, from the embeddings (B, T, F) and latents (B, T, dim) up to it: (B, T, F)."""
        agree(features, (None, None, self.features), name="Embeddings")
        agree(z, (*features.shape[:2], self.dim), name="Latents")
        said = self.out(self.body(self.first(torch.cat([features, z.to(features.dtype)], -1))))
        return F.normalize(said.float(), dim=-1)

    def cost(self, guess: Tensor, wanted: Tensor) -> Tensor:
        return (1 - F.cosine_similarity(guess.float(), wanted, dim=-1)).mean()


class _Acts(nn.Module):
    """A latent as so many tokens, each told which it is: (N, dim) to (N, tokens, width)."""

    def __init__(self, dim: int, tokens: int, *, width: int) -> None:
        super().__init__()
        self.dim, self.first = dim, nn.Linear(share(dim, tokens), width)
        self.slots = nn.Parameter(SMALL * torch.randn(tokens, width))

    def forward(self, z: Tensor) -> Tensor:
        agree(z, (None, self.dim), name="Latents")
        return self.first(z.unflatten(1, (len(self.slots), -1))) + self.slots


def _last(model: Unrolled | Rolled, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:
    """What follows the last frame, by the latents of all frames (N, P, dim) or of it alone (N, dim)."""
    if z.ndim == 2:
        frames, features, z = frames[:, -1:], features[:, -1:], z[:, None]
    return model.along(frames, features, z)[:, -1]


def shaded(x: Tensor) -> Tensor:
    """Any numbers as pixels, which lie between -0.5 and 0.5."""
    return torch.sigmoid(x) - 0.5
