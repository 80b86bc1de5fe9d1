"""Nested dropout: a beginning of the latent means something by itself, at every budget, over any bottleneck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tacit.parts.books import NSVQ, VQ, Residual
from tacit.parts.nested import Nested, shortest
from tacit.parts.quantize import FSQ, LFQ, Bottleneck, Free, Gaussian, Sparse
from tacit.parts.rotation import Rotation

INNER: list[Bottleneck] = [
    Free(8),
    Gaussian(4),
    Sparse(8),
    VQ(groups=2, tokens=2, dim=3, codes=5),
    NSVQ(groups=1, tokens=4, dim=2, codes=5),
    Residual(VQ(groups=4, tokens=1, dim=2, codes=4), stages=2),
    FSQ((3, 3), groups=4),
    LFQ(2, groups=4),
    Rotation(4, size=2),
]


def named(part: Any) -> str:
    return type(part).__name__


def marked(part: Nested) -> Nested:
    """With a null vector that no latent has."""
    part.null.data = 100 + torch.arange(float(part.piece))
    return part


def prefixes(part: Nested, z: Tensor) -> Tensor:
    """How many slots of each sample are kept, (B,), given that those are the first."""
    left_out = (z.unflatten(1, (part.slots, part.piece)) == part.null).all(-1)
    kept = (~left_out).sum(1)
    assert torch.equal(left_out, torch.arange(part.slots) >= kept[:, None])
    return kept


@pytest.mark.parametrize("inner", INNER, ids=named)
def test_a_budget_keeps_the_first_slots_and_nulls_the_rest(inner: Bottleneck) -> None:
    inner.train()(torch.randn(64, inner.width))
    part = marked(Nested(inner, slots=4)).eval()
    x = torch.randn(16, part.width)
    whole = inner(x)
    for budget in (1, 2, 3, 4):
        part.budget = budget
        out = part(x)
        assert torch.equal(out.z[:, : budget * part.piece], whole.z[:, : budget * part.piece])
        assert bool((prefixes(part, out.z) == budget).all()) and float(out.metrics["slots"]) == budget
        assert torch.equal(out.loss, whole.loss)
        if whole.codes is not None:
            torch.testing.assert_close(part.embed(out.codes), out.z)
            assert int(out.codes.max()) == part.codes - 1 if budget < 4 else part.codes == inner.codes
            left_out = (out.codes == inner.codes).float().mean()
            assert float(left_out) == 1 - budget / 4
    part.budget = None
    assert torch.equal(part(x).z, whole.z)


@pytest.mark.parametrize(
    ("draw", "slots", "lengths"),
    [("even", 6, {1, 2, 3, 4, 5, 6}), ("powers", 6, {1, 2, 4, 6}), ("powers", 8, {1, 2, 4, 8})],
)
def test_prefixes_are_drawn_for_each_sample(draw: Any, slots: int, lengths: set[int]) -> None:
    part = marked(Nested(Free(slots), slots=slots, draw=draw, whole=0.25)).train()
    kept = prefixes(part, part(torch.randn(20_000, slots)).z)
    shares = {k: float((kept == k).float().mean()) for k in range(1, slots + 1)}
    assert {k for k, share in shares.items() if share} == lengths
    drawn = lengths if draw == "even" or slots == 8 else {1, 2, 4}
    for k in lengths:
        assert shares[k] == pytest.approx(0.25 * (k == slots) + 0.75 * (k in drawn) / len(drawn), abs=0.015)


def test_more_is_kept_once_the_order_has_settled(tmp_path: Path) -> None:
    part = marked(Nested(Free(4), slots=4, whole=0.1, settle=10)).train()
    x = torch.randn(20_000, 4)
    for steps, odds in ((0, 0.1), (5, 0.5), (5, 0.9), (10, 0.9)):
        for _ in range(steps):
            part.after_step()
        whole = float((prefixes(part, part(x).z) == 4).float().mean())
        assert whole == pytest.approx(odds + (1 - odds) / 4, abs=0.015)
    assert int(Nested.load(part.save(tmp_path)).clock) == 20  # a run that goes on does not settle again
    assert "clock" not in Nested(Free(4), slots=4).state_dict()
    with pytest.raises(ValueError, match="settle"):
        Nested(Free(4), slots=4, settle=-1)


def test_only_what_is_kept_learns_and_the_null_learns_the_rest() -> None:
    part = Nested(Free(4), slots=4).train()
    x = torch.randn(64, 4, requires_grad=True)
    out = part(x)
    pull = torch.randn(64, 4)
    (out.z * pull).sum().backward()
    kept = out.z == x
    assert x.grad is not None and part.null.grad is not None
    assert torch.equal(x.grad, torch.where(kept, pull, 0))
    torch.testing.assert_close(part.null.grad, (pull * ~kept).sum()[None])


def test_slots_compose_each_with_its_own_and_what_is_left_out_stays_so() -> None:
    inner = Rotation(4, size=3)
    part, x = marked(Nested(inner, slots=2)).eval(), torch.randn(2, 5, inner.width)
    for budget in (None, 1):
        part.budget = budget
        one, two = part(x[0]).z, part(x[1]).z
        kept = part.piece if budget else part.dim
        a, b = inner(x[0]).z, inner(x[1]).z
        for said, wanted in (
            (part.compose(one, two), inner.compose(a, b)),
            (part.inverse(one), inner.inverse(a)),
            (part.identity.expand(5, -1), inner.identity.expand(5, -1)),
        ):
            torch.testing.assert_close(said[:, :kept], wanted[:, :kept])
            assert bool((prefixes(part, said) == (budget or 2)).all())
        torch.testing.assert_close(part.compose(one, part.inverse(one)), part.identity.expand(5, -1))
    free = Nested(Free(4), slots=2).eval()
    z = torch.randn(2, 5, 4)
    assert torch.equal(free.compose(z[0], z[1]), z[0] + z[1]) and torch.equal(free.inverse(z[0]), -z[0])
    with pytest.raises(ValueError, match="rotation of Rotation tells more than one of 4 slots"):
        Nested(Rotation(2, size=2), slots=4)


def test_the_budget_is_saved_as_it_was_set(tmp_path: Path) -> None:
    part = Nested(VQ(groups=1, tokens=4, dim=2, codes=6), slots=4)
    part.train()(torch.randn(32, 8))
    part.after_step()
    part.budget = 2
    loaded = Nested.load(part.save(tmp_path))
    x = torch.randn(8, 8)
    assert loaded.budget == 2 and loaded.codes == 7
    assert torch.equal(loaded(x).z, part.eval()(x).z)


def test_what_is_inside_lives_on() -> None:
    part = Nested(VQ(groups=1, tokens=2, dim=2, codes=8, patience=2, every=1, memory=64), slots=2)
    for _ in range(20):
        part(torch.randn(32, 4))
        part.after_step()
    assert int(part.bottleneck.clock) == 21 and int(part.bottleneck.idle.max()) <= 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": 3}, {"slots": 1}, {"draw": "odd"}, {"whole": 0.0}, {"budget": 0}, {"budget": 9},
        {"bottleneck": VQ(groups=2, tokens=1, dim=4), "slots": 4},
    ],
)  # fmt: skip
def test_slots_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="slots"):
        Nested(**{"bottleneck": Free(8), "slots": 8, **wrong})


def test_the_shortest_that_is_nearly_the_best() -> None:
    scores = {1: 0.48, 2: 0.944, 4: 0.946, 8: 0.947}
    assert shortest(scores) == 2 and shortest(scores, within=0.0) == 8 and shortest(scores, within=1.0) == 1
    assert shortest({4: 0.5, 1: 0.7, 2: 0.6}) == 1  # more slots may do worse
    with pytest.raises(ValueError, match="scores"):
        shortest({})


# The toy: eight causes of unlike size, mixed. A model told k numbers should say as much as one built with k. ----------

SIZES = torch.tensor([2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18])


def trained(bottleneck: Bottleneck, x: Tensor, *, steps: int = 500) -> nn.ModuleDict:
    model = nn.ModuleDict(
        {"encode": nn.Linear(8, bottleneck.width), "neck": bottleneck, "decode": nn.Linear(bottleneck.dim, 8)}
    )
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,))]
        out = model["neck"](model["encode"](batch))
        optimiser.zero_grad()
        ((model["decode"](out.z) - batch).square().mean() + out.loss).backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def unexplained(model: nn.ModuleDict, x: Tensor) -> float:
    with torch.no_grad():
        guess = model["decode"](model["neck"](model["encode"](x)).z)
    return float((guess - x).square().sum() / (x - x.mean(0)).square().sum())


def test_a_prefix_says_nearly_what_a_model_of_that_width_does() -> None:
    x = (torch.randn(4096, 8) * SIZES) @ torch.linalg.qr(torch.randn(8, 8))[0]
    train, held = x[:3072], x[3072:]
    nested = trained(Nested(Free(8), slots=8), train)
    scores = {}
    for k in (1, 2, 4, 8):
        nested["neck"].budget = k  # type: ignore[assignment]
        scores[k] = 1 - unexplained(nested, held)
        alone = 1 - unexplained(trained(Free(k), train), held)
        assert scores[k] > alone - 0.02, (k, scores[k], alone)
    cut = trained(Nested(Free(8), slots=8, whole=1.0), train)  # never drops: a plain model, cut short
    cut["neck"].budget = 2  # type: ignore[assignment]
    assert 1 - unexplained(cut, held) < scores[2] - 0.15
    assert shortest(scores, within=0.1) == 4
