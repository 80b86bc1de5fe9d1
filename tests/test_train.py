"""The one loop: what it trains, what it tells, when it stops, and what it refuses to mistake for something else."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tacit.train
from tacit import state
from tacit.clip import Clip, Episode
from tacit.data.episodes import Episodes
from tacit.part import Part
from tacit.train import Interrupted, NonFinite, Plan, Source, cycle, fit


class Line(Part):
    """Learns to double: one weight, and a count of the steps that it was told of."""

    def __init__(self, *, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.net = nn.Linear(1, 1, bias=False)
        self.unused = nn.Linear(1, 1)  # a head that some data never reach
        self.register_buffer("told", torch.zeros((), dtype=torch.int64))
        nn.init.zeros_(self.net.weight)

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None
        miss = (self.gain * self.net(clip.state) - 2 * clip.state).square().mean()
        return miss, {"twice": 2 * miss.detach(), "count": self.told.clone()}

    def after_step(self) -> None:
        self.told += 1


class Odd(Line):
    """Goes wrong at one step, in the place it is told."""

    def __init__(self, *, at: int, where: str) -> None:
        super().__init__()
        self.at, self.where = at, where

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        miss, metrics = super().loss(clip)
        if int(self.told) + 1 == self.at:
            nan = torch.tensor(float("nan"))
            if self.where == "gradient":
                miss = miss + (self.net.weight * 0).sqrt().sum()  # finite, with an infinite slope
            elif self.where == "loss":
                miss = miss * nan
            else:
                metrics["twice"] = nan
        return miss, metrics


def clips(count: int = 7) -> list[Clip]:
    random = torch.Generator().manual_seed(0)
    return [Clip(state=torch.randn(4, 2, 1, generator=random)) for _ in range(count)]


class During:
    """A source that does something just before it hands out the clip of one step."""

    prints, fingerprint = frozenset({"seen"}), "the data"

    def __init__(self, step: int, deed: Callable[[], Any]) -> None:
        self.step, self.deed = step, deed

    def stream(self, batch: int, *, start: int = 0, **_: Any) -> Iterator[Clip]:
        kept = clips()
        for step in range(start, 10**6):
            if step == self.step:
                self.deed()
            yield kept[step % len(kept)]


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


QUICK = Plan(steps=20, rate=0.1, warmup=2, log_every=5, save_every=8)


def test_it_learns_and_tells_of_it(tmp_path: Path) -> None:
    source = During(-1, list)
    model = fit(Line(), source, tmp_path, QUICK.replace(steps=100), about={"recipe": "line"})
    assert abs(model.net.weight.item() - 2) < 0.1 and not model.training and model.seen == {"seen"}
    told = rows(tmp_path)
    assert [row["step"] for row in told] == list(range(5, 101, 5)) and told[-1]["loss"] < told[0]["loss"] / 10
    assert {"loss", "twice", "gradient", "rate", "steps_per_s", "waiting_for_data"} <= told[0].keys()
    assert told[-1]["twice"] == pytest.approx(2 * told[-1]["loss"]) and told[-1]["count"] == 99
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors", "run.json", "log.jsonl"}
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["finished"] and run["step"] == 100 and run["seconds"] > 0 and run["data"] == "the data"
    assert (run["device"], run["threads"]) == ("cpu", torch.get_num_threads())
    assert run["story"]["recipe"] == "line" and run["story"]["plan"]["rate"] == 0.1 and run["versions"]["torch"]
    assert Line.load(tmp_path, classes=[Line]).seen == {"seen"}


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    plan = Plan(steps=100, rate=1.0, warmup=10, final=0.1)
    told = [plan.rate_at(step) for step in range(100)]
    assert told[:10] == pytest.approx([(i + 1) / 11 for i in range(10)]) and told[10] == 1.0
    assert told[55] == pytest.approx(0.55) and told[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a > b for a, b in zip(told[10:-1], told[11:], strict=True))


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0}, {"batch": 0}, {"save_every": 0}, {"log_every": 0}, {"rate": -1.0}, {"rate": float("nan")},
        {"clip": -1.0}, {"average": 1.0}, {"precision": "float16"}, {"warmup": -1}, {"final": float("inf")},
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused_by_its_field(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"Plan.{next(iter(fields))} is"):
        Plan(**fields)


def test_gradients_are_cut_to_the_length_asked_for() -> None:
    class Norm:
        every = 1
        seen: list[float] = []  # noqa: RUF012

        def __call__(self, step: int, model: Part, row: dict[str, float]) -> None:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            self.seen.append(float(torch.stack([g.norm() for g in grads]).norm()))

    for most in (1e-3, 0.0):
        fit(Line(), cycle(clips()), None, QUICK.replace(clip=most, steps=3), watch=[Norm()])
    assert Norm.seen[:3] == pytest.approx([1e-3] * 3, rel=1e-2) and min(Norm.seen[3:]) > 0.1


def test_the_average_lags_behind_the_weights() -> None:
    plain = fit(Line(), cycle(clips()), None, QUICK)
    slow = fit(Line(), cycle(clips()), None, QUICK.replace(average=0.999))
    assert 0 < slow.net.weight.item() < plain.net.weight.item()


@pytest.mark.parametrize("fields", [{"precision": "bfloat16"}, {"channels_last": False}, {"decay": 0.01}])
def test_every_way_of_running_trains(fields: dict[str, Any]) -> None:
    model = fit(Line(), cycle(clips()), None, QUICK.replace(steps=60, **fields))
    assert abs(model.net.weight.item() - 2) < 0.2


def test_what_is_frozen_is_left_alone_and_all_frozen_is_refused() -> None:
    model = Line()
    model.unused.requires_grad_(False)
    before = model.unused.weight.clone()
    assert torch.equal(fit(model, cycle(clips()), None, QUICK).unused.weight, before)
    with pytest.raises(ValueError, match="Line has no weight that may be trained"):
        fit(Line().requires_grad_(False), cycle(clips()), None, QUICK)


def test_chance_outside_is_as_if_nothing_had_been_trained(tmp_path: Path) -> None:
    drawn = []
    for _ in range(2):  # trained, then only read
        model = Line()
        torch.manual_seed(3)
        fit(model, cycle(clips()), tmp_path, QUICK)
        drawn.append(torch.rand(()).item())
    torch.manual_seed(3)
    assert drawn == [torch.rand(()).item()] * 2


@pytest.mark.parametrize("where", ["loss", "gradient", "twice"])
@pytest.mark.parametrize("at", [1, 13])
def test_what_is_not_finite_stops_it_unstepped_and_unsaved(where: str, at: int, tmp_path: Path) -> None:
    model = Odd(at=at, where=where)
    with pytest.raises(NonFinite, match=rf"At step {at} the metric '{where}' was (nan|inf)") as stop:
        fit(model, cycle(clips()), tmp_path, QUICK)
    assert "net.weight" in str(stop.value) or where == "twice"
    kept = tmp_path / state.RESUME
    assert (state.read_state(kept).step if kept.exists() else 0) == (8 if at > 8 else 0)
    assert not (tmp_path / "model.safetensors").exists()
    if where != "twice":
        good, before = Line(), list[float]()
        fit(good, During(at - 1, lambda: before.append(good.net.weight.item())), None, QUICK)
        assert model.net.weight.item() == before[0]  # the step that was broken moved nothing


@pytest.mark.parametrize(("device", "tells"), [("cpu", 13), ("elsewhere", 15)])
def test_what_was_not_finite_between_two_looks_is_still_seen(
    device: str, tells: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the loop looks only where it logs or saves: the step that was broken must not pass unseen."""
    model, looks = Odd(at=13, where="gradient"), tacit.train._Run._read
    seen: list[int] = []

    def look(run: Any, *, asked: bool) -> Any:
        if device == "cpu" or run._due() or run.step % run.plan.save_every == 0:
            seen.append(run.step)
            return looks(run, asked=asked)
        return {}, False

    monkeypatch.setattr(tacit.train._Run, "_read", look)
    with pytest.raises(NonFinite, match="At step 13 the metric 'gradient'"):
        fit(model, cycle(clips()), tmp_path, QUICK)
    assert seen[-1] == tells and torch.isfinite(model.net.weight).all()


