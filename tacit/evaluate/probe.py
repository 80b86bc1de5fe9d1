"""Probes: how much of the true action can be read from a latent, by what means, and how much without it."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, Space
from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.codes import directions
from tacit.evaluate.report import Value
from tacit.evaluate.tally import gain, score, tally, targets
from tacit.part import Part

Kind = Literal["linear", "nonlinear"]
Array = NDArray[np.float64]
Read = Callable[[Array], Array]  # what a fitted probe is: from inputs to targets
Observe = Callable[[Clip], Tensor]  # from a clip to features of the frame before its last, (B, F)

HELD = 0.4  # share of the episodes that a probe is tested on
AGAIN = 104_729  # they may come from a split already, and a second by the same seed would be no split at all
STRENGTHS = tuple(10.0**k for k in range(-6, 3))  # of the ridge penalty, per row of standardised inputs
KEPT = 64  # a picture made coarse is seen as so many principal components
WIDTH, STEPS, CHECK, PATIENCE = 64, 1500, 50, 6  # the network: its width, most steps, steps a check, checks in vain


@dataclass(frozen=True)
class Side:
    """Transitions with true actions, in order of time: what the probe may look at, what it should say, and whose."""

    inputs: Mapping[str, Array]
    around: NDArray[Any]  # (N, 2 * reach + 1, ...): the action of the transition, and those before and after it
    owner: NDArray[np.int64]

    @property
    def actions(self) -> NDArray[Any]:
        return self.around[:, self.around.shape[1] // 2]

    def joined(self, names: Sequence[str]) -> Array:
        return np.concatenate([self.inputs[name] for name in names], 1)


@dataclass(frozen=True)
class Sides:
    """The transitions that a probe is fitted on and those, of other episodes, that it is tested on."""

    train: Side
    test: Side
    space: Space

    def tally(self, names: Sequence[str], kind: Kind, *, seed: int = 0) -> Array:
        """What ``score`` needs of each tested episode, for a probe of these inputs."""
        x, y, groups = self.train.joined(names), targets(self.train.actions, self.space), self.train.owner
        fit: Callable[..., Read] = linear if kind == "linear" else functools.partial(network, seed=seed)
        read = fit(x, y, groups=groups, discrete=self.space.discrete)
        return tally(read(self.test.joined(names)), self.test.actions, space=self.space, owner=self.test.owner)

    def note(self) -> str:
        fitted = f"fitted on {len(self.train.actions)} labels"
        if not self.space.discrete:
            return f"R2; {fitted}"
        commonest = np.bincount(self.train.actions).argmax()
        share = float((self.test.actions == commonest).mean())
        return f"accuracy, where always the commonest action has {share:.2f}; {fitted}"


def probe(
    model: Any,
    episodes: Episodes,
    *,
    labels: int | None = None,
    condition: bool = False,
    kind: Kind = "linear",
    most: int = holdout.MOST,
    observe: Observe | None = None,
    seed: int = 0,
) -> Value:
    """How well true actions are read from ``model``'s latents: accuracy, or R2 averaged over the dimensions.

    With ``condition`` the probe also sees the observation ``o_t``; with ``None`` for the model it sees nothing else,
    which any latent must improve on. ``labels`` keeps so many to fit on. The probe is fitted and tested on different
    episodes, none of which the model was trained on, and the interval is over those tested.
    """
    parts = ("o",) if model is None else ("z", "o") if condition else ("z",)
    name = f"{kind} probe of {' and '.join(parts)}" + (f", {labels} labels" if labels is not None else "")
    models, looks = ({"z": model} if model is not None else {}), (observe or looked if "o" in parts else None)
    sides = gather(models, episodes, labels=labels, most=most, observe=looks, seed=seed)
    if isinstance(sides, str):
        return Value(name, None, data=holdout.told(episodes), note=sides)
    found = score(sides.tally(parts, kind, seed=seed), sides.space)
    return Value.of(name, found, data=holdout.told(episodes), note=sides.note())


def probes(
    model: Any,
    episodes: Episodes,
    *,
    labels: int | None = None,
    kinds: Sequence[Kind] = ("linear", "nonlinear"),
    most: int = holdout.MOST,
    observe: Observe | None = None,
    seed: int = 0,
) -> list[Value]:
    """The probe of the latent beside all it must be held against: the observation alone, both, and no training.

    What z adds to o is the latent's worth over state; what o adds to z is how much its meaning depends on state.
    """
    models = {"z": model} | ({"untrained z": holdout.untrained(model, seed=seed)} if isinstance(model, Part) else {})
    views: dict[str, tuple[str, ...]] = {"z": ("z",), "o": ("o",), "z and o": ("z", "o")}
    views |= {name: (name,) for name in models if name != "z"}
    gains = {"what z adds to o": ("z and o", "o"), "what o adds to z": ("z and o", "z")}
    sides = gather(models, episodes, labels=labels, most=most, observe=observe or looked, seed=seed)
    data, found = holdout.told(episodes), []
    for kind in kinds:
        names = [f"{kind} probe of {view}" for view in views] + [f"{gain}, {kind}" for gain in gains]
        if isinstance(sides, str):
            found += [Value(name, None, data=data, note=sides) for name in names]
            continue
        tallies = {view: sides.tally(parts, kind, seed=seed) for view, parts in views.items()}
        scores = [score(tallies[view], sides.space) for view in views]
        scores += [gain(tallies[more], tallies[less], space=sides.space) for more, less in gains.values()]
        notes = [sides.note()] * len(views) + ["the two probes' difference, episode by episode"] * len(gains)
        found += [Value.of(n, s, data=data, note=t) for n, s, t in zip(names, scores, notes, strict=True)]
    return found


def gather(
    models: Mapping[str, Any],
    episodes: Episodes,
    *,
    labels: int | None = None,
    most: int = holdout.MOST,
    observe: Observe | None = None,
    reach: int = 0,
    seed: int = 0,
) -> Sides | str:
    """Both sides' labelled transitions as each model infers them, and as ``observe`` sees ``o``; or why there are none.

    At most ``most`` transitions a side, those with labels up to ``reach`` steps before and after them too. Only
    episodes with such a transition take part in the split.
    """
    for model in models.values():
        holdout.refuse_overlap(model, episodes)
    space = episodes.spec.space
    if space is None:
        return "nobody recorded an action in these episodes, so there is nothing to probe for"
    told = np.flatnonzero(np.logical_or.reduceat(holdout.surrounded(episodes, reach), episodes.starts))
    if len(told) < 2:
        run = f" {2 * reach + 1} in a row" if reach else ""
        seen = f"labels{run} are visible in {len(told)} of {len(episodes)} episodes"
        return f"{seen}; a probe is fitted on some and tested on others"
    train, test = episodes.select(told).split(HELD, seed=AGAIN + seed)
    if labels is not None:
        train = train.keep_labels(labels, seed=seed)
    length = max((holdout.span(model) for model in models.values()), default=2)
    sides = []
    for part in (train, test):
        if part.lengths.max() < length:
            return f"no labelled episode has the {length} frames that the model looks at"
        among = holdout.surrounded(part, reach)
        path = holdout.walk(part, length=length, most=most, among=among, seed=seed, ordered=True)
        if not len(path):
            return f"no label lies {length - 2} frames or more after its episode's beginning"
        inputs = {name: holdout.infer(model, path).astype(np.float64) for name, model in models.items()}
        if observe is not None:
            inputs["o"] = _observed(path, observe)
        around = path.at[:, None] + np.arange(-reach, reach + 1)
        sides.append(Side(inputs, np.asarray(part.column("actions"))[around], path.owner))
    if all((side.actions == sides[0].actions[0]).all() for side in sides):
        return "every label is the same action"
    if observe is not None:
        sides = principal(*sides)
    return Sides(sides[0], sides[1], space)


def looked(clip: Clip) -> Tensor:
    """The observation ``o_t`` as a probe sees it by default."""
    return holdout.coarse(clip.steps(clip.time - 2, clip.time - 1))[:, 0]


def _observed(path: holdout.Walk, observe: Observe) -> Array:
    with torch.inference_mode():
        return torch.cat([observe(clip).float().cpu() for _, clip in path.batches()]).double().numpy()


def principal(train: Side, test: Side, *, name: str = "o") -> list[Side]:
    """What goes by that name in its principal components, found where the probe is fitted."""
    seen = train.inputs[name]
    mean = seen.mean(0)
    axes = directions(seen)[:, -KEPT:]
    return [Side({**s.inputs, name: (s.inputs[name] - mean) @ axes}, s.around, s.owner) for s in (train, test)]


@dataclass(frozen=True)
class Ridge:
    """A linear probe in closed form, as firm as episodes that it was not fitted on want it."""

    mean: Array
    scale: Array
    weights: Array  # (D, M), of inputs less their mean and over their scale
    bias: Array
    strengths: tuple[float, ...]  # chosen for each task
    beyond: Array  # (N, M) what was said of each row by a fit that had not seen its episode

    def __call__(self, inputs: Array) -> Array:
        return self.ready(inputs) @ self.weights + self.bias

    def ready(self, inputs: Array) -> Array:
        return (inputs - self.mean) / self.scale

    @classmethod
    def fit(cls, x: Array, y: Array, *, groups: ArrayLike, tasks: int = 1) -> Self:
        """``y`` (N, M) is ``tasks`` blocks of columns, each of which gets the strength that suits it."""
        mean, spread = x.mean(0), x.std(0)
        # A number that varies by rounding alone, as a collapsed code's, says nothing; infinity takes it out.
        scale = np.where(spread > 1e-6 * np.sqrt((x**2).mean(0)), spread, np.inf)
        x = (x - mean) / scale
        turn = np.eye(x.shape[1])
        if x.shape[1] > len(x):  # more inputs than rows: nothing is lost by turning to the axes that the rows span
            sizes, axes = np.linalg.eigh(x @ x.T)
            kept = sizes > 1e-10 * max(sizes[-1], 1e-30)
            turn = x.T @ (axes[:, kept] / np.sqrt(sizes[kept]))
            x = x @ turn
        beyond = _beyond(x, y, holdout.fold(groups))  # (strengths, N, M)
        missed = ((beyond - y) ** 2).reshape(len(STRENGTHS), len(y), tasks, -1).sum((1, 3))
        best = missed.argmin(0) if missed.any() else np.full(tasks, STRENGTHS.index(1.0))
        whole, columns = _Solved(x, y), np.split(np.arange(y.shape[1]), tasks)
        weights = [whole.weights(STRENGTHS[i])[:, c] for i, c in zip(best, columns, strict=True)]
        read = [beyond[i][:, c] for i, c in zip(best, columns, strict=True)]
        strengths = tuple(STRENGTHS[i] for i in best)
        return cls(mean, scale, turn @ np.concatenate(weights, 1), y.mean(0), strengths, np.concatenate(read, 1))

    def chosen(self, y: Array, *, tasks: int = 1) -> Ridge:
        """The same for choices: scores that are compared. Least squares alone never picks a class between others."""
        weights, bias = self.weights.copy(), self.bias.copy()
        for c in np.split(np.arange(y.shape[1]), tasks):
            turn, lift = _softmax(self.beyond[:, c], y[:, c])
            weights[:, c], bias[c] = weights[:, c] @ turn, bias[c] @ turn + lift
        return dataclasses.replace(self, weights=weights, bias=bias)


def linear(x: Array, y: Array, *, groups: ArrayLike, discrete: bool, tasks: int = 1) -> Ridge:
    """The linear probe for these targets, of one task or of several side by side."""
    if discrete:
        return Ridge.fit(x, y, groups=groups, tasks=tasks).chosen(y, tasks=tasks)
    unit = _unit(y, discrete)
    fitted = Ridge.fit(x, y / unit, groups=groups, tasks=tasks)
    changes = {name: getattr(fitted, name) * unit for name in ("weights", "bias", "beyond")}
    return dataclasses.replace(fitted, **changes)


def _unit(wanted: Array, discrete: bool) -> Array:
    """What makes targets weigh alike: each dimension of an action; but choices by how often they are made."""
    spread = wanted.std(0)
    return np.full_like(spread, max(spread.mean(), 1e-9)) if discrete else np.where(spread > 1e-9, spread, 1.0)


def _beyond(x: Array, y: Array, folds: NDArray[np.int64]) -> Array:
    """For each strength, what a fit on the other folds says of each row."""
    out = np.empty((len(STRENGTHS), *y.shape))
    for number in np.unique(folds):
        held = folds == number
        fitted = _Solved(x[~held], y[~held]) if not held.all() else _Solved(x, y)
        for i, strength in enumerate(STRENGTHS):
            out[i, held] = fitted.read(x[held], strength)
    return out


def _softmax(scores: Array, wanted: Array) -> tuple[Array, Array]:
    """The map (M, M) and offset (M,) that make scores into the likeliest logits."""
    x, y = torch.from_numpy(np.ascontiguousarray(scores)), torch.from_numpy(np.ascontiguousarray(wanted))
    turn, lift = torch.eye(x.shape[1], dtype=x.dtype).requires_grad_(), torch.zeros_like(y[0]).requires_grad_()
    optimiser = torch.optim.LBFGS([turn, lift], max_iter=60, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        optimiser.zero_grad()
        missed = F.cross_entropy(x @ turn + lift, y) + 1e-4 * turn.square().sum()
        missed.backward()
        return missed

    with torch.inference_mode(False), torch.enable_grad():
        optimiser.step(cost)
    return turn.detach().numpy(), lift.detach().numpy()


class _Solved:
    """Ridge regression for every strength at once, from one decomposition."""

    def __init__(self, x: Array, y: Array) -> None:
        self.count, self.centre, self.level = len(x), x.mean(0), y.mean(0)
        x = x - self.centre
        self.sizes, self.axes = np.linalg.eigh(x.T @ x)
        self.along = self.axes.T @ (x.T @ (y - self.level))

    def weights(self, strength: float) -> Array:
        return self.axes @ (self.along / (np.maximum(self.sizes, 0) + strength * self.count)[:, None])

    def read(self, x: Array, strength: float) -> Array:
        return (x - self.centre) @ self.weights(strength) + self.level


def network(x: Array, y: Array, *, groups: ArrayLike, discrete: bool, seed: int = 0) -> Read:
    """A nonlinear probe: the linear one and a small network for what it leaves, stopped where held-out episodes say."""
    held, unit = holdout.fold(groups) == 0, _unit(y, discrete)
    if held.all():
        return linear(x, y, groups=groups, discrete=discrete)
    plain = Ridge.fit(x[~held], y[~held] / unit, groups=np.asarray(groups)[~held])

    def ready(values: Array) -> Tensor:
        return torch.from_numpy(plain.ready(values)).float()

    rest = torch.from_numpy(y / unit - plain(x)).float()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        net = _settled(ready(x[~held]), rest[~held], ready(x[held]), rest[held])

    def read(values: Array) -> Array:
        with torch.inference_mode():
            return unit * (plain(values) + net(ready(values)).double().numpy())

    return read


def _settled(x: Tensor, y: Tensor, x_held: Tensor, y_held: Tensor) -> nn.Module:
    """A small network trained until it gains nothing more on the held rows; it begins, and may end, by saying zero."""
    net = nn.Sequential(nn.Linear(x.shape[1], WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU())
    net.append(nn.Linear(WIDTH, y.shape[1]))
    for parameter in net[-1].parameters():
        nn.init.zeros_(parameter)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    best, vain, kept = float(y_held.square().mean()), 0, copy.deepcopy(net.state_dict())
    for step in range(1, STEPS + 1):
        rows = torch.randint(len(x), (min(256, len(x)),))
        optimiser.zero_grad(set_to_none=True)
        F.mse_loss(net(x[rows]), y[rows]).backward()
        optimiser.step()
        if step % CHECK:
            continue
        with torch.no_grad():
            now = float(F.mse_loss(net(x_held), y_held))
        vain += 1
        if now < best:
            best, vain, kept = now, 0, copy.deepcopy(net.state_dict())
        if vain >= PATIENCE:
            break
    net.load_state_dict(kept)
    return net.eval()
