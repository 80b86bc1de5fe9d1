"""Anybody's latent action model behind two functions: ``encode(o, o')`` gives ``z``, ``predict(o, z)`` gives ``o'``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tacit.clip import Clip, floats
from tacit.evaluate.holdout import Inferring
from tacit.part import function

Function = Callable[..., Any]
FAR = 10.0  # of pictures in [0, 1]: what lies farther out is on another scale
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
        z = _asked("encode", self.encode, _flat(o[:, :-1]), _flat(o[:, 1:]))
        return z.flatten(1).unflatten(0, (len(clip), clip.time - 1))

    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        if self.decode is None:
            raise Lacking("predict")
        o = self._looked(clip)[:, :-1]
        guess = _asked("predict", self.decode, _flat(o), latents.flatten(0, 1)).unflatten(0, o.shape[:2])
        if self.shown is None and self.of == "frames" and guess.shape == o.shape and guess.abs().max() > FAR:
            low, high = float(guess.min()), float(guess.max())
            raise ValueError(f"predict gave pictures between {low:.3g} and {high:.3g}; wanted them in [0, 1].")
        return guess

    def targets(self, clip: Clip) -> Tensor:
        o = self._looked(clip)[:, 1:]
        if self.shown is None:
            return o
        return _asked("features", self.shown, _flat(o)).unflatten(0, o.shape[:2])

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
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; wanted FILE.py:FUNCTION.")
    try:
        given = function(path, name or "load")()
    except Exception as error:  # whatever a user's own file may raise, it is said where
        raise ValueError(f"{where} could not be loaded: {type(error).__name__}: {error}") from error
    return adapted(given, what=where)


def adapted(given: Any, *, what: str = "the model") -> Inferring:
    """What was returned, as something that can be judged."""
    if all(callable(getattr(given, name, None)) for name in ("infer", "predict", "targets")):
        model: Inferring = given
        return model
    names = ("encode", "predict", "features", "of", "seen")
    if isinstance(given, dict) and (strange := sorted(set(given) - set(names))):
        raise ValueError(f"{what} gave {', '.join(map(repr, strange))}; wanted some of {', '.join(names)}.")
    both = {name: given.get(name) if isinstance(given, dict) else getattr(given, name, None) for name in names}
    asked = {name: value for name, value in both.items() if value is not None}
    if not callable(asked.get("encode")) and not callable(asked.get("predict")):
        raise ValueError(f"{what} gave {type(given).__name__} with neither encode nor predict; wanted {WANTED}.")
    if isinstance(asked.get("seen"), str):
        raise ValueError(f"{what} gave {asked['seen']!r} as seen; wanted a set of prints (Episodes.prints).")
    if "seen" in asked:
        asked["seen"] = frozenset(asked["seen"])
    parts = [given] if isinstance(given, nn.Module) else []
    parts += [f for f in asked.values() if isinstance(f, nn.Module)]
    for part in parts:
        part.eval()
    return Pair(**asked, parts=tuple(parts))


def _flat(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _asked(what: str, function_: Function, *given: Tensor) -> Tensor:
    """What a user's function says of these rows, with an error that names it where it cannot be used."""
    told = ", ".join(str(tuple(x.shape)) for x in given)
    try:
        found = torch.as_tensor(function_(*given))
    except Exception as error:
        raise ValueError(f"{what} failed, given {told}: {type(error).__name__}: {error}") from error
    if found.ndim < 2 or len(found) != len(given[0]):
        raise ValueError(f"{what} gave {tuple(found.shape)}; wanted ({len(given[0])}, ...), a row for each given.")
    if lost := int((~found.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"{what} gave numbers that are not finite in {lost} of {len(found)} rows.")
    return found.float()
