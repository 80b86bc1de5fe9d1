"""``Plan`` and ``fit``: the one loop. Whatever is trained in tacit is trained here, and resumes here bit for bit."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from tacit import spread
from tacit.clip import Clip
from tacit.part import Part, write
from tacit.state import RESUME, Progressed, read_state, save_state, versions


@dataclass(frozen=True)
class Plan:
    """How long, how fast and on what to train; every field is a knob of every recipe."""

    steps: int = 2000  # optimiser steps
    batch: int = 64  # clips a step, over all processes together
    rate: float = 3e-4  # learning rate at its peak
    warmup: int = 50  # steps of linear rise to the peak
    final: float = 0.01  # share of the peak left at the last step, reached along a cosine
    decay: float = 0.0  # decoupled weight decay
    clip: float = 2.0  # largest gradient norm; 0 leaves gradients alone
    average: float = 0.0  # keep a moving average of the weights with this memory and return it; 0 is off
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True  # pictures in memory as NHWC, which the CPU and tensor cores like best
    compile: bool = False  # torch.compile: pays after a minute of warming up
    device: str = "auto"  # "auto" takes a GPU where there is one
    seed: int = 0
    save_every: int = 500
    log_every: int = 50

    def __post_init__(self) -> None:
        positive = {"steps": self.steps, "batch": self.batch, "save_every": self.save_every, "log_every": self.log_every}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"Plan.{name} is {value}; it must be at least 1.")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"Plan.precision is {self.precision!r}; it must be 'float32' or 'bfloat16'.")
        if not 0 <= self.average < 1:
            raise ValueError(f"Plan.average is {self.average}; it must lie in [0, 1).")

    def replace(self, **changes: Any) -> Plan:
        return dataclasses.replace(self, **changes)

    def rate_at(self, step: int) -> float:
        """Linear to the peak, then a cosine down to ``final`` of it."""
        if step < self.warmup:
            return self.rate * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


M = TypeVar("M", bound=Part)


class Source(Protocol):
    """Where clips come from: a stream that can be entered at any step, so that nothing about it needs saving."""

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]: ...


class Watcher(Protocol):
    """Something that looks at the model every so many steps; what it returns joins the log."""

    every: int

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> dict[str, float] | None: ...


class NonFinite(ArithmeticError):
    """Training met a value that is not a number, and stopped before it could be saved."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a polite kill: the state was saved, and the message says how to go on."""


def fit(
    model: M, source: Source, out: str | Path | None, plan: Plan = Plan(), *, watch: Sequence[Watcher] = (), about: dict[str, Any] | None = None
) -> M:
    """Train ``model`` on what ``source`` yields; resume, or return at once, where ``out`` already holds this very run.

    ``about`` is what run.json should remember beside the plan (recipe, arguments). ``out=None`` keeps nothing on disk.
    """
    with spread.processes() as (rank, world), _patient_interrupt() as stopped:
        run = _Run(model, source, Path(out) if out is not None else None, plan, watch, about or {}, rank, world)
        if run.finished:
            return run.restored()
        run.loop(stopped)
        return run.close()


