"""Probes: how much of the true action can be read from a latent, by what means, and how much was readable without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, Space, floats
from tacit.data.episodes import Episodes
from tacit.evaluate import holdout
from tacit.evaluate.interval import Interval, bootstrap
from tacit.evaluate.report import Value
from tacit.part import Part

Kind = Literal["linear", "nonlinear"]
Array = NDArray[np.float64]
Read = Callable[[Array], Array]  # what a fitted probe is: from inputs to targets
Observe = Callable[[Clip], Tensor]  # from a clip to features of the frame before its last, (B, F)

HELD = 0.4  # share of the episodes that a probe is tested on
FOLDS = 5
STRENGTHS = tuple(10.0**k for k in range(-6, 3))  # of the ridge penalty, per row of standardised inputs
GRID, KEPT = 16, 128  # a picture is seen as so many rows and columns, and those as so many principal components
WIDTH, STEPS, CHECK, PATIENCE = 128, 1500, 50, 6  # the network: its width, most steps, steps a check, checks in vain


@dataclass(frozen=True)
class Side:
    """Transitions with true actions, in order of time: what the probe may look at, what it should say, and whose."""

    inputs: Mapping[str, Array]
    actions: NDArray[Any]
    owner: NDArray[np.int64]

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
        wanted = targets(self.train.actions, self.space)
        inputs, groups = self.train.joined(names), self.train.owner
        read = (
            Ridge.fit(inputs, wanted, groups=groups)
            if kind == "linear"
            else network(inputs, wanted, groups=groups, seed=seed)
        )
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
    models = {"z": model} if model is not None else {}
    looks = observe or looked if "o" in parts else None
    sides = gather(models, episodes, labels=labels, most=most, observe=looks, seed=seed)
    if isinstance(sides, str):
        return Value(name, None, data=holdout.told(episodes), note=sides)
    return Value.of(
        name, score(sides.tally(parts, kind, seed=seed), sides.space), data=holdout.told(episodes), note=sides.note()
    )


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
    seed: int = 0,
) -> Sides | str:
    """Both sides' labelled transitions as each model infers them, and as ``observe`` sees ``o``; or why there are none.

    At most ``most`` transitions a side. Only episodes with a label take part in the split.
    """
    for model in models.values():
        holdout.refuse_overlap(model, episodes)
    space = episodes.spec.space
    if space is None:
        return "nobody recorded an action in these episodes, so there is nothing to probe for"
    told = np.flatnonzero(np.add.reduceat(episodes.mask, episodes.starts))
    if len(told) < 2:
        return f"labels are visible in {len(told)} of {len(episodes)} episodes; a probe is fitted and tested on different ones"
    train, test = episodes.select(told).split(HELD, seed=seed)
    if labels is not None:
        train = train.keep_labels(labels, seed=seed)
    length = max((holdout.span(model) for model in models.values()), default=2)
    sides = []
    for part in (train, test):
        if part.lengths.max() < length:
            return f"no labelled episode has the {length} frames that the model looks at"
        path = holdout.walk(part, length=length, most=most, among=part.mask, seed=seed, ordered=True)
        if not len(path):
            return f"no label lies {length - 2} frames or more after its episode's beginning"
        inputs = {name: holdout.infer(model, path).astype(np.float64) for name, model in models.items()}
        if observe is not None:
            inputs["o"] = _observed(path, observe)
        actions = part.column("actions")
        sides.append(Side(inputs, np.asarray(actions)[path.at], path.owner))
    if all((side.actions == sides[0].actions[0]).all() for side in sides):
        return "every label is the same action"
    if observe is not None:
        sides = _principal(*sides)
    return Sides(*sides, space)


def looked(clip: Clip) -> Tensor:
    """The observation ``o_t`` as a probe sees it by default: the picture, made coarse; without pictures, the state."""
    if clip.frames is None:
        return clip.state[:, -2].float()  # type: ignore[index]
    frames = floats(clip.frames[:, -2])
    size = [min(GRID, side) for side in frames.shape[-2:]]
    return F.adaptive_avg_pool2d(frames, size).flatten(1)


def _observed(path: holdout.Walk, observe: Observe) -> Array:
    with torch.inference_mode():
        return torch.cat([observe(clip).float().cpu() for _, clip in path.batches()]).double().numpy()


def _principal(train: Side, test: Side) -> list[Side]:
    """The observation in its principal components, found where the probe is fitted."""
    seen = train.inputs["o"]
    mean = seen.mean(0)
    sizes, axes = np.linalg.eigh((seen - mean).T @ (seen - mean))
    axes = axes[:, sizes > 1e-9 * max(sizes[-1], 1e-30)][:, -KEPT:]
    return [Side({**s.inputs, "o": (s.inputs["o"] - mean) @ axes}, s.actions, s.owner) for s in (train, test)]


def targets(actions: NDArray[Any], space: Space) -> Array:
    """What a probe is to say, (N, M): a one for the action chosen, or the action itself."""
    return np.eye(space.size)[actions] if space.discrete else actions.astype(np.float64)


def tally(said: Array, actions: NDArray[Any], *, space: Space, owner: ArrayLike) -> Array:
    """Sums over each episode that its score is made of, (E, K): what is drawn anew for the interval."""
    one = np.ones((len(actions), 1))
    if space.discrete:
        rows = np.concatenate([one, (said.argmax(1) == actions)[:, None]], 1)
    else:
        rows = np.concatenate([one, (said - actions) ** 2, actions, actions**2], 1)
    return summed(rows, owner)


def summed(rows: ArrayLike, owner: ArrayLike) -> Array:
    """Columns summed within each episode."""
    rows, (_, which) = np.asarray(rows, np.float64), np.unique(owner, return_inverse=True)
    out = np.zeros((which.max() + 1, rows.shape[1]))
    np.add.at(out, which, rows)
    return out


def score(tallied: Array, space: Space) -> Interval:
    """Accuracy or R2, with its interval over episodes."""
    return bootstrap(tallied, lambda rows: quality(rows, space))


def gain(one: Array, other: Array, *, space: Space) -> Interval:
    """By how much one probe is better than another on the same transitions."""
    width = one.shape[1]
    both = np.concatenate([one, other], 1)
    return bootstrap(both, lambda rows: quality(rows[:, :width], space) - quality(rows[:, width:], space))


def quality(tallied: Array, space: Space) -> float:
    """Accuracy, or R2 averaged over the dimensions that vary at all; NaN where none does."""
    sums = tallied.sum(0)
    if space.discrete:
        return float(sums[1] / sums[0])
    missed, first, second = sums[1:].reshape(3, -1)
    varied = second - first**2 / sums[0]
    told = varied > 1e-9 * np.maximum(second, 1e-12)
    return float((1 - missed[told] / varied[told]).mean()) if told.any() else float("nan")


@dataclass(frozen=True)
class Ridge:
    """A linear probe in closed form, as firm as episodes that it was not fitted on want it."""

    mean: Array
    weights: Array  # (D, M)
    bias: Array
    strengths: tuple[float, ...]  # chosen for each task

    def __call__(self, inputs: Array) -> Array:
        return (inputs - self.mean) @ self.weights + self.bias

    @classmethod
    def fit(cls, inputs: ArrayLike, wanted: ArrayLike, *, groups: ArrayLike, tasks: int = 1) -> Self:
        """``wanted`` (N, M) is ``tasks`` blocks of columns, each of which gets the strength that suits it."""
        x, y = np.asarray(inputs, np.float64), np.asarray(wanted, np.float64)
        mean, spread = x.mean(0), x.std(0)
        x = (x - mean) / np.where(spread > 1e-9 * spread.max(initial=1e-30), spread, np.inf)
        turn = np.eye(x.shape[1])
        if x.shape[1] > len(x):  # more inputs than rows: nothing is lost by turning to the axes that the rows span
            sizes, axes = np.linalg.eigh(x @ x.T)
            kept = sizes > 1e-10 * max(sizes[-1], 1e-30)
            turn = x.T @ (axes[:, kept] / np.sqrt(sizes[kept]))
            x = x @ turn
        folds = fold(groups)
        missed = np.zeros((len(STRENGTHS), tasks))
        for number in np.unique(folds):
            held = folds == number
            if held.all():
                break
            fitted = _Solved(x[~held], y[~held])
            for i, strength in enumerate(STRENGTHS):
                error = (fitted.read(x[held], strength) - y[held]) ** 2
                missed[i] += error.reshape(len(error), tasks, -1).sum((0, 2))
        best = missed.argmin(0) if missed.any() else np.full(tasks, STRENGTHS.index(1.0))
        whole, width = _Solved(x, y), y.shape[1] // tasks
        weights = np.concatenate(
            [whole.weights(STRENGTHS[b])[:, i * width : (i + 1) * width] for i, b in enumerate(best)], 1
        )
        scale = np.where(spread > 1e-9 * spread.max(initial=1e-30), spread, np.inf)
        return cls(mean, (turn @ weights) / scale[:, None], y.mean(0), tuple(STRENGTHS[b] for b in best))


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


def fold(groups: ArrayLike) -> NDArray[np.int64]:
    """The fold of each row: whole groups together; a single group is cut into stretches."""
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) > 1:
        return np.asarray(which % FOLDS)
    return np.arange(len(which)) * FOLDS // max(1, len(which))


def network(inputs: ArrayLike, wanted: ArrayLike, *, groups: ArrayLike, seed: int = 0) -> Read:
    """A nonlinear probe: the linear one and a small network for what it leaves, stopped where held-out episodes say."""
    x, y = np.asarray(inputs, np.float64), np.asarray(wanted, np.float64)
    held = fold(groups) == 0
    if held.all():
        return Ridge.fit(x, y, groups=groups)
    plain = Ridge.fit(x[~held], y[~held], groups=np.asarray(groups)[~held])
    spread = x[~held].std(0)
    scale = np.where(spread > 1e-9 * spread.max(initial=1e-30), spread, np.inf)
    unit = max(float(y[~held].std()), 1e-9)

    def ready(values: Array) -> Tensor:
        return torch.from_numpy((values - plain.mean) / scale).float()

    rest = torch.from_numpy((y - plain(x)) / unit).float()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        net = _settled(ready(x[~held]), rest[~held], ready(x[held]), rest[held])

    def read(values: Array) -> Array:
        with torch.inference_mode():
            return plain(values) + unit * net(ready(values)).double().numpy()

    return read


def _settled(x: Tensor, y: Tensor, x_held: Tensor, y_held: Tensor) -> nn.Module:
    """A small network trained until it gains nothing more on the held rows; it begins, and may end, by saying zero."""
    net = nn.Sequential(
        nn.Linear(x.shape[1], WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, y.shape[1])
    )
    end = net[-1]
    nn.init.zeros_(end.weight)  # type: ignore[arg-type]
    nn.init.zeros_(end.bias)  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    best, kept, vain = float(y_held.square().mean()), {k: v.clone() for k, v in net.state_dict().items()}, 0
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
            best, kept, vain = now, {k: v.clone() for k, v in net.state_dict().items()}, 0
        if vain >= PATIENCE:
            break
    net.load_state_dict(kept)
    return net.eval()
