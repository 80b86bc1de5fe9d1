"""Watchers for ``fit(watch=...)``: the loss on held-out clips, and the logs of TensorBoard, W&B and trackio."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from tacit import spread, state
from tacit.clip import Clip
from tacit.part import Part
from tacit.train import Source, Watcher

USED, WAYS = 0.5, 1.05  # what `tacit check` wants of C1 and C2


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


@contextmanager
def watching(*watchers: Watcher) -> Iterator[None]:
    """Within this every ``fit`` is watched by these too, also those inside a recipe."""
    before = state.ALSO.set((*state.ALSO.get(), *watchers))
    try:
        yield
    finally:
        state.ALSO.reset(before)


class Clipped(Protocol):
    """Recordings that clips can be cut from, as ``Episodes`` are."""

    @property
    def prints(self) -> Any: ...

    def clips(self, length: int) -> Any: ...


class Health:
    """Cheap signs of a latent action model's health on held-out clips, as it trains: is the latent used, is it alive?

    ``tacit check`` asks the rest of it, afterwards. What is no latent action model is left alone.
    """

    def __init__(self, held: Clipped, *, every: int = 0, batch: int = 256) -> None:
        self.held, self.every, self.batch, self.mark = held, every, batch, ""
        self.prints: frozenset[str] = frozenset(held.prints)
        self._clip: Clip | None = None

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> dict[str, float]:
        if not all(hasattr(model, name) for name in ("infer", "predict", "targets", "past")):
            self.mark = ""
            return {}
        if self._clip is None:
            clips = self.held.clips(int(model.past) + 2)  # type: ignore[arg-type]
            self._clip = clips.batch(torch.randperm(len(clips))[: self.batch].numpy())
        clip = self._clip.to(model.device)
        z, want = model.infer(clip), model.targets(clip).float()[:, -1]  # type: ignore[operator]
        wrong = z.roll(len(z) // 2, 0)
        own, other = ((model.predict(clip, given).float()[:, -1] - want).square().mean() for given in (z, wrong))  # type: ignore[operator]
        sizes = torch.linalg.svdvals(z[:, -1].float() - z[:, -1].float().mean(0)).square()
        used = 1 - float(own / other.clamp(min=1e-12))
        ways = float(sizes.sum().square() / sizes.square().sum().clamp(min=1e-30))
        word = "unused" if used < USED else "one way" if ways < WAYS else "alive"
        self.mark = f"latent {word} ({100 * used:.0f} % used, {ways:.1f} ways)"
        return {"health/used": used, "health/ways": ways}


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
