"""Nine worlds in which a latent action model can be good, and how a good one is trained there in seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from arms import Arm
from torch import Tensor

from tacit.clip import Episode, Space
from tacit.data import toys
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.envs import simulator
from tacit.envs.dots import Board
from tacit.envs.simulator import Simulator
from tacit.latents.forward import Painted
from tacit.latents.inverse import Stacked
from tacit.latents.model import LatentActions
from tacit.latents.stated import Stated
from tacit.part import Part
from tacit.parts.mlp import Layers
from tacit.parts.outputs import Head
from tacit.parts.quantize import Bottleneck, Free
from tacit.train import Plan, fit

MEMORY, FOREIGN = 0.98, 4  # of what no action moves in a state: how slowly it turns back, and its numbers


@dataclass(frozen=True)
class Place:
    """A world, whether it is looked at as pictures (the toy) or as states, and how much of it is recorded."""

    name: str
    of: Literal["frames", "state"]
    open: Callable[[], Simulator] | None  # None for the toy, which is filmed and not played
    sets: bool = False  # whether limits are set here; elsewhere they are tested
    frames: int = 8000
    steps: int = 1500

    @functools.cached_property
    def space(self) -> Space:
        if self.open is None:
            return Board().space
        world = self.open()
        world.close()
        return world.space


@dataclass(frozen=True)
class Material:
    """What is learnt from, what is held out, and what is known of it to move by itself."""

    train: Episodes
    held: Episodes
    tracks: tuple[np.ndarray, ...] | None = None
    drift: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of states: as large as the usual change
    scale: tuple[np.ndarray, np.ndarray] | None = None  # of states: the middle and the unit of each number


def blind(open_: Callable[[], Simulator]) -> Simulator:
    """A simulator that draws nothing: its frames are the state's first bytes, by which episodes are told apart."""
    world = open_()
    world.frame = lambda: np.frombuffer(world.state()[:3].tobytes(), np.uint8).reshape(2, 2, 3)  # type: ignore[method-assign]
    return world


def played(name: str, **options: Any) -> Callable[[], Simulator]:
    """How a real environment is opened whose pictures nobody looks at."""
    return functools.partial(simulator, name, size=16, **options)


PLACES: dict[str, Place] = {
    place.name: place
    for place in (
        Place("dots", "frames", None, sets=True, steps=700),
        Place("reacher", "state", played("control/reacher"), sets=True),
        Place("room", "state", played("babyai/GoToRedBallNoDists"), sets=True),
        Place("lander", "state", played("lander/discrete"), sets=True),
        Place("cheetah", "state", played("control/cheetah"), sets=True, frames=16000),
        Place("elbow", "state", functools.partial(Arm, "elbow", size=16)),
        Place("mass", "state", played("control/point_mass", repeat=4)),
        Place("door", "state", played("babyai/OpenDoor")),
        Place("pong", "state", played("atari/pong")),
    )
}


