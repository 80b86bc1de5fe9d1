"""Bottlenecks: the numbers are right, books live as long as training does, and every process holds the same ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tacit.parts import quantize
from tacit.parts.quantize import FSQ, VQ, Bottleneck, Free, Gaussian

ROOT = Path(__file__).parents[2]
ALL = [Free(4), Gaussian(3), VQ(groups=2, tokens=2, dim=3, codes=8), FSQ((5, 4, 2)), FSQ((3, 3), groups=2)]


def named(part: Bottleneck) -> str:
    return type(part).__name__


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


# Every bottleneck -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ALL, ids=named)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_sizes_and_types(part: Bottleneck, training: bool) -> None:
    out = part.train(training)(torch.randn(10, part.width))
    assert out.z.shape == (10, part.dim) and out.z.dtype == torch.float32
    assert out.loss.shape == () and out.loss.isfinite()
    assert all(value.shape == () and float(value) >= 0 for value in out.metrics.values())
    assert out.codes is None or (out.codes.dtype == torch.int64 and len(out.codes) == 10)


@pytest.mark.parametrize("part", ALL, ids=named)
def test_the_gradient_comes_through(part: Bottleneck) -> None:
    x = torch.randn(10, part.width, requires_grad=True)
    (part.train()(x).z * torch.randn(10, part.dim)).sum().backward()
    assert x.grad is not None and (x.grad != 0).float().mean() > 0.95


def test_a_quantiser_without_straight_through_would_be_caught() -> None:
    class Deaf(VQ):
        def bottle(self, x: Tensor) -> quantize.Bottled:
            out = super().bottle(x)
            return out._replace(z=self.embed(out.codes))  # type: ignore[arg-type]

    assert not Deaf()(torch.randn(4, 128, requires_grad=True)).z.requires_grad


@pytest.mark.parametrize("part", ALL, ids=named)
def test_autocast_changes_nothing(part: Bottleneck) -> None:
    x = torch.randn(10, part.width).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = part.eval()(x)
    whole = part.eval()(x.float())
    assert half.z.dtype == torch.float32 and torch.equal(half.z, whole.z)
    assert half.codes is None or torch.equal(half.codes, whole.codes)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ALL, ids=named)
def test_wrong_widths_are_refused(part: Bottleneck) -> None:
    with pytest.raises(ValueError, match=rf"wants \(B, {part.width}\)"):
        part(torch.randn(10, part.width + 1))


@pytest.mark.parametrize("part", ALL, ids=named)
def test_saved_and_loaded_is_the_same(part: Bottleneck, tmp_path: Path) -> None:
    x = torch.randn(10, part.width)
    part.train()(x)
    part.after_step()
    loaded = type(part).load(part.save(tmp_path))
    assert torch.equal(loaded(x).z, part.eval()(x).z)


# Gaussian -------------------------------------------------------------------------------------------------------------


def test_gaussian_pays_what_the_formula_says() -> None:
    mean, log = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [math.log(4), 0.0]])
    out = Gaussian(2, beta=0.5)(torch.cat([mean, log], 1))
    nats = 0.5 * ((1 + 1 - 1 - 0) + (9 + 4 - 1 - math.log(4))) / 2  # mean over the batch; the second dimension is free
    assert float(out.metrics["nats"]) == pytest.approx(nats)
    assert float(out.loss) == pytest.approx(0.5 * nats)
    assert float(out.metrics["alive"]) == 0.5
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert float(out.metrics["nats"]) == pytest.approx(float(wanted.sum(1).mean()))


def test_below_the_floor_a_dimension_costs_the_floor_and_has_no_pull() -> None:
    x = torch.tensor([[0.1, 2.0, 0.0, 0.0]]).requires_grad_()
    out = Gaussian(2, beta=1.0, floor=0.5).eval()(x)
    assert float(out.loss.detach()) == pytest.approx(0.5 + 2.0)
    out.loss.backward()
    assert x.grad is not None and x.grad[0].tolist() == pytest.approx([0, 2, 0, 0])


def test_noise_belongs_to_training() -> None:
    part = Gaussian(3)
    x = torch.cat([torch.full((20_000, 3), 2.0), torch.full((20_000, 3), math.log(0.25))], 1)
    drawn = part.train()(x).z
    assert float(drawn.mean()) == pytest.approx(2.0, abs=0.02) and float(drawn.std()) == pytest.approx(0.5, abs=0.02)
    assert torch.equal(part.eval()(x).z, x[:, :3])
    assert torch.isfinite(part.train()(torch.full((1, 6), 1e4)).z).all()


# FSQ ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(8, 6, 5), (5, 5), (3, 4), (7,)])
def test_fsq_agrees_with_another_writing(levels: tuple[int, ...]) -> None:
    theirs = pytest.importorskip("vector_quantize_pytorch").FSQ(levels=list(levels))
    x = 2 * torch.randn(500, len(levels))
    z, codes = theirs(x[:, None])
    ours = FSQ(levels)(x)
    torch.testing.assert_close(ours.z, z[:, 0])
    assert torch.equal(ours.codes[:, 0], codes[:, 0].long())  # type: ignore[index]


def test_fsq_by_hand() -> None:
    part = FSQ((3, 2))
    out = part(torch.tensor([[-9.0, -9.0], [0.0, 9.0], [9.0, -0.1], [9.0, 0.1]]))
    assert out.z.tolist() == [[-1, -1], [0, 1], [1, -1], [1, 1]]
    assert out.codes is not None and out.codes.flatten().tolist() == [0, 4, 2, 5]
    assert float(out.metrics["usage"]) == pytest.approx(4 / 6) and float(out.metrics["perplexity"]) == pytest.approx(4)


@pytest.mark.parametrize(
    "part", [FSQ((8, 6, 5)), FSQ((3, 4, 2), groups=3), VQ(groups=2, tokens=3, dim=2, codes=5)], ids=named
)
def test_codes_say_all_there_is(part: FSQ | VQ) -> None:
    out = part.eval()(torch.randn(200, part.width))
    torch.testing.assert_close(part.embed(out.codes), out.z)  # type: ignore[arg-type]
    assert int(out.codes.min()) >= 0 and int(out.codes.max()) < part.codes  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="wanted"):
        part.embed(torch.zeros(4, 7, dtype=torch.int64))


@pytest.mark.parametrize("levels", [(), (1, 3), (100,) * 5])
def test_fsq_refuses_levels_that_cannot_be(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        FSQ(levels)


# VQ: the numbers ------------------------------------------------------------------------------------------------------


def test_vq_follows_the_moving_average_as_another_writing_does() -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    theirs = package.VectorQuantize(
        dim=2, codebook_size=8, decay=0.9, eps=1e-6, commitment_weight=0.05, rotation_trick=False
    )
    ours = tiny(commitment=0.05, patience=10**6)
    book = theirs._codebook
    first = clusters()
    step(ours, first)
    book.embed.data.copy_(ours.book)
    book.embed_avg.data.copy_(ours.sums)
    book.cluster_size.data.copy_(ours.counts)
    for _ in range(20):
        x = 1.3 * clusters()
        z, codes, loss = theirs(x[None])
        out = step(ours, x)
        torch.testing.assert_close(out.z, z[0])
        torch.testing.assert_close(out.loss, loss.squeeze())
        assert torch.equal(out.codes[:, 0], codes[0])  # type: ignore[index]
        torch.testing.assert_close(ours.book, book.embed.data, rtol=1e-4, atol=1e-5)


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
    one, two = tiny(patience=100), tiny(patience=100)
    x = clusters(seed=1)
    for vq in (one, two):
        torch.manual_seed(3)
        step(vq, x)
    step(one, x)
    two(x[:20]), two(x[20:])
    two.after_step()
    torch.testing.assert_close(one.book, two.book)
