"""Nothing lost: wherever a run is cut off, it ends bit for bit as if it had not been."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit import part, state
from tacit.clip import Clip, floats
from tacit.part import Part
from tacit.parts.books import VQ
from tacit.parts.slow import Slow
from tacit.train import Plan, fit

ROOT = Path(__file__).parent.parent


class All(Part):
    """Everything that can be forgotten: convolutions laid channels last, a codebook, a slow copy, noise."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(8, 4, 3, 2))
        self.books = VQ(groups=1, tokens=2, dim=8, codes=4, patience=2, every=2, memory=16)
        self.head = Inner()
        self.slow = Slow(self.head, memory=0.9)
        self.scale = nn.Parameter(torch.ones(()))

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.frames is not None
        seen = self.eyes(floats(clip.frames).flatten(0, 1)).flatten(1)
        found = self.books(seen[:, :16] + 0.1 * torch.randn_like(seen[:, :16]))
        cost = F.mse_loss(self.head(found.z) * self.scale, self.slow(found.z) + 1) + found.loss
        return cost, found.metrics

    def after_step(self) -> None:
        super().after_step()
        self.slow.follow(self.head)


class Inner(Part):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(16, 4)

    def forward(self, z: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(z)


class Cut(BaseException):
    """Stands for whatever ends a process without a word."""


class Pictures:
    """Clips decided by their step alone, with a cut at one of them."""

    prints, fingerprint = frozenset({"a", "b"}), "pictures"

    def __init__(self, cut: int = -1) -> None:
        self.cut = cut

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, **_: Any) -> Iterator[Clip]:
        for step in range(start, 10**6):
            if step == self.cut:
                raise Cut
            random = torch.Generator().manual_seed(1000 * seed + step)
            yield Clip(frames=torch.randint(256, (batch, 2, 3, 6, 6), dtype=torch.uint8, generator=random))


PLAN = Plan(steps=24, batch=4, rate=1e-2, warmup=4, save_every=5, log_every=3, average=0.8, clip=1.0)


def model() -> All:
    torch.manual_seed(0)
    return All()


