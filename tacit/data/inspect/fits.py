"""What fits on held-out episodes tell: at which offset labels match the pictures, how settled a demonstrator is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tacit.clip import Space
from tacit.data.inspect.films import Film
from tacit.data.inspect.findings import PASS, WARN, Finding, counted, percent

OFFSETS = range(-3, 4)  # transitions: mistakes of one are common, of a stacked frame or a slow gripper up to three
FOLDS = 5
COMPONENTS = 64  # principal components of pictures: what a ridge of a thousand rows can still weigh
ROWS, FEW = 200, 4  # below so many labelled transitions, or so few episodes with any, nothing is said
STRENGTHS = (1e-3, 1e-1, 1e1)  # of the ridge penalty, per row of standardised inputs
# An offset is worth a word if pictures tell the action there at all (R2), better than at 0 by this much, and by so
# many standard errors over held-out episodes: seven offsets are tried, and one in seven is 2 errors ahead by chance.
TELLS, CLEARLY, ERRORS = 0.1, 0.05, 3.0
# Demonstrators of whom more than this is told by what they see: of the change in the picture, then, no more than the
# rest can be told apart from what would have happened anyway, so nothing says which part of it is the action.
SETTLED = 0.7
FOLLOWS = 0.3  # an action that stays this near to a number of the state, in its own deviations, is a position to go to
NEIGHBOURS, NARROW = 8, 16  # of the second opinion, which sees but the first components: distances blur in many
ASKED = 4000  # rows of it at most, for its cost is their square


@dataclass(frozen=True)
class Rows:
    """Inputs and targets of a fit, and the episode that each row is of."""

    x: np.ndarray  # (N, D)
    y: np.ndarray  # (N, M)
    owner: np.ndarray  # (N,)


def targets(actions: np.ndarray, space: Space) -> np.ndarray:
    """What a fit is to say, (N, M): a one for the action chosen, or the action itself."""
    return np.eye(space.size)[actions] if space.discrete else actions.astype(np.float64)


def offset(films: Sequence[Film], space: Space | None) -> Finding:
    """Whether each label lies with the change it made: R2 from change to action at offsets of -3 to 3."""
    gathered = _around(films, space)
    if isinstance(gathered, str):
        return Finding("offset", PASS, gathered)
    rows, width = gathered
    missed, scale = crossed(rows)
    each = {k: missed[:, i * width : (i + 1) * width] for i, k in enumerate(OFFSETS)}
    sizes = {k: scale[i * width : (i + 1) * width] for i, k in enumerate(OFFSETS)}
    r2 = {k: _r2(each[k], sizes[k]) for k in OFFSETS}
    best, count = max(r2, key=lambda k: r2[k]), len(np.unique(rows.owner))
    gain = per_episode(_loss(each[0], sizes[0]) - _loss(each[best], sizes[best]), rows.owner)
    errors = float(gain.mean() / max(gain.std(ddof=1) / np.sqrt(len(gain)), 1e-12)) if best else 0.0
    facts = {"r2": r2, "best": best, "errors": errors, "episodes": count, "n": len(rows.x)}
    listed = ", ".join(f"{k:+d}: {v:.2f}" if k else f"0: {v:.2f}" for k, v in r2.items())
    basis = f"(R2 by offset {listed}; held-out folds of {count} episodes, {len(rows.x):,} transitions)"
    if r2[best] < TELLS:
        return Finding(
            "offset",
            PASS,
            f"cannot tell whether labels lie with the right frames: no offset explains them {basis}.",
            facts=facts,
        )
    if r2[best] - min(r2.values()) < CLEARLY:
        words = "cannot tell whether labels lie with the right frames: actions so alike suit every offset"
        return Finding("offset", PASS, f"{words} {basis}.", facts=facts)
    if not best or r2[best] - r2[0] < CLEARLY or errors < ERRORS:
        return Finding("offset", PASS, f"labels match the change that follows their frame {basis}.", facts=facts)
    by = counted(abs(best), "frame")
    late = f"labels come {by} too late: move each {by} earlier"
    early = f"labels come {by} too early: move each {by} later, unless the body only answers then"
    return Finding("offset", WARN, f"{late if best > 0 else early} {basis}.", facts=facts)


def _around(films: Sequence[Film], space: Space | None) -> tuple[Rows, int] | str:
    """Each transition's change, and beside it the actions at every offset from it; or why there are none."""
    if space is None:
        return "no labels: nothing to align with the pictures."
    reach, xs, ys, owner = max(OFFSETS), [], [], []
    told = _told(films)
    mean, axes = _principal([_change(film) for film, _ in told])
    for film, actions in told:
        change = _change(film)
        actions = actions[: len(change)]
        known = np.asarray(space.labelled(actions))
        at = np.arange(reach, len(change) - reach)
        at = at[np.all([known[at + k] for k in OFFSETS], 0)]
        flow = np.zeros((len(change), 0)) if film.flow is None else film.flow
        xs.append(np.concatenate([(change[at] - mean) @ axes, flow[at]], 1))
        ys.append(np.concatenate([targets(actions[at + k], space) for k in OFFSETS], 1))
        owner.append(np.full(len(at), film.number))
    return _enough(xs, ys, what=f"{2 * reach + 1} labels in a row") or (_joined(xs, ys, owner), space.size)


