"""A crew: answers in order, never far ahead, from as many processes as asked, and an end to all of them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch

from tacit.data.crew import ONE, answers


@dataclass(frozen=True)
class Asking:
    """Tells who answers, and with how many threads; even numbers take their time."""

    wait: float = 0.0

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], tuple[int, int, int, str | None]]]:
        yield self._answer

    def _answer(self, number: int) -> tuple[int, int, int, str | None]:
        time.sleep(self.wait * (number % 2 == 0))
        return number, os.getpid(), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


def test_answers_come_in_order_from_every_process() -> None:
    before = {name: os.environ.get(name) for name in ONE}
    found = list(answers(Asking(wait=0.05), first=3, stop=23, workers=2))
    assert [number for number, *_ in found] == list(range(3, 23))
    assert len({pid for _, pid, *_ in found} - {os.getpid()}) == 2
    assert {(threads, told) for *_, threads, told in found} == {(1, "1")}
    assert {name: os.environ.get(name) for name in ONE} == before
    assert not multiprocessing.active_children()


def test_an_endless_crew_ends_with_its_caller() -> None:
    stream = answers(Asking(), workers=2)
    assert [number for number, *_ in itertools.islice(stream, 5)] == [0, 1, 2, 3, 4]
    stream.close()
    assert not multiprocessing.active_children()


def test_one_worker_is_this_process() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    found = next(stream := answers(Asking(), workers=1))
    assert found[1:3] == (os.getpid(), 1)  # one thread, as everywhere
    assert torch.get_num_threads() == 2
    stream.close()
    torch.set_num_threads(threads)


def test_no_worker_is_none() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(answers(Asking(), workers=0))
