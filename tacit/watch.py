"""Watchers for ``fit(watch=...)``: the loss on held-out clips, and the logs of TensorBoard, W&B and trackio."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tacit import spread
from tacit.clip import Clip
from tacit.part import Part
from tacit.train import Source


class Validation:
    """The loss and metrics on held-out clips, always the same ones; put it before the watchers that are to log them."""

    def __init__(
        self, source: Source, *, every: int = 500, batch: int = 64, batches: int = 8, name: str = "held"
    ) -> None:
        if min(every, batch, batches) < 1:
            raise ValueError(f"Validation was given {every=}, {batch=}, {batches=}; each must be at least 1.")
        self.source, self.every, self.batch, self.batches, self.name = source, every, batch, batches, name
        self.prints: frozenset[str] = frozenset(getattr(source, "prints", ()))  # fit refuses what it trains on

    @torch.no_grad()
    def __call__(self, step: int, model: Part, row: dict[str, float]) -> dict[str, float]:
        device, sums = model.device, dict[str, torch.Tensor]()
        torch.default_generator.manual_seed(0)  # the same noise each time; the loop seeds its own at every step
        if device.type == "cuda":
            torch.cuda.manual_seed(0)
        with closing(self._clips()) as clips:
            for clip in clips:
                loss, metrics = model.loss(clip.to(device))
                for name, value in {**metrics, "loss": loss}.items():
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach().float().mean()
        means = spread.average(torch.stack(list(sums.values())) / self.batches)
        return {f"{self.name}/{name}": value for name, value in zip(sums, means.tolist(), strict=True)}

    def _clips(self) -> Generator[Clip, None, None]:
        stream = self.source.stream(self.batch, rank=spread.rank(), world=spread.world())
        yield from islice(stream, self.batches)


class TensorBoard:
    """Writes every line of the log for TensorBoard, into ``folder``."""

    def __init__(self, folder: str | Path, *, every: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoard", "tensorboard") from error
        self.every = every
        self._writer: Any = SummaryWriter(str(folder)) if spread.rank() == 0 else None

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()


class Wandb:
    """Sends every line of the log to Weights & Biases; ``settings`` are those of ``wandb.init``."""

    def __init__(self, project: str, *, every: int = 0, **settings: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("Wandb", "wandb") from error
        self.every = every
        settings = {"resume": "allow", **settings} if "id" in settings else settings  # so it goes on there too
        self._run: Any = wandb.init(project=project, **settings) if spread.rank() == 0 else None

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> None:
        if self._run is not None:
            self._run.log(row, step=step)


class Trackio:
    """Keeps every line of the log in trackio, on this machine; ``settings`` are those of ``trackio.init``."""

    def __init__(self, project: str, *, every: int = 0, **settings: Any) -> None:
        try:
            import trackio
        except ImportError as error:
            raise _missing("Trackio", "trackio") from error
        self.every = every
        settings = {"resume": "allow", **settings} if "name" in settings else settings
        self._run: Any = trackio.init(project=project, **settings) if spread.rank() == 0 else None

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> None:
        if self._run is not None:
            self._run.log(row, step=step)


def _missing(what: str, package: str) -> ImportError:
    return ImportError(f'{what} needs the package {package}, which is not installed: pip install "tacit[log]".')
