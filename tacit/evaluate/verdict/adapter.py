"""Anybody's latent action model behind two functions: ``encode(o, o')`` gives ``z``, ``predict(o, z)`` gives ``o'``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tacit.clip import Clip, floats
from tacit.evaluate.holdout import Inferring
from tacit.part import function

Function = Callable[..., Any]
WANTED = "encode(o, o') -> z, predict(o, z) -> o', or both; features(o) where predict gives features"


class Pair:
    """Two functions of somebody else's model, either of which may be missing, as something that can be judged.

    They are given pictures (N, 3, H, W) in [0, 1], or with ``of="state"`` states (N, S), and latents (N, D). Where
    ``predict`` gives features, ``features(o)`` says what it should have given. ``seen`` may hold the prints of the
    episodes that the model was trained on.
    """

    past = 0

    def __init__(
        self,
        *,
        encode: Function | None = None,
        predict: Function | None = None,
        features: Function | None = None,
        of: str = "frames",
        seen: frozenset[str] = frozenset(),
        parts: tuple[nn.Module, ...] = (),
    ) -> None:
        if encode is None and predict is None or of not in ("frames", "state"):
            raise ValueError(f"A model needs {WANTED}; given {encode=}, {predict=}, {of=}.")
        self.encode, self.decode, self.shown, self.of, self.seen, self.parts = (
            encode,
            predict,
            features,
            of,
            seen,
            parts,
        )

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next((p.device for part in self.parts for p in part.parameters()), torch.device("cpu"))

    def infer(self, clip: Clip) -> Tensor:
        if self.encode is None:
            raise Lacking("encode")
        o = self._looked(clip)
        z = _rows(self.encode(_flat(o[:, :-1]), _flat(o[:, 1:])), len(clip) * (clip.time - 1), what="encode")
        return z.flatten(1).float().unflatten(0, (len(clip), clip.time - 1))

    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        if self.decode is None:
            raise Lacking("predict")
        o = self._looked(clip)[:, :-1]
        guess = _rows(self.decode(_flat(o), latents.flatten(0, 1)), len(o) * o.shape[1], what="predict")
        return guess.unflatten(0, o.shape[:2])

    def targets(self, clip: Clip) -> Tensor:
        o = self._looked(clip)[:, 1:]
        if self.shown is None:
            return o
        return _rows(self.shown(_flat(o)), len(o) * o.shape[1], what="features").unflatten(0, o.shape[:2])

    def _looked(self, clip: Clip) -> Tensor:
        if self.of == "state":
            if clip.state is None:
                raise ValueError("This model looks at states, and the data have none.")
            return clip.state.float()
        if clip.frames is None:
            raise ValueError("This model looks at pictures, and the data have none.")
        return floats(clip.frames) + 0.5


class Lacking(ValueError):
    """One half of a model was asked for, and there is only the other."""

    def __init__(self, half: str) -> None:
        super().__init__(f"The model has no {half}; what needs it is left out.")


def halves(model: Inferring) -> tuple[bool, bool]:
    """Whether a model infers latents, and whether it predicts with them."""
    return getattr(model, "encode", True) is not None, getattr(model, "decode", True) is not None


def load(where: str) -> Inferring:
    """The model that a function of a user's file gives: ``file.py:function``.

    It may return a mapping or an object with ``encode``, ``predict`` and ``features``, or one with ``infer``,
    ``predict`` and ``targets`` as the house's own models have them.
    """
    path, _, name = where.partition(":")
    return adapted(function(path, name or "load")(), what=where)


def adapted(given: Any, *, what: str = "the model") -> Inferring:
    """What was returned, as something that can be judged."""
    if all(callable(getattr(given, name, None)) for name in ("infer", "predict", "targets")):
        model: Inferring = given
        return model
    asked = {}
    for name in ("encode", "predict", "features", "of", "seen"):
        value = given.get(name) if isinstance(given, dict) else getattr(given, name, None)
        if value is not None:
            asked[name] = value
    if not callable(asked.get("encode")) and not callable(asked.get("predict")):
        raise ValueError(f"{what} gave {type(given).__name__}; wanted a mapping or an object with {WANTED}.")
    parts = [given] if isinstance(given, nn.Module) else []
    parts += [f for f in asked.values() if isinstance(f, nn.Module)]
    for part in parts:
        part.eval()
    return Pair(**asked, parts=tuple(parts))


def _flat(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _rows(given: Any, count: int, *, what: str) -> Tensor:
    found = torch.as_tensor(given)
    if found.ndim < 2 or len(found) != count or not found.isfinite().all():
        whole = "" if found.isfinite().all() else ", not all of them finite"
        raise ValueError(
            f"{what} gave numbers of shape {tuple(found.shape)}{whole}; wanted ({count}, ...), a row for each given."
        )
    return found.float()
