"""Two processes are one run: `torchrun` starts them on this very file, and what they leave is compared here."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tacit import spread
from tacit.clip import Clip, Space
from tacit.data.toys import dots
from tacit.envs.dots import Board
from tacit.part import Part
from tacit.parts.mlp import Flat
from tacit.parts.outputs import Head
from tacit.policies import Cloning
from tacit.recipes.lapo import TINY, lapo
from tacit.train import Interrupted, NonFinite, Plan, fit
from tacit.watch import Validation

ROOT = Path(__file__).parent.parent
PLAN = Plan(steps=8, batch=8, rate=0.03, warmup=1, log_every=1, save_every=3, clip=0.5, average=0.5)


class Plain(Part):
    """No randomness: so that two processes must come to what one comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
        self.register_buffer("odd", torch.full((2,), bool(spread.rank())))  # what no process but rank 0 may decide

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None
        miss = (self.net(clip.state[:, 0]) - clip.state[:, 1]).square().mean()
        return miss, {"size": clip.state.abs().mean()}


class Noisy(Plain):
    """Every process draws, and must draw its own."""

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None
        drawn = torch.randn_like(clip.state)
        miss, metrics = super().loss(clip.replace(state=clip.state + 0.1 * drawn))
        return miss, {**metrics, "drawn": drawn.mean(), "apart": (spread.average(drawn) - drawn).abs().mean()}


class Headed(Plain):
    """Two heads: one has labels on the second process only, the other on none."""

    def __init__(self, *, labelled: tuple[int, ...]) -> None:
        super().__init__()
        self.label, self.other = (Head(features=3, space=Space("discrete", 2)) for _ in range(2))
        self.labelled = labelled

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None
        miss, metrics = super().loss(clip)
        if spread.rank() in self.labelled:
            miss = miss + self.label(self.net(clip.state[:, 0])).square().mean()
        return miss, metrics


class Broken(Plain):
    """One process meets a value that is not a number, in a metric that none of the others would see."""

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        miss, metrics = super().loss(clip)
        return miss, {**metrics, "size": metrics["size"] / (1 - spread.rank())}


class Shared:
    """Batches decided by their step, of which each process is given every so-manieth row; a deed at one step."""

    def __init__(self, at: int = -1, deed: Any = None) -> None:
        self.at, self.deed = at, deed

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]:
        for step in range(start, 10**6):
            if step == self.at:
                self.deed()
            random = torch.Generator().manual_seed(step)
            yield Clip(state=torch.randn(batch, 2, 3, generator=random)[rank::world])


def stop() -> None:
    if spread.rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)  # only one of them hears of it


def seeded(model: type[Part], **arguments: Any) -> Part:
    torch.manual_seed(spread.rank())  # a caller who forgot to seed: rank 0's weights are everybody's
    return model(**arguments)


class Prints:
    """What the weights and books of this process are at the end, before anything is made equal."""

    every = PLAN.steps

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> None:
        for name, value in model.state_dict().items():
            self.told[name] = hashlib.blake2b(value.contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()


def work(out: Path) -> dict[str, Any]:
    """All that is asked of two processes, in one start of them."""
    told: dict[str, Any] = {}
    plain, books = Prints(), Prints()
    held = Validation(Shared(), every=4, batch=8, batches=2)
    fit(seeded(Plain), Shared(), out / "plain", PLAN, watch=[plain, held])
    told["plain"] = plain.told
    data = dots(Board(size=16), episodes=20).episodes
    fit_plan = Plan(steps=8, batch=16, log_every=8, rate=1e-2)
    made = lapo(data, out / "lapo", plan=fit_plan, **TINY)
    again = fit(seeded(type(made), **made.arguments), data.clips(3), None, fit_plan, watch=[books])
    told["lapo"], told["resets"] = books.told, int(again.bottleneck.resets)  # type: ignore[union-attr,arg-type]
    pilot = Prints()
    marked = data.with_latents([np.full((n - 1, 2), i, np.float32) for i, n in enumerate(data.lengths)])
    cloning = seeded(Cloning, encoder=Flat(frame=(16, 16)), features=256, latent=2)
    fit(cloning, marked.clips(3), None, fit_plan, watch=[pilot])
    told["pilot"] = pilot.told
    for name, labelled in (("one", (1,)), ("none", ())):
        heads = Prints()
        fit(seeded(Headed, labelled=labelled), Shared(), out / name, PLAN, watch=[heads])
        told[name] = heads.told
    fit(seeded(Noisy), Shared(), out / "noisy", PLAN)
    try:
        fit(seeded(Noisy), Shared(4, stop), out / "cut", PLAN)
    except Interrupted as error:
        told["stopped"] = str(error)
    fit(seeded(Noisy), Shared(), out / "cut", PLAN)
    try:
        fit(seeded(Broken), Shared(), out / "broken", PLAN)
    except NonFinite as error:
        told["broken"] = str(error)
    return told


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("ran")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, out]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


