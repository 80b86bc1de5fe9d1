"""Clips that end otherwise than they did: what a model is asked about to learn what its latents hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tacit.clip import Clip, floats
from tacit.evaluate import holdout

Kind = Literal["frames", "state"]
KINDS: tuple[Kind, ...] = ("frames", "state")


def square(one: Tensor, other: Tensor) -> Tensor:
    """The squared distance of each row."""
    if one.shape != other.shape:
        raise ValueError(
            f"A prediction has shape {tuple(one.shape[1:])} where what it should be has {tuple(other.shape[1:])}: "
            "predict must give what it is judged by, the next picture or state, or features as the model has them."
        )
    return (one.float() - other.float()).flatten(1).square().sum(1)


def others(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row another, of another episode wherever no episode has half of the rows."""
    order = np.argsort(owner, kind="stable")
    out = np.empty(len(owner), np.int64)
    out[order] = np.roll(order, len(owner) // 2)
    return out


def ending(clip: Clip, last: Callable[[Tensor], Tensor]) -> Clip:
    """The clip with another last frame."""

    def changed(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        out = x.clone()  # laid out in memory as the original: what is drawn or summed in that order stays alike
        out[:, -1] = last(x)
        return out

    return clip.replace(frames=changed(clip.frames), state=changed(clip.state))


def picked(clip: Clip, moments: list[int]) -> Clip:
    """The clip of these of its moments, in this order."""
    seen = {kind: getattr(clip, kind)[:, moments] for kind in KINDS if getattr(clip, kind) is not None}
    return Clip(**seen, text=clip.text)


def noise(x: Tensor) -> Tensor:
    """Noise in place of the last frames: constant changes would be lost on a model that normalises its input."""
    if x.dtype == torch.uint8:
        return torch.randint_like(x[:, -1], 256)
    if x.ndim > 3:
        return torch.rand_like(x[:, -1])
    return x[:, -1] + x.std() * torch.randn_like(x[:, -1])


def seen(model: holdout.Inferring, clip: Clip) -> Callable[[Tensor], Tensor] | None:
    """What turns a prediction into a last frame as the clip has it; ``None`` where something else is predicted.

    Found by comparing what the model says it wants to predict with what the clip shows, on every scale in use.
    """
    wanted = holdout.last(model.targets(clip).float(), clip, what=f"{type(model).__name__}.targets")
    there = clip.frames if clip.frames is not None and clip.frames.shape[2:] == wanted.shape[1:] else clip.state
    if there is None or there.shape[2:] != wanted.shape[1:]:
        return None
    if there is clip.state:
        return (lambda x: x) if torch.equal(there[:, -1].float(), wanted) else None
    centred = floats(there[:, -1])  # in [-0.5, 0.5]
    for scale, shift in ((1.0, 0.0), (1.0, 0.5), (2.0, 0.0), (255.0, 127.5)):  # and [0, 1], [-1, 1], [0, 255]
        if torch.allclose(centred * scale + shift, wanted, atol=1e-3 * scale):
            return lambda x, scale=scale, shift=shift: ((x - shift) / scale + 0.5).clamp(0, 1)  # type: ignore[misc]
    return None


def ended(clip: Clip, moment: Tensor, *, at: int = -1) -> Clip:
    """The clip with this last frame, in [0, 1], or this last state; or with it elsewhere."""
    kind = kind_of(clip, moment)
    changed = shown(clip, kind).clone()
    changed[:, at] = moment
    return clip.replace(**{kind: changed})


def kind_of(clip: Clip, moment: Tensor) -> Kind:
    """Whether such a moment, (B, ...), is a picture or a state of this clip."""
    return "frames" if clip.frames is not None and clip.frames.shape[2:] == moment.shape[1:] else "state"


def shown(clip: Clip, kind: Kind) -> Tensor:
    """All moments of a clip: states, or pictures in [0, 1]."""
    return clip.state.float() if kind == "state" else floats(clip.frames) + 0.5  # type: ignore[union-attr,arg-type]
