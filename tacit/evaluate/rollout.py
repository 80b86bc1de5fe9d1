"""Closed loop: a policy acts in a simulator, many episodes in lockstep, and what came of each is counted."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tacit.clip import Clip, Space
from tacit.data.crew import answers
from tacit.envs.simulator import Demonstrator, Simulator
from tacit.evaluate.holdout import place, still
from tacit.evaluate.interval import mean, normalise, proportion
from tacit.evaluate.report import Value
from tacit.part import Part


@runtime_checkable
class Acting(Protocol):
    """What a policy must do to be tried out; its memory is a tree of tensors that lead with the batch, or None."""

    def start(self, batch: int) -> Any: ...
    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]: ...


Open = Callable[[], Simulator]
Actor = Acting | Demonstrator


@dataclass
class Chance:
    """Uniformly random actions: the floor that any policy must rise above."""

    seed: int = 0
    source: str = "random"

    def begin(self, simulator: Simulator) -> None:
        self._random = np.random.default_rng([self.seed, 3])
        self.seed += 1

    def act(self, simulator: Simulator) -> np.ndarray:
        return simulator.space.sample(self._random)


@dataclass(frozen=True)
class Rollouts:
    """What came of each episode, in the order in which they were begun."""

    returns: np.ndarray  # (N,) float64, undiscounted
    successes: np.ndarray | None  # (N,) bool: success at any step; None where the environment tells of none
    lengths: np.ndarray  # (N,) decisions taken
    seeds: np.ndarray  # (N,) what each episode was begun with
    seed: int  # what the episodes' seeds derive from
    films: tuple[np.ndarray, ...] = ()  # (T, H, W, 3) of the first few episodes, from the first frame to the last

    def __len__(self) -> int:
        return len(self.returns)

    def row(self) -> dict[str, Any]:
        """The columns that a report's raw table wants of one run."""
        found = mean(self.returns)
        won = None if self.successes is None else float(self.successes.mean())
        row = {"success": won, "return": found.value, "episodes": len(self)}
        return {**row, "return_low": found.low, "return_high": found.high, "length": float(self.lengths.mean())}


def rollout(
    policy: Actor | str | Path,
    simulators: Sequence[Simulator] | Open,
    *,
    episodes: int,
    seed: int,
    record: int = 0,
    lockstep: int = 16,
    workers: int = 1,
    text: str = "",
) -> Rollouts:
    """Let ``policy`` (or a demonstrator, or the folder of a saved policy) act for exactly ``episodes`` episodes.

    Episode ``k`` begins with a seed made of ``(seed, k)``, so the same episodes are played whatever the number of
    simulators or processes. ``simulators`` are used as they are, or opened by calling it, ``lockstep`` in each of the
    ``workers`` processes. A policy that draws from torch's generator repeats itself at equal ``lockstep`` and
    ``workers``; one that does not, at any. The first ``record`` episodes are filmed. With ``text`` that is what is
    asked of it, and not what the simulator says.
    """
    if episodes < 1 or seed < 0 or workers < 1 or lockstep < 1:
        given = f"episodes={episodes}, seed={seed}, workers={workers}, lockstep={lockstep}"
        raise ValueError(f"rollout was given {given}; the seed must be at least 0 and the others at least 1.")
    task = _Task(seed=seed, record=record, lockstep=lockstep, text=text)
    if workers > 1:
        trials = _spread(policy, simulators, task, episodes, workers)
    else:
        trials = task.run(_loaded(policy), simulators, range(episodes))
    trials = sorted(trials, key=lambda trial: trial.number)
    told = all(t.success is not None for t in trials)
    return Rollouts(
        returns=np.array([t.gain for t in trials]),
        successes=np.array([t.success for t in trials]) if told else None,
        lengths=np.array([t.length for t in trials]),
        seeds=np.array([_derived(seed, t.number) for t in trials]),
        seed=seed,
        films=tuple(np.stack(t.film) for t in trials if t.film),
    )


def summary(rollouts: Rollouts, simulator: Simulator, *, name: str = "", data: str = "") -> list[Value]:
    """The rollouts as report values: success, return, return between random and expert, and length."""
    data = data or f"{len(rollouts)} new episodes of {simulator.name}, seed {rollouts.seed}"
    won = rollouts.successes
    found = {} if won is None else {"success": proportion(int(won.sum()), len(rollouts))}
    found |= {"return": mean(rollouts.returns), "episode length": mean(rollouts.lengths)}
    if simulator.floor < simulator.ceiling:
        scaled = normalise(rollouts.returns, floor=simulator.floor, ceiling=simulator.ceiling)
        found["normalised return"] = mean(scaled)
    note = {"normalised return": f"0 is random ({simulator.floor:g}), 1 is the expert ({simulator.ceiling:g})"}
    before = f"{name}: " if name else ""
    return [Value.of(before + key, value, data=data, note=note.get(key, "")) for key, value in found.items()]


