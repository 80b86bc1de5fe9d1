"""One cell of a comparison: a recipe trained on some data with one seed, judged on held-out episodes, and let act."""

from __future__ import annotations

import copy
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from tacit import data as recordings
from tacit import info as here
from tacit.data.collect import exogenous, opened
from tacit.data.episodes import Episodes
from tacit.evaluate import latents
from tacit.evaluate.content import bits, nuisance
from tacit.evaluate.rollout import Chance, rollout
from tacit.latents.model import LatentActions, label
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.policies.policy import Policy
from tacit.rehearsal import few, peak, rehearse
from tacit.spelled import given
from tacit.train import Plan

ENDS = ("random", "expert")  # who acts without having been trained: the ends of the scale
READ = {  # column of a row -> what the report of a model calls it
    "probe": "linear probe of z",
    "probe_with_o": "linear probe of z and o",
    "probe_of_o": "linear probe of o",
    "probe_untrained": "linear probe of untrained z",
    "fvu": "FVU",
    "shuffled_gap": "shuffled-latent gap",
}
BLIND = (64, 64)  # what is drawn for whoever acts by states, and for the films
TRIED, PLAYED = 256, 4  # transitions that a rehearsal judges, and episodes that it acts in
Recipe = str | Callable[..., Any]  # a recipe of the house by its name, or a function like one


@dataclass(frozen=True)
class Terms:
    """All that decides a comparison's numbers beside recipe, data and seed."""

    labels: tuple[int, ...] = (16, 64, 256)  # budgets; with none nobody acts
    env: str = ""  # where policies act; where empty, the one that the data say they were recorded in
    source: str | None = None  # whose episodes are labelled and cloned; the expert's, where there are others beside
    episodes: int = 50  # that each policy acts in
    held: float = 0.2  # share of the episodes that is kept back to judge on
    size: int | None = None  # side of the pictures; as they are recorded, where not given
    most: int = 2048  # transitions that are judged
    plan: Mapping[str, Any] = field(default_factory=dict)  # what is to be other than in each recipe's own plan
    knobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # recipe -> its knobs, and "plan.rate"

    def sides(self, path: Path, *, workers: int = 2, decoded: bool = True) -> tuple[Episodes, Episodes, str]:
        """The episodes to learn from, those kept back, and whose are labelled and cloned."""
        whole = recordings.open(path)
        here.sides(self.size, whole.spec.frame, name=path)
        whole = recordings.cache(whole, size=self.size, workers=workers) if decoded else whole
        train, held = whole.split(self.held)
        usual = "expert" if {"expert"} < set(train.sources) else ""
        return train, held, usual if self.source is None else self.source

    def opening(self, path: Path, data: Episodes) -> Callable[[], Any]:
        """What opens the environment that policies for these data act in."""
        env, options = here.recorded(self.env or str(path))
        if env == str(path):
            raise here.Unknown(
                f"{path} does not say in which environment it was recorded: give --env E; or --labels without a "
                "number, so that nobody acts."
            )
        side = self.size or (data.spec.frame or BLIND)[0]
        return partial(opened, here.environment(env), size=side, options=options)


