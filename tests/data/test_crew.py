"""A crew: answers in order, never far ahead, from as many processes as asked, and an end to all of them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tacit.data.crew import ONE, answers

HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@dataclass(frozen=True)
class Asking:
    """Tells who answers, and with how many threads; even numbers take their time."""

    wait: float = 0.0
    ours: bool = False

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


@dataclass(frozen=True)
class Placed:
    """Tells where it is: the process that it was forked from, the folder, and a variable."""

    ours: bool = True

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], tuple[int, str, str | None]]]:
        yield lambda _: (os.getppid(), os.getcwd(), os.environ.get("TACIT_TEST"))


def test_what_is_ours_is_forked_from_one_process_for_good_and_finds_things_as_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = set()
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("TACIT_TEST", name)
        found = set(answers(Placed(), stop=4, workers=2))
        parents |= {parent for parent, *_ in found}
        assert {(folder, told) for _, folder, told in found} == {(str(tmp_path / name), name)}
    monkeypatch.delenv("TACIT_TEST")
    assert {told for *_, told in answers(Placed(), stop=2, workers=2)} == {None}
    assert len(parents) == 1 and os.getpid() not in parents, "torch is imported once, in the process they come from"


def test_an_endless_crew_ends_with_its_caller() -> None:
    stream = answers(Asking(), workers=2)
    assert [number for number, *_ in itertools.islice(stream, 5)] == [0, 1, 2, 3, 4]
    stream.close()
    assert not multiprocessing.active_children()


SCRIPT = """
import sys
from tacit.data.collect import collect
{env}
print(len(collect({name}, sys.argv[1], episodes=4, size=12, workers=2)))
"""


@pytest.mark.parametrize("way", ["file", "input"])
def test_a_script_without_a_guard_records_by_name(way: str, tmp_path: Path) -> None:
    text = SCRIPT.format(env="", name="'dots/plain'")
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, str(tmp_path / "script.py") if way == "file" else "-", str(tmp_path / "a")]
    done = subprocess.run(command, input=text, env=HERE, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr


def test_where_no_socket_can_be_each_process_begins_by_itself(tmp_path: Path) -> None:
    far = tmp_path / ("far" * 40)  # a socket's path has room for about a hundred letters
    far.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT.format(env="", name="'dots/plain'"))
    command = [sys.executable, "-W", "error::UserWarning", str(tmp_path / "script.py"), str(tmp_path / "a")]
    done = subprocess.run(command, env=HERE | {"TMPDIR": str(far)}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr


def test_a_script_that_must_be_run_again_is_told_to_guard_itself(tmp_path: Path) -> None:
    text = SCRIPT.format(env="from tacit.envs.dots import Dots\ndef opened(): return Dots()", name="opened")
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "a")]
    done = subprocess.run(command, env=HERE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]


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


ORPHAN = """
import contextlib, os, time
from dataclasses import dataclass
from tacit.data.crew import answers


def last(number):
    print(os.getpid(), flush=True)
    time.sleep(60)


@dataclass
class Long:
    ours = False

    @contextlib.contextmanager
    def open(self):
        yield last


if __name__ == "__main__":
    next(answers(Long(), workers=2))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells by /proc who lives")
def test_a_killed_caller_leaves_no_process_at_its_work(tmp_path: Path) -> None:
    """Left over, it would go on writing into the folder in which the same command, begun again, goes on."""
    (tmp_path / "script.py").write_text(ORPHAN)
    command = [sys.executable, str(tmp_path / "script.py")]
    caller = subprocess.Popen(command, env=HERE, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    workers = [int(caller.stdout.readline()) for _ in range(2)]
    assert all(alive(pid) for pid in workers)
    caller.kill()
    caller.wait()
    until = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
