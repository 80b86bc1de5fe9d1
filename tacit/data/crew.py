"""Processes that answer numbered questions, in order: how recording uses every core and stays reproducible."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
GUARD = "Start it in a script under `if __name__ == '__main__':`, or pass workers=1."


class Task(Protocol):
    """What a process is sent: opened once there, then asked by number."""

    @property
    def ours(self) -> bool:
        """Nothing in it comes from the caller's script, which then need not run again in every process."""

    def open(self) -> contextlib.AbstractContextManager[Callable[[int], Any]]: ...


def answers(task: Task, *, first: int = 0, stop: int | None = None, workers: int = 2) -> Generator[Any, None, None]:
    """What ``task`` answers to ``first``, ``first + 1`` and so on, in this order, whoever answers which."""
    ready(workers)
    if stop is not None:
        workers = min(workers, stop - first)
    crew = Crew(task, first=first, stop=stop) if workers > 1 else None
    if crew is not None and crew.start(workers):
        with contextlib.closing(crew):
            number = first
            while stop is None or number < stop:
                yield crew.answer(number)
                number += 1
    else:
        yield from _alone(task, first, stop)


def ready(workers: int) -> None:
    """Refuse a number of workers that cannot be, and a script that runs again inside a process it started."""
    if workers < 1:
        raise ValueError(f"workers is {workers}; wanted at least 1.")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(f"This script was begun anew by a process that it started itself. {GUARD}")


def _alone(task: Task, first: int, stop: int | None) -> Generator[Any, None, None]:
    with task.open() as ask:
        number = first
        while stop is None or number < stop:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as in a crew: the number of threads changes the last bits of a sum
            try:
                answer = ask(number)
            finally:
                torch.set_num_threads(threads)
            yield answer
            number += 1


class Crew:
    """Processes that take the next number as soon as they are free, never far ahead of the one that is wanted."""

    def __init__(self, task: Task, *, first: int, stop: int | None) -> None:
        self._task, self._next, self._wanted, self._stop, self._ahead = task, first, first, stop, 0
        self._ready: dict[int, Any] = {}
        self._changed, self._over = threading.Condition(), False
        self._workers: list[BaseProcess] = []
        self._threads: list[threading.Thread] = []

    def start(self, workers: int) -> bool:
        """Start the processes; False, and a warning, where the task cannot be sent to one."""
        self._ahead, lines = 2 * workers, []
        with _environment(ONE), _unseen() if self._task.ours else contextlib.nullcontext():
            context = _context(self._task)
            here = _Here(dict(os.environ))
            for _ in range(workers):
                ours, theirs = context.Pipe()
                told = {"task": self._task, "line": theirs}
                worker = context.Process(target=work, args=(here,), kwargs=told, daemon=True)  # type: ignore[attr-defined]
                try:
                    worker.start()
                except Exception as error:  # what fails, and how, depends on what cannot be sent
                    warnings.warn(
                        f"This cannot be sent to other processes ({error}), so this one does it. Define it at the "
                        "top level of a module, or pass workers=1.",
                        stacklevel=2,
                    )
                    self.close()
                    return False
                theirs.close()
                self._workers.append(worker)
                lines.append(ours)
        pairs = zip(self._workers, lines, strict=True)
        self._threads = [threading.Thread(target=self._serve, args=pair, daemon=True) for pair in pairs]
        for thread in self._threads:
            thread.start()
        return True

    def answer(self, number: int) -> Any:
        with self._changed:
            self._wanted = number
            self._changed.notify_all()
            self._changed.wait_for(lambda: number in self._ready)
            answer = self._ready.pop(number)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _take(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._next < self._wanted + self._ahead)
            if self._over or (self._stop is not None and self._next >= self._stop):
                return None
            self._next += 1
            return self._next - 1

    def _serve(self, worker: BaseProcess, line: Connection) -> None:
        with line:
            while (number := self._take()) is not None:
                try:
                    line.send(number)
                    answer = line.recv()
                except (OSError, EOFError):
                    answer = _obituary(worker, number)
                except Exception as error:  # an answer that this process cannot make out
                    answer = error
                with self._changed:
                    self._ready[number] = answer
                    self._changed.notify_all()
                if isinstance(answer, Exception):
                    return

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()
        for thread in self._threads:
            thread.join()


def _context(task: Task) -> BaseContext:
    """How processes begin: never as forks of this one, for torch may hang on locks of threads that did not come along.

    Where nothing of the caller's script is wanted they are forks of one that has imported torch and has no threads: it
    is imported once, not once in each of them and in those of every later crew.
    """
    if task.ours and "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", __name__])
        with contextlib.suppress(OSError):  # it listens at a file: no room for one, or a path too long for a socket
            forkserver.ensure_running()
            return context
    return multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class _Here:
    """The variables of this process: sent before the task, they are there by the time that it is made out."""

    variables: dict[str, str]

    def __reduce__(self) -> tuple[Any, ...]:
        return _settle, (self.variables,)


def _settle(variables: dict[str, str]) -> _Here:
    os.environ.clear()
    os.environ.update(variables)
    return _Here(variables)


def _obituary(worker: BaseProcess, number: int) -> Exception:
    worker.join(5)
    worker.kill()
    worker.join()
    killed = worker.exitcode == -signal.SIGKILL
    cause = "It was killed, most often for want of memory: use fewer workers." if killed else GUARD
    return ChildProcessError(f"A process ended with exit code {worker.exitcode} at number {number}. {cause}")


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Variables that processes started inside inherit, and this one has only meanwhile."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """The script that runs, hidden from processes started inside: they would run it again, to no end."""
    main, names = vars(sys.modules["__main__"]), ("__file__", "__spec__")
    before = {name: main.pop(name) for name in names if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(before)


def _bound() -> None:
    """End this process with the one that began it: left over, it would go on writing beside the next one's."""

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def work(_: _Here, *, task: Task, line: Connection) -> None:
    """What a process of a crew does: it answers numbers until its caller hangs up, or is no more."""
    _bound()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to answer
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        ask: Callable[[int], Any] | None = None
        while True:
            try:
                number = line.recv()
            except (EOFError, OSError):
                return
            try:
                ask = stack.enter_context(task.open()) if ask is None else ask
                answer = ask(number)
            except Exception as error:  # it travels to the caller, who raises it
                error.add_note(f"This happened in another process, at number {number}.")
                answer = error
            try:
                line.send(answer)
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception as error:
                line.send(RuntimeError(f"{type(answer).__name__} at number {number} cannot be sent: {error}: {answer}"))
