"""The verdict's pictures: what each latent does, where, how often it is used, and which action it lies beside."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip, floats
from tacit.evaluate import holdout, page
from tacit.evaluate.altered import seen
from tacit.evaluate.codes import counts
from tacit.evaluate.latents import repertoire
from tacit.evaluate.page import Figure
from tacit.evaluate.verdict.check import Check
from tacit.evaluate.verdict.exam import Exam

SIDE = 80  # pixels of a picture's longer side: some 130 pictures of pure noise are then still less than 4 MB
PAIRS, SCENES, AVERAGED = 6, 6, 48
POINTS, FEW = 500, 64  # of the map; with fewer different latents than that, equal ones are moved apart
DIMENSIONS = 6  # of which a histogram is drawn
INK = (232, 84, 44)
SET = Sequence[Check]


def figures(exam: Exam, checks: SET) -> list[Figure]:
    """All that can be shown of a model on these episodes, in the order of the page."""
    stage = Stage.of(exam)
    drawn = [] if stage is None else [foreseen(stage), scenes(stage), effects(stage)]
    maybe = [chart(exam), told(checks, discrete=_discrete(exam)), saved(checks, discrete=_discrete(exam)), usage(exam)]
    return drawn + [figure for figure in maybe if figure is not None]


@dataclass(frozen=True)
class Stage:
    """A few scenes of different episodes, the latents to be tried in them, and what shows a prediction as a picture."""

    exam: Exam
    clip: Clip
    latents: Tensor  # (B, K, D), as predictions are made with
    rows: NDArray[np.int64]  # which of the exam's transitions the scenes are
    back: Callable[[Tensor], Tensor]
    names: tuple[str, ...]
    tried: NDArray[np.float32]  # a latent for each name

    @classmethod
    def of(cls, exam: Exam) -> Self | None:
        """The stage, or ``None`` where the model does not predict pictures with latents of its own."""
        if not (exam.encodes and exam.predicts):
            return None
        path, model = exam.path, exam.model
        first = np.sort(np.unique(path.owner, return_index=True)[1])  # one of each episode before a second of any
        rows = np.concatenate([first, np.setdiff1d(np.arange(len(path)), first)])[:AVERAGED]
        some = replace(path, windows=path.windows[rows], owner=path.owner[rows], at=path.at[rows])
        with holdout.still(model, seed=exam.seed):
            clip = next(clip for _, clip in some.batches(holdout.place(model)))
            back, frames = seen(model, clip), clip.frames
            if back is None or frames is None or frames.shape[2] not in (1, 3):
                return None
            if model.targets(clip).shape[2:] != frames.shape[2:]:
                return None
            latents = holdout.told_by(model, clip)
        names, tried = repertoire(exam.said, path=path, episodes=exam.episodes)
        names = [f"latent {i + 1}, {name}" if name.endswith("of all") else name for i, name in enumerate(names)]
        return cls(exam, clip, latents, rows, back, tuple(names), tried)

    def guess(self, last: Any, *, count: int) -> Tensor:
        """What is predicted in the first scenes with these latents in place of their own: (N, C, H, W) in [0, 1]."""
        z = self.latents[:count]
        given = torch.as_tensor(np.asarray(last, np.float32)).to(z).expand(count, -1)
        with holdout.still(self.exam.model, seed=self.exam.seed):
            guess = holdout.foretold(self.exam.model, self.clip[slice(count)], by=holdout.lent(z, given))
            return self.back(guess).clamp(0, 1)

    def frame(self, when: int, *, count: int) -> Tensor:
        """What was there: the last frame but one (-2) or the last (-1)."""
        assert self.clip.frames is not None
        return floats(self.clip.frames[:count, when]) + 0.5

    def lent(self, *, count: int, own: bool) -> NDArray[np.float64]:
        """For each of the first scenes the latent of another moment of its own episode, or of another episode."""
        owner, random = self.exam.path.owner, np.random.default_rng([self.exam.seed, 17])
        found = []
        for row in self.rows[:count]:
            others = np.flatnonzero((owner == owner[row]) == own)
            others = others[others != row]
            found.append(random.choice(others if len(others) else np.flatnonzero(np.arange(len(owner)) != row)))
        return np.asarray(self.exam.latents[found])


def foreseen(stage: Stage) -> Figure:
    """Transitions: what was, what followed, and what is predicted with the right latent and with wrong ones."""
    count = min(PAIRS, len(stage.clip))
    own = stage.exam.latents[stage.rows[:count]]
    wrong = {"shuffled latent": stage.lent(count=count, own=True),
             "another clip's latent": stage.lent(count=count, own=False)}  # fmt: skip
    past, after = (_pictures(stage.frame(when, count=count)) for when in (-2, -1))
    guesses = {name: _pictures(stage.guess(z, count=count)) for name, z in {"predicted": own, **wrong}.items()}
    names = ("past", "what followed", *guesses)
    cells = "".join(f"<h3>{escape(name)}</h3>" for name in names)
    for i in range(count):
        cells += page.image(past[i], "past") + page.image(after[i], "what followed")
        for name, guess in guesses.items():
            missed = page.image(page.difference(after[i], guess[i]), f"missed: {name}")
            cells += f"<div class=over>{page.image(guess[i], name)}{missed}</div>"
    body = f"<div class=grid style='--n:{len(names)}'>{cells}</div>"
    return Figure(
        "Predictions",
        body,
        "Transitions drawn by chance; below each guess the ink shows where it misses what followed, which the right "
        "latent should keep faint, and that of another moment of the same clip, or of another clip, should not.",
    )


def scenes(stage: Stage) -> Figure:
    """Each row one latent action, each column another scene."""
    count = min(SCENES, len(stage.clip))
    start = _pictures(stage.frame(-2, count=count))
    cells = "<h3>the scene</h3>" + "".join(page.image(x, f"scene {i + 1}") for i, x in enumerate(start))
    for name, z in zip(stage.names, stage.tried, strict=True):
        shown = _pictures(stage.guess(z, count=count))
        cells += f"<h3>{escape(name)}</h3>" + "".join(
            page.image(x, f"{name} in scene {i + 1}") for i, x in enumerate(shown)
        )
    body = f"<div class=scenes style='--n:{count}'>{cells}</div>"
    told = "Each row is one latent action, each column another scene: along a row the same should happen everywhere."
    return Figure("The same latent elsewhere", body, told)


def effects(stage: Stage) -> Figure:
    """Which pixels each latent action moves, on average over scenes, and which ones truly move."""
    count = len(stage.clip)
    before = stage.frame(-2, count=count)
    maps = {"what truly moves": _moved(stage.frame(-1, count=count), before)}
    for name, z in zip(stage.names, stage.tried, strict=True):
        maps[name] = _moved(stage.guess(z, count=count), before)
    most = max(float(np.quantile(heat, 0.995)) for heat in maps.values()) or 1.0
    cells = ""
    for name, heat in maps.items():
        label = f"{escape(name)}<br>{100 * heat.mean():.2g}\u202f% on average"
        cells += f"<figure>{page.image(_heat(heat / most), name)}<figcaption>{label}</figcaption></figure>"
    return Figure(
        "What each latent moves",
        f"<div class=strip>{cells}</div>",
        f"How much each pixel changes under one latent, on average over {count} scenes: full ink is "
        f"{100 * most:.2g}\u202f% of white and more, the same in all of them.",
    )


def chart(exam: Exam) -> Figure | None:
    """Where latents lie in their two main directions, coloured by the true action."""
    space = exam.episodes.spec.space
    if not exam.encodes or space is None:
        return None
    known = np.flatnonzero(exam.episodes.mask[exam.path.at])
    if len(known) < 3:
        return None
    random = np.random.default_rng([exam.seed, 18])
    places, shares = _principal(exam.latents[known])
    rows = np.sort(random.permutation(len(known))[:POINTS])
    actions = np.asarray(exam.episodes.column("actions"))[exam.path.at[known[rows]]]
    few = len(np.unique(exam.latents[known].round(6), axis=0)) <= FEW
    at = places[rows]
    at = at + 0.02 * float(np.ptp(places)) * random.normal(size=at.shape) if few else at
    if space.discrete:
        taken = np.unique(actions)
        colours = {a: page.ink(i) if len(taken) <= page.SERIES else _hue(i, len(taken)) for i, a in enumerate(taken)}
        paint, key = [colours[a] for a in actions], _key([(colours[a], _named(space.names, a)) for a in taken])
    else:
        paint, key = _directed(actions), _wheel(space.names, flat=space.size < 2)

    def draw(axes: Any, wide: bool) -> None:
        axes.scatter(*at.T, c=paint, s=22 if wide else 14, alpha=0.75, linewidths=0)
        axes.set(xticks=[], yticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel(f"first main direction, {100 * shares[0]:.0f} % of all variance", color=page.GREY)
        axes.set_ylabel(f"second, {100 * shares[1]:.0f} %", color=page.GREY)

    drawn = page.plot(draw, "latents by true action", wide=(600, 420))
    told = "Each point is the latent of one transition, coloured by what was truly done: a sound latent puts like "
    told += "beside like" + ("; points of equal latents are moved apart a little." if few else ".")
    return Figure("Map of latents", f"{key}<div class=middling>{drawn}</div>", told)


def told(checks: SET, *, discrete: bool) -> Figure | None:
    """How well so many labels tell actions from latents, beside what they tell without them."""
    caption = "How well a linear reader tells actions after so many labels, of latents and of what there is without "
    caption += "them; bands are 95 % intervals over episodes"
    return _curve(checks, "C7", title="What labels tell", caption=caption, discrete=discrete)


def saved(checks: SET, *, discrete: bool) -> Figure | None:
    """How well so many labels clone, through latents and without."""
    caption = "How well the action is told from what is seen alone, after so many labels: through latents it should "
    caption += "rise with fewer of them"
    return _curve(checks, "C10", title="What cloning takes", caption=caption, discrete=discrete)


def usage(exam: Exam) -> Figure | None:
    """How often each code is used; of a latent without codes, how its liveliest numbers are spread."""
    if not exam.encodes:
        return None
    words = exam.said[1]
    if words is None:
        return _spread(exam.latents)
    book = getattr(exam.model, "bottleneck", None)
    size, groups = int(getattr(book, "codes", words.max() + 1)), int(getattr(book, "groups", 1))
    panels = ""
    for i, hits in enumerate(counts(words, size, groups=groups)[:DIMENSIONS]):
        shares = 100 * np.sort(hits)[::-1] / max(1, hits.sum())

        def draw(axes: Any, wide: bool, shares: Any = shares) -> None:
            axes.bar(np.arange(len(shares)), shares, width=0.8 if len(shares) <= FEW else 1, color=page.ink(1))
            axes.axhline(100 / len(shares), color=page.GREY, linestyle=(0, (4, 3)), linewidth=1.2)
            axes.set_xticks([0, len(shares) - 1], ["1", f"{len(shares)}"])
            axes.locator_params(axis="y", nbins=4)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g} %")

        name = f"book {i + 1}" if groups > 1 else f"{int((hits > 0).sum())} of {size} codes in use"
        drawn = page.plot(draw, f"use of {name}", small=groups > 1, wide=(820, 240))
        panels += f"<figure><figcaption>{name}</figcaption>{drawn}</figure>"
    kind = "panels" if groups > 1 else "single"
    caption = "How many of all latents each code is, the commonest first; the dashed line is where all would be alike."
    return Figure("Use of codes", f"<div class={kind}>{panels}</div>", caption)


def _spread(latents: NDArray[np.float64]) -> Figure:
    """Small histograms on one scale, so that a dead number looks dead."""
    lively = np.sort(np.argsort(-latents.var(0), kind="stable")[:DIMENSIONS])
    low, high = (float(np.quantile(latents[:, lively], q)) for q in (0.002, 0.998))
    edges = np.linspace(low, high if high > low else low + 1, 33)
    panels = ""
    for index in lively:
        hits = np.histogram(latents[:, index].clip(edges[0], edges[-1]), edges)[0] / len(latents)

        def draw(axes: Any, wide: bool, hits: Any = hits) -> None:
            axes.bar(edges[:-1], 100 * hits, width=edges[1] - edges[0], align="edge", color=page.ink(1))
            axes.set_xticks([edges[0], edges[-1]], [f"{edge:.2g}".replace("-", "\u2212") for edge in edges[[0, -1]]])
            axes.locator_params(axis="y", nbins=3)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g} %")

        head = f"<figcaption>number {index + 1}<small>deviation {latents[:, index].std():.2g}</small></figcaption>"
        panels += f"<figure>{head}{page.plot(draw, f'latent number {index + 1}', small=True)}</figure>"
    caption = f"How the {len(lively)} liveliest of {latents.shape[1]} numbers of the latent are spread, on one scale: "
    return Figure("Spread of latents", f"<div class=panels>{panels}</div>", caption + "one narrow peak says nothing.")


def _curve(checks: SET, code: str, *, title: str, caption: str, discrete: bool) -> Figure | None:
    """A line a method, from a check's further numbers, whose names say with how many labels each was measured."""
    more, entries = next((check.more for check in checks if check.code == code), ()), list[dict[str, Any]]()
    for value in more:
        match = re.fullmatch(r"read with (?P<n>\d+) labels|(?P<other>.+), (?P<m>\d+) labels", value.name)
        if match is None or value.value is None:
            continue
        group = match.groupdict()
        told = {key: None if v is None else max(v, 0.0) for key, v in
                {"mean": value.value, "low": value.low, "high": value.high}.items()}  # fmt: skip
        method = group["other"] or "latents"
        entries.append({"method": method, "labels": int(group["m"] or group["n"]), "n": value.n, "over": "episodes",
                        "metric": "accuracy" if discrete else "R\u00b2", **told})  # fmt: skip
    if not entries:
        return None
    below = any(value.value is not None and value.value < 0 for value in more)
    cut = "; what is worse than always saying the mean is drawn at 0." if below else "."
    drawn = page.curve(entries, budgets=sorted({entry["labels"] for entry in entries}))
    return replace(drawn, title=title, caption=caption + cut)


