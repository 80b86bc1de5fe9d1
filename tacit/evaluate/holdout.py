"""Held-out data: the refusal of any other, and the one way in which a model is passed over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, each, floats
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.part import Part

BATCH = 64  # transitions at a time: the networks of pictures want some megabytes for each
COARSE = 16  # rows and columns of a picture as it is seen beside a model
MOST = 2048  # transitions looked at where nobody says otherwise: enough for intervals of a few per cent


class Inferring(Protocol):
    """What can be judged: it infers a latent for each transition and, most of them, predicts with it.

    A model that looks further back than the present frame says in ``past`` by how many; without it, by none.
    """

    seen: frozenset[str]

    def infer(self, clip: Clip) -> Tensor: ...
    def predict(self, clip: Clip, latents: Tensor) -> Tensor: ...
    def targets(self, clip: Clip) -> Tensor: ...


def refuse_overlap(trained: Any, episodes: Episodes) -> None:
    """Stop if any of ``episodes`` was trained on; ``trained`` is a model, or the prints of its training episodes."""
    if not len(episodes):
        raise ValueError("There are no episodes to evaluate on; give at least one that was held out.")
    shared = episodes.overlap(prints(trained))
    if shared:
        who = type(trained).__name__ if hasattr(trained, "seen") else "the model"
        raise ValueError(
            f"{shared} of these {len(episodes)} episodes were used to train {who}, so that a number measured on them "
            "would say nothing of new data. Split before training, `train, held = episodes.split()`, train on the "
            "first and evaluate on the second; or record new episodes."
        )


def prints(trained: Any) -> frozenset[str]:
    """The prints of every episode that a model, or any part inside it, was trained on."""
    if isinstance(trained, nn.Module):
        found: list[Iterable[str]] = [module.seen for module in trained.modules() if isinstance(module, Part)]
        found += [trained.seen] if hasattr(trained, "seen") else []  # type: ignore[list-item]
        if not found:
            name = type(trained).__name__
            raise TypeError(f"{name} does not say what it was trained on; give it `seen`, the prints of its episodes.")
        return frozenset().union(*found)
    if hasattr(trained, "seen"):
        return frozenset(trained.seen)
    if isinstance(trained, str) or not isinstance(trained, Iterable):
        raise TypeError(f"Wanted a model with `seen`, or prints of episodes; not {type(trained).__name__}.")
    return frozenset(trained)


def untrained(model: Any, *, seed: int = 0) -> Any:
    """The same architecture with the weights it would start from: what the data and the wiring give for nothing."""
    if not isinstance(model, Part):
        raise TypeError(f"{type(model).__name__} does not remember how it was built; only a Part can be built anew.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _anew(model, {}).to(model.device).eval()


def _anew(value: Any, done: dict[int, Any]) -> Any:
    """A part built again with all the parts inside it, which its arguments hold as they were trained."""
    if isinstance(value, Part):
        if id(value) not in done:  # a part used in two places stays one part
            done[id(value)] = type(value)(**{k: _anew(v, done) for k, v in value.arguments.items()})
        return done[id(value)]
    if isinstance(value, dict):
        return {k: _anew(v, done) for k, v in value.items()}
    return type(value)(_anew(v, done) for v in value) if type(value) in (tuple, list) else value


def told(episodes: Episodes) -> str:
    """What a number was measured on, in words that tell two data sets apart."""
    name = f" of {episodes.spec.name}" if episodes.spec.name else ""
    return f"{len(episodes)} held-out episodes{name} ({episodes.fingerprint[:8]})"


@contextmanager
def still(model: Any, *, seed: int = 0) -> Iterator[None]:
    """Evaluation mode, no gradients and a seeded generator; all as it was afterwards."""
    training, cuda = getattr(model, "training", False), place(model).type == "cuda"
    with torch.inference_mode(), torch.random.fork_rng(devices=[place(model)] if cuda else []):
        torch.manual_seed(seed)
        try:
            if training:
                model.eval()
            yield
        finally:
            if training:
                model.train()


def place(model: Any) -> torch.device:
    """The device that a model wants its clips on."""
    found = getattr(model, "device", None)
    if found is None and isinstance(model, nn.Module):
        found = next((p.device for p in model.parameters()), None)
    return torch.device(found or "cpu")


@dataclass(frozen=True)
class Walk:
    """Chosen transitions, and for each the clip that ends in it."""

    clips: Clips
    windows: NDArray[np.int64]  # (N,) which clip
    owner: NDArray[np.int64]  # (N,) which episode
    at: NDArray[np.int64]  # (N,) which row of `Episodes.column`

    def __len__(self) -> int:
        return len(self.windows)

    def batches(self, device: torch.device | str = "cpu", *, size: int = BATCH) -> Iterator[tuple[slice, Clip]]:
        """Every chosen transition once, in clips that carry no label, no latent and no reward."""
        bounds = np.linspace(0, len(self), -(-len(self) // size) + 1).round().astype(int)
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
            clip = self.clips.batch(self.windows[start:stop]).to(device)
            yield slice(start, stop), clip.replace(actions=None, mask=None, latents=None, rewards=None, ends=None)


def walk(
    episodes: Episodes,
    *,
    length: int = 2,
    most: int | None = MOST,
    among: NDArray[np.bool_] | None = None,
    ordered: bool = False,
    seed: int = 0,
) -> Walk:
    """Up to ``most`` transitions of all episodes, drawn from those ``among`` (one truth a frame)."""
    counts = np.maximum(0, episodes.lengths - length + 1)
    owner = np.repeat(np.arange(len(episodes)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    at = episodes.starts[owner] + within + length - 2
    windows = np.arange(len(owner)) if among is None else np.flatnonzero(among[at])
    windows = np.random.default_rng([seed, 7]).permutation(windows)[:most]
    windows = np.sort(windows) if ordered else windows
    return Walk(Clips(episodes, length), windows, owner[windows], at[windows])


def surrounded(episodes: Episodes, reach: int) -> NDArray[np.bool_]:
    """One truth a frame: the transition that leaves it is labelled, as are ``reach`` before and after it."""
    mask = episodes.mask  # an episode's last row is never labelled, so that no run of labels reaches into the next
    runs = np.lib.stride_tricks.sliding_window_view(np.pad(mask, reach), 2 * reach + 1)
    return np.asarray(runs.all(1))


def span(model: Any) -> int:
    """How many frames a clip must have, that its last transition is seen as in training."""
    return int(getattr(model, "past", 0)) + 2


def infer(model: Inferring, path: Walk) -> NDArray[np.float32]:
    """The latent of each chosen transition, (N, D)."""
    found: list[Tensor] = []
    with still(model):
        for _, clip in path.batches(place(model)):
            found.append(latest(model, clip).float().cpu())
    return finite(torch.cat(found).numpy(), model)


def finite(latents: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
    """The same latents, or an error that says how many of them are not numbers."""
    lost = int((~np.isfinite(latents)).any(1).sum())
    if lost:
        raise ValueError(
            f"{type(model).__name__} inferred latents that are not finite for {lost} of {len(latents)} transitions; "
            "its training has failed."
        )
    return latents


def latest(model: Inferring, clip: Clip) -> Tensor:
    """The latent of each clip's last transition, (B, D); what can infer it alone is asked for no more."""
    alone = getattr(model, "latest", None)
    return alone(clip) if alone else last(model.infer(clip), clip, what=f"{type(model).__name__}.infer")