def select(memory: Any, rows: Sequence[int]) -> Any:
    """Some rows of a memory: any nesting of tuples, lists, mappings and dataclasses over tensors, or None."""
    return _match(lambda x: x[torch.as_tensor(rows, dtype=torch.long, device=x.device)], memory)


def renew(memory: Any, rows: Sequence[int], *, fresh: Any, batch: int) -> Any:
    """The memory of ``batch`` rows with ``rows`` of it begun anew; ``memory`` itself is left as it was."""
    if len(rows) == batch:
        return fresh

    def put(old: Tensor, new: Tensor) -> Tensor:
        if old.shape[:1] != (batch,) or new.shape != (len(rows), *old.shape[1:]):
            raise ValueError(
                f"A policy's memory of {batch} episodes holds a tensor of shape {tuple(old.shape)}, and "
                f"start({len(rows)}) gives {tuple(new.shape)}. Memory leads with the batch and keeps its shape "
                "through an episode; where it must grow, give one simulator."
            )
        whole = old.clone()
        whole[torch.as_tensor(rows, dtype=torch.long, device=old.device)] = new.to(old)
        return whole

    if isinstance(memory, dict) and isinstance(fresh, dict) and fresh.keys() < memory.keys():
        # What is remembered only once something was seen: a row begun anew does not look at it.
        fresh = {key: fresh[key] if key in fresh else select(memory[key], rows) for key in memory}
    return _match(put, memory, fresh)


