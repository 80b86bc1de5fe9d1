"""A rehearsal: what training would take, told by the first few steps of it, with nothing written."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from tacit.clip import Clip
from tacit.data.episodes import Episodes
from tacit.data.inspect.findings import WARN
from tacit.data.inspect.habits import habits
from tacit.data.video import resize
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.train import Plan

log = logging.getLogger("tacit")

STEPS = 3  # the first warms up, the last is timed
FEW = 2000  # frames of each source that are looked at


@dataclass
class Stage:
    """One ``fit`` of a recipe as a rehearsal saw it."""

    model: torch.nn.Module
    clip: dict[str, list[int]]
    ends: list[float] = field(default_factory=list)  # when each step was over
    optimiser: Any = None

    @property
    def seconds(self) -> float:
        """What a step takes."""
        return self.ends[-1] - self.ends[-2]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def weights(self) -> int:
        """Bytes of the model on the disk."""
        return sum(t.numel() * t.element_size() for t in self.model.state_dict().values())

    @property
    def progress(self) -> int:
        """Bytes of what resuming needs while it trains: weights, and the optimiser's two moments of each."""
        return self.weights + 8 * sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def rehearse(recipe: Callable[..., Any], data: Episodes | None, *, plan: Plan) -> dict[str, Any]:
    """What training would take: the first steps of every ``fit`` of ``recipe(data=, plan=)``, on a few episodes."""
    with _watched() as stages:
        recipe(data=data, plan=plan.replace(steps=STEPS, warmup=0, compile=False))
    told = [
        {
            "model": type(stage.model).__name__,
            "parameters": stage.parameters,
            "clip": stage.clip,
            "seconds_per_step": stage.seconds,
            "seconds": stage.seconds * plan.steps,
        }
        for stage in stages
    ]
    return {
        "stages": told,
        "steps": plan.steps,
        "seconds": sum(stage["seconds"] for stage in told),
        "memory_bytes": peak(),
        "disk_bytes": sum(s.weights for s in stages) + max((s.progress for s in stages), default=0),
    }


@contextmanager
def _watched() -> Iterator[list[Stage]]:
    """Every model that is trained meanwhile, with the clips it is given and the time of its steps."""
    stages: list[Stage] = []

    def began(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if not isinstance(module, Part) or not given or not isinstance(given[0], Clip):
            return  # the inner parts are given tensors
        if not stages or stages[-1].model is not module:
            tensors = {k: v for k, v in vars(given[0]).items() if isinstance(v, torch.Tensor)}
            stages.append(Stage(module, {name: list(tensor.shape) for name, tensor in tensors.items()}))

    def stepped(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        if stages and stages[-1].optimiser in (None, optimiser):  # a decoder's own optimiser is no stage
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            stages[-1].optimiser = optimiser
            stages[-1].ends.append(time.perf_counter())

    hooks = (register_module_forward_pre_hook(began), register_optimizer_step_post_hook(stepped))
    try:
        yield stages
    finally:
        for hook in hooks:
            hook.remove()


def peak() -> int:
    """The most memory that this process has held, on the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows keeps no such count
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def few(data: Episodes, *, frame: tuple[int, int] | None = None, frames: int = FEW) -> Episodes:
    """A few episodes of every source, those with labels first, in memory and resized: enough to try a method on."""
    labels = np.add.reduceat(data.mask.astype(int), data.starts)
    left = dict.fromkeys(data.sources, frames)
    chosen = []
    for i in np.argsort(-labels, kind="stable"):
        if left[data.sources[i]] > 0:
            chosen.append(int(i))
            left[data.sources[i]] -= int(data.lengths[i])
    picked = data.select(sorted(chosen))
    episodes = [picked.episode(i) for i in range(len(picked))]
    if frame is not None:
        episodes = [e if e.frames is None else e.replace(frames=resize(e.frames, frame)) for e in episodes]
    return Episodes.of(episodes, space=data.spec.space, fps=data.spec.fps, name=data.spec.name)


def forewarned(recipe: Callable[..., Any], data: Episodes) -> dict[str, Any]:
    """A warning, before latent actions are learnt from them, of demonstrators who nearly always do the same there.

    The labels that ``data`` show are asked, whether training will see them or not; without any nothing can be said.
    """
    while isinstance(recipe, functools.partial):
        recipe = recipe.func
    kind = get_type_hints(recipe).get("return")
    found = habits(data) if isinstance(kind, type) and issubclass(kind, LatentActions) else None
    if found is None or "r2" not in found.facts:
        return {}
    if found.grade == WARN:
        log.warning(
            "R2(action | observation) is %.2f by the labels of %d transitions in %d episodes: who acts here nearly "
            "always does the same in the same place. Then nothing in the video tells what an action does from what "
            "would have happened anyway, and latent actions found in it need not mean anything elsewhere. Record "
            "others beside: `tacit collect ENV OUT --demonstrator expert play`, or add recordings of other hands; "
            "and hold the latents to play with `tacit evaluate`.",
            found.facts["r2"],
            found.facts["n"],
            found.facts["episodes"],
        )
    return {"determinism": {k: found.facts[k] for k in ("r2", "n", "episodes")} | {"warned": found.grade == WARN}}