class _Run:
    """The state of one ``fit``: what is saved, what is logged, and the step itself."""

    def __init__(
        self, model: Part, source: Source, out: Path | None, plan: Plan, watch: Sequence[Watcher], about: dict[str, Any], rank: int, world: int
    ) -> None:
        self.plan, self.source, self.out, self.watch, self.rank, self.world = plan, source, out, watch, rank, world
        self.device = spread.device(plan.device, rank)
        self.model = model.to(self.device)
        if plan.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prints = frozenset(getattr(source, "prints", ()))
        self.story = {**about, "plan": dataclasses.asdict(plan), "data": getattr(source, "fingerprint", ""), "world": world}
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=plan.rate, weight_decay=plan.decay, fused=True)
        self.average = [p.detach().clone() for p in self.trained] if plan.average else None
        self.step, self.seconds, self.rows = 0, 0.0, 0
        self.finished = False
        if out is not None and (out / "run.json").exists():
            self._recall(json.loads((out / "run.json").read_text()))

    def _recall(self, run: dict[str, Any]) -> None:
        """Take up a run of the same story, or say in what it differs."""
        before, now = run["story"], json.loads(json.dumps(self.story))
        differing = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        if differing:
            parts = "; ".join(f"{k} was {before.get(k)!r} and is now {now.get(k)!r}" for k in sorted(differing))
            raise ValueError(f"{self.out} holds another run: {parts}. Give another folder, or delete this one to start over.")
        self.finished = bool(run["finished"])
        if not self.finished and (self.out / RESUME).exists():  # type: ignore[operator]
            self._enter(read_state(self.out / RESUME))  # type: ignore[operator]

    def _enter(self, state: Progressed) -> None:
        self.step, self.seconds = state.step, state.seconds
        state.restore(self.model, self.optimiser, self.trained, self.average)
        if self.rank == 0:
            log = self.out / "log.jsonl"  # type: ignore[operator]
            kept = [line for line in _whole_lines(log) if json.loads(line)["step"] <= self.step]
            write(log, lambda path: Path(path).write_text("".join(line + "\n" for line in kept)))

    def restored(self) -> Any:
        self.model.load_state_dict(Part.load(self.out, classes=_classes(self.model)).state_dict())  # type: ignore[arg-type]
        self.model.seen = self.model.seen | self.prints
        return self.model.eval()

    def loop(self, stopped: Callable[[], bool]) -> None:
        plan = self.plan
        if self.step == 0:
            torch.manual_seed(plan.seed + 1_000_003 * self.rank)
            self._write_run()
        whole = spread.wrapped(self.model, self.device, self.world)
        step_model: nn.Module = torch.compile(whole) if plan.compile else whole  # type: ignore[assignment]
        clips = self.source.stream(plan.batch, seed=plan.seed, start=self.step, rank=self.rank, world=self.world)
        self.model.train()
        began, waited, at = time.perf_counter(), 0.0, self.step
        with _bar(self.rank == 0, type(self.model).__name__, plan.steps, self.step) as advance:
            while self.step < plan.steps:
                fetch = time.perf_counter()
                clip = next(clips).to(self.device)
                waited += time.perf_counter() - fetch
                loss, metrics = self._advance(step_model, clip)
                self.step += 1
                advance(self.step)
                due = self.step % plan.log_every == 0 or self.step == plan.steps
                save = self.step % plan.save_every == 0 or stopped()
                if self.device.type == "cpu" or due or save:
                    self._guard(loss, metrics)
                if due:
                    spent = time.perf_counter() - began
                    speed = {"steps_per_s": (self.step - at) / max(spent, 1e-9), "waiting_for_data": waited / max(spent, 1e-9)}
                    self._log({"loss": loss, **metrics}, speed, advance)
                if save and self.step < plan.steps:
                    self._save(self.seconds + time.perf_counter() - began)
                if stopped():
                    raise Interrupted(self._how_to_resume())
        self.seconds += time.perf_counter() - began

    def _advance(self, step_model: nn.Module, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        rate = self.plan.rate_at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        half = self.plan.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            loss, metrics = step_model(clip)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.plan.clip:
            metrics["gradient"] = nn.utils.clip_grad_norm_(self.trained, self.plan.clip)
        if math.isfinite(loss.item()) if self.device.type == "cpu" else True:
            self.optimiser.step()
        if self.average is not None:
            memory = min(self.plan.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.trained], 1 - memory)
        self.model.after_step()
        return loss.detach(), metrics

    def _guard(self, loss: Tensor, metrics: dict[str, Tensor]) -> None:
        for name, value in {**metrics, "loss": loss}.items():
            if not torch.isfinite(torch.as_tensor(value)).all():
                blamed = next((n for n, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()), None)
                where = f" The first parameter with such a gradient is {blamed}." if blamed else ""
                raise NonFinite(
                    f"At step {self.step} the metric {name!r} is {float(torch.as_tensor(value).float().mean())}.{where} "
                    "Nothing of this step was saved. Look for NaN in the data, lower Plan.rate, or raise Plan.warmup."
                )

    def _log(self, metrics: dict[str, Tensor], speed: dict[str, float], advance: Any) -> None:
        row = {name: float(value) for name, value in metrics.items()}
        row["rate"] = self.plan.rate_at(self.step - 1)
        for watcher in self.watch:
            if self.step % watcher.every == 0 or self.step == self.plan.steps:
                with torch.random.fork_rng(), torch.no_grad():  # looking must not change what is looked at
                    row |= watcher(self.step, self.model.eval(), {**row, **speed}) or {}
                self.model.train()
        advance(self.step, row["loss"])
        if self.out is not None and self.rank == 0:
            with (self.out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": self.step, **row, **speed}) + "\n")

    def _save(self, seconds: float) -> None:
        if self.out is not None and self.rank == 0:
            save_state(self.out / RESUME, Progressed.of(self.step, seconds, self.model, self.optimiser, self.trained, self.average))

    def _write_run(self) -> None:
        if self.out is None or self.rank:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        run = {"story": self.story, "finished": self.finished, "step": self.step, "seconds": round(self.seconds, 3)}
        run |= {"versions": versions(), "command": " ".join(sys.argv)}
        write(self.out / "run.json", lambda path: Path(path).write_text(json.dumps(run, indent=2) + "\n"))

    def _how_to_resume(self) -> str:
        if self.out is None:
            return f"Stopped at step {self.step} of {self.plan.steps}; nothing is kept, as no folder was given."
        return f"Stopped at step {self.step} of {self.plan.steps} and saved. The same command goes on from here: {' '.join(sys.argv)}"

    def close(self) -> Any:
        """Put the averaged weights in place and leave a finished folder."""
        if self.average is not None:
            torch._foreach_copy_([p.data for p in self.trained], self.average)
        self.model.seen = self.model.seen | self.prints
        self.model.eval()
        if self.out is not None and self.rank == 0:
            self.model.save(self.out)
            self.finished = True
            self._write_run()
            (self.out / RESUME).unlink(missing_ok=True)
        return self.model


def _classes(model: Part) -> list[type[Part]]:
    return [type(m) for m in model.modules() if isinstance(m, Part)]


def _whole_lines(log: Path) -> Iterator[str]:
    """The log's lines, less a last one that a kill cut short."""
    for line in log.read_text().splitlines() if log.exists() else ():
        try:
            json.loads(line)
        except json.JSONDecodeError:
            return
        yield line


@contextmanager
def _patient_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait for the step to end; a second Ctrl-C does not wait."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(shown: bool, name: str, steps: int, start: int) -> Iterator[Callable[..., None]]:
    """A progress line with rate and time left; nothing where nobody is looking."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task(name, total=steps, completed=start, rate="")
        began = time.perf_counter()

        def advance(step: int, loss: float | None = None) -> None:
            if loss is not None:
                progress.update(task, description=f"{name} loss {loss:.4f}")
            rate = (step - start) / max(1e-9, time.perf_counter() - began)
            progress.update(task, completed=step, rate=f"{rate:.1f} steps/s")

        yield advance


def cycle(clips: Iterable[Clip]) -> Source:
    """A ``Source`` from clips that lie in memory, taken in order and round again: for tests and tiny studies."""
    kept = list(clips)

    class Cycle:
        def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]:
            step = start
            while True:
                yield kept[step % len(kept)]
                step += 1

    return Cycle()