def told_by(model: Inferring, clip: Clip) -> Tensor:
    """The latents that a clip's last prediction is made with, (B, K, D): of all its transitions, or of the last alone.

    What takes each transition ``alone`` is asked for no more than the one that is looked at.
    """
    if getattr(model, "alone", False):
        return latest(model, clip)[:, None]
    found = model.infer(clip)
    last(found, clip, what=f"{type(model).__name__}.infer")
    return found


def foretold(model: Inferring, clip: Clip, *, by: Tensor) -> Tensor:
    """What a model predicts of a clip's last transition with these latents of ``told_by``, (B, ...)."""
    return last(model.predict(clip, by).float(), clip, what=f"{type(model).__name__}.predict", count=by.shape[1])


def lent(latents: Tensor, given: Tensor) -> Tensor:
    """The same latents (B, K, D) with this one (B, D) in the last's place."""
    return torch.cat([latents[:, :-1], given[:, None]], 1)


def coarse(clip: Clip) -> Tensor:
    """Pictures made coarse, or the state where there are none: (B, T, F)."""
    if clip.frames is None:
        return clip.state.float()  # type: ignore[union-attr]
    high, wide = (min(COARSE, side) for side in clip.frames.shape[-2:])
    return each(lambda x: F.adaptive_avg_pool2d(x, (high, wide)).flatten(1), floats(clip.frames))


def last(values: Tensor, clip: Clip, *, what: str, count: int | None = None) -> Tensor:
    """What belongs to a clip's last transition, after a check of the time convention."""
    count = count or clip.time - 1
    if values.ndim < 3 or values.shape[:2] != (len(clip), count):
        raise ValueError(
            f"{what} gave {tuple(values.shape)} for a clip of {len(clip)} x {clip.time} frames; "
            f"wanted ({len(clip)}, {count}, ...), one for each transition."
        )
    return values[:, -1]


def summed(rows: ArrayLike, owner: ArrayLike) -> NDArray[np.float64]:
    """Columns summed within each episode."""
    rows, (_, which) = np.asarray(rows, np.float64), np.unique(owner, return_inverse=True)
    out = np.zeros((which.max() + 1, rows.shape[1]))
    np.add.at(out, which, rows)
    return out


def fold(groups: ArrayLike, folds: int = 5) -> NDArray[np.int64]:
    """The fold of each row: whole groups together; a single group is cut into stretches."""
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) > 1:
        return np.asarray(which % folds)
    return np.arange(len(which)) * folds // max(1, len(which))