def _discrete(exam: Exam) -> bool:
    space = exam.episodes.spec.space
    return space is not None and space.discrete


def _pictures(x: Tensor) -> NDArray[np.uint8]:
    """Pictures (N, C, H, W) in [0, 1] for the page: (N, H, W, 3) bytes, none larger than ``SIDE``."""
    x = _small(x).expand(-1, 3, -1, -1)
    return page.pictures(x.permute(0, 2, 3, 1).cpu().numpy(), 4)


def _small(x: Tensor) -> Tensor:
    scale = SIDE / max(x.shape[-2:])
    return x if scale >= 1 else F.interpolate(x, [max(1, int(side * scale)) for side in x.shape[-2:]], mode="area")


def _moved(after: Tensor, before: Tensor) -> NDArray[np.float64]:
    """How much each pixel changed on average, (H, W)."""
    change = (after - before).abs().mean(1, keepdim=True).mean(0, keepdim=True)
    return np.asarray(_small(change)[0, 0].double().cpu().numpy())


def _heat(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Shares (H, W) as ink on nothing."""
    ink = np.broadcast_to(np.array(INK), (*shares.shape, 3))
    return np.concatenate([ink, (255 * shares.clip(0, 1))[..., None]], -1).astype(np.uint8)


def _principal(latents: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each latent in the two main directions, and how much of the variance each of them holds."""
    centred = latents - latents.mean(0)
    _, sizes, axes = np.linalg.svd(np.pad(centred, ((0, 0), (0, max(0, 2 - latents.shape[1])))), full_matrices=False)
    return centred @ axes[:2, : latents.shape[1]].T, sizes[:2] ** 2 / max(float((sizes**2).sum()), 1e-30)


def _directed(actions: NDArray[Any]) -> list[str]:
    """A hue for the direction of the first two numbers, the paler the smaller they are."""
    flat = np.asarray(actions, np.float64).reshape(len(actions), -1)
    x, y = flat[:, 0], flat[:, 1] if flat.shape[1] > 1 else np.zeros(len(flat))
    size = np.hypot(x, y)
    strength = np.sqrt((size / max(float(np.quantile(size, 0.8)), 1e-9)).clip(0, 1))
    return [_colour(angle, s) for angle, s in zip(np.arctan2(y, x), strength, strict=True)]


def _colour(angle: float, strength: float = 1.0) -> str:
    """A hue of middling lightness, that reads on light and on dark."""
    rgb = 0.52 + 0.36 * strength * np.cos(angle - 2 * np.pi * np.arange(3) / 3)
    return "#" + "".join(f"{round(255 * float(v)):02x}" for v in rgb)


def _hue(i: int, count: int) -> str:
    return _colour(2 * np.pi * i / count)


def _named(names: Sequence[str], action: int) -> str:
    return names[action] if action < len(names) else f"action {action}"


def _key(items: Sequence[tuple[str, str]]) -> str:
    listed = ((re.sub(r"#5e1e5(\d)", r"var(--s\1)", colour), escape(name)) for colour, name in items)
    return f"<ul class=key>{''.join(f'<li style=--c:{c}><i class=dot></i>{name}</li>' for c, name in listed)}</ul>"


def _wheel(names: Sequence[str], *, flat: bool) -> str:
    """What the hues mean."""
    across, up = [*names[:2], "first number", "second number"][:2] if len(names) > 1 else ("first number", "second")
    if flat:
        name = names[0] if names else "the action"
        return _key([(_colour(0.0), f"{name} above 0"), (_colour(np.pi), f"{name} below 0"), (_colour(0, 0), "near 0")])
    # a conic gradient starts at the top and turns with the clock
    stops = ",".join(_colour(np.pi / 2 - 2 * np.pi * i / 12) for i in range(13))
    wheel = f"<i class=wheel style='background:conic-gradient({stops})'></i>"
    told = f"the action's direction: more {escape(across)} is towards the wheel's right, more {escape(up)} towards its "
    told += "top; grey is near 0"
    return f"<p class=turn>{wheel}<small>{told}</small></p>"
