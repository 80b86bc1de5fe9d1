"""Books that live: what collapsed recovers, what is set down anew is apart, and every process holds the same books."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit import spread
from tacit.parts import quantize
from tacit.parts.quantize import VQ

ROOT = Path(__file__).parents[2]


def tiny(**changes: Any) -> VQ:
    return VQ(
        **{
            "groups": 1,
            "tokens": 1,
            "dim": 2,
            "codes": 8,
            "decay": 0.9,
            "patience": 3,
            "every": 1,
            "memory": 64,
            **changes,
        }
    )


def clusters(count: int = 64, *, centres: int = 8, seed: int | None = None) -> Tensor:
    """Points in tight heaps on a circle."""
    source = torch.Generator().manual_seed(torch.randint(2**31, ()).item() if seed is None else seed)
    angle = torch.randint(0, centres, (count,), generator=source) * (2 * math.pi / centres)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(count, 2, generator=source)


def step(vq: VQ, x: Tensor) -> quantize.Bottled:
    out = vq(x)
    vq.after_step()
    return out


def gap(book: Tensor) -> float:
    """The least distance between two codes of one book, in units of what float32 can tell apart there."""
    ulp = float(book.abs().amax()) * torch.finfo(torch.float32).eps
    return min(float(F.pdist(codes).min()) for codes in book.double()) / ulp


def test_books_begin_on_the_data() -> None:
    vq = VQ(groups=2, tokens=2, dim=2, codes=8)
    x = 100 + clusters(256).view(64, 8)
    out = vq(x)
    assert float((vq.book - 100).norm(dim=-1).mean()) == pytest.approx(1, abs=0.2)
    assert float(out.metrics["usage"]) == 1 and float(out.metrics["perplexity"]) > 7
    assert int(out.metrics["resets"]) == 0


def planted(**changes: Any) -> VQ:
    """All data fall to one code: the others lie where nothing ever is."""
    vq = tiny(**changes)
    step(vq, clusters())
    vq.book.copy_(torch.full_like(vq.book, 1e3) + torch.arange(8.0)[:, None])
    vq.book[0, 0] = 0
    vq.sums.copy_(vq.book * vq.counts.unsqueeze(-1))
    assert float(vq(clusters()).metrics["perplexity"]) == pytest.approx(1)
    return vq


def test_a_collapsed_book_recovers() -> None:
    vq = planted()
    for _ in range(40):
        out = step(vq, clusters())
    assert float(out.metrics["perplexity"]) > 6 and float(out.metrics["usage"]) == 1
    assert int(out.metrics["resets"]) >= 7 and int(out.metrics["dead"]) == 0
    assert float((vq(clusters()).z - clusters()).norm(dim=1).min()) < 0.2


def test_without_resets_it_would_not() -> None:
    vq = planted(patience=10**6)
    for _ in range(40):
        out = step(vq, clusters())
    assert float(out.metrics["perplexity"]) < 1.5


def test_codes_that_nothing_chooses_are_called_dead_until_they_are_reset() -> None:
    vq = planted(every=100)
    for _ in range(5):
        out = step(vq, clusters())
    assert int(out.metrics["dead"]) == 7


def test_resets_go_on_however_late() -> None:
    vq = tiny(every=10, patience=20)
    for _ in range(3000):
        step(vq, clusters(16))
    before = int(vq.resets)
    for _ in range(60):
        out = step(vq, 5 + 3 * clusters(16))  # the encoder moves on
    assert int(vq.resets) > before and float(out.metrics["perplexity"]) > 4


@pytest.mark.parametrize("pool", ["spread", "two points", "one point", "one point far off", "nought"])
def test_codes_are_apart_after_a_reset(pool: str) -> None:
    x = {
        "spread": clusters(),
        "two points": torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).repeat(32, 1),
        "one point": torch.ones(64, 2),
        "one point far off": torch.full((64, 2), 1e4),
        "nought": torch.zeros(64, 2),
    }[pool]
    vq = tiny(codes=16)
    step(vq, x)
    assert gap(vq.book) > 10  # from the first batch
    for _ in range(12):
        step(vq, x)
        assert gap(vq.book) > 2
    vq._replace(torch.arange(16)[None] > 0)
    assert gap(vq.book) > 10


def test_noise_below_float_resolution_would_be_caught() -> None:
    class Duplicating(VQ):
        def _replace(self, dead: Tensor) -> None:
            used = self.book[:, :1].expand_as(self.book)
            self.book.copy_(torch.where(dead[..., None], used + 1e-12 * torch.randn_like(used), self.book))

    vq = Duplicating(groups=1, tokens=1, dim=2, codes=8, memory=64)
    step(vq, clusters())
    vq._replace(torch.arange(8)[None] > 3)
    assert gap(vq.book) < 1


def test_a_reset_takes_no_point_twice_while_there_are_others() -> None:
    points = torch.tensor([[float(i), 0.0] for i in range(8)])
    pool = torch.cat([points[:1].expand(500, 2), points])  # one outcome is all but all of the data
    drawn = quantize._apart(pool, points[:0], count=8)
    assert sorted(drawn[:, 0].round().long().tolist()) == list(range(8))
    drawn = quantize._apart(pool, points[:5], count=3)
    assert sorted(drawn[:, 0].round().long().tolist()) == [5, 6, 7]


def test_resets_come_from_what_the_encoder_said_lately() -> None:
    vq = tiny(memory=64)
    for _ in range(5):
        step(vq, clusters())
    for _ in range(3):
        vq(50 + clusters(32))
    vq._replace(torch.ones(1, 8, dtype=torch.bool))
    assert bool((vq.book > 45).all())


def run(steps: range, vq: VQ, net: nn.Linear, optimiser: torch.optim.Optimizer) -> None:
    for number in steps:
        out = vq(net(clusters(32, centres=12, seed=number)))
        optimiser.zero_grad()
        (out.z.square().sum(1) - 1).square().mean().add(out.loss).backward()
        optimiser.step()
        vq.after_step()


def test_resumed_is_bit_for_bit_the_uninterrupted_run(tmp_path: Path) -> None:
    def fresh() -> tuple[VQ, nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(5)
        net = nn.Linear(2, 2)
        return tiny(every=4, codes=24), net, torch.optim.SGD(net.parameters(), 0.05)

    straight = fresh()
    run(range(45), *straight)
    vq, net, optimiser = fresh()
    run(range(22), vq, net, optimiser)
    kept, random = vq.save(tmp_path), torch.get_rng_state()
    weights = {name: p.clone() for name, p in net.state_dict().items()}
    _, again, optimiser = fresh()
    again.load_state_dict(weights)
    loaded = VQ.load(kept).train()
    torch.set_rng_state(random)
    assert 0 < int(loaded.resets) < int(straight[0].resets)  # both halves have resets in them
    run(range(22, 45), loaded, again, optimiser)
    for name, buffer in straight[0].named_buffers():
        assert torch.equal(buffer, loaded.get_buffer(name)), name
    assert torch.equal(straight[1].weight, again.weight)


@pytest.mark.parametrize("wrong", [{"codes": 1}, {"groups": 0}, {"decay": 1.0}, {"patience": 0}])
def test_vq_refuses_what_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="codes|decay"):
        VQ(**wrong)


RANK = """
import hashlib, json, sys, torch
from tacit import spread
from tacit.parts import quantize
def digest(alone):
    if alone:
        quantize.spread.agreed = lambda tensor: tensor
    torch.manual_seed(17 * rank)
    vq = quantize.VQ(groups=2, tokens=1, dim=2, codes=8, decay=0.9, patience=3, every=2, memory=32)
    for step in range(30):
        vq(torch.randn(16, 4) * (1 + 2 * rank) + rank + step / 10)
        vq.after_step()
    said = b"".join(getattr(vq, k).numpy().tobytes() for k in ("book", "counts", "sums", "idle", "clock"))
    return hashlib.sha256(said).hexdigest(), int(vq.resets), hashlib.sha256(vq.recent.numpy().tobytes()).hexdigest()
torch.set_num_threads(1)
with spread.processes() as (rank, world):
    found = [digest(False), digest(True)]
print(json.dumps(found))
"""


def test_two_processes_end_with_the_same_books_and_would_not_if_each_chose_alone() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK], cwd=ROOT, env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    (mine, alone), (theirs, apart) = said
    assert mine[0] == theirs[0] and mine[1] == theirs[1] > 0
    assert mine[2] != theirs[2]  # though each saw data of its own
    assert alone[0] != apart[0]


def test_alone_a_process_agrees_with_itself() -> None:
    x = torch.randn(3)
    assert spread.total(x) is x and spread.agreed(x) is x