def test_another_run_in_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    fit(Line(), cycle(clips()), tmp_path, QUICK, about={"recipe": "line"})
    told = {"about": {"recipe": "line"}}
    for model, source, plan, about, why in (
        (Line(gain=2.0), cycle(clips()), QUICK, told, r"model.arguments.gain was 1.0 and is now 2.0"),
        (Line(), During(-1, list), QUICK, told, "data was '' and is now 'the data'"),
        (Line(), cycle(clips()), QUICK.replace(rate=1.0, seed=3), told, r"plan.rate was 0.1 and is now 1.0; plan.seed"),
        (Line(), cycle(clips()), QUICK, {"about": {"recipe": "circle"}}, "recipe was 'line' and is now 'circle'"),
    ):
        with pytest.raises(ValueError, match=f"holds another run: {why}"):
            fit(model, source, tmp_path, plan, **about)  # type: ignore[arg-type]


def test_other_clips_of_the_same_episodes_are_another_run(tmp_path: Path) -> None:
    made = Episodes.of([Episode(state=np.linspace(0, i, 9, dtype=np.float32)[:, None]) for i in range(1, 4)])
    fit(Line(), made.clips(2), tmp_path, QUICK)
    with pytest.raises(ValueError, match=r"data was 'clips of length 2, stride 1.*' and is now 'clips of .*stride 3"):
        fit(Line(), made.clips(2, stride=3), tmp_path, QUICK)


