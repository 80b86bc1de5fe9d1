"""One function over many processes or many machines: the same task, the same answers, in the same order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tacit.data.crew import Task, answers
from tacit.data.file import need
from tacit.data.video import Damaged

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Fault:
    """Why an episode could not be read, and how many of its frames are whole: an answer like any other."""

    why: str
    good: int | None = None

    @classmethod
    def of(cls, error: Exception) -> Fault:
        return cls(" ".join(str(error).split()), getattr(error, "good", None))


@dataclass(frozen=True)
class Calm:
    """A task whose data may be damaged: what a question meets of that is its answer, and the others go on."""

    task: Task

    @property
    def ours(self) -> bool:
        return self.task.ours

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], Any]]:
        with self.task.open() as ask:
            yield lambda number: self._answer(ask, number)

    def _answer(self, ask: Callable[[int], Any], number: int) -> Any:
        try:
            return ask(number)
        except (Damaged, ValueError, OSError, MemoryError) as error:
            return Fault.of(error)


def spread(
    task: Task, *, first: int = 0, stop: int, workers: int = 2, engine: Engine = "local"
) -> Generator[Any, None, None]:
    """What ``task`` answers to ``first`` up to ``stop``, from local processes or from the nodes of a Ray cluster.

    A question that ends the process that is asked it, as a hostile file may, is answered by a ``Fault``.
    """
    if engine == "ray" and first < stop:
        yield from _ray(Calm(task), first, stop, workers)
        return
    while first < stop:
        with contextlib.closing(answers(Calm(task), first=first, stop=stop, workers=workers)) as stream:
            try:
                for answer in stream:
                    yield answer
                    first += 1
            except ChildProcessError as error:
                yield Fault.of(error)
                first += 1


def _ray(task: Task, first: int, stop: int, workers: int) -> Generator[Any, None, None]:
    need("ray", extra="ray", reading="--engine ray")
    import ray

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Items are there at once. A range would be read by tasks, which wait for ever where the actors have all the cores.
    numbers = ray.data.from_items(list(range(first, stop)), override_num_blocks=min(stop - first, 64 * workers))
    asked = numbers.map_batches(_Asked, fn_constructor_args=(task,), batch_size=1, concurrency=workers, num_cpus=1)
    for row in asked.iter_rows():
        yield row["answer"]


class _Asked:
    """A Ray actor: it opens the task once, and answers numbers."""

    def __init__(self, task: Task) -> None:
        import torch

        torch.set_num_threads(1)  # as in a crew: the number of threads changes the last bits of a sum
        self._stack = contextlib.ExitStack()
        self._ask = self._stack.enter_context(task.open())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = np.empty(len(batch["item"]), object)
        out[:] = [self._ask(int(number)) for number in batch["item"]]
        return {"answer": out}
