"""``Plan`` and ``fit``: the one loop. Whatever is trained in tacit is trained here, and resumes here bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tacit import spread, state
from tacit.clip import Clip
from tacit.part import CONFIG, Part, config, sweep, write

log = logging.getLogger("tacit")
WAITING = 0.3  # share of the time spent waiting for clips from which the log says so
SETTLED = 10.0  # seconds before it is said


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
        for name in ("steps", "batch", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"Plan.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("rate", "warmup", "final", "decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"Plan.{name} is {getattr(self, name)}; it must be a number of at least 0.")
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
    """Where clips come from: a stream that can be entered at any step, so that nothing about it needs saving.

    ``prints`` (of every episode) and ``fingerprint`` (of all that training sees), where it has them, are remembered.
    """

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]: ...


class Watcher(Protocol):
    """Something that looks at the model every so many steps; what it returns joins the log.

    With ``every`` 0 that is whenever there is a line in the log. Every process calls it, so that it may look
    at the data in shares; what writes should write on rank 0 alone. A ``mark``, where it has one, stands in the bar.
    """

    every: int

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> dict[str, float] | None: ...


class NonFinite(ArithmeticError):
    """Training met a value that is not a number, and stopped before it could be saved."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a polite kill: the state was saved, and the message says how to go on."""


def fit(
    model: M,
    source: Source,
    out: str | Path | None,
    plan: Plan = Plan(),
    *,
    watch: Sequence[Watcher] = (),
    about: dict[str, Any] | None = None,
) -> M:
    """Train ``model`` on what ``source`` yields; resume, or return at once, where ``out`` already holds this very run.

    ``about`` is what run.json should remember beside the plan (recipe, arguments). ``out=None`` keeps nothing on disk.
    Torch's random state is left as it was found: what follows is the same whether this trained, resumed or returned.
    """
    folder = Path(out) if out is not None else None
    cards = [torch.cuda.current_device()] if torch.cuda.is_available() and plan.device != "cpu" else []
    with spread.processes() as (rank, _), state.alone(folder if rank == 0 else None), torch.random.fork_rng(cards):
        run = _Run(model, source, out=folder, plan=plan, watch=(*watch, *state.ALSO.get()), about=about or {})
        if run.finished:
            return run.restored()
        with state.patient() as stopped:
            run.loop(stopped)
            run.close()
            if stopped():
                raise Interrupted(f"Stopped after {plan.steps} steps, all there were: what was trained is whole.")
        return model