def test_a_finished_run_is_read_and_not_trained(tmp_path: Path) -> None:
    before = fit(Line(), During(-1, list), tmp_path, QUICK)
    for changes in ({}, {"save_every": 3, "log_every": 1}):  # how often it is looked at makes no other run of it
        after = fit(Line(), During(0, pytest.fail), tmp_path, QUICK.replace(**changes))
        assert torch.equal(after.net.weight, before.net.weight) and after.seen == {"seen"} and not after.training


def test_an_argument_that_cannot_be_saved_is_refused_before_the_first_step(tmp_path: Path) -> None:
    class Foreign(Line):
        def __init__(self, thing: Any) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="cannot be saved"):
        fit(Foreign(object()), During(0, pytest.fail), tmp_path, QUICK)


def test_a_source_that_ends_says_so() -> None:
    class Short:
        def stream(self, batch: int, **_: Any) -> Iterator[Clip]:
            yield from clips(3)

    with pytest.raises(ValueError, match="ended before step 4 of 20; a source's stream has no end"):
        fit(Line(), Short(), None, QUICK)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_the_step_saves_and_says_how_to_go_on(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"Stopped at step 12 of 20 and saved. To go on from here: python"):
        fit(Line(), During(11, lambda: os.kill(os.getpid(), number)), tmp_path, QUICK)
    assert signal.getsignal(number) is before and state.read_state(tmp_path / state.RESUME).step == 12
    again = fit(Line(), During(-1, list), tmp_path, QUICK)
    assert torch.equal(again.net.weight, fit(Line(), During(-1, list), None, QUICK).net.weight)


def test_asked_to_stop_at_the_very_end_it_finishes_first(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="what was trained is whole"):
        fit(Line(), During(19, lambda: os.kill(os.getpid(), signal.SIGINT)), tmp_path, QUICK)
    assert json.loads((tmp_path / "run.json").read_text())["finished"]


