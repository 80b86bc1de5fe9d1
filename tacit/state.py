"""How far a run has come: what is kept so that it goes on bit for bit, who holds its folder, and who stops it."""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import platform
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from torch import Tensor

from tacit.part import Part, store, write

RESUME = "resume.safetensors"
PATIENCE = 2.0  # seconds after which a second signal means it: torchrun passes the first one on at once
TOLD, BRIEF = 3, 80  # differences that are told, and letters of a value in one
log = logging.getLogger("tacit")
ALSO: ContextVar[tuple[Any, ...]] = ContextVar("ALSO", default=())  # who watches every run besides its own watchers


@dataclass(frozen=True)
class Progressed:
    """A run between two steps: weights, buffers, optimiser and moving average. Chance and data follow from the step."""

    step: int
    seconds: float
    tensors: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        model: Part,
        optimiser: torch.optim.Optimizer,
        *,
        average: list[Tensor] | None = None,
        step: int = 0,
        seconds: float = 0.0,
    ) -> Progressed:
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        for i, parameter in enumerate(_trained(optimiser)):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in optimiser.state[parameter].items()}
        tensors |= {f"average.{i}": v for i, v in enumerate(average or ())}
        return cls(step, seconds, tensors)

    @torch.no_grad()
    def restore(self, model: Part, optimiser: torch.optim.Optimizer, *, average: list[Tensor] | None = None) -> None:
        model.load_state_dict(self._under("model"))
        trained = _trained(optimiser)
        for name, value in self._under("optimiser").items():
            index, key = name.split(".", 1)
            parameter = trained[int(index)]
            # The fused step walks weight and moments in the order they lie in memory: it must be one order.
            alike = value.shape == parameter.shape
            kept = torch.empty_like(parameter, dtype=value.dtype).copy_(value) if alike else value.to(parameter.device)
            optimiser.state[parameter][key] = kept
        for i, slow in enumerate(average or ()):
            slow.copy_(self.tensors[f"average.{i}"])

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix + "."): v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def _trained(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def save_state(path: Path, state: Progressed) -> None:
    """Keep a state; whatever goes wrong, ``path`` holds it whole or what it held before."""
    about = {"tacit": json.dumps({"step": state.step, "seconds": state.seconds})}
    write(path, lambda name: store(state.tensors, name, about=about))


def read_state(path: Path) -> Progressed:
    """The state that ``save_state`` kept."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["tacit"])
        return Progressed(about["step"], about["seconds"], {k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118


def whole_lines(path: Path) -> Iterator[str]:
    """A log's lines, less a last one that a kill cut short."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            json.loads(line)
        except json.JSONDecodeError:
            return
        yield line


class Clock:
    """What the time goes on: since the start, and since the last line of the log."""

    def __init__(self, step: int, *, before: float = 0.0) -> None:
        self.step, self.before, self.waited, self.counted = step, before, 0.0, 0.0
        self.began = self.lapped = time.perf_counter()

    @property
    def spent(self) -> float:
        return time.perf_counter() - self.began

    @property
    def seconds(self) -> float:
        return self.before + self.spent

    @property
    def share(self) -> float:
        """Of the time since the start, how much went on waiting."""
        return self.waited / max(self.spent, 1e-9)

    def lap(self, step: int) -> dict[str, float]:
        """How fast it went since the last lap, and what share of that time went on waiting for data."""
        now = time.perf_counter()
        spent = max(now - self.lapped, 1e-9)
        told = {"steps_per_s": (step - self.step) / spent, "waiting_for_data": (self.waited - self.counted) / spent}
        self.lapped, self.step, self.counted = now, step, self.waited
        return told


def differences(before: Any, now: Any, *, name: str = "") -> Iterator[str]:
    """What differs between two JSON values, each difference named by the path that leads to it."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), name=f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {_brief(before)} and is now {_brief(now)}"


def recalled(path: Path, **wanted: type) -> dict[str, Any]:
    """What was written down in a file; one that is not whole, or holds something else, is named."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    told = found if isinstance(found, dict) else {}
    if lost := [key for key, kind in wanted.items() if not isinstance(told.get(key), kind)]:
        raise ValueError(f"{path} is damaged: it does not tell its {' and '.join(lost)}")
    return told


def named(differing: Sequence[str], *, first: str = "") -> str:
    """The first few differences as one clause, the one in ``first`` before all others, and how many more there are."""
    order = sorted(differing, key=lambda difference: not difference.startswith(f"{first} "))
    more = [f"and {len(order) - TOLD:,} more"] if len(order) > TOLD else []
    return "; ".join([*order[:TOLD], *more])


def _brief(value: Any) -> str:
    """A value as Python writes it; of a long one its ends."""
    text = repr(value)
    return text if len(text) <= BRIEF else f"{text[: BRIEF - 30]} ... {text[-25:]}"


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("tacit", "torch", "numpy", "gymnasium", "minigrid", "ale-py", "mujoco", "dm-control", "metaworld"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """What to type to start this program again."""
    program, count = Path(sys.argv[0]), int(os.environ.get("WORLD_SIZE", "1"))
    if program.name == "__main__.py":
        words = ["-m", program.parent.name]
    elif program.suffix == ".py":
        words = [sys.argv[0]]
    else:  # an installed command, or an interactive session
        words = [program.name] if program.name not in ("", "-c", "-") else []
        return shlex.join([*words, *sys.argv[1:]]) or "python"
    runner = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", str(count))]
    return shlex.join([*(runner if count > 1 else ["python"]), *words, *sys.argv[1:]])


@contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    """Hold ``folder`` for this process; another that wants it waits, and then finds the work done."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        folder = None
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)  # the folder itself: a lock that leaves no file behind, and none after a kill
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("Another process is at work in %s; waiting for it to end.", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def patient() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM asked to stop: they wait for the step to end; only who insists is obeyed at once."""
    asked: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, _: Any) -> None:
        now = time.monotonic()
        if asked and number == signal.SIGINT and now - asked[0] > PATIENCE:
            raise KeyboardInterrupt
        asked.append(now)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def hoard() -> None:
    """Have glibc keep the memory that tensors give back, up to 2 GB of it, for the next step's.

    It would return every large one to the system and beg it back page by page: thousands of page faults a step, which
    cost a small network on a CPU a fifth of its time, and half of it where the system is busy.
    """
    with suppress(OSError, AttributeError, TypeError):  # not Linux, or another C library
        tune = ctypes.CDLL(None).mallopt
        for what, size in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 64 << 20)):  # mmap and trim thresholds, padding
            tune(what, size)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the disk, for this user, for one file
