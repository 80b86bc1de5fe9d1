"""Recording: any simulator, any demonstrator, in many processes, and the same episodes however many they are."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tacit.clip import Clip, Episode, Space
from tacit.data.crew import answers, ready
from tacit.data.episodes import Episodes
from tacit.data.lerobot import LeRobot
from tacit.data.reader import Spec
from tacit.data.record import OURS, Writer
from tacit.data.video import Damaged
from tacit.envs.simulator import Demonstrator, Simulator
from tacit.part import WEIGHTS, Part


@runtime_checkable
class Acting(Protocol):
    """A policy: it begins a memory for a batch, and answers an observation with actions and the memory that follows."""

    def start(self, batch: int) -> Any: ...
    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]: ...


World = str | Callable[[], gymnasium.Env[Any, Any]]
Who = str | Path | Demonstrator | Acting  # "expert", "play", a saved policy's folder, or the thing itself


def collect(
    env: World,
    out: str | os.PathLike[str] | None = None,
    *,
    episodes: int | None = None,
    frames: int | None = None,
    demonstrator: Who | Sequence[Who] = "expert",
    noise: float = 0.0,
    labels: str | int | Sequence[int] = "all",
    seed: int = 0,
    workers: int = 2,
    size: int = 64,
    options: Mapping[str, Any] | None = None,
    group: int = 4096,
    progress: bool = True,
) -> Episodes:
    """Record ``episodes`` episodes, or as many as hold ``frames`` frames, into the folder ``out`` or into memory.

    ``env`` is a simulator's name, a Gymnasium id, or a function that opens either; ``options`` go to whoever opens it.
    Several demonstrators take turns, episode by episode. ``labels`` says which actions are kept: all, none, those of
    the first so many episodes, or those of the episodes with these numbers. Episode ``k`` is decided by ``(seed, k)``
    alone. A folder that was begun is gone on with, losing at most ``group`` frames; one that is done is returned as is.
    """
    budget = Budget(episodes, frames)
    ready(workers)
    who = tuple(demonstrator) if isinstance(demonstrator, list | tuple) else (demonstrator,)
    job = Job(env, who, noise=noise, labels=_chosen(labels), seed=seed, size=size, options=dict(options or {}))
    if out is None:
        recorded = list(_shown(job, budget, np.zeros(0, np.int64), workers, progress))
        space = recorded[0].space if job.labels != "none" else None
        return Episodes.of((r.episode for r in recorded), space=space, fps=recorded[0].fps, name=job.name)
    folder = Path(out)
    with _alone(folder):
        _settle(folder, job.identity())
        whole = (folder / "meta" / "info.json").exists()
        done = LeRobot(folder).lengths if whole else np.zeros(0, np.int64)
        if not budget.met(len(done), int(done.sum())):
            with contextlib.closing(_shown(job, budget, done, workers, progress)) as stream:
                _write(folder, job, stream, first=len(done), group=group)
    held = Episodes(LeRobot(folder))
    return held.select(np.arange(budget.needs(held.lengths)))


def _write(folder: Path, job: Job, stream: Iterator[Recording], *, first: int, group: int) -> None:
    tracks = folder / "meta" / "exogenous"
    with contextlib.ExitStack() as stack:
        writer: Writer | None = None
        for number, recording in enumerate(stream, first):
            if writer is None:
                spec = recording.spec(job.name, known=job.labels != "none")
                writer = stack.enter_context(Writer(folder, spec, group=group, append=first > 0))
            if recording.exogenous is not None:  # before its episode, so that what is counted has its track
                tracks.mkdir(parents=True, exist_ok=True)
                np.save(tracks / f"{number:06d}.npy", recording.exogenous)
            writer.add(recording.episode)


def _shown(
    job: Job, budget: Budget, done: np.ndarray, workers: int, progress: bool
) -> Generator[Recording, None, None]:
    """Recordings until the budget is met, behind a bar with rate and time left where somebody is looking."""
    console = Console(stderr=True)
    seen = progress and console.is_terminal
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    count, frames, fresh, began = len(done), int(done.sum()), 0, time.perf_counter()
    with Progress("recording {task.description}", *columns, console=console, transient=True, disable=not seen) as bar:
        shown = bar.add_task(f"{job.name}, {budget.unit}", total=budget.total, rate="")
        stop = budget.episodes
        with contextlib.closing(answers(job, first=count, stop=stop, workers=workers)) as stream:
            while not budget.met(count, frames):
                recording: Recording = next(stream)
                count, length = count + 1, len(recording.episode)
                frames, fresh = frames + length, fresh + length
                rate = f"{fresh / (time.perf_counter() - began):.0f} frames/s"
                bar.update(shown, completed=count if stop else frames, rate=rate)
                yield recording


def exogenous(folder: str | os.PathLike[str], episodes: Episodes) -> list[np.ndarray]:
    """The exogenous state of each of ``episodes``, (T, E) each, where ``collect`` recorded some into ``folder``."""
    tracks = Path(folder) / "meta" / "exogenous"
    if not tracks.exists():
        raise FileNotFoundError(f"{folder} holds no exogenous state; collect from a simulator with a distractor.")
    # By what they show: the rows of a cache or of joined sets are not the numbers that collect gave.
    numbers, found = {mark: number for number, mark in enumerate(LeRobot(folder).prints)}, []
    for i, mark in enumerate(episodes.prints):
        if mark not in numbers:
            raise ValueError(f"Episode {i} of those given was not recorded into {folder}; give the set that was.")
        file = tracks / f"{numbers[mark]:06d}.npy"
        found.append(np.load(file, allow_pickle=False))
        if len(found[-1]) != episodes.lengths[i]:
            raise Damaged(f"{file} has {len(found[-1])} rows for {episodes.lengths[i]} frames; record it anew.")
    return found


@dataclass(frozen=True)
class Budget:
    """How much to record: so many episodes, or the fewest that hold so many frames."""

    episodes: int | None
    frames: int | None

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.frames is None) or self.total < 1:
            raise ValueError(
                f"collect was given episodes={self.episodes} and frames={self.frames}; wanted one of them, at least 1."
            )

    @property
    def unit(self) -> str:
        return "frames" if self.episodes is None else "episodes"

    @property
    def total(self) -> int:
        return int(self.episodes if self.episodes is not None else self.frames or 0)

    def met(self, episodes: int, frames: int) -> bool:
        return (episodes if self.episodes is not None else frames) >= self.total

    def needs(self, lengths: np.ndarray) -> int:
        """How many of the episodes of these lengths the budget takes."""
        return self.total if self.episodes is not None else int(np.searchsorted(np.cumsum(lengths), self.total)) + 1


@dataclass(frozen=True)
class Job:
    """What is recorded and how: all that an episode's number has to be added to, sent to every process."""

    env: World
    who: tuple[Who, ...]
    noise: float
    labels: str | Sequence[int]
    seed: int
    size: int
    options: dict[str, Any]

    def __post_init__(self) -> None:
        wrong = [w for w in self.who if isinstance(w, str) and w not in ("expert", "play")]
        if wrong or not self.who:
            raise ValueError(f"The demonstrator is {wrong or 'nobody'}; wanted 'expert', 'play', a policy, or several.")
        if self.seed < 0 or self.size < 1 or self.noise < 0:
            raise ValueError(f"Given seed {self.seed}, size {self.size}, noise {self.noise}; none may be negative.")

    @property
    def name(self) -> str:
        return self.env if isinstance(self.env, str) else _described(self.env)

    @property
    def ours(self) -> bool:
        return isinstance(self.env, str) and all(isinstance(w, str | Path) for w in self.who)

    def identity(self) -> dict[str, Any]:
        """What must be equal for a half-recorded folder to be gone on with."""
        labels = self.labels if isinstance(self.labels, str) else sorted(self.labels)
        who = [w if w in ("expert", "play") else _described(w) for w in self.who]
        settings = {"noise": self.noise, "labels": labels, "seed": self.seed, "size": self.size}
        return {"env": self.name, "options": _plain(self.options), "demonstrator": who, **settings}

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], Recording]]:
        simulator = opened(self.env, size=self.size, options=self.options)
        loaded = {w: Part.load(w) for w in self.who if isinstance(w, Path)}
        modes = {m: m.training for m in (*self.who, *loaded.values()) if isinstance(m, torch.nn.Module)}
        try:
            for module in modes:
                module.eval()
            yield functools.partial(self._episode, simulator, loaded)
        finally:
            for module, training in modes.items():
                module.train(training)
            simulator.close()

    def _episode(self, simulator: Simulator, loaded: dict[Path, Any], number: int) -> Recording:
        start, chance = (int(s) >> 1 for s in np.random.SeedSequence([self.seed, number]).generate_state(2))
        who = self.who[number % len(self.who)]
        demonstrator: Any
        if who == "expert":
            demonstrator = simulator.expert(noise=self.noise, seed=chance)
        elif who == "play":
            demonstrator = simulator.play(seed=chance)
        elif hasattr(who, "begin"):
            demonstrator = copy.deepcopy(who)
            if hasattr(demonstrator, "seed"):
                demonstrator.seed = chance  # its chance belongs to the episode, not to the order of recording
        else:
            demonstrator = loaded[who] if isinstance(who, Path) else who
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(chance)
            recording = record(simulator, demonstrator, seed=start)
        kept = self.labels == "all" or (not isinstance(self.labels, str) and number in self.labels)
        return recording if kept else dataclasses.replace(recording, episode=recording.episode.replace(actions=None))