def settled(films: Sequence[Film], space: Space | None) -> Finding:
    """How much of the action is told by what the demonstrator sees: none of that can be found from pictures alone."""
    if space is None:
        words = (
            "no labels: how settled the demonstrator is cannot be measured; video of experts alone may be too settled"
        )
        return Finding("demonstrator", PASS, f"{words} for actions to be found in it.")
    told = _told(films)
    mean, axes = _principal([_seen(film) for film, _ in told])
    xs, ys, owner = [], [], []
    for film, actions in told:
        seen = _seen(film)
        at = np.flatnonzero(np.asarray(space.labelled(actions[: len(seen)])))
        state = np.zeros((len(seen), 0)) if film.state is None else film.state[: len(seen)]
        xs.append(np.concatenate([(seen[at] - mean) @ axes, state[at]], 1))
        ys.append(targets(actions[at], space))
        owner.append(np.full(len(at), film.number))
    lacking = _enough(xs, ys, what="a label")
    if lacking:
        return Finding("demonstrator", PASS, lacking)
    rows, width = _joined(xs, ys, owner), axes.shape[1]
    rows, followed = _moves(rows, width) if not space.discrete else (rows, 0)
    linear = _r2(*crossed(rows))
    parts = [slice(max(0, width - NARROW), width), slice(width, None)]  # the pictures' main components, and the state
    near = max(_r2(*nearest(rows, columns=part)) for part in parts)
    best, count = max(linear, near, 0.0), len(np.unique(rows.owner))
    facts = {"r2": best, "linear": linear, "neighbours": near, "episodes": count, "n": len(rows.x)}
    facts["positions"] = followed
    less = ", less the position it starts from," if followed else ""
    words = f"at least {percent(best)} of the action{less} is told by what is seen before it (R2: linear {linear:.2f}, "
    words += f"neighbours {near:.2f}; held-out folds of {count} episodes, {len(rows.x):,} labels)"
    if best <= SETTLED:
        return Finding("demonstrator", PASS, f"{words}; at most the rest can be found in pictures alone.", facts=facts)
    words += (
        ": the demonstrator is nearly deterministic, and latent actions learnt from such video are not identifiable"
    )
    words += (
        ". Add recordings of play or of other hands, or labels. (Where actions are positions to go to, it says less.)"
    )
    return Finding("demonstrator", WARN, words, facts=facts)


def _moves(rows: Rows, width: int) -> tuple[Rows, int]:
    """The rows, with actions that are positions to go to made moves by taking off where the state stands.

    Such an action is told by the state however free the demonstrator is; how many there are is the second answer.
    """
    y, state, followed = rows.y.copy(), rows.x[:, width:], 0
    for column in range(y.shape[1] if state.shape[1] else 0):
        gaps = (state - y[:, [column]]).std(0)
        nearest_ = int(gaps.argmin())
        if gaps[nearest_] < FOLLOWS * y[:, column].std():
            y[:, column] -= state[:, nearest_]
            followed += 1
    return Rows(rows.x, y, rows.owner), followed


def _told(films: Sequence[Film]) -> list[tuple[Film, np.ndarray]]:
    """The whole films that have labels, each with those of its stretch."""
    return [(f, f.labels.kept) for f in films if f.labels and f.labels.known and not f.why]


def _change(film: Film) -> np.ndarray:
    """How each transition of the stretch changes the picture; without pictures, the state."""
    shown = film.small if film.small is not None else film.state
    return np.zeros((0, 1)) if shown is None else np.diff(shown.reshape(len(shown), -1).astype(np.float32), axis=0)