ADVICE = {
    errno.EROFS: "{place} cannot be written: its disk is mounted read-only. Give a place on another.",
    errno.EACCES: "{place} may not be read or written by this user. Give another place, or change its permissions.",
    errno.EPERM: "{place} may not be read or written by this user. Give another place, or change its permissions.",
    errno.EEXIST: "{place} is there already and is no folder. Give another place, or remove it.",
    errno.ENOTDIR: "{place} lies in, or is, a file where a folder was wanted. Give another place, or remove the file.",
    errno.EISDIR: "{place} is a folder where a file was wanted. Give the name of a file.",
    errno.ENOENT: "{place} is not there. Check the path.",
    errno.ENAMETOOLONG: "{place} is a longer name than the disk takes. Give a shorter one.",
    errno.EMFILE: "Too many files are open at once to open {place}. Raise the limit (ulimit -n), or use fewer workers.",
    errno.EIO: "{place} cannot be read or written: the disk itself fails. Copy what matters to another one.",
}


def advised(error: OSError) -> str:
    """An error of the system in a sentence that names the place and says what to do; one of our own as it is."""
    system = error.errno is not None and error.strerror == os.strerror(error.errno)
    place = getattr(error, "filename2", None) or error.filename or "A file of this command"
    if error.errno in FULL and system:
        folder = next((path for path in Path(str(place)).absolute().parents if path.is_dir()), Path("/"))
        free = shutil.disk_usage(folder).free
        return (
            f"The disk is full: {place} could not be written ({os.strerror(error.errno or 0).lower()}; {free:,} bytes "
            "are free there). What was finished before is whole. Make room or give a place on another disk, then give "
            "the same command again."
        )
    if system and error.errno in ADVICE:
        return ADVICE[error.errno].format(place=place)
    return error.strerror if error.errno in FULL and error.strerror else str(error)


@contextmanager
def room(folder: Path, step: int) -> Iterator[None]:
    """Say what a full disk means to a run: that what was saved is whole, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        kept = folder / RESUME
        safe = f"the state of step {read_state(kept).step}" if kept.exists() else "no state yet"
        raise OSError(
            error.errno,
            f"The disk is full: step {step} could not be saved in {folder}, where {shutil.disk_usage(folder).free} "
            f"bytes are free. It holds {safe}, and that is whole. Make room, then go on from there: {command()}",
        ) from error


@contextmanager
def bar(
    name: str, total: int, *, start: int = 0, unit: str = "steps", shown: bool = True
) -> Iterator[Callable[..., None]]:
    """A line with rate and time left where somebody is looking: call what it gives with how much is done."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    hidden = not (shown and console.is_terminal)
    with Progress("{task.description}", *columns, console=console, transient=True, disable=hidden) as line:
        task = line.add_task(name, total=total, completed=start, rate="")
        began = time.perf_counter()

        def advance(done: int, note: str = "", *, total: int | None = None) -> None:
            if note:
                line.update(task, description=f"{name} {note}")
            rate = (done - start) / max(1e-9, time.perf_counter() - began)
            line.update(task, completed=done, total=total, rate=f"{rate:.1f} {unit}/s")

        yield advance