def opened(env: World, *, size: int = 64, options: Mapping[str, Any] | None = None) -> Simulator:
    """A simulator by its name, a Gymnasium environment by its id, or either from a function, all behind one face."""
    options = dict(options or {})
    if not isinstance(env, str):
        world = env(**options)
    elif env in gymnasium.registry:
        world = gymnasium.make(env, **{"render_mode": "rgb_array", **options})
    else:
        from tacit.envs import simulator

        world = simulator(env, size=size, **options)
    if isinstance(world, Simulator):
        return world
    from tacit.envs.plain import Plain

    return Plain(world, size=size, name=env if isinstance(env, str) else "")


def _chosen(labels: str | int | Sequence[int]) -> str | Sequence[int]:
    if isinstance(labels, str) and labels in ("all", "none"):
        return labels
    if not isinstance(labels, str | bool):
        numbers = tuple(range(labels)) if isinstance(labels, int) else tuple(labels)
        if labels == 0 or (numbers and min(numbers) >= 0):
            return numbers
    raise ValueError(f"labels is {labels!r}; wanted 'all', 'none', a count of episodes, or their numbers.")


def _described(thing: Any) -> str:
    """A name that is the same in the next process, and another one for another policy."""
    if isinstance(thing, functools.partial):
        inside = [_described(thing.func), *map(repr, thing.args), *(f"{k}={v!r}" for k, v in thing.keywords.items())]
        return f"{inside[0]}({', '.join(inside[1:])})"
    if isinstance(thing, Path):
        return f"{thing.name} {hashlib.blake2b((thing / WEIGHTS).read_bytes(), digest_size=8).hexdigest()}"
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    text = f"{named.__module__}.{named.__qualname__}"
    if isinstance(thing, torch.nn.Module):
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(thing.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return f"{text} {digest.hexdigest()}"
    return repr(thing) if dataclasses.is_dataclass(thing) and not isinstance(thing, type) else text


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True, default=_described))


