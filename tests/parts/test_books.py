"""Books that live: what collapsed recovers, what is set down anew is apart, and every process holds the same books."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit import spread
from tacit.part import Part
from tacit.parts import books
from tacit.parts.books import NSVQ, VQ, Books, Learnt, Residual
from tacit.parts.nested import Nested
from tacit.parts.quantize import Bottled, Bottleneck

SMALL: dict[str, Any] = {"groups": 1, "tokens": 1, "dim": 2, "codes": 8, "patience": 3, "every": 1, "memory": 64}


def tiny(**changes: Any) -> VQ:
    return VQ(**{**SMALL, "decay": 0.9, **changes})


BOOKS: dict[str, Callable[..., Books]] = {
    "vq": tiny,
    "vq on the sphere": lambda **changes: tiny(cosine=True, **changes),
    "learnt": lambda **changes: Learnt(**{**SMALL, "cosine": False, **changes}),
    "learnt on the sphere": lambda **changes: Learnt(**{**SMALL, **changes}),
    "nsvq": lambda **changes: NSVQ(**{**SMALL, **changes}),
}
PARTS: dict[str, Callable[..., Bottleneck]] = {
    **BOOKS,
    "residual": lambda **changes: Residual(tiny(**changes), stages=2),
    "residual nsvq": lambda **changes: Residual(NSVQ(**{**SMALL, **changes}), stages=2),
    "nested": lambda **changes: Nested(tiny(dim=1, tokens=2, **changes), slots=2),
}


def clusters(count: int = 64, *, centres: int = 8, seed: int | None = None) -> Tensor:
    """Points in tight heaps on a circle."""
    source = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    angle = torch.randint(0, centres, (count,), generator=source) * (2 * math.pi / centres)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(count, 2, generator=source)


def step(part: Bottleneck, x: Tensor, *, rate: float = 0.2) -> Bottled:
    """One step of training: books that are weights learn to give back what they were given."""
    out: Bottled = part(x)
    if any(p.requires_grad for p in part.parameters()):
        part.zero_grad()
        (F.mse_loss(out.z, x) + out.loss).backward()
        for weight in part.parameters():
            weight.data -= rate * weight.grad  # type: ignore[operator]
    part.after_step()
    return out


def gap(book: Tensor) -> float:
    """The least distance between two codes of one book, in units of what float32 can tell apart there."""
    ulp = float(book.detach().abs().amax()) * torch.finfo(torch.float32).eps
    return min(float(F.pdist(codes).min()) for codes in book.detach().double()) / ulp


def test_books_begin_on_the_data() -> None:
    vq = VQ(groups=2, tokens=2, dim=2, codes=8)
    x = 100 + clusters(256).view(64, 8)
    out = vq(x)
    assert float((vq.book - 100).norm(dim=-1).mean()) == pytest.approx(1, abs=0.2)
    assert float(out.metrics["usage"]) == 1 and float(out.metrics["perplexity"]) > 7
    assert int(out.metrics["resets"]) == 0


@pytest.mark.parametrize("name", BOOKS)
def test_books_of_any_kind_begin_on_the_data(name: str) -> None:
    out = BOOKS[name]()(clusters(256))
    assert float(out.metrics["usage"]) == 1 and float(out.metrics["perplexity"]) > 7
    assert int(out.metrics["resets"]) == 0 and float(out.metrics["gap"]) > 0.3


def planted(kind: Callable[..., Books] = tiny, **changes: Any) -> Books:
    """All data fall to one code: the others lie where nothing ever is."""
    part = kind(**changes)
    step(part, sector())
    away = torch.full_like(part.book, -1e3)
    away[..., 1] += torch.arange(8.0)  # on the sphere all but one code lie together behind the data
    away[0, 0] = sector().mean(0)
    with torch.no_grad():
        part.book.copy_(part._onto(away))
    if isinstance(part, VQ):
        part.sums.copy_(part.book * part.counts.unsqueeze(-1))
    assert float(part(sector()).metrics["perplexity"]) == pytest.approx(1)
    return part


def sector() -> Tensor:
    """Heaps ahead on a circle, none behind."""
    angle = torch.randint(0, 8, (64,)) / 8
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.01 * torch.randn(64, 2)


@pytest.mark.parametrize("name", BOOKS)
def test_a_collapsed_book_recovers(name: str) -> None:
    part = planted(BOOKS[name])
    for _ in range(40):
        out = step(part, sector())
    assert float(out.metrics["perplexity"]) > 5.5 and int(out.metrics["resets"]) >= 7
    assert float(out.metrics["usage"]) >= 0.75 and int(out.metrics["dead"]) <= 1
    x = F.normalize(sector(), dim=1)
    assert float((part.eval()(x).z - x).norm(dim=1).mean()) < 0.1


@pytest.mark.parametrize("name", BOOKS)
def test_without_resets_it_would_not(name: str) -> None:
    part = planted(BOOKS[name], patience=10**6)
    for _ in range(40):
        out = step(part, sector())
    assert float(out.metrics["perplexity"]) < 1.5


def test_every_stage_recovers() -> None:
    part = Residual(tiny(), stages=2)
    step(part, torch.randn(256, 2))
    for stage in part._books():
        stage.book.copy_(1e3 + torch.arange(8.0)[:, None].expand(8, 2))
        assert isinstance(stage, VQ)
        stage.sums.copy_(stage.book * stage.counts.unsqueeze(-1))
    for _ in range(40):
        out = step(part, torch.randn(256, 2))
    assert all(float(out.metrics[f"perplexity.{stage}"]) > 5 for stage in range(2))
    assert all(int(stage.resets) > 0 for stage in part._books())


def test_codes_that_nothing_chooses_are_called_dead_until_they_are_reset() -> None:
    vq = planted(every=100)
    for _ in range(5):
        out = step(vq, sector())
    assert int(out.metrics["dead"]) == 7


def test_resets_go_on_however_late() -> None:
    vq = tiny(every=10, patience=20)
    for _ in range(3000):
        step(vq, clusters(16))
    before = int(vq.resets)
    for _ in range(60):
        out = step(vq, 5 + 3 * clusters(16))  # the encoder moves on
    assert int(vq.resets) > before and float(out.metrics["perplexity"]) > 4


@pytest.mark.parametrize("name", BOOKS)
@pytest.mark.parametrize("pool", ["spread", "two points", "one point", "one point far off", "nought"])
def test_codes_are_apart_after_a_reset(pool: str, name: str) -> None:
    x = {
        "spread": clusters(),
        "two points": torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).repeat(32, 1),
        "one point": torch.ones(64, 2),
        "one point far off": torch.full((64, 2), 1e4),
        "nought": torch.zeros(64, 2),
    }[pool]
    part = BOOKS[name](codes=16)
    least, after = (1, 1) if part.cosine else (10, 2)  # in the plane a sphere is a line, where there is less room
    step(part, x)
    assert gap(part.book) > least  # from the first batch
    for _ in range(12):
        step(part, x, rate=0.01)
        assert gap(part.book) > after
    part._replace(torch.arange(16)[None] > 0)
    assert gap(part.book) > least


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
    drawn = books._apart(pool, points[:0], count=8)
    assert sorted(drawn[:, 0].round().long().tolist()) == list(range(8))
    drawn = books._apart(pool, points[:5], count=3)
    assert sorted(drawn[:, 0].round().long().tolist()) == [5, 6, 7]


def test_resets_come_from_what_the_encoder_said_lately() -> None:
    vq = tiny(memory=64)
    for _ in range(5):
        step(vq, clusters())
    for _ in range(3):
        vq(50 + clusters(32))
    vq._replace(torch.ones(1, 8, dtype=torch.bool))
    assert bool((vq.book > 45).all())


class Net(Part):
    """An encoder before a bottleneck, that learns to keep to the circle."""

    def __init__(self, bottleneck: Bottleneck) -> None:
        self.bottleneck, self.net = bottleneck, nn.Linear(2, 2)

    def miss(self, seed: int) -> Tensor:
        out = self.bottleneck(self.net(clusters(32, centres=12, seed=seed)))
        return (out.z.square().sum(1) - 1).square().mean() + out.loss


def run(model: Net, steps: range, moments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train with momentum, from the optimiser's state on, and give that back."""
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.5)
    for weight, kept in zip(model.parameters(), moments, strict=False):
        optimiser.state[weight].update(kept)
    for number in steps:
        optimiser.zero_grad()
        model.miss(number).backward()
        optimiser.step()
        model.after_step()
    return [optimiser.state[weight] for weight in model.parameters()]


