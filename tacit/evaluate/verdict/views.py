"""What there is to be told without a model, and what a small network learns of it: the rivals of a latent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, floats
from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.codes import directions
from tacit.evaluate.probe import Side, Sides, principal
from tacit.parts.flow import flow

Array = NDArray[np.float64]
FINE = 32  # what moves is looked for in a picture of so many cells each way
STEPS, WIDE = 250, 16  # of the rival: an inverse model that learns from the labels alone
ALONG, WAVES = 4, (1, 2)  # main components of a frame along which there are waves, and how many in six deviations
TERMS = 16  # main components of a latent, and of a frame, that are multiplied with one another


class View:
    """The observation, or its change, made coarse: what is known without any model."""

    seen: frozenset[str] = frozenset()

    def __init__(self, what: str) -> None:
        self.what = what

    def infer(self, clip: Clip) -> Tensor:
        x = holdout.coarse(clip)
        return x[:, :-1] if self.what == "o" else x[:, 1:] - x[:, :-1]


class Motion:
    """How far what changed in the picture has moved, to the right and down, on average."""

    seen: frozenset[str] = frozenset()

    def infer(self, clip: Clip) -> Tensor:
        assert clip.frames is not None
        frames = floats(clip.frames)
        high, wide = frames.shape[-2:]
        small = F.adaptive_avg_pool2d(frames.flatten(0, 1), (min(FINE, high), min(FINE, wide)))
        x = small.unflatten(0, frames.shape[:2])
        before, after = x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1)
        weight = (after - before).abs().sum(1, keepdim=True)
        found = (flow(before, after) * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)
        return found.unflatten(0, (len(clip), clip.time - 1))


class Random:
    """An encoder of two observations that has learnt nothing."""

    seen: frozenset[str] = frozenset()

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def infer(self, clip: Clip) -> Tensor:
        x = holdout.coarse(clip)
        both, random = torch.cat([x[:, :-1], x[:, 1:]], -1), torch.Generator().manual_seed(self.seed)
        weights = torch.randn(both.shape[-1], 64, generator=random).to(both) / both.shape[-1] ** 0.5
        return torch.tanh(4 * both @ weights)


class Principal:
    """The main directions of the change, as many as a latent has numbers."""

    seen: frozenset[str] = frozenset()

    def __init__(self, episodes: Episodes, count: int, *, seed: int) -> None:
        path = holdout.walk(episodes, length=2, most=holdout.MOST, seed=seed)
        change = holdout.infer(View("change"), path).astype(np.float64)  # type: ignore[arg-type]
        self.axes = torch.from_numpy(directions(change)[:, -count:].copy()).float()

    def infer(self, clip: Clip) -> Tensor:
        return View("change").infer(clip) @ self.axes.to(clip.device)


def condensed(sides: Sides) -> Sides:
    """Pictures in few components, and beside them the latent ``bound`` to where things are, in two ways.

    By the products of its main components with those of the frame, and ``turned``: with waves along the few most lively
    of them, which undo what turns with the scene however far.
    """
    train, test = (replace(s, inputs={**s.inputs, "bound": s.inputs["z"]}) for s in (sides.train, sides.test))
    for name in ("o", "change", "bound"):
        train, test = principal(train, test, name=name)
    unit = np.maximum(train.inputs["o"][:, -ALONG:].std(0), 1e-9)
    return Sides(_bound(train, unit), _bound(test, unit), sides.space)


def _bound(side: Side, unit: Array) -> Side:
    """The latent's main components, the frame, and the products of both, or of the latent and waves along the frame."""
    z, o = side.inputs["bound"][:, -TERMS:], side.inputs["o"]
    along = np.concatenate([k * o[:, -ALONG:] / unit for k in WAVES], 1)
    found = {"bound": o[:, -TERMS:], "turned": np.concatenate([np.cos(along), np.sin(along)], 1)}
    bound = {name: np.concatenate([z, o, (z[:, :, None] * by[:, None]).reshape(len(z), -1)], 1)
             for name, by in found.items()}  # fmt: skip
    return replace(side, inputs={**side.inputs, **bound})


def taught(x: Array, y: Array, *, test: Array, discrete: bool, seed: int = 0) -> Array:
    """What a small network that learnt ``y`` from these rows alone says of others."""
    centre, scale = x.mean(0), np.maximum(x.std(0), 1e-3 * max(float(x.std()), 1e-9))
    unit = 1.0 if discrete else np.maximum(y.std(0), 1e-9)
    middle = 0.0 if discrete else y.mean(0)
    ready = [torch.from_numpy((v - centre) / scale).float().clamp(-10, 10) for v in (x, test)]
    wanted = torch.from_numpy((y - middle) / unit).float()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], 8 * WIDE), nn.GELU(), nn.Linear(8 * WIDE, y.shape[1]))
        optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.1)
        for _ in range(STEPS):
            rows = torch.randint(len(wanted), (min(64, len(wanted)),))
            said = net(ready[0][rows])
            cost = F.cross_entropy(said, wanted[rows]) if discrete else F.mse_loss(said, wanted[rows])
            optimiser.zero_grad(set_to_none=True)
            cost.backward()
            optimiser.step()
    with torch.no_grad():
        return np.asarray(net(ready[1]).double().numpy() * unit + middle)