def _settle(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse a folder that holds something else; note in a new one what it is going to hold."""
    note, held = folder / "meta" / "collect.json", {p.name for p in folder.iterdir()}
    begun = held - {"meta"} or {p.name for p in (folder / "meta").glob("*")} - {note.name}
    if note.exists() and begun:
        was = json.loads(note.read_text())
        differ = [f"{k} was {was.get(k)!r}, now {v!r}" for k, v in identity.items() if was.get(k) != v]
        if differ:
            raise ValueError(
                f"{folder} holds another recording: {'; '.join(differ)}. Give a new folder, or the old settings."
            )
        return
    if (folder / "meta" / "info.json").exists() or not held <= OURS:
        raise FileExistsError(f"{folder} holds {sorted(held)[:3]}, which collect did not put there; give another.")
    note.parent.mkdir(exist_ok=True)
    fresh = note.with_suffix(".partial")
    fresh.write_text(json.dumps(identity, indent=1))
    os.replace(fresh, note)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One recording at a time into a folder; a second one waits, and then finds it done."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)  # the folder itself: a lock that leaves no file behind
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Recording:
    """One episode, beside what an episode has no room for."""

    episode: Episode
    exogenous: np.ndarray | None  # (T, E) float32
    space: Space
    fps: float

    def spec(self, name: str, *, known: bool) -> Spec:
        frames, state = self.episode.frames, self.episode.state
        return Spec(
            frame=None if frames is None else (frames.shape[1], frames.shape[2]),
            state=0 if state is None else state.shape[1],
            space=self.space if known else None,
            fps=self.fps,
            rewards=True,
            text=self.episode.text is not None,
            name=name,
        )


def record(simulator: Simulator, demonstrator: Demonstrator | Acting, *, seed: int) -> Recording:
    """One episode from its first frame to its last, with the actions that were truly executed."""
    observation, _ = simulator.reset(seed=seed)
    follows = isinstance(demonstrator, Acting)
    memory = demonstrator.start(1) if follows else demonstrator.begin(simulator)  # type: ignore[union-attr,func-returns-value]
    seen, foreign, actions, rewards = [_copied(observation)], [simulator.exogenous()], [], []
    success: bool | None = None
    while True:
        if follows:
            action, memory = _decide(demonstrator, seen[-1], simulator, memory)  # type: ignore[arg-type]
        else:
            action = demonstrator.act(simulator)  # type: ignore[call-arg,arg-type,assignment]
        space, action = simulator.space, np.asarray(action)
        actions.append(action if space.discrete else np.clip(action, space.low, space.high))
        observation, reward, terminated, truncated, info = simulator.step(action)
        seen.append(_copied(observation))
        foreign.append(simulator.exogenous())
        rewards.append(reward)
        if "success" in info:
            success = bool(success) or bool(info["success"])
        if terminated or truncated:
            break
    columns = {name: np.stack([o[name] for o in seen]) for name in ("frame", "state")}
    episode = Episode(
        frames=columns["frame"],
        state=columns["state"] if columns["state"].shape[1] else None,
        actions=space.check(np.stack(actions), len(actions)),
        rewards=np.array(rewards, np.float32),
        text=simulator.text,
        source=getattr(demonstrator, "source", "policy"),
        success=success,
    )
    known = [f for f in foreign if f is not None]
    return Recording(episode, np.stack(known).astype(np.float32) if known else None, space, simulator.fps)


def _copied(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in observation.items()}  # simulators may draw into one buffer


def _decide(policy: Acting, seen: dict[str, np.ndarray], simulator: Simulator, memory: Any) -> tuple[np.ndarray, Any]:
    frames = torch.from_numpy(seen["frame"]).permute(2, 0, 1)[None, None]
    state = torch.from_numpy(seen["state"])[None, None]
    clip = Clip(frames=frames, state=state, text=None if simulator.text is None else (simulator.text,))
    with torch.inference_mode():
        actions, memory = policy.act(clip.to(getattr(policy, "device", "cpu")), memory)
    taken = simulator.space.check(actions.detach().cpu().numpy(), 1)
    if not np.asarray(simulator.space.labelled(taken)).all():
        raise ValueError(f"{type(policy).__name__} gave an action that cannot be taken (-1, NaN or infinite): {taken}.")
    return np.asarray(taken[0]), memory