@pytest.mark.parametrize("name", PARTS)
def test_resumed_is_bit_for_bit_the_uninterrupted_run(name: str, tmp_path: Path) -> None:
    def fresh() -> Net:
        torch.manual_seed(5)
        return Net(PARTS[name](every=4, codes=24)).train()

    straight = fresh()
    run(straight, range(45), [])
    first = fresh()
    moments = run(first, range(22), [])
    kept, random = first.save(tmp_path), torch.get_rng_state()
    loaded = Net.load(kept, classes=[Net]).train()
    torch.set_rng_state(random)

    def resets(model: Net) -> int:
        return sum(int(part.resets) for part in model.modules() if isinstance(part, Books))

    assert 0 < resets(loaded) < resets(straight)  # both halves have resets in them
    run(loaded, range(22, 45), moments)
    for tensor, value in straight.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[tensor]), tensor


@pytest.mark.parametrize("wrong", [{"codes": 1}, {"groups": 0}, {"decay": 1.0}, {"patience": 0}])
def test_vq_refuses_what_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="codes|decay"):
        VQ(**wrong)


RANK = """
import hashlib
from types import SimpleNamespace
from tacit.parts import books
SMALL = {"groups": 2, "tokens": 1, "dim": 2, "codes": 8, "patience": 3, "every": 2, "memory": 32}
KINDS = {
    "vq": lambda: books.VQ(**SMALL, decay=0.9),
    "vq on the sphere": lambda: books.VQ(**SMALL, decay=0.9, cosine=True),
    "learnt": lambda: books.Learnt(**SMALL),
    "nsvq": lambda: books.NSVQ(**SMALL),
    "residual": lambda: books.Residual(books.VQ(**SMALL, decay=0.9), stages=2),
}
def digest(kind):
    torch.manual_seed(17 * rank)
    part = KINDS[kind]()
    spread.level(part)
    told = []
    for step in range(14):
        x = torch.randn(16, 4) * (1 + 2 * rank) + rank + step / 5
        out = part(x)
        if any(p.requires_grad for p in part.parameters()):
            part.zero_grad()
            ((out.z - x).square().mean() + out.loss).backward()
            for p in part.parameters():
                p.data -= 0.1 * spread.average(p.grad)
        part.after_step()
        told.append({k: float(v) for k, v in out.metrics.items()})
    mine = ("recent", "hits", "heaps")
    shared = {k: v for k, v in part.state_dict().items() if k.rpartition(".")[2] not in mine}
    own = [v for k, v in part.state_dict().items() if k.endswith("recent")]
    prints = [hashlib.sha256(b"".join(v.numpy().tobytes() for v in x)).hexdigest() for x in (shared.values(), own)]
    return prints, told[-1]
said = {kind: digest(kind) for kind in KINDS}
books.spread = SimpleNamespace(total=spread.total, agreed=lambda tensor: tensor)
said["alone"] = digest("vq")
"""


def test_two_processes_end_with_the_same_books_and_would_not_if_each_chose_alone(
    pair: Callable[[str], list[Any]],
) -> None:
    mine, theirs = pair(RANK)
    for kind in set(mine) - {"alone"}:
        (here, recent), told = mine[kind]
        (there, other), also = theirs[kind]
        assert here == there and told == also and told["resets"] > 0, kind
        assert recent != other, kind  # though each saw data of its own
    assert mine["alone"][0][0] != theirs["alone"][0][0]


def test_alone_a_process_agrees_with_itself() -> None:
    x = torch.randn(3)
    assert spread.total(x) is x and spread.agreed(x) is x