@dataclass(frozen=True)
class Method:
    """A recipe as the terms want it: its knobs set, and its own plan as far as nobody says otherwise."""

    train: partial[Any]  # given data, a folder and a plan
    plan: Plan
    acts: bool  # it gives a policy, and is trained once a budget
    taught: bool  # it gives latents, and wants labels inside their training
    stated: bool = False  # it looks at states, whatever else there is

    @classmethod
    def of(cls, recipe: Recipe, terms: Terms, *, source: str = "", seed: int = 0) -> Method:
        """Find the recipe and set its knobs; a slip of the finger ends here, before anything is trained."""
        function, name = here.recipe(recipe) if isinstance(recipe, str) else recipe, called(recipe)
        signature, hints, kinds = inspect.signature(function), get_type_hints(function), here.parts(function)
        known = {k: p.default for k, p in signature.parameters.items() if k not in ("data", "out", "plan")}
        knobs: dict[str, Any] = {"source": source} if "source" in known else {}
        knobs |= {k: copy.deepcopy(v) for k, v in known.items() if isinstance(v, Part)}  # a default is all calls' own
        changes = dict(terms.plan)
        for knob, value in terms.knobs.get(name, {}).items():
            if knob.startswith("plan."):
                changes[knob.removeprefix("plan.")] = value
            elif knob not in known:
                raise here.Unknown.of(f"knob of {name}", knob, known=known)
            else:
                value = [value] if get_origin(hints[knob]) is tuple and not isinstance(value, list | tuple) else value
                found = given(value, kind=kinds[knob], inside=knob) if knob in kinds else value
                knobs[knob] = _fitting(f"{name}.{knob}", found, hints[knob])
        plan: Plan = signature.parameters["plan"].default
        fields = get_type_hints(Plan)
        for name_, value in changes.items():
            if name_ not in asdict(plan) or name_ == "seed":
                raise here.Unknown.of("field to set of a plan", name_, known=[k for k in asdict(plan) if k != "seed"])
            changes[name_] = _fitting(f"{name}.plan.{name_}", value, fields[name_])
        acts = isinstance(hints["return"], type) and issubclass(hints["return"], Policy)
        taught = not acts and bool(knobs.get("labelled", known.get("labelled", 0)))
        stated = bool(knobs.get("states", known.get("states")))
        return cls(partial(function, **knobs), plan.replace(**changes, seed=seed), acts, taught, stated)


