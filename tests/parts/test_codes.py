"""Books in numbers: what they choose, cost, pass on and learn is what the formulas and other writings of them say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.parts.books import NSVQ, VQ, Books, Learnt, Residual
from tacit.parts.quantize import FSQ, Bottled, Bottleneck

SMALL: dict[str, Any] = {"groups": 1, "tokens": 1, "dim": 2, "codes": 8, "patience": 10**6, "memory": 64}


def tiny(**changes: Any) -> VQ:
    return VQ(**{**SMALL, "decay": 0.9, "every": 1, **changes})


def clusters(count: int = 64, *, centres: int = 8, seed: int | None = None) -> Tensor:
    """Points in tight heaps on a circle."""
    source = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    angle = torch.randint(0, centres, (count,), generator=source) * (2 * math.pi / centres)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(count, 2, generator=source)


def step(books: Bottleneck, x: Tensor) -> Bottled:
    out: Bottled = books(x)
    books.after_step()
    return out


def put(books: Books, points: Tensor) -> None:
    """Lay the book down, begun and in training."""
    books.train()(torch.randn(4, books.width))
    books.hits.zero_()
    with torch.no_grad():
        books.book.copy_(points)


# The moving average ---------------------------------------------------------------------------------------------------


def oracle(**kind: Any) -> Any:
    package = pytest.importorskip("vector_quantize_pytorch")
    return package.VectorQuantize(dim=2, codebook_size=8, rotation_trick=False, **kind)


@pytest.mark.parametrize("cosine", [False, True])
def test_vq_follows_the_moving_average_as_another_writing_does(cosine: bool) -> None:
    theirs = oracle(decay=0.9, eps=1e-6, commitment_weight=0.05, use_cosine_sim=cosine)
    ours = tiny(commitment=0.05, cosine=cosine)
    book = theirs._codebook
    step(ours, clusters())
    book.embed.data.copy_(ours.book)
    book.embed_avg.data.copy_(ours.sums)
    book.cluster_size.data.copy_(ours.counts)
    for _ in range(20):
        x = 1.3 * clusters()
        own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        z, codes, loss = theirs(other[None])
        out = step(ours, own)
        torch.testing.assert_close(out.z, z[0])
        torch.testing.assert_close(out.loss, loss.squeeze())
        assert torch.equal(out.codes[:, 0], codes[0])  # type: ignore[index]
        torch.testing.assert_close(ours.book, book.embed.data, rtol=1e-4, atol=1e-5)
        pull = torch.randn_like(x)
        ((out.z * pull).sum() + out.loss).backward()
        ((z[0] * pull).sum() + loss.sum()).backward()
        torch.testing.assert_close(own.grad, other.grad)


def test_one_step_of_the_average_by_hand() -> None:
    vq = tiny(codes=2, dim=1, decay=0.5)
    vq(torch.tensor([[0.0], [10.0]]))
    vq.hits.zero_(), vq.heaps.zero_()
    vq.book.copy_(torch.tensor([[[0.0], [10.0]]]))
    vq.counts.copy_(torch.tensor([[1.0, 1.0]]))
    vq.sums.copy_(torch.tensor([[[0.0], [10.0]]]))
    out = step(vq, torch.tensor([[1.0], [2.0], [12.0]]))
    assert out.codes is not None and out.codes.flatten().tolist() == [0, 0, 1]
    assert float(out.loss) == pytest.approx(0.05 * (1 + 4 + 4) / 3)
    assert vq.counts.tolist() == [[1.5, 1.0]]  # half of what was, half of what came: 2 and 1
    assert vq.book.flatten().tolist() == pytest.approx([(0 + 3) / 2 / 1.5, (10 + 12) / 2 / 1.0], rel=1e-5)


def test_perplexity_and_usage_by_hand() -> None:
    vq = tiny(codes=4, dim=1).eval()
    vq.book.copy_(torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]))
    metrics = vq(torch.tensor([[0.0], [0.0], [1.0], [2.0]])).metrics
    assert float(metrics["perplexity"]) == pytest.approx(2**1.5)  # shares 1/2, 1/4, 1/4: one and a half bits
    assert float(metrics["usage"]) == 0.75
    assert float(vq(torch.zeros(5, 1)).metrics["perplexity"]) == pytest.approx(1)


def test_groups_have_books_of_their_own_and_their_tokens_share_one() -> None:
    vq = VQ(groups=2, tokens=2, dim=1, codes=3).eval()
    vq.book.copy_(torch.tensor([[[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]]]))
    out = vq(torch.tensor([[2.1, 0.2, 9.0, 21.0]]))
    assert out.z.tolist() == [[2, 0, 10, 20]] and out.codes.tolist() == [[2, 0, 1, 2]]  # type: ignore[union-attr]


def test_the_gradient_is_the_encoders_own_plus_commitment() -> None:
    vq = tiny(commitment=0.5).eval()
    x = torch.randn(6, 2, requires_grad=True)
    out = vq(x)
    pull = torch.randn(6, 2)
    ((out.z * pull).sum() + out.loss).backward()
    torch.testing.assert_close(x.grad, pull + 0.5 * 2 * (x.detach() - out.z.detach()) / 12)


def test_nothing_is_counted_outside_training() -> None:
    vq = tiny()
    step(vq, clusters())
    before = {name: buffer.clone() for name, buffer in vq.named_buffers()}
    for _ in range(10):
        step(vq.eval(), torch.randn(16, 2))
    for name, buffer in vq.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_two_forwards_before_a_step_count_as_one_larger_batch() -> None:
    one, two = tiny(), tiny()
    x = clusters(seed=1)
    for vq in (one, two):
        torch.manual_seed(3)
        step(vq, x)
    step(one, x)
    two(x[:20]), two(x[20:])
    two.after_step()
    torch.testing.assert_close(one.book, two.book)


# On the sphere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VQ, Learnt])
def test_on_the_sphere_only_directions_count(kind: Any) -> None:
    books = kind(**SMALL, cosine=True)
    for _ in range(5):
        step(books, 3 * clusters())
    x = clusters()
    near, far = books.eval()(x), books(7 * x)
    assert torch.equal(near.codes, far.codes)
    torch.testing.assert_close(near.z, far.z)
    torch.testing.assert_close(near.z.norm(dim=1), torch.ones(64))
    closest = (F.normalize(x, dim=1) @ F.normalize(books.book[0], dim=1).T).argmax(1)
    assert torch.equal(near.codes[:, 0], closest)


# Books that are weights -----------------------------------------------------------------------------------------------


def test_learnt_books_get_the_gradients_of_another_writing() -> None:
    theirs = oracle(learnable_codebook=True, ema_update=False, commitment_weight=1.0)
    ours = Learnt(**SMALL, cosine=False, commitment=1.0)
    put(ours, theirs._codebook.embed.data)
    x = clusters()
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    z, codes, loss = theirs.train()(other[None])
    out = ours(own)
    torch.testing.assert_close(out.z, z[0])
    assert torch.equal(out.codes[:, 0], codes[0])
    torch.testing.assert_close(out.loss, 2 * loss.squeeze())  # one for the codes and one for the encoder, and here both
    out.loss.backward(), loss.sum().backward()
    torch.testing.assert_close(own.grad, other.grad)
    torch.testing.assert_close(ours.book.grad, theirs._codebook.embed.grad)


def test_learnt_costs_by_hand() -> None:
    books = Learnt(groups=1, tokens=1, dim=1, codes=2, cosine=False, commitment=0.25)
    put(books, torch.tensor([[[0.0], [10.0]]]))
    x = torch.tensor([[1.0], [2.0], [12.0]], requires_grad=True)
    out = books(x)
    assert float(out.loss.detach()) == pytest.approx(1.25 * (1 + 4 + 4) / 3)
    out.loss.backward()
    assert books.book.grad is not None and x.grad is not None
    assert books.book.grad.flatten().tolist() == pytest.approx([2 * (-1 - 2) / 3, 2 * -2 / 3])
    assert x.grad.flatten().tolist() == pytest.approx([0.25 * 2 * gap / 3 for gap in (1, 2, 2)])


def test_on_the_sphere_a_code_is_turned_and_not_stretched() -> None:
    books = Learnt(**SMALL)
    put(books, 3 * torch.randn(1, 8, 2))
    books(clusters()).loss.backward()
    assert books.book.grad is not None and books.book.grad.norm() > 1e-3
    along = (books.book.grad * books.book).sum(-1)
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-6)


# Noise in place of the quantiser --------------------------------------------------------------------------------------


def test_nsvq_agrees_with_another_writing() -> None:
    noise = {"directional_reparam": True, "directional_reparam_variance": 1e14}  # so much that it is all
    theirs = oracle(**noise, ema_update=False, threshold_ema_dead_code=1e-9)
    ours = NSVQ(**SMALL)
    put(ours, theirs._codebook.embed.data)
    x, pull = clusters(), torch.randn(64, 2)
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(3)
    z, codes, _ = theirs.train()(other[None])
    torch.manual_seed(3)
    out = ours(own)
    torch.testing.assert_close(out.z, z[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(out.codes[:, 0], codes[0]) and float(out.loss.detach()) == 0
    (out.z * pull).sum().backward(), (z[0] * pull).sum().backward()
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.book.grad, theirs._codebook.embed.grad, rtol=1e-4, atol=1e-5)


def test_nsvq_errs_as_far_as_its_code_in_any_direction() -> None:
    books = NSVQ(groups=1, tokens=1, dim=3, codes=4)
    put(books, torch.randn(1, 4, 3))
    x = torch.randn(1, 3).repeat(4000, 1)
    out = books(x)
    off, miss = out.z.detach() - x, books.embed(out.codes).detach() - x
    torch.testing.assert_close(off.norm(dim=1), miss.norm(dim=1))
    assert float((off.mean(0) / off.norm(dim=1).mean()).norm()) < 0.05  # no direction is preferred
    torch.testing.assert_close(books.eval()(x).z, books.embed(out.codes))


def test_nsvq_on_a_code_is_finite() -> None:
    books = NSVQ(groups=1, tokens=1, dim=2, codes=2)
    put(books, torch.zeros(1, 2, 2))
    x = torch.zeros(3, 2, requires_grad=True)
    books(x).z.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and books.book.grad.isfinite().all()  # type: ignore[union-attr]


# Stages ---------------------------------------------------------------------------------------------------------------


def test_residual_agrees_with_another_writing() -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    theirs = package.ResidualVQ(
        dim=2, num_quantizers=3, codebook_size=8, decay=0.9, eps=1e-6, commitment_weight=0.05, rotation_trick=False
    )
    ours = Residual(tiny(commitment=0.05), stages=3)
    step(ours, clusters())
    for layer, stage in zip(theirs.layers, ours.stages, strict=True):
        layer._codebook.embed.data.copy_(stage.book)
        layer._codebook.embed_avg.data.copy_(stage.sums)
        layer._codebook.cluster_size.data.copy_(stage.counts)
    for _ in range(10):
        x = 1.3 * clusters()
        own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        z, codes, losses = theirs(other[None])
        out = step(ours, own)
        torch.testing.assert_close(out.z, z[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out.loss, losses.sum(), rtol=1e-4, atol=1e-6)
        assert torch.equal(out.codes, codes[0])
        for layer, stage in zip(theirs.layers, ours.stages, strict=True):
            torch.testing.assert_close(stage.book, layer._codebook.embed.data, rtol=1e-4, atol=1e-4)
        out.loss.backward(), losses.sum().backward()
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_stages_pass_the_gradient_on_once() -> None:
    part = Residual(tiny(commitment=0.0), stages=3)
    x, pull = torch.randn(6, 2, requires_grad=True), torch.randn(6, 2)
    (part(x).z * pull).sum().backward()
    torch.testing.assert_close(x.grad, pull)


def test_a_stage_reads_what_the_earlier_left_over() -> None:
    part = Residual(tiny(groups=2, tokens=2, dim=1, codes=2), stages=2).eval()
    for stage, size in zip(part.stages, (10.0, 1.0), strict=True):
        stage.book.copy_(torch.tensor([[[0.0], [size]], [[0.0], [-size]]]))
    out = part(torch.tensor([[11.0, 1.0, -10.0, -1.2]]))
    assert out.z.tolist() == [[11, 1, -10, -1]]
    assert out.codes.tolist() == [[1, 0, 1, 1, 1, 0, 0, 1]]  # by group, then stage, then token


def test_more_stages_say_more() -> None:
    x = torch.randn(512, 2)
    misses = []
    for stages in (1, 2, 3):
        part = Residual(tiny(), stages=stages)
        for _ in range(60):
            out = step(part, x)
        misses.append(float((part.eval()(x).z - x).square().mean()))
        told = out.metrics
        assert all(float(told[f"perplexity.{stage}"]) > 5 for stage in range(stages)) and float(told["gap"]) > 0
    assert misses[1] < 0.4 * misses[0] and misses[2] < 0.4 * misses[1]


def test_residual_refuses_a_sphere() -> None:
    with pytest.raises(ValueError, match="sphere"):
        Residual(Learnt())


def test_residual_refuses_what_is_no_book() -> None:
    with pytest.raises(ValueError, match="FSQ.*wants one or more of a VQ"):
        Residual(FSQ((5, 3)))  # type: ignore[arg-type]


# What is watched ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_gap_is_the_least_distance_between_two_codes_of_a_book(offset: float) -> None:
    books = tiny(groups=2, codes=40, dim=3).eval()
    points = torch.randn(2, 40, 3)
    points[1, 7] = points[1, 30] + torch.tensor([0.0, 0.01, 0.0])
    books.book.copy_(points + offset)
    assert float(books(torch.randn(5, 6)).metrics["gap"]) == pytest.approx(0.01, rel=0.05)


def test_the_gap_of_a_large_book_is_found_in_turns() -> None:
    books = VQ(groups=1, tokens=1, dim=4, codes=1100)
    points = torch.randn(1, 1100, 4)
    points[0, 1000] = points[0, 1001]
    put(books, points)
    seen = []
    for turn in range(3):
        books.clock.fill_(turn)
        seen.append(float(books(torch.randn(8, 4)).metrics["gap"]))
    assert min(seen) < 1e-3 and max(seen) > 1e-2