def _match(function: Callable[..., Tensor], tree: Any, *others: Any) -> Any:
    """Apply ``function`` to the tensors that stand at the same place in trees of one shape."""
    tensors = isinstance(tree, Tensor)
    if any(not isinstance(other, Tensor if tensors else type(tree)) or _keys(other) != _keys(tree) for other in others):
        kinds = " and ".join(type(t).__name__ for t in (tree, *others))
        raise ValueError(f"A policy's memory changes its form, {kinds}; let start give the same as act.")
    if tree is None:
        return None
    if tensors:
        return function(tree, *others)
    if isinstance(tree, dict):
        return {key: _match(function, value, *(other[key] for other in others)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [_match(function, *values) for values in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [f.name for f in dataclasses.fields(tree)]
        parts = [_match(function, *(getattr(t, name) for t in (tree, *others))) for name in names]
        return dataclasses.replace(tree, **dict(zip(names, parts, strict=True)))
    kind = type(tree).__name__
    raise TypeError(f"A policy's memory holds a {kind}; wanted tensors that lead with the batch, or None.")


def _keys(tree: Any) -> Any:
    return tree.keys() if isinstance(tree, dict) else len(tree) if isinstance(tree, list | tuple) else None


@dataclass
class _Trial:
    """One episode as it is being played."""

    number: int
    simulator: Any
    observation: dict[str, np.ndarray]
    demonstrator: Any = None  # this episode's own copy
    film: list[np.ndarray] = dataclasses.field(default_factory=list)
    gain: float = 0.0
    success: bool | None = None
    length: int = 0
    over: bool = False

    def take(self, action: np.ndarray, filmed: bool) -> None:
        self.observation, reward, terminated, truncated, info = self.simulator.step(action)
        self.gain, self.length = self.gain + reward, self.length + 1
        self.over = terminated or truncated
        if "success" in info:
            self.success = bool(self.success or info["success"])
        if filmed:
            self.film.append(self.observation["frame"].copy())


@dataclass(frozen=True)
class _Task:
    """What every process of one rollout agrees on."""

    seed: int
    record: int
    lockstep: int
    text: str

    def run(self, actor: Actor, simulators: Sequence[Simulator] | Open, numbers: Sequence[int]) -> list[_Trial]:
        if callable(simulators):
            opened = [simulators() for _ in range(min(self.lockstep, len(numbers)))]
            try:
                return self.run(actor, opened, numbers)
            finally:
                for simulator in opened:
                    simulator.close()
        if not simulators:
            raise ValueError("rollout was given no simulators; give at least one, or a function that opens one.")
        policy = None if hasattr(actor, "begin") else actor
        if policy is not None and not isinstance(policy, Acting):
            kind = type(actor).__name__
            raise TypeError(f"{kind} cannot act; wanted a policy (start, act) or a demonstrator (begin, act).")
        with still(actor, seed=_derived(self.seed, numbers[0])):
            return self._play(actor, policy, simulators, numbers)

    def _play(
        self, actor: Any, policy: Acting | None, simulators: Sequence[Simulator], numbers: Sequence[int]
    ) -> list[_Trial]:
        waiting = iter(numbers)
        # exactly these episodes are played: stopping at the first so many to finish would favour short ones
        live = [self._begin(actor, simulator, next(waiting)) for simulator in simulators[: len(numbers)]]
        memory = policy.start(len(live)) if policy else None
        done: list[_Trial] = []
        while live:
            if policy:
                actions, memory = _decide(policy, live, memory, text=self.text)
            else:
                actions = np.stack([t.demonstrator.act(t.simulator) for t in live])
            for trial, action in zip(live, actions, strict=True):
                trial.take(action, trial.number < self.record)
            over = [trial for trial in live if trial.over]
            if not over:
                continue
            done += over
            new = {id(trial): k for trial in over if (k := next(waiting, None)) is not None}
            kept = [i for i, trial in enumerate(live) if not trial.over or id(trial) in new]
            fresh = [row for row, i in enumerate(kept) if live[i].over]
            live = [self._begin(actor, t.simulator, new[id(t)]) if t.over else t for t in (live[i] for i in kept)]
            if policy and live:
                memory = select(memory, kept)
                memory = renew(memory, fresh, fresh=policy.start(len(fresh)), batch=len(live)) if fresh else memory
        return done

    def _begin(self, actor: Any, simulator: Simulator, number: int) -> _Trial:
        seed = _derived(self.seed, number)
        observation, _ = simulator.reset(seed=seed)
        trial = _Trial(number, simulator, observation)
        if number < self.record:
            trial.film.append(observation["frame"].copy())
        if hasattr(actor, "begin"):
            trial.demonstrator = copy.deepcopy(actor)
            if hasattr(trial.demonstrator, "seed"):
                trial.demonstrator.seed = seed  # its chance belongs to the episode, not to the order of playing
            trial.demonstrator.begin(simulator)
        return trial


def _decide(policy: Acting, live: Sequence[_Trial], memory: Any, *, text: str) -> tuple[np.ndarray, Any]:
    """One batched decision for all live episodes."""
    frames = torch.from_numpy(np.stack([t.observation["frame"] for t in live])).permute(0, 3, 1, 2).unsqueeze(1)
    state = torch.from_numpy(np.stack([t.observation["state"] for t in live])).unsqueeze(1)
    texts = [text or t.simulator.text for t in live]
    told = None if all(x is None for x in texts) else tuple(x or "" for x in texts)
    actions, memory = policy.act(Clip(frames=frames, state=state, text=told).to(place(policy)), memory)
    space: Space = live[0].simulator.space
    actions = actions.detach().cpu()
    taken = space.check(actions.float().numpy() if actions.is_floating_point() else actions.numpy(), len(live))
    if not np.asarray(space.labelled(taken)).all():
        raise ValueError(f"{type(policy).__name__} gave an action that cannot be taken (-1, NaN or infinite): {taken}.")
    return taken, memory


def _derived(seed: int, number: int) -> int:
    """The seed of an episode; the tag keeps it apart from the small seeds with which data are collected."""
    return int(np.random.SeedSequence([seed, number, 0x7AC17]).generate_state(1)[0] >> 1)


def _loaded(policy: Actor | str | Path, classes: Iterable[type[Part]] = ()) -> Any:
    return Part.load(policy, classes=tuple(classes)) if isinstance(policy, str | Path) else policy


def _spread(
    policy: Actor | str | Path, simulators: Sequence[Simulator] | Open, task: _Task, episodes: int, workers: int
) -> list[_Trial]:
    """The episodes dealt out over processes; a part travels as its folder, so what is tried is what can be saved."""
    if not callable(simulators):
        raise ValueError("workers > 1 opens its simulators itself; give a function that opens one, not open ones.")
    for thing in () if isinstance(policy, Part | str | Path) else (policy,):
        _portable(thing, "policy")
    _portable(simulators, "function that opens a simulator")
    workers = min(workers, episodes)
    with tempfile.TemporaryDirectory() as folder:
        classes: tuple[type[Part], ...] = ()
        device = place(policy)
        if isinstance(policy, Part):
            classes = tuple({type(m) for m in policy.modules() if isinstance(m, Part)})
            policy = policy.save(folder)
        shares = [range(first, episodes, workers) for first in range(workers)]
        job = _Shares(policy, classes, str(device), simulators, task, shares)
        return [trial for share in answers(job, stop=workers, workers=workers) for trial in share]


def _portable(thing: Any, what: str) -> None:
    try:
        ForkingPickler.dumps(thing)  # read by this process's own children only; nothing of it meets a disk
    except Exception as error:  # what fails, and how, depends on the thing
        raise ValueError(
            f"The {what} cannot be sent to another process: {error}. Define it at the top level of a module, "
            "for example functools.partial(tacit.envs.simulator, name), or use workers=1."
        ) from error


@dataclass(frozen=True)
class _Shares:
    """The episodes that each process tries, for a crew to ask for by number."""

    policy: Any
    classes: tuple[type[Part], ...]
    device: str
    simulators: Open
    task: _Task
    shares: Sequence[Sequence[int]]
    ours = False

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], list[_Trial]]]:
        actor: Any = _loaded(self.policy, self.classes)
        actor = actor.to(self.device) if isinstance(actor, Part) else actor

        def tally(number: int) -> list[_Trial]:
            """What goes back is the tally; simulators and demonstrators stay there."""
            trials = self.task.run(actor, self.simulators, self.shares[number])
            return [dataclasses.replace(t, simulator=None, demonstrator=None, observation={}) for t in trials]

        yield tally
