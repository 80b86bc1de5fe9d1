"""One model on many processes: the only file that knows of ``torchrun``, and the two sums that must agree everywhere."""

from __future__ import annotations

import os
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
    joined = not dist.is_initialized()
    if joined:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), world
        dist.barrier()  # nobody reads a folder before rank 0 has written it
    finally:
        if joined:
            dist.destroy_process_group()


def device(name: str, rank: int) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


def wrapped(model: nn.Module, where: torch.device, world: int) -> nn.Module:
    """The model as it should be called: itself, or inside DistributedDataParallel."""
    if world == 1:
        return model
    ids = [where] if where.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same on each; alone, the tensor itself."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def average(tensor: Tensor) -> Tensor:
    """The mean over all processes, the same on each."""
    return total(tensor) / (dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1)


def agreed(tensor: Tensor) -> Tensor:
    """Rank 0's tensor, on every process: for choices made at random."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        tensor = tensor.clone()
        dist.broadcast(tensor, src=0)
    return tensor