def _seen(film: Film) -> np.ndarray:
    """What is seen before each transition of the stretch."""
    shown = film.small if film.small is not None else film.state
    return np.zeros((0, 1)) if shown is None else shown[:-1].reshape(max(0, len(shown) - 1), -1).astype(np.float32)


def _enough(xs: list[np.ndarray], ys: list[np.ndarray], *, what: str) -> str:
    """Why there are too few rows to fit on episodes and to test on others; nothing if there are enough."""
    count, episodes = sum(map(len, xs)), sum(len(x) > 0 for x in xs)
    if count < ROWS or episodes < FEW:
        return (
            f"cannot tell: {count:,} transitions of {counted(episodes, 'episode')} have {what}; wanted {ROWS} of {FEW}."
        )
    y = np.concatenate(ys)
    return "cannot tell: every label is the same action." if not y.std(0).max() > 1e-9 else ""


def _joined(xs: list[np.ndarray], ys: list[np.ndarray], owner: list[np.ndarray]) -> Rows:
    return Rows(np.concatenate(xs).astype(np.float64), np.concatenate(ys), np.concatenate(owner))


def _principal(seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the main directions of some rows. They see no action, so held-out rows may help to find them."""
    seen = [s for s in seen if len(s)]
    if not seen:
        return np.zeros(1), np.zeros((1, 0))
    count, width = sum(map(len, seen)), seen[0].shape[1]
    mean = sum((s.sum(0, dtype=np.float64) for s in seen), np.zeros(width)) / count
    spread = np.zeros((width, width))
    for s in seen:
        spread += np.asarray((s - mean).T @ (s - mean))
    sizes, axes = np.linalg.eigh(spread / count)
    kept = sizes > 1e-9 * max(float(sizes[-1]), 1e-30)
    return mean, axes[:, kept][:, -COMPONENTS:]


def crossed(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """What a ridge fitted on the other folds misses of each row (squared), and each target's variance."""
    spread = rows.x.std(0)
    x = (rows.x - rows.x.mean(0)) / np.where(spread > 1e-9, spread, np.inf)
    missed = np.zeros((len(STRENGTHS), *rows.y.shape))
    for held in folds(rows.owner):
        a, b = x[~held], rows.y[~held]
        centre, level = a.mean(0), b.mean(0)
        sizes, axes = np.linalg.eigh((a - centre).T @ (a - centre))
        along = axes.T @ ((a - centre).T @ (b - level))
        turned = (x[held] - centre) @ axes
        for i, strength in enumerate(STRENGTHS):
            said = turned @ (along / (np.maximum(sizes, 0) + strength * len(a))[:, None]) + level
            missed[i, held] = (rows.y[held] - said) ** 2
    return missed[missed.sum((1, 2)).argmin()], rows.y.var(0)


def nearest(rows: Rows, *, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """The same for the mean of those rows of other episodes that are most alike in some columns."""
    pick = np.linspace(0, len(rows.x) - 1, min(len(rows.x), ASKED)).astype(int)
    x, y, owner = rows.x[pick, columns], rows.y[pick], rows.owner[pick]
    size = (x**2).sum(1)
    missed = np.zeros_like(y)
    for held in folds(owner):
        gap = size[held][:, None] - 2 * x[held] @ x[~held].T + size[~held]
        found = np.argpartition(gap, min(NEIGHBOURS, gap.shape[1] - 1), axis=1)[:, :NEIGHBOURS]
        missed[held] = (y[held] - y[~held][found].mean(1)) ** 2
    return missed, y.var(0)


def folds(owner: np.ndarray) -> list[np.ndarray]:
    """Which rows are held out in turn: always whole episodes."""
    _, rank = np.unique(owner, return_inverse=True)
    return [rank % FOLDS == k for k in range(min(FOLDS, int(rank.max()) + 1))]


def _loss(missed: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What is missed of each row as a share of the variance, over the targets that vary."""
    varied = scale > 1e-9
    return np.asarray((missed[:, varied] / scale[varied]).mean(1))


def _r2(missed: np.ndarray, scale: np.ndarray) -> float:
    return float(1 - _loss(missed, scale).mean())


def per_episode(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """The mean of each episode's rows: what is independent, and can be counted for an error."""
    _, rank = np.unique(owner, return_inverse=True)
    return np.asarray(np.bincount(rank, values) / np.bincount(rank))
