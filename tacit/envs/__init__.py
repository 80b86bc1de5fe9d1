"""Simulators: one file a family, each behind the face of ``Simulator``, each an extra."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any

from tacit.envs.simulator import Demonstrator, Expert, Play, Simulator

__all__ = ["Demonstrator", "Expert", "Play", "Simulator", "names", "simulator"]

FAMILIES = ("atari", "babyai", "control", "dots", "lander", "metaworld", "procgen")


def simulator(
    name: str, *, size: int = 64, distract: str = "", strength: float = 1.0, distract_seed: int = 0, **options: Any
) -> Simulator:
    """Open a simulator by its "family/task" name, with a distractor laid over it where one is named.

    ``options`` are the family's own; with any, nobody has measured what chance and the expert earn there. BabyAI opens
    every level that MiniGrid has, listed here or not.
    """
    family, _, task = name.partition("/")
    if name not in names() and not (family == "babyai" and task):
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)[0]
        raise ValueError(f"There is no simulator {name!r}. Did you mean {near!r}? There are: {', '.join(names())}.")
    world = _family(family)[0](task, size=size, **options)
    if options:
        world.floor = world.ceiling = math.nan
    if not distract:
        return world
    from tacit.envs.distract import Distract

    return Distract(world, distract, strength=strength, seed=distract_seed)


def names() -> tuple[str, ...]:
    """Every simulator there is, whether or not the extra that it needs is installed."""
    return tuple(f"{family}/{task}" for family in FAMILIES for task in _family(family)[1])


def _family(family: str) -> tuple[Callable[..., Simulator], Iterable[str]]:
    """A family's class and the tasks it lists; none of these modules imports its extra before it is needed."""
    match family:
        case "atari":
            from tacit.envs.atari import GAMES, Atari

            return Atari, GAMES
        case "babyai":
            from tacit.envs.babyai import TASKS, BabyAI

            return BabyAI, TASKS
        case "control":
            from tacit.envs.control import TASKS as CONTROLS
            from tacit.envs.control import Control

            return Control, CONTROLS
        case "dots":
            from tacit.envs.dots import Board, Dots

            def dots(task: str, *, size: int = 64, **options: Any) -> Dots:
                return Dots(Board(size=size, **options), name=f"dots/{task}")

            return dots, ("plain",)
        case "lander":
            from tacit.envs.lander import TASKS as LANDERS
            from tacit.envs.lander import Lander

            return Lander, LANDERS
        case "metaworld":
            from tacit.envs.metaworld import TASKS as TABLES
            from tacit.envs.metaworld import MetaWorld

            return MetaWorld, TABLES
        case "procgen":
            from tacit.envs.procgen import GAMES as LEVELS
            from tacit.envs.procgen import Procgen

            return Procgen, LEVELS
    raise ValueError(f"There is no family {family!r} of simulators; there are {', '.join(FAMILIES)}.")
