"""What must be kept to go on from the middle of a run as if nothing had happened, in one file."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tacit.part import Part, write

RESUME = "resume.safetensors"


@dataclass(frozen=True)
class Progressed:
    """A run between two steps: weights, buffers, optimiser, moving average, random state and position."""

    step: int
    seconds: float
    tensors: dict[str, Tensor]

    @classmethod
    def of(
        cls, step: int, seconds: float, model: Part, optimiser: torch.optim.Optimizer, trained: list[Any], average: list[Tensor] | None
    ) -> Progressed:
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        for i, parameter in enumerate(trained):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in optimiser.state[parameter].items()}
        tensors |= {f"average.{i}": v for i, v in enumerate(average or ())}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        return cls(step, seconds, tensors)

    def restore(self, model: Part, optimiser: torch.optim.Optimizer, trained: list[Any], average: list[Tensor] | None) -> None:
        model.load_state_dict(self._under("model"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in self._under("optimiser").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        for i, slow in enumerate(average or ()):
            slow.copy_(self.tensors[f"average.{i}"])
        torch.set_rng_state(self.tensors["random.cpu"])
        if torch.cuda.is_available() and "random.cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["random.cuda"])

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix + "."): v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def save_state(path: Path, state: Progressed) -> None:
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.tensors.items()}
    about = {"tacit": json.dumps({"step": state.step, "seconds": state.seconds})}
    write(path, lambda name: save_file(tensors, name, metadata=about))


def read_state(path: Path) -> Progressed:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["tacit"])
        return Progressed(about["step"], about["seconds"], {k: file.get_tensor(k) for k in file.keys()})


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("tacit", "torch", "numpy", "gymnasium", "minigrid", "ale-py", "mujoco", "dm-control", "metaworld"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