Ran = tuple[Path, list[dict[str, Any]]]


def rows(folder: Path) -> list[dict[str, float]]:
    told = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("steps_per_s", "waiting_for_data")} for row in told]


def test_the_loss_is_that_of_one_process_on_the_same_batches(ran: Ran, tmp_path: Path) -> None:
    held = Validation(Shared(), every=4, batch=8, batches=2)
    alone = fit(seeded(Plain), Shared(), tmp_path, PLAN, watch=[held])
    for one, two in zip(rows(tmp_path), rows(ran[0] / "plain"), strict=True):
        assert one.keys() == two.keys() and two == pytest.approx(one, rel=1e-4)
    assert rows(tmp_path)[3]["held/loss"] > 0
    both = Plain.load(ran[0] / "plain", classes=[Plain])
    for name, value in alone.state_dict().items():
        assert torch.allclose(both.state_dict()[name].float(), value.float(), atol=1e-5), name


@pytest.mark.parametrize("run", ["plain", "lapo", "pilot", "one", "none"])
def test_weights_and_books_are_the_same_on_every_process(run: str, ran: Ran) -> None:
    first, second = (told[run] for told in ran[1])
    own = {"bottleneck.recent"}  # what each process saw lately is its own affair, as long as rank 0 alone draws from it
    assert first and {k for k in first if first[k] != second[k]} <= own
    if run == "lapo":
        assert "bottleneck.book" in first and first["bottleneck.recent"] != second["bottleneck.recent"]


def test_a_head_without_a_gradient_keeps_nobody_waiting(ran: Ran) -> None:
    assert ran[1][0]["one"]["label.net.weight"] != ran[1][0]["none"]["label.net.weight"]  # one process's labels count
    assert ran[1][0]["one"]["other.net.weight"] == ran[1][0]["none"]["other.net.weight"]


def test_each_process_draws_its_own_noise(ran: Ran) -> None:
    assert all(row["apart"] > 0.1 for row in rows(ran[0] / "noisy"))
    assert len({row["drawn"] for row in rows(ran[0] / "noisy")}) == PLAN.steps


def test_a_signal_to_one_stops_all_and_both_go_on_bit_for_bit(ran: Ran) -> None:
    out, told = ran
    for rank in (0, 1):
        assert told[rank]["stopped"].startswith(
            "Stopped at step 5 of 8 and saved. To go on from here: torchrun --nproc"
        )
    for name in ("model.safetensors", "config.json"):
        assert (out / "cut" / name).read_bytes() == (out / "noisy" / name).read_bytes()
    assert rows(out / "cut") == rows(out / "noisy")


def test_what_is_not_finite_for_one_stops_all(ran: Ran) -> None:
    for rank in (0, 1):
        assert "At step 1 the metric 'size' was inf" in ran[1][rank]["broken"]
    assert not (ran[0] / "broken" / "model.safetensors").exists()


def test_alone_there_is_nothing_to_agree_on() -> None:
    with spread.processes() as found:
        assert found == (0, 1) == (spread.rank(), spread.world())
    values = torch.arange(3.0)
    for same in (spread.total, spread.average, spread.agreed):
        assert torch.equal(same(values), values)
    model = nn.Linear(1, 1)
    assert spread.wrapped(model, torch.device("cpu")) is model
    spread.level(model)
    spread.meet()


def test_where_a_plan_says_is_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spread.device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert spread.device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert spread.device("auto") == spread.device("cuda") == torch.device("cuda", 1)
    assert spread.device("cuda:0") == torch.device("cuda", 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with spread.processes() as (rank, _):
        (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(work(Path(sys.argv[1]))))
