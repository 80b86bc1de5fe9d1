"""Mistakes that others shipped in training runs: planted in small broken doubles; what is tacit's own passes."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.check import Broken, check_part
from tacit.clip import Clip
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.latents.model import LatentActions
from tacit.train import Plan, fit

ROOT = Path(__file__).parents[2]


# -- 5. dead codes are replaced by duplicates, or by each process alone --------------------------------------------
# tests/parts/test_books.py plants both in the bottleneck itself. Here a whole recipe is trained by two processes.

RANK = """
import hashlib, json
from types import SimpleNamespace
import torch
from tacit import spread
from tacit.data import toys
from tacit.envs.dots import Board
from tacit.parts import books
from tacit.recipes.lapo import lapo
from tacit.train import Plan, fit
torch.set_num_threads(1)
data = toys.dots(Board(size=16), episodes=20, length=10).episodes
class Look:  # before the run ends, when every process is given what rank 0 has
    every = 12
    def __call__(self, step, model, row):
        said = {k: v.contiguous().numpy().tobytes() for k, v in model.state_dict().items()}
        mine = {"recent", "hits", "heaps"}  # what this process saw of late
        shared = b"".join(v for k, v in said.items() if k.rpartition(".")[2] not in mine)
        self.said = [hashlib.sha256(x).hexdigest() for x in (shared, said["bottleneck.recent"])]
        self.said.append(int(model.bottleneck.resets))
def trained(alone):
    book = books.VQ(groups=1, tokens=2, dim=4, codes=8, decay=0.9, patience=3, every=2, memory=32)
    model, look = lapo(data, None, width=1, base=8, bottleneck=book, plan=Plan(steps=1, batch=8)), Look()
    if alone:
        books.spread = SimpleNamespace(total=spread.total, agreed=lambda tensor: tensor)
    fit(model, data.clips(3), None, Plan(steps=12, batch=8, warmup=1, rate=1e-3), watch=[look])
    return look.said
print(json.dumps([trained(False), trained(True)]))
"""


def test_two_processes_end_with_one_codebook_and_would_not_if_each_replaced_alone() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        (sound, spoilt), (other, astray) = (json.loads(r.communicate(timeout=120)[0].splitlines()[-1]) for r in ranks)
    finally:
        for rank in ranks:
            rank.kill()
    assert sound[0] == other[0] and sound[2] == other[2] > 0
    assert sound[1] != other[1]  # each saw clips of its own
    assert spoilt[0] != astray[0]


# -- 9. a resumed run differs, or nothing was saved ----------------------------------------------------------------


class Killed:
    """Clips until the process dies."""

    def __init__(self, source: Clips, *, at: int) -> None:
        self.source, self.at = source, at
        self.fingerprint, self.prints = getattr(source, "fingerprint", ""), getattr(source, "prints", ())

    def stream(self, batch: int, *, start: int = 0, **options: Any) -> Iterator[Clip]:
        for step in itertools.count(start):
            if step == self.at:
                raise SystemExit("killed")
            yield next(self.source.stream(batch, start=step, **options))


class Forgetful(LatentActions):
    """Teaches less and less, by a count that no file holds."""

    steps = 0

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        self.steps += self.training
        cost, metrics = super().loss(clip)
        return cost / max(1, self.steps), metrics


def differing(fresh: Callable[[], LatentActions], train: Episodes, *, folder: Path) -> list[str]:
    """What two runs end with otherwise, one uninterrupted, one killed after its seventh step and gone on with."""
    plan, clips = Plan(steps=10, batch=8, save_every=4, warmup=2, rate=1e-3), train.clips(fresh().length)
    whole = fit(fresh(), clips, None, plan)
    with pytest.raises(SystemExit):
        fit(fresh(), Killed(clips, at=7), folder, plan)
    assert any(folder.glob("resume*")), "nothing was saved"
    half = fit(fresh(), Killed(clips, at=99), folder, plan)
    states = whole.state_dict(), half.state_dict()
    return [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    recipe: Callable[[Plan], LatentActions], train: Episodes, tmp_path: Path
) -> None:
    def fresh() -> LatentActions:
        return recipe(Plan(steps=1, batch=8)).train()

    assert not differing(fresh, train, folder=tmp_path)


def test_a_run_that_forgets_is_refused(sound: Callable[..., LatentActions], train: Episodes, tmp_path: Path) -> None:
    def fresh() -> LatentActions:
        torch.manual_seed(0)
        return sound(Forgetful)

    assert differing(fresh, train, folder=tmp_path)
    with pytest.raises(Broken, match="what is saved is the whole of it: after loading the losses go on as"):
        check_part(fresh(), train.clips(2).batch(np.arange(16)))
