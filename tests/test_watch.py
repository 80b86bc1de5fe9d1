"""Watchers look and tell; they change nothing, and what they need and do not find they name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tacit.clip import Clip
from tacit.data import toys
from tacit.envs.dots import Board
from tacit.evaluate.verdict import Pair
from tacit.part import Part
from tacit.recipes.tacit import tacit
from tacit.train import Plan, cycle, fit
from tacit.watch import Health, TensorBoard, Trackio, Validation, Wandb, watching

PLAN = Plan(steps=12, rate=0.05, warmup=1, log_every=4, save_every=50)


class Noisy(Part):
    """Draws at every loss, in training and out of it, and notes how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1, bias=False)
        self.modes: list[tuple[bool, bool]] = []

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None
        self.modes.append((self.training, torch.is_grad_enabled()))
        noise = torch.randn(())
        return (self.net(clip.state) - 1 + noise).square().mean(), {"noise": noise}


class Held:
    """Held-out clips, and a note of how they were asked for."""

    def __init__(self, prints: frozenset[str] = frozenset({"held"})) -> None:
        self.prints, self.asked = prints, list[tuple[int, dict[str, int]]]()

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]:
        self.asked.append((batch, {"seed": seed, "start": start, "rank": rank, "world": world}))
        for step in range(start, 10**6):
            yield Clip(state=torch.full((batch, 2, 1), 1.0 + step))


def noisy() -> Noisy:
    torch.manual_seed(0)
    return Noisy()


def source() -> Any:
    return cycle([Clip(state=torch.ones(2, 2, 1))])


def test_validation_joins_the_log_with_the_same_clips_and_chance_each_time(tmp_path: Path) -> None:
    held = Held()
    fit(noisy(), source(), tmp_path, PLAN, watch=[Validation(held, every=3, batch=6, batches=2)])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    looked = [row for row in rows if "held/loss" in row]
    assert [row["step"] for row in looked] == [3, 6, 9, 12] and [row["step"] for row in rows] == [3, 4, 6, 8, 9, 12]
    assert len({row["held/noise"] for row in looked}) == 1 and len({row["held/loss"] for row in looked}) == 4
    assert held.asked == [(6, {"seed": 0, "start": 0, "rank": 0, "world": 1})] * 4


def test_the_number_is_the_mean_loss_out_of_training() -> None:
    class Still(Noisy):
        def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
            assert clip.state is not None and not self.training and not torch.is_grad_enabled()
            return clip.state.mean(), {"twice": 2 * clip.state}  # metrics may be more than a number: their mean counts

    told = Validation(Held(), batch=2, batches=3, name="other")(1, Still().eval(), {})
    assert told == {"other/twice": 4.0, "other/loss": 2.0}


def test_looking_changes_nothing(tmp_path: Path) -> None:
    plain = fit(noisy(), source(), None, PLAN)
    for every in (1, 5):
        model = fit(noisy(), source(), None, PLAN, watch=[Validation(Held(), every=every)])
        assert torch.equal(model.net.weight, plain.net.weight)
        assert set(model.modes) == {(True, True), (False, False)}


def test_watching_what_is_trained_on_is_refused() -> None:
    class Seen:
        prints = frozenset({"a", "b", "held"})
        stream = staticmethod(source().stream)

    with pytest.raises(ValueError, match=r"Validation looks at 1 of the episodes that are trained on. Split first"):
        fit(noisy(), Seen(), None, PLAN, watch=[Validation(Held())])


def test_what_validation_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="batches=0; each must be at least 1"):
        Validation(Held(), batches=0)


class Sink:
    """What a logging package would have been told."""

    def __init__(self) -> None:
        self.begun: dict[str, Any] = {}
        self.told: list[tuple[int, dict[str, float]]] = []

    def init(self, **settings: Any) -> Sink:
        self.begun = settings
        return self

    def log(self, row: dict[str, float], step: int) -> None:
        self.told.append((step, row))


@pytest.mark.parametrize(("name", "sink", "key"), [("wandb", Wandb, "id"), ("trackio", Trackio, "name")])
def test_runs_are_told_every_line_of_the_log(
    name: str, sink: type[Wandb] | type[Trackio], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Sink()
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=fake.init))
    sink("dots", **{key: "seed 0"})
    assert fake.begun == {"project": "dots", key: "seed 0", "resume": "allow"}
    watch = [Validation(Held(), every=6), sink("dots")]
    assert fake.begun == {"project": "dots"}
    fit(noisy(), source(), None, PLAN, watch=watch)
    assert [step for step, _ in fake.told] == [4, 8, 12]
    assert {"loss", "rate", "steps_per_s"} <= fake.told[0][1].keys() and "held/loss" in fake.told[2][1]


def test_tensorboard_is_told_number_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def flush(self) -> None:
            told.append(("flushed", 0.0, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    fit(noisy(), source(), None, PLAN, watch=[TensorBoard(tmp_path, every=6)])
    assert {(name, step) for name, _, step in told if name == "loss"} == {("loss", 6), ("loss", 12)}
    assert told[-1][0] == "flushed"


@pytest.mark.parametrize(
    ("package", "module", "sink"),
    [
        ("tensorboard", "torch.utils.tensorboard", TensorBoard),
        ("wandb", "wandb", Wandb),
        ("trackio", "trackio", Trackio),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    package: str, module: str, sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'needs the package {package}, .* pip install "tacit\[log\]"'):
        sink("runs")


def test_health_tells_a_latent_that_is_used_from_one_that_is_not_in_the_log_and_in_the_bar(tmp_path: Path) -> None:
    """By way of a recipe, which passes no watcher on; a policy in the same run is left alone."""
    board = Board(size=12, goal=False, room=4.0)
    train, held = toys.dots(board, episodes=60, length=10).episodes.unlabelled().split(0.3)
    health, marks = Health(held), list[str]()
    sound = {"points": 2, "width": 8, "plan": Plan(steps=150, rate=3e-3, log_every=50, device="cpu")}
    with watching(health):
        tacit(train, tmp_path / "sound", **sound)  # type: ignore[arg-type]
        marks.append(health.mark)
        fit(noisy(), source(), tmp_path / "policy", PLAN)
        marks.append(health.mark)
    rows = [json.loads(line) for line in (tmp_path / "sound" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["health/used"] > 0.5 and rows[-1]["health/ways"] > 1.05 and marks[0].startswith("latent alive")
    assert "health/used" not in (tmp_path / "policy" / "log.jsonl").read_text() and marks[1] == ""
    tacit(train, tmp_path / "later", **sound)  # type: ignore[arg-type]
    assert "health/used" not in (tmp_path / "later" / "log.jsonl").read_text(), "only within"
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("sound", "later")]
    assert weights[0] == weights[1], "who looks changes nothing"
    deaf = Pair(encode=lambda o, after: torch.zeros(len(o), 2), predict=lambda o, z: o)
    assert health(1, deaf, {})["health/used"] < 0.5 and health.mark.startswith("latent unused")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Health looks at"), watching(Health(train)):
        tacit(train, None, **sound)  # type: ignore[arg-type]