@dataclass(frozen=True)
class Cell:
    """One recipe on one dataset with one seed."""

    recipe: Recipe
    data: Path
    name: str  # what the data are called
    seed: int

    def __str__(self) -> str:
        return f"{called(self.recipe)} on {self.name}, seed {self.seed}"

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{called(self.recipe)}-{self.name}-{self.seed}"

    @property
    def row(self) -> dict[str, Any]:
        return {"recipe": called(self.recipe), "data": self.name, "seed": self.seed}

    def rows(self, terms: Terms, home: Path) -> Iterator[dict[str, Any]]:
        """A row for each budget: what the latents are, what they cost, and how well the policy acts."""
        train, held, source = terms.sides(self.data)
        if self.recipe in ENDS:
            yield {**self.row, "labels": 0, "taught": 0, **self._acted(self._end(terms, train), terms, train)}
            return
        facts = dict[str, Any]()
        for budget in terms.labels or (0,):
            # Anew for each: a part among the knobs is trained in place, and no budget begins from another's.
            method = Method.of(self.recipe, terms, source=source, seed=self.seed)
            some = train.keep_labels(budget, seed=self.seed, source=source or None)
            place = home / str(budget) if method.acts or method.taught else home
            if method.acts:
                policy = method.train(some, place, plan=method.plan)
                facts = _cost(place, policy)
            elif method.taught or not facts:
                shown = some if method.taught else train.unlabelled()
                model = method.train(shown, place / "latents", plan=method.plan)
                facts = _cost(place / "latents", model) | self._judged(model, held, terms, place / "judged")
                latent = label(model, train) if terms.labels else train
            if terms.labels and not method.acts:
                some = latent.keep_labels(budget, seed=self.seed, source=source or None)
                following = self._following(model, terms, source)
                policy = following.train(some, place / "follow", plan=following.plan)
                policy.save(home / f"policy-{budget}")
            acted = self._acted(policy, terms, train) if terms.labels else {}
            yield {**self.row, "labels": budget, "taught": budget * method.taught, **facts, "memory": peak(), **acted}

    def _end(self, terms: Terms, data: Episodes) -> Any:
        """One end of the scale."""
        world = terms.opening(self.data, data)()
        world.close()
        return Chance() if self.recipe == "random" else world.expert()

    def _following(self, model: LatentActions, terms: Terms, source: str) -> Method:
        """How labels make a policy of a model; one without eyes is given some."""
        how = Method.of("follow", terms, source=source, seed=self.seed)
        blind = model.encoder is None and "encoder" not in how.train.keywords
        eyes = {"encoder": Keypoints(frame=here.frame(model), points=16)} if blind else {}  # type: ignore[arg-type]
        return replace(how, train=partial(how.train, model, **eyes))

    def _judged(self, model: LatentActions, held: Episodes, terms: Terms, out: Path) -> dict[str, Any]:
        """The measures of one model, whose whole report is kept beside it."""
        asked: dict[str, Any] = {"most": terms.most, "seed": self.seed}
        whole = latents.report(model, held, kinds=("linear",), **asked)
        try:
            tracks = exogenous(self.data, held)
        except FileNotFoundError:  # nothing in it is known to go on by itself
            tracks = None
        foreign, told = nuisance(model, held, tracks=tracks, **asked), bits(model, held, **asked)
        whole.title = str(self)
        whole.add(foreign, told).save(out)
        found = {column: whole[name].value for column, name in READ.items()}
        notes = {"nuisance_of": foreign.note, "bits_of": told.note}
        return {**found, "nuisance": foreign.value, "bits": told.value, **notes}

    def _acted(self, actor: Any, terms: Terms, data: Episodes) -> dict[str, Any]:
        return rollout(actor, terms.opening(self.data, data), episodes=terms.episodes, seed=self.seed).row()

    def rehearsed(self, terms: Terms) -> dict[str, Any]:
        """What the cell would take, from a few steps, transitions and episodes on a few recordings; writes nothing."""
        whole, kept, source = terms.sides(self.data, decoded=False)
        frame = here.sides(terms.size, whole.spec.frame, name=self.data)
        labelled = whole.keep_labels(min(terms.labels, default=0), seed=self.seed, source=source or None)
        train, budgets, trainings, timed = few(labelled, frame=frame), len(terms.labels or (0,)), 0, 0.0
        told: list[dict[str, Any]] = []
        if self.recipe in ENDS:
            budgets, actor = 1, self._end(terms, train)
        else:
            method = Method.of(self.recipe, terms, source=source, seed=self.seed)
            trainings = budgets if method.acts or method.taught else 1
            actor, found = _tried(method, train if method.acts or method.taught else train.unlabelled())
            told.append(found)
            if not method.acts:
                began = time.perf_counter()
                latents.report(actor, few(kept, frame=frame), kinds=("linear",), most=TRIED, seed=self.seed)
                timed += trainings * (time.perf_counter() - began) * terms.most / TRIED
            if not method.acts and terms.labels:
                actor, found = _tried(self._following(actor, terms, source), label(actor, train))
                told.append(found)
        if terms.labels:
            began = time.perf_counter()
            self._acted(actor, replace(terms, episodes=min(PLAYED, terms.episodes)), train)
            timed += budgets * (time.perf_counter() - began) * max(1.0, terms.episodes / PLAYED)
        seconds = timed + trainings * sum(part["seconds"] for part in told)
        memory, disk = (max((part[key] for part in told), default=0) for key in ("memory_bytes", "disk_bytes"))
        return {**self.row, "seconds": seconds, "memory_bytes": memory, "disk_bytes": disk * trainings}


def _tried(method: Method, data: Episodes) -> tuple[Any, dict[str, Any]]:
    """What a method makes in a few steps, and what all of them would take."""
    made: list[Any] = []
    told = rehearse(lambda data, plan: made.append(method.train(data, None, plan=plan)), data, plan=method.plan)
    return made[0], told


def called(recipe: Recipe) -> str:
    """A recipe's name."""
    return recipe if isinstance(recipe, str) else recipe.__name__


def _fitting(name: str, value: Any, kind: Any) -> Any:
    """``value`` if it is of the kind that a knob wants; a whole number does for any other."""
    if kind in (int, float, bool, str):
        right = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not right or (isinstance(value, bool) and kind is not bool):
            raise here.Unknown(f"{name} was given {value!r}; wanted {kind.__name__}.")
    return value


def _cost(folder: Path, model: Part) -> dict[str, Any]:
    """What training took, as each run in the folder wrote it down, however often it was stopped."""
    runs = [json.loads(path.read_text()) for path in folder.rglob("run.json")]
    seconds, steps = (sum(run[key] for run in runs) for key in ("seconds", "step"))
    count = sum(p.numel() for p in model.parameters())
    return {"seconds": seconds, "steps": steps, "step": seconds / max(1, steps), "parameters": count}
