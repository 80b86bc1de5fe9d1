"""One model on many processes: the only file that knows of ``torchrun``, and the sums that must agree everywhere."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """This process's rank and the number of processes; joins them when ``torchrun`` started us."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(_local())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)  # not before: who has left cannot join again, and a recipe may train twice
    yield dist.get_rank(), world
    dist.barrier()  # nobody reads a folder before rank 0 has written it


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _local() -> int:
    return int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count())


def _many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, 0 where there is only one; known even before the processes have met."""
    return dist.get_rank() if _many() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes work together now."""
    return dist.get_world_size() if _many() else 1


def device(name: str) -> torch.device:
    """Where a plan's ``device`` is, for this process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", _local()) if name == "cuda" and torch.cuda.is_available() else torch.device(name)


def wrapped(model: nn.Module, where: torch.device) -> nn.Module:
    """The model as it should be called: itself, or inside DistributedDataParallel."""
    if not _many() or not any(p.requires_grad for p in model.parameters()):
        return model
    ids = [where] if where.type == "cuda" else None
    # A head may go without a gradient on one process and not on another: found out anew at every step, or all would
    # wait for ever. The warning that this may be needless is for those who could know beforehand.
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return nn.parallel.DistributedDataParallel(
        model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True
    )


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same on each; alone, the tensor itself."""
    if _many():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def average(tensor: Tensor) -> Tensor:
    """The mean over all processes, the same on each."""
    return total(tensor) / world()


def agreed(tensor: Tensor) -> Tensor:
    """Rank 0's tensor, on every process: for choices made at random."""
    if _many():
        tensor = tensor.clone()
        dist.broadcast(tensor, src=0)
    return tensor


@torch.no_grad()
def level(model: nn.Module) -> None:
    """Give every process rank 0's weights and buffers."""
    if _many():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(agreed(tensor.contiguous()))


def meet() -> None:
    """Wait until every process is here."""
    if _many():
        dist.barrier()


class Gauges:
    """The named numbers of a step and which of them ever was not a number: gathered on the device, read when asked."""

    def __init__(self, device: torch.device) -> None:
        self.names: tuple[str, ...] = ()
        self.values = self.broken = torch.zeros(0, device=device)

    def take(self, metrics: dict[str, Tensor], step: int) -> None:
        """Keep the numbers of ``step``, and that it was the first at which one of them was not finite."""
        values = [torch.as_tensor(m, device=self.values.device).detach().float() for m in metrics.values()]
        self.values = torch.stack([v.mean() if v.ndim else v for v in values])
        if tuple(metrics) != self.names:
            self.names, self.broken = tuple(metrics), torch.full_like(self.values, torch.inf)
        fresh = torch.where(self.values.isfinite(), torch.inf, float(step))
        self.broken = torch.minimum(self.broken, fresh)

    def read(self, *, asked: bool) -> tuple[dict[str, float], dict[str, int | None], bool]:
        """The means over all processes; since which step (of ours) some are broken; whether any process was asked."""
        count = len(self.names)
        told = torch.cat([self.values, self.broken.isfinite().float(), self.values.new_tensor([float(asked)])])
        whole = total(told).tolist()
        row = {name: value / world() for name, value in zip(self.names, whole[:count], strict=True)}
        since = zip(self.names, whole[count:-1], self.broken.tolist(), strict=True)
        broken = {name: int(step) if step < float("inf") else None for name, often, step in since if often}
        return row, broken, whole[-1] > 0