class _Run:
    """The state of one ``fit``: what is saved, what is logged, and the step itself."""

    def __init__(
        self,
        model: Part,
        source: Source,
        *,
        out: Path | None,
        plan: Plan,
        watch: Sequence[Watcher],
        about: dict[str, Any],
    ) -> None:
        self.plan, self.source, self.out, self.watch = plan, source, out, watch
        self.rank, self.world, self.device = spread.rank(), spread.world(), spread.device(plan.device)
        self.model = model.to(self.device)
        if self.device.type == "cpu":
            state.hoard()
        if plan.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        spread.level(self.model)
        self.prints = frozenset(getattr(source, "prints", ()))
        self._keep_apart()
        self.trained = [p for p in model.parameters() if p.requires_grad]
        if not self.trained:
            raise ValueError(f"{type(model).__name__} has no weight that may be trained; all of them are frozen.")
        self.optimiser = torch.optim.AdamW(self.trained, lr=plan.rate, weight_decay=plan.decay, fused=True)
        self.average = [p.detach().clone() for p in self.trained] if plan.average else None
        self.step, self.seconds, self.share, self.finished = 0, 0.0, 0.0, False
        self.gauges, self.warned = spread.Gauges(self.device), False
        self.story: dict[str, Any] = {}
        if out is not None:
            told: dict[str, Any] = {"model": config(model), "plan": dataclasses.asdict(plan), "world": self.world}
            told["data"] = getattr(source, "fingerprint", "")
            self.story = json.loads(json.dumps({**about, **told}, default=str))
            if (out / "run.json").exists():
                try:
                    run = state.recalled(out / "run.json", story=dict, finished=bool)
                except ValueError as error:
                    raise ValueError(f"{error}; delete {out} to begin that run anew.") from error
                self._recall(run)
            self._agree()

    def _keep_apart(self) -> None:
        """Held out means held out: no watcher may look at an episode that is trained on."""
        for watcher in self.watch:
            shared = len(self.prints & frozenset(getattr(watcher, "prints", ())))
            if shared:
                raise ValueError(
                    f"{type(watcher).__name__} looks at {shared} of the episodes that are trained on. Split first, "
                    "`train, held = episodes.split()`, and give clips of the first to fit and of the second to it."
                )

    def _recall(self, run: dict[str, Any]) -> None:
        """Take up a run of the same story, or say in what it differs; of one that saved nothing, nothing is lost."""
        assert self.out is not None
        before, now = run["story"], {k: v for k, v in self.story.items() if k != "model" or k in run["story"]}
        harmless = ("plan.save_every ", "plan.log_every ")
        differing = [d for d in state.differences(before, now) if not d.startswith(harmless)]
        kept = self.out / state.RESUME
        if differing and not (run["finished"] or kept.exists() or (self.out / CONFIG).exists()):
            log.info("The run that was begun in %s saved no step; this one takes its place.", self.out)
            return
        if differing:
            raise ValueError(
                f"{self.out} holds another run: {state.named(differing, first='recipe')}. Give another folder, or "
                "delete this one to start over."
            )
        self.finished = bool(run["finished"])
        if not self.finished and kept.exists():
            found = state.read_state(kept)
            found.restore(self.model, self.optimiser, average=self.average)
            self.step, self.seconds = found.step, found.seconds
            log.info("Going on in %s from step %d of %d.", self.out, self.step, self.plan.steps)
            changed = list(state.differences(run["versions"], state.versions()))
            if changed:
                log.warning("The first %d steps ran elsewhere: %s.", self.step, "; ".join(changed))

    def _agree(self) -> None:
        mine = torch.tensor([self.step, int(self.finished)])
        if bool(spread.total((mine != spread.agreed(mine)).any().float())):
            raise ValueError(f"The processes do not all see the same {self.out}; put it on a disk that they share.")

    def restored(self) -> Any:
        """What this run came to when it was finished before."""
        assert self.out is not None
        before = Part.load(self.out, classes=[type(m) for m in self.model.modules() if isinstance(m, Part)])
        self.model.load_state_dict(before.state_dict())
        self.model.seen = before.seen
        return self.model.eval()

    def loop(self, stopped: Callable[[], bool]) -> None:
        plan, name = self.plan, type(self.model).__name__
        self._begin()
        whole = spread.wrapped(self.model, self.device)
        step_model: nn.Module = torch.compile(whole) if plan.compile else whole  # type: ignore[assignment]
        clips = self.source.stream(plan.batch, seed=plan.seed, start=self.step, rank=self.rank, world=self.world)
        self.model.train()
        clock = state.Clock(self.step, before=self.seconds)
        with state.bar(name, plan.steps, start=self.step, shown=self.rank == 0) as advance:
            while self.step < plan.steps:
                self._seed()
                metrics = self._advance(step_model, self._fetch(clips, clock))
                self.step += 1
                self.gauges.take(metrics, self.step)
                advance(self.step)
                due, save, asked, stop = self._due(), self.step % plan.save_every == 0, stopped(), False
                if self.device.type == "cpu" or due or save or (asked and self.world == 1):
                    row, stop = self._read(asked=asked)
                if due:
                    self._log(row, clock.lap(self.step))
                    advance(
                        self.step, " ".join([f"loss {row['loss']:.4f}", *(getattr(w, "mark", "") for w in self.watch)])
                    )
                    self._judge(clock)
                if (save or stop) and self.step < plan.steps:
                    self._save(clock.seconds)
                    if stop:
                        spread.meet()  # the first to leave would take the others along before rank 0 has saved
                        raise Interrupted(self._how_to_resume())
        self.seconds, self.share = clock.seconds, clock.share

    def _begin(self) -> None:
        """Leave in the folder what belongs to the steps already taken, and nothing of those that were lost."""
        if self.out is None or self.rank:
            return
        sweep(self.out)
        kept = [line for line in state.whole_lines(self.out / "log.jsonl") if json.loads(line)["step"] <= self.step]
        with state.room(self.out, self.step):
            write(self.out / "log.jsonl", lambda path: Path(path).write_text("".join(line + "\n" for line in kept)))
            self._write_run()

    def _seed(self) -> None:
        """Chance, too, is a function of seed, process and step, so that nothing of it needs saving."""
        word = f"{self.plan.seed}/{self.rank}/{self.step}".encode()
        seed = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "big") >> 1
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _fetch(self, clips: Iterator[Clip], clock: state.Clock) -> Clip:
        began = time.perf_counter()
        try:
            clip = next(clips)
        except StopIteration:
            raise ValueError(
                f"The clips ended before step {self.step + 1} of {self.plan.steps}; a source's stream has no end."
            ) from None
        # A GPU that still has work queued does not wait, however long the CPU did.
        if self.device.type != "cuda" or torch.cuda.current_stream(self.device).query():
            clock.waited += time.perf_counter() - began
        return clip.to(self.device)

    def _advance(self, step_model: nn.Module, clip: Clip) -> dict[str, Tensor]:
        rate = self.plan.rate_at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        half = self.plan.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            loss, metrics = step_model(clip)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.plan.clip or math.inf)
        # The fused step leaves everything as it is where this is 1, without the CPU having to ask the GPU.
        broken = ~(norm.isfinite() & loss.detach().isfinite())
        self.optimiser.found_inf = broken.float()  # type: ignore[attr-defined]
        self.optimiser.step()
        if self.average is not None:
            memory = min(self.plan.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.trained], 1 - memory)
        self.model.after_step()
        return {**metrics, "loss": loss.detach(), "gradient": norm}

    def _due(self) -> bool:
        """Whether this step is told of: in the log, or because somebody watches it."""
        every = [self.plan.log_every, *(w.every for w in self.watch if w.every)]
        return self.step == self.plan.steps or any(self.step % n == 0 for n in every)

    def _read(self, *, asked: bool) -> tuple[dict[str, float], bool]:
        """The step's numbers, averaged over the processes, and whether one of them was asked to stop; or the end."""
        row, broken, stop = self.gauges.read(asked=asked)
        if broken:
            named = self.model.named_parameters()
            blamed = next((n for n, p in named if p.grad is not None and not p.grad.isfinite().all()), None)
            where = f" The first weight without a finite gradient is {blamed}." if blamed else ""
            name, step = next(iter(broken.items()))
            was = "not finite" if math.isfinite(row[name]) else f"{row[name]}"
            raise NonFinite(
                f"At step {self.step if step is None else step} the metric {name!r} was {was}.{where} Nothing of this "
                "was saved. Look for NaN in the data, lower Plan.rate, or raise Plan.warmup."
            )
        return row, stop

    def _log(self, row: dict[str, float], speed: dict[str, float]) -> None:
        row = {**row, "rate": self.plan.rate_at(self.step - 1), **speed}
        last = self.step == self.plan.steps
        for watcher in self.watch:
            if last or self.step % (watcher.every or self.plan.log_every) == 0:
                with torch.no_grad():
                    row |= watcher(self.step, self.model.eval(), dict(row)) or {}
                self.model.train()
        if self.out is not None and self.rank == 0:
            with state.room(self.out, self.step), (self.out / "log.jsonl").open("a") as lines:
                lines.write(json.dumps({"step": self.step, **row}) + "\n")

    def _judge(self, clock: state.Clock) -> None:
        """Say once, in one line, that the data are the bottleneck, where they are."""
        if self.warned or self.rank or clock.spent < SETTLED or clock.share < WAITING:
            return
        self.warned = True
        log.warning(
            "Training waits for its data %.0f %% of the time and could be %.1f times as fast: decode once with "
            "tacit.data.cache, hold the clips on the device with clips(device=...), or take shorter clips.",
            100 * clock.share,
            1 / max(1 - clock.share, 0.01),
        )

    def _save(self, seconds: float) -> None:
        if self.out is None or self.rank:
            return
        self.seconds = seconds
        now = state.Progressed.of(self.model, self.optimiser, average=self.average, step=self.step, seconds=seconds)
        with state.room(self.out, self.step):
            state.save_state(self.out / state.RESUME, now)
            self._write_run()

    def _write_run(self) -> None:
        assert self.out is not None
        kind = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        run = {"story": self.story, "finished": self.finished, "step": self.step, "seconds": round(self.seconds, 3)}
        run |= {"data": self.story["data"], "device": kind, "threads": torch.get_num_threads()}
        run |= {"waiting_for_data": round(self.share, 3), "versions": state.versions(), "command": state.command()}
        write(self.out / "run.json", lambda path: Path(path).write_text(json.dumps(run, indent=2) + "\n"))

    def _how_to_resume(self) -> str:
        if self.out is None:
            return f"Stopped at step {self.step} of {self.plan.steps}; nothing is kept, as no folder was given."
        return f"Stopped at step {self.step} of {self.plan.steps} and saved. To go on from here: {state.command()}"

    def close(self) -> None:
        """Put the averaged weights in place and leave a finished folder."""
        if self.average is not None:
            torch._foreach_copy_([p.data for p in self.trained], self.average)
        spread.level(self.model)  # what each process counted for itself is as rank 0 says, here as on the disk
        self.model.remember(self.prints)
        self.model.eval()
        if self.out is not None and self.rank == 0:
            with state.room(self.out, self.step):
                self.model.save(self.out)
                self.finished = True
                self._write_run()
            (self.out / state.RESUME).unlink(missing_ok=True)


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
