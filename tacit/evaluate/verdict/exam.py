"""What is measured of a model once, for all the checks that ask for it: transitions, latents, and what they lead to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tacit.clip import Clip, Space
from tacit.data.episodes import Episodes
from tacit.data.twins import Twins
from tacit.evaluate import holdout
from tacit.evaluate.altered import ended, ending, others, picked, seen, square
from tacit.evaluate.codes import Said, codes_of, said
from tacit.evaluate.content import nuisance
from tacit.evaluate.interval import Interval, ratio, resummed
from tacit.evaluate.latents import REACH, align, judge
from tacit.evaluate.probe import AGAIN, HELD, Side, Sides, gather, linear, network, principal
from tacit.evaluate.report import Value
from tacit.evaluate.tally import explained, gain, quality, tally, targets
from tacit.evaluate.verdict.adapter import halves
from tacit.evaluate.verdict.views import Motion, Principal, Random, View, condensed, taught

Array = NDArray[np.float64]
LABELS = (16, 64, 256)
UNTOLD = 0.3  # of a change: what a latent leaves unsaid of where a recording jumps
MANY = 4096  # labels from which what a demonstrator usually does is learnt
KNOWING = (("z", "o"), ("bound",), ("turned",))  # what a line is given that knows where things are
TRIPS = ("again", "direct", "rest", "change", "back", "forth", "painted", "carried")


@dataclass
class Exam:
    """A model, episodes that it has not seen, and whatever else there is to ask it with."""

    model: holdout.Inferring
    episodes: Episodes
    learnt: Episodes | None = None  # episodes that it was trained on, where they are at hand
    siblings: tuple[holdout.Inferring, ...] = ()  # the same, trained with other seeds
    twins: Twins | None = None
    tracks: tuple[NDArray[Any], ...] | None = None  # what is known to go on by itself, an array an episode
    most: int = holdout.MOST
    seed: int = 0
    body: Episodes | None = None  # of another body, whose latents are lent to this one
    told: str = field(init=False)

    def __post_init__(self) -> None:
        self.told = holdout.told(self.episodes)
        self.encodes, self.predicts = halves(self.model)

    @cached_property
    def judged(self) -> dict[str, Value]:
        """What ``tacit evaluate`` measures of latents, by its name."""
        return {v.name: v for v in judge(self.model, self.episodes, most=self.most, seed=self.seed)}

    @cached_property
    def offsets(self) -> list[Value]:
        """At which offset labels go best with latents, and how well at each: as ``align`` tells it."""
        if not self.predicts:  # else it has been measured with all the rest
            return align(self.model, self.episodes, most=self.most, seed=self.seed)
        return [v for name, v in self.judged.items() if "offset" in name]

    def adds(self, best: int) -> Interval:
        """How much of the latent the label beside it tells that the label at its best offset does not.

        A body that answers late answers a little at once; of a label that lies elsewhere the latent knows nothing.
        """
        sides = gather({"z": self.model}, self.episodes, most=self.most, reach=REACH, seed=self.seed)
        assert not isinstance(sides, str)

        def said(offsets: tuple[int, ...]) -> Array:
            x, seen = (np.concatenate([targets(s.around[:, k + REACH], sides.space) for k in offsets], 1)
                       for s in (sides.train, sides.test))  # fmt: skip
            fitted = linear(x, sides.train.inputs["z"], groups=sides.train.owner, discrete=False)
            return tally(fitted(seen), sides.test.inputs["z"], space=flat, owner=sides.test.owner)

        flat = Space("continuous", sides.test.inputs["z"].shape[1])
        return gain(said((best, 0)), said((best,)), space=flat)

    @cached_property
    def codes(self) -> dict[str, Value]:
        """Codes in use and dead, perplexity, rank."""
        return {v.name: v for v in codes_of(self.model, self.path, known=self.said, data=self.told)}

    @cached_property
    def said(self) -> Said:
        """The latents of the chosen transitions, and their codes, if they have any."""
        holdout.refuse_overlap(self.model, self.episodes)
        return said(self.model, self.path)

    @cached_property
    def path(self) -> holdout.Walk:
        return holdout.walk(self.episodes, length=holdout.span(self.model), most=self.most, seed=self.seed)

    @cached_property
    def latents(self) -> Array:
        return self.said[0].astype(np.float64)

    @cached_property
    def pictures(self) -> bool:
        """Whether what is predicted can be shown to the model again: pictures or states as the data have them."""
        with holdout.still(self.model):
            clip = next(clip for _, clip in self.path.batches(holdout.place(self.model), size=8))
            return seen(self.model, clip) is not None

    @cached_property
    def trips(self) -> Array:
        """Sums over each episode of ``TRIPS``: what is left of a latent that went to another scene and came back, and
        what happens where nothing does."""
        table = np.zeros((len(self.path), len(TRIPS)))
        with holdout.still(self.model, seed=self.seed):
            for rows, clip in self.path.batches(holdout.place(self.model)):
                columns = self._travelled(clip, self.path.owner[rows])
                table[rows] = torch.stack(columns, 1).double().cpu().numpy()
        return holdout.summed(table, self.path.owner)

    def _travelled(self, clip: Clip, owner: NDArray[np.int64]) -> list[Tensor]:
        model, back = self.model, seen(self.model, clip)
        other = torch.from_numpy(others(owner)).to(clip.device)
        there = clip[other]
        same = ending(clip, lambda x: x[:, -2])
        z, rest = holdout.told_by(model, clip), holdout.latest(model, same)
        want, kept = (model.targets(c).float()[:, -1] for c in (clip, same))
        guess = holdout.foretold(model, clip, by=z)
        lent = holdout.foretold(model, there, by=holdout.lent(z[other], z[:, -1]))
        elsewhere = model.targets(ending(there, lambda x: x[:, -2])).float()[:, -1]
        nothing = holdout.foretold(model, clip, by=holdout.lent(z, rest))
        again = torch.full_like(guess, float("nan"))
        if back is not None:  # z here, put to use elsewhere, read off what it did there, and put to use here
            away = ended(there, back(lent))
            again = holdout.foretold(model, clip, by=holdout.lent(z, holdout.latest(model, away)))
        turned = picked(clip, [*range(clip.time - 2), -1, -2])
        forth, backwards = z[:, -1] - rest, holdout.latest(model, turned) - rest
        return [
            square(again, want), square(guess, want), square(nothing, kept), square(kept, want),
            square(forth, -backwards), square(forth, torch.zeros_like(forth)),
            square(lent, want), square(elsewhere, kept),
        ]  # fmt: skip

    def share(self, *names: str) -> Interval:
        """Of sums over ``TRIPS``: one over another; of more, what the first is above the second, over the rest."""
        columns = self.trips[:, [TRIPS.index(name) for name in names]]
        return resummed(columns, ratio)

    @cached_property
    def jumps(self) -> Interval:
        """The share of transitions that lead anywhere at all: twice that of those that end beyond half of all frames.

        What follows a frame is nearer to it than most frames are, or the latent tells what took it so far; where a
        recording jumps it is as near as any, and there is more to tell than the few numbers of a latent can.
        """
        both = self._told(View("change"))
        if isinstance(both, str):
            return Interval(float("nan"), float("nan"), float("nan"), 0)
        test, change = both.test, both.test.actions
        way, left = np.square(change).sum(1), np.full(len(change), np.inf)
        for name in ("bound", "turned"):  # what turns with the scene is told all the same
            fitted = linear(both.train.inputs[name], both.train.actions, groups=both.train.owner, discrete=False)
            left = np.minimum(left, np.square(change - fitted(test.inputs[name])).sum(1))
        nearer = ((_apart(test.inputs["o"]) < way[:, None]).sum(1) - 1) / max(1, len(way) - 1)  # less itself
        table = np.stack([2.0 * ((nearer > 0.5) & (left > UNTOLD * way)), np.ones(len(way))], 1)
        return resummed(holdout.summed(table, test.owner), ratio)

    @cached_property
    def hindsight(self) -> Interval | None:
        """Whether the latent of standing still after a move is that of the move (1), or another (0 and below).

        Asked of what looks further back than the present: one that does so for context knows that nothing was done.
        """
        if not getattr(self.model, "past", 0):
            return None
        table = np.zeros((len(self.path), 2))
        with holdout.still(self.model, seed=self.seed):
            for rows, clip in self.path.batches(holdout.place(self.model)):
                past = clip.time - 2
                ways = ([-3] * past + [-2, -2], [-3] * past + [-3, -2], [-2] * past + [-2, -2])
                after, move, none = (holdout.latest(self.model, picked(clip, way)) for way in ways)
                columns = [square(none, move) - square(after, move), square(none, move)]
                table[rows] = torch.stack(columns, 1).double().cpu().numpy()
        return resummed(holdout.summed(table, self.path.owner), ratio)

    @cached_property
    def sides(self) -> Sides | str:
        """Labelled transitions to fit on and to test on, with the latent and with what there is beside it."""
        found = gather(self._views, self.episodes, most=self.most, seed=self.seed)
        return found if isinstance(found, str) else condensed(found)

    @cached_property
    def effects(self) -> Sides | str:
        """The same with what happened in place of an action: what is known without labels.

        Of pictures it is how far what changed has moved; of states, what their change is beyond what a line tells of it
        from the state alone.
        """
        states = self.episodes.spec.frame is None
        return self._told(View("change") if states else Motion(), less=states)

    def _told(self, looked: Any, *, less: bool = False) -> Sides | str:
        """Both sides' transitions with what a view says in place of an action; ``less`` what the state tells of it."""
        if isinstance(self._viewed, str):
            return self._viewed
        sides = []
        for path, inputs in self._viewed:
            happened = holdout.infer(looked, path).astype(np.float64)
            sides.append(Side(inputs, happened[:, None], path.owner))
        train, test = sides
        if less:
            drift = linear(train.inputs["o"], train.actions, groups=train.owner, discrete=False)
            train, test = (replace(s, around=s.around - drift(s.inputs["o"])[:, None]) for s in sides)
        return condensed(Sides(train, test, Space("continuous", train.actions.shape[1])))

    @cached_property
    def _viewed(self) -> list[tuple[holdout.Walk, dict[str, Array]]] | str:
        """Transitions to fit on and to test on, labelled or not, and every view of them."""
        if len(self.episodes) < 2:
            return "what happens is fitted on some episodes and tested on others, and there is one"
        found = []
        for part in self.episodes.split(HELD, seed=AGAIN + self.seed):
            path = holdout.walk(part, length=holdout.span(self.model), most=self.most, seed=self.seed, ordered=True)
            if not len(path):
                return "too few frames to fit a probe and to test it"
            views = {name: holdout.infer(view, path).astype(np.float64) for name, view in self._views.items()}
            found.append((path, views))
        return found

    @property
    def _views(self) -> dict[str, Any]:
        return {"z": self.model, "o": View("o"), "change": View("change"), "random": Random(self.seed)}

    def gap(self, sides: Sides, *, together: bool = False) -> Interval:
        """How much more a line reads that knows where things are than one of the latent, or of the frame, alone.

        Its slopes may depend on where things are: that undoes what turns a latent with its scene. Lines are held
        against lines, for few labels go no further. Of many numbers ``together`` where some of them hardly vary.
        """
        good = explained if together else partial(quality, space=sides.space)
        known = [self.read(names, sides=sides) for names in KNOWING]
        alone = [self.read((name,), sides=sides) for name in ("z", "o")]
        best, other = max(known, key=good), max(alone, key=good)
        return gain(best, other, space=None if together else sides.space)

    def read(
        self,
        names: tuple[str, ...],
        *,
        labels: int | None = None,
        kind: str = "linear",
        sides: Sides | None = None,
    ) -> Array:
        """What a probe of these inputs tells, summed over each tested episode; of so many labels, or of all."""
        sides = sides or self.labelled
        rows = self.some(labels) if labels else slice(None)
        x, y = sides.train.joined(names)[rows], targets(sides.train.actions[rows], sides.space)
        discrete, groups = sides.space.discrete, sides.train.owner[rows]
        fitted = (linear if kind == "linear" else network)(x, y, groups=groups, discrete=discrete)  # type: ignore[operator]
        return tally(fitted(sides.test.joined(names)), sides.test.actions, space=sides.space, owner=sides.test.owner)

    @cached_property
    def astray(self) -> int:
        """By how many steps labels lie later than the latents that they go best with, where that is sure; else 0."""
        first = self.offsets[0]
        sure = first.low is not None and first.high is not None and not first.low <= 0 <= first.high
        return int(first.value or 0) if sure else 0

    @cached_property
    def habit(self) -> Array:
        """What the observation tells of the action, by a line or a network, learnt from all labels that are at hand.

        Of labels out of step the action is taken from where they lie: what came of an action tells it all too well.
        """
        views, by = {"o": View("o")}, self.astray
        found = gather(views, self.episodes, most=self.most, reach=abs(by), seed=self.seed)
        assert not isinstance(found, str)
        train, test = (replace(s, around=s.around[:, abs(by) + by, None]) for s in (found.train, found.test))
        known = self.learnt if self.learnt is not None and self.learnt.spec.space is not None else None
        among = None if known is None else holdout.surrounded(known, abs(by))
        if known is not None and among is not None and among.sum() > len(test.actions):
            more = holdout.walk(known, most=MANY, among=among, seed=self.seed, ordered=True)
            seen = holdout.infer(views["o"], more).astype(np.float64)  # type: ignore[arg-type]
            done = np.asarray(known.column("actions"))[more.at + by][:, None]
            train = Side({"o": seen}, done, more.owner)
        train, test = principal(train, test)
        told = Sides(train, test, self.space)
        both = [self.read(("o",), kind=kind, sides=told) for kind in ("linear", "network")]
        return max(both, key=lambda t: quality(t, self.space))

    @property
    def labelled(self) -> Sides:
        """``sides``, for who knows that there are labels."""
        assert not isinstance(self.sides, str)
        return self.sides

    def rival(self, labels: int) -> Array:
        """What an inverse model tells that has learnt from so many labels and nothing else."""
        sides, rows = self.labelled, self.some(labels)
        y = targets(sides.train.actions[rows], sides.space)
        names = ("o", "change")
        said = taught(sides.train.joined(names)[rows], y, test=sides.test.joined(names), discrete=sides.space.discrete)
        return tally(said, sides.test.actions, space=sides.space, owner=sides.test.owner)

    def some(self, labels: int) -> NDArray[np.int64]:
        """Which transitions have these few labels."""
        order = np.random.default_rng([self.seed, 16]).permutation(len(self.labelled.train.actions))
        return np.sort(order[:labels])

    @property
    def space(self) -> Space:
        return self.labelled.space

    @cached_property
    def nuisance(self) -> Value:
        """How much of what no action moves is read from the latent."""
        return nuisance(self.model, self.episodes, tracks=self.tracks, most=self.most, seed=self.seed)

    @cached_property
    def passive(self) -> Value:
        """The same of a code of the whole picture's change that is as wide as the latent: what hoarding would hold."""
        wide = Principal(self.episodes, self.latents.shape[1], seed=self.seed)
        return nuisance(wide, self.episodes, tracks=self.tracks, most=self.most, seed=self.seed)


def affine(one: Array, other: Array, *, owner: NDArray[np.int64]) -> Array:
    """What the best affine map from one latent to another misses, summed over each episode it was not fitted on."""
    held = holdout.fold(owner, 2) == 0
    fitted = linear(one[~held], other[~held], groups=owner[~held], discrete=False)
    missed = np.square(fitted(one[held]) - other[held]).sum(1)
    varied = np.square(other[held] - other[~held].mean(0)).sum(1)
    return holdout.summed(np.stack([missed, varied], 1), owner[held])


def _apart(x: Array) -> Array:
    """The squared distance of each row from each other."""
    size = np.square(x).sum(1)
    return np.maximum(size[:, None] + size - 2 * x @ x.T, 0)