@functools.lru_cache(maxsize=8)
def material(place: Place, *, who: str = "play", noise: float = 0.0, foreign: float = 0.0, seed: int = 0) -> Material:
    """Recordings of one place; ``foreign`` is how much changes by itself, of what the demonstrator changes."""
    if place.open is None:
        moves: dict[str, float] = {"distractor": min(1.0, foreign), "haste": max(0.6, foreign / 2)}
        board = Board(size=16, goal=False, wrap=False, room=8.0, **moves)  # type: ignore[arg-type]
        determinism = 1.0 - noise if who == "expert" else 0.0
        toy = toys.dots(board, episodes=place.frames // 20, length=20, determinism=determinism, seed=seed)
        tracks = dict(zip(toy.episodes.prints, toy.exogenous, strict=True))
        train, held = toy.episodes.split(0.25)
        return Material(train, held, tuple(tracks[p] for p in held.prints) if foreign else None)
    job: dict[str, Any] = {"demonstrator": who, "noise": noise, "seed": seed, "workers": 1, "progress": False}
    whole = collect(functools.partial(blind, place.open), frames=place.frames, **job)
    scale = None if who == "play" else material(place, seed=seed).scale
    return _stated(whole, foreign, np.random.default_rng([seed, 5]), scale=scale)


def _stated(whole: Episodes, foreign: float, random: np.random.Generator, *, scale: Any = None) -> Material:
    """States on one scale, which play decides, with numbers beside them that no action moves."""
    states = whole.column("state")
    assert states is not None
    scale = scale or (states.mean(0), np.where(states.std(0) > 1e-4, states.std(0), 1.0))
    centre, unit = scale
    scaled = [(whole.episode(i).state - centre) / unit for i in range(len(whole))]
    usual = np.sqrt(np.mean(np.concatenate([np.square(np.diff(s, axis=0)).sum(1) for s in scaled])))
    step, tracks, episodes = foreign * usual / FOREIGN**0.5, [], []
    for i, state in enumerate(scaled):
        moved = np.zeros((len(state), FOREIGN if foreign else 0))
        for t in range(1, len(state)):
            moved[t] = MEMORY * moved[t - 1] + step * random.normal(size=moved.shape[1])
        tracks.append(moved.astype(np.float32))
        seen = np.concatenate([state, moved], 1).astype(np.float32)
        episodes.append(whole.episode(i).replace(frames=None, state=seen))
    ready = Episodes.of(episodes, space=whole.spec.space, fps=whole.spec.fps, name=whole.spec.name)
    by = dict(zip(ready.prints, tracks, strict=True))
    train, held = ready.split(0.25)
    way = random.normal(size=seen.shape[1])
    drift = usual * way / np.linalg.norm(way)
    return Material(train, held, tuple(by[p] for p in held.prints) if foreign else None, drift, scale)


def trained(
    place: Place,
    train: Episodes,
    *,
    seed: int = 0,
    short: Bottleneck | None = None,
    extra: int = 2,  # numbers of the latent beyond those of an action
    width: int = 128,
    labelled: float = 1.0,  # of every batch; a label teaches what to say
    noise: float = 0.0,
    past: int = 0,
) -> LatentActions:
    """A latent action model of pictures (LAPO's networks, small) or of states (plain ones), with labels inside."""
    torch.manual_seed(seed)
    short = short or Free(place.space.size + extra, noise=noise)
    head = Head(features=short.dim, space=place.space) if labelled else None
    if place.of == "frames":
        frame = train.spec.pictures
        inverse: Any = Stacked(frame=frame, frames=2 + past, dim=short.width, width=1, features=width)
        parts = {"inverse": inverse, "forward": Painted(frame=frame, frames=1 + past, dim=short.dim, base=width // 10)}
        plan = Plan(batch=64, rate=1e-3, precision="bfloat16")
    else:
        state: Any = train.spec.state
        parts = {
            "encoder": Layers(inputs=state, dim=64, width=width, depth=1),
            "inverse": Seen(features=64, frames=2 + past, dim=short.width, width=width),
            "forward": Stated(state=state, features=64, dim=short.dim, width=width),
        }
        plan = Plan(batch=128, rate=2e-3)
    model = LatentActions(**parts, bottleneck=short, label=head, of=place.of, past=past)
    plan = plan.replace(steps=place.steps, seed=seed, device="cpu", log_every=1000)
    return fit(model, train.clips(2 + past, labelled=labelled, after=past), None, plan).eval()


class Seen(Part):
    """An inverse model of all that was seen, the past too."""

    def __init__(self, *, features: int, frames: int, dim: int, width: int) -> None:
        self.net = Layers(inputs=features * frames, dim=dim, width=width)

    def forward(self, seen: Tensor, goal: Tensor) -> Tensor:
        return self.net(torch.cat([seen.flatten(1), goal], 1))


def altered(data: Episodes, change: Callable[[Episode], Episode]) -> Episodes:
    """The same episodes, each changed."""
    changed = (change(data.episode(i)) for i in range(len(data)))
    return Episodes.of(changed, space=data.spec.space, fps=data.spec.fps, name=data.spec.name)