def test_only_who_insists_is_obeyed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)  # torchrun passes on at once what the terminal has sent already
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="nothing is kept, as no folder was given"):
        fit(Line(), During(3, twice), None, QUICK)
    monkeypatch.setattr(state, "PATIENCE", -1.0)
    with pytest.raises(KeyboardInterrupt) as stop:
        fit(Line(), During(3, twice), None, QUICK)
    assert not isinstance(stop.value, Interrupted)


def test_off_the_main_thread_it_trains_without_listening(tmp_path: Path) -> None:
    done: list[Line] = []
    thread = threading.Thread(target=lambda: done.append(fit(Line(), cycle(clips()), tmp_path, QUICK)))
    thread.start()
    thread.join()
    assert done


def test_waiting_for_data_is_measured_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tacit.train, "SETTLED", 0.0)

    class Slow:
        def stream(self, batch: int, **_: Any) -> Iterator[Clip]:
            for clip in clips() * 10:
                time.sleep(0.02)
                yield clip

    with caplog.at_level(logging.WARNING):
        fit(Line(), Slow(), tmp_path, QUICK)
    assert sum("waits for its data" in r.message and "tacit.data.cache" in r.message for r in caplog.records) == 1
    assert min(row["waiting_for_data"] for row in rows(tmp_path)) > 0.5
    assert json.loads((tmp_path / "run.json").read_text())["waiting_for_data"] > 0.5
    caplog.clear()
    fit(Line(), cycle(clips()), tmp_path / "fast", QUICK)
    assert not caplog.records and rows(tmp_path / "fast")[-1]["waiting_for_data"] < 0.3


def test_a_second_process_waits_for_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    holding, ended = threading.Event(), []

    def hold() -> None:
        with state.alone(tmp_path):
            holding.set()
            time.sleep(0.3)
            ended.append(time.perf_counter())

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    started: list[float] = []
    with caplog.at_level(logging.WARNING):
        fit(Line(), During(0, lambda: started.append(time.perf_counter())), tmp_path, QUICK)
    thread.join()
    assert started[0] > ended[0] and "Another process is at work" in caplog.text


@pytest.mark.parametrize(
    ("argv", "world", "wanted"),
    [
        (["tools/run.py", "--seed", "a b"], 1, "python tools/run.py --seed 'a b'"),
        (["/somewhere/bin/tacit", "demo"], 1, "tacit demo"),
        (["/somewhere/tacit/__main__.py", "demo"], 1, "python -m tacit demo"),
        (["run.py"], 4, "torchrun --nproc-per-node 4 run.py"),
        (["-c"], 1, "python"),
    ],
)
def test_the_command_to_go_on_with(argv: list[str], world: int, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    assert state.command() == wanted


def test_a_source_is_anything_that_streams() -> None:
    source: Source = cycle(clips(3))
    stream = source.stream(4, start=2)
    for wanted in (2, 0, 1, 2):  # entered anywhere, in turn and round again
        assert torch.equal(next(stream).state, clips(3)[wanted].state)  # type: ignore[arg-type]


FAULTS = """
import resource, sys
import numpy as np
from tacit import state
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.recipes.bc import bc
from tacit.train import Plan

if sys.argv[1] == "without":
    state.hoard = lambda: None
random = np.random.default_rng(0)
data = Episodes.of(
    [Episode(frames=random.integers(0, 256, (9, 32, 32, 3), np.uint8), actions=random.random((8, 2), np.float32))],
    space=Space("continuous", 2), fps=5,
)
bc(data, None, plan=Plan(steps=10, device="cpu"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bc(data, None, plan=Plan(steps=30, device="cpu"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 30)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library keeps its own house")
def test_a_step_does_not_beg_its_memory_back_page_by_page() -> None:
    def faults(way: str) -> float:
        command = [sys.executable, "-c", FAULTS, way]
        home = os.environ | {"OMP_NUM_THREADS": "1"}
        return float(subprocess.run(command, env=home, capture_output=True, text=True, check=True).stdout)

    kept, begged = faults("with"), faults("without")
    assert kept < 200 < begged, (kept, begged)