def files(folder: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    told = [{k: v for k, v in row.items() if k not in ("steps_per_s", "waiting_for_data")} for row in rows]
    return {"log": told, "weights": (folder / part.WEIGHTS).read_bytes(), "config": (folder / part.CONFIG).read_bytes()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    fit(model(), Pictures(), folder, PLAN)
    return files(folder)


@pytest.mark.parametrize("cuts", [(2,), (5,), (6, 13), (23,), (3, 9, 9, 17, 21)], ids=str)
def test_cut_anywhere_it_ends_the_same(cuts: tuple[int, ...], tmp_path: Path, whole: dict[str, Any]) -> None:
    for cut in cuts:
        with pytest.raises(Cut):
            fit(model(), Pictures(cut), tmp_path, PLAN)
        torch.manual_seed(cut)  # what else the process draws is nobody's business
    fit(model(), Pictures(), tmp_path, PLAN)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("changes", [{"channels_last": False}, {"precision": "bfloat16"}, {"average": 0.0}], ids=str)
def test_so_it_does_with_other_plans(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = PLAN.replace(**changes)
    fit(model(), Pictures(), tmp_path / "whole", plan)
    with pytest.raises(Cut):
        fit(model(), Pictures(14), tmp_path / "cut", plan)
    fit(model(), Pictures(), tmp_path / "cut", plan)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_moments_that_lie_otherwise_in_memory_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any]
) -> None:
    """The mistake this suite once caught: a fused step over moments that were restored in another layout."""

    def restore(self: state.Progressed, model: Part, optimiser: torch.optim.Optimizer, *, average: Any = None) -> None:
        honest(self, model, optimiser, average=average)
        for held in optimiser.state.values():
            held.update({k: v.contiguous() for k, v in held.items()})

    honest = state.Progressed.restore
    monkeypatch.setattr(state.Progressed, "restore", restore)
    with pytest.raises(Cut):
        fit(model(), Pictures(14), tmp_path, PLAN)
    fit(model(), Pictures(), tmp_path, PLAN)
    assert files(tmp_path)["weights"] != whole["weights"]


@pytest.mark.parametrize("when", ["before the weights", "between the files", "before it counts", "before the sweep"])
def test_cut_between_the_last_save_and_the_end_it_ends_the_same(
    when: str, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, unlink, done = os.replace, Path.unlink, [part.WEIGHTS, part.CONFIG]

    def placing(source: str, target: Path) -> None:
        name = Path(target).name
        last = not done[1:] and name == "run.json"
        if (when, name) in (("before the weights", part.WEIGHTS), ("between the files", part.CONFIG)):
            raise Cut
        if when == "before it counts" and last:
            raise Cut
        replace(source, target)
        if name == part.CONFIG:
            done.pop()

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        if when == "before the sweep" and path.name == state.RESUME:
            raise Cut
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", placing)
        patch.setattr(Path, "unlink", unlinking)
        with pytest.raises(Cut):
            fit(model(), Pictures(), tmp_path, PLAN)
    if when == "between the files":
        with pytest.raises((ValueError, FileNotFoundError)):
            All.load(tmp_path, classes=[All, Inner])
    again = fit(model(), Pictures(), tmp_path, PLAN)
    assert files(tmp_path) == whole and not again.training
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_saved_nothing_makes_way_and_one_that_did_does_not(tmp_path: Path, whole: dict[str, Any]) -> None:
    for plan in (PLAN.replace(rate=1.0), PLAN.replace(seed=9)):
        with pytest.raises(Cut):
            fit(model(), Pictures(3), tmp_path, plan, about={"recipe": "another"})
    with pytest.raises(Cut):
        fit(model(), Pictures(9), tmp_path, PLAN)  # step 5 was saved
    with pytest.raises(ValueError, match="holds another run: plan.rate was"):
        fit(model(), Pictures(), tmp_path, PLAN.replace(rate=1.0))
    fit(model(), Pictures(), tmp_path, PLAN)
    assert files(tmp_path) == whole


def test_weights_without_a_saved_step_are_not_taken_from_anybody(tmp_path: Path) -> None:
    """Killed between its weights and the note that it is finished, where it was too short to save a step."""
    short = PLAN.replace(steps=4)
    fit(model(), Pictures(), tmp_path, short)
    note = tmp_path / "run.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"finished": False, "step": 0}))
    before = files(tmp_path)["weights"]
    with pytest.raises(ValueError, match="holds another run"):
        fit(model(), Pictures(), tmp_path, short.replace(rate=1.0))
    assert files(tmp_path)["weights"] == before


def test_a_full_disk_costs_no_more_than_the_steps_since_the_last_save(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "resume" in path.name and (tmp_path / state.RESUME).exists():
            write(path, b"half a state")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            OSError, match=r"The disk is full: step 10 could not be saved .* the state of step 5,"
        ) as stop:
            fit(model(), Pictures(), tmp_path, PLAN)
    assert stop.value.errno == errno.ENOSPC and "go on from there: python" in str(stop.value)
    assert state.read_state(tmp_path / state.RESUME).step == 5 and not list(tmp_path.glob(".*"))
    fit(model(), Pictures(), tmp_path, PLAN)
    assert files(tmp_path) == whole


def test_another_error_of_the_disk_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="the disk is broken"):
        fit(model(), Pictures(), tmp_path, PLAN)


def test_lines_of_lost_steps_and_half_lines_leave_the_log(tmp_path: Path, whole: dict[str, Any]) -> None:
    with pytest.raises(Cut):
        fit(model(), Pictures(4), tmp_path, PLAN)  # nothing was saved yet, but step 3 was told of
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1
    with pytest.raises(Cut):
        fit(model(), Pictures(9), tmp_path, PLAN)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    fit(model(), Pictures(), tmp_path, PLAN)
    assert files(tmp_path)["log"] == whole["log"]


def test_going_on_under_other_versions_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Cut):
        fit(model(), Pictures(9), tmp_path, PLAN)
    run = json.loads((tmp_path / "run.json").read_text())
    run["versions"]["torch"] = "1.0"
    (tmp_path / "run.json").write_text(json.dumps(run))
    with caplog.at_level(logging.WARNING):
        fit(model(), Pictures(), tmp_path, PLAN)
    assert "The first 5 steps ran elsewhere: torch was '1.0'" in caplog.text


@pytest.mark.slow
def test_killed_at_random_moments_training_and_labelling_end_in_the_same_bytes() -> None:
    """`python bench/kill.py --kills 20` is the same with new processes and ten times the moments."""
    command = [sys.executable, "bench/kill.py", "--kills", "2", "--fork", "--steps", "40", "--episodes", "24"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed 2 times") == done.stdout.count("2 kills left no trace") == 2
