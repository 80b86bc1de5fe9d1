"""Bottlenecks: every one keeps the contract, and what each computes is what its formula says."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tacit.parts import quantize
from tacit.parts.books import NSVQ, VQ, Books, Learnt, Residual
from tacit.parts.nested import Nested
from tacit.parts.quantize import FSQ, LFQ, Bottleneck, Free, Gaussian, Sparse
from tacit.parts.rotation import Rotation

SIZES: dict[str, Any] = {"groups": 2, "tokens": 2, "dim": 3, "codes": 8}
KINDS: dict[str, Callable[[], Bottleneck]] = {
    "free": lambda: Free(4),
    "gaussian": lambda: Gaussian(3),
    "sparse": lambda: Sparse(5),
    "vq": lambda: VQ(**SIZES),
    "vq on the sphere": lambda: VQ(**SIZES, cosine=True),
    "learnt": lambda: Learnt(**SIZES, cosine=False),
    "learnt on the sphere": lambda: Learnt(**SIZES),
    "nsvq": lambda: NSVQ(**SIZES),
    "residual": lambda: Residual(VQ(**SIZES), stages=3),
    "residual nsvq": lambda: Residual(NSVQ(**SIZES), stages=2),
    "fsq": lambda: FSQ((5, 4, 2)),
    "grouped fsq": lambda: FSQ((3, 3), groups=2),
    "lfq": lambda: LFQ(3, groups=2),
    "plane rotation": lambda: Rotation(3, size=2),
    "rotation": lambda: Rotation(2, size=4),
    "nested gaussian": lambda: Nested(Gaussian(8), slots=4),
    "nested vq": lambda: Nested(VQ(**SIZES), slots=4, draw="powers"),
}
CODED = [name for name in KINDS if KINDS[name]().codes and not name.startswith("nested")]


@pytest.fixture(params=KINDS)
def part(request: pytest.FixtureRequest) -> Bottleneck:
    return KINDS[request.param]()


# Every bottleneck -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_sizes_and_types(part: Bottleneck, training: bool) -> None:
    out = part.train(training)(torch.randn(10, part.width))
    assert out.z.shape == (10, part.dim) and out.z.dtype == torch.float32
    assert out.loss.shape == () and out.loss.isfinite()
    assert all(value.shape == () and float(value) >= 0 for value in out.metrics.values())
    assert out.codes is None or (out.codes.dtype == torch.int64 and len(out.codes) == 10)


def test_the_gradient_comes_through(part: Bottleneck) -> None:
    x = torch.randn(10, part.width, requires_grad=True)
    out = part.train()(x)
    ((out.z * torch.randn(10, part.dim)).sum() + out.loss).backward()
    assert x.grad is not None
    if isinstance(part, Nested):  # what is left out teaches nothing
        assert (x.grad != 0).any(0).all()
    else:
        assert (x.grad != 0).float().mean() > 0.95
    assert all(p.grad is not None and p.grad.any() for p in part.parameters())


def test_a_quantiser_without_straight_through_would_be_caught() -> None:
    class Deaf(VQ):
        def bottle(self, x: Tensor) -> quantize.Bottled:
            out = super().bottle(x)
            return out._replace(z=self.embed(out.codes))  # type: ignore[arg-type]

    assert not Deaf()(torch.randn(4, 128, requires_grad=True)).z.requires_grad


def test_autocast_changes_nothing(part: Bottleneck) -> None:
    x = torch.randn(10, part.width).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = part.eval()(x)
    whole = part.eval()(x.float())
    assert half.z.dtype == torch.float32 and torch.equal(half.z, whole.z)
    assert half.codes is None or torch.equal(half.codes, whole.codes)


def test_wrong_widths_are_refused(part: Bottleneck) -> None:
    with pytest.raises(ValueError, match=rf"wants \(B, {part.width}\)"):
        part(torch.randn(10, part.width + 1))


def test_a_batch_of_none_is_refused(part: Bottleneck) -> None:
    for training in (True, False):
        with pytest.raises(ValueError, match=r"given \(0, .*no batch be empty"):
            part.train(training)(torch.randn(0, part.width))


NAN: Any = math.nan
WRONG: dict[str, tuple[Callable[..., Bottleneck], dict[str, Any]]] = {
    "Free": (lambda width=4, **more: Free(width, **more), {"width": 0, "noise": -1.0}),
    "Gaussian": (
        lambda dim=4, **more: Gaussian(dim, **more), {"dim": 0, "beta": -1.0, "floor": -1.0, "sigma": 0.0}
    ),
    "Sparse": (
        lambda width=4, **more: Sparse(width, **more),
        {"width": 0, "sparsity": -1.0, "variance": -1.0, "covariance": -1.0, "mean": -1.0},
    ),
    "FSQ": (lambda levels=(3, 3), **more: FSQ(levels, **more), {"levels": (5.5, 3), "groups": 0}),
    "LFQ": (
        lambda bits=3, **more: LFQ(bits, **more),
        {"bits": 0, "groups": 0, "entropy": -1.0, "diversity": -1.0, "sharpness": 0.0, "commitment": -1.0},
    ),
    "VQ": (VQ, {"groups": 0, "codes": 1, "memory": -1, "commitment": -1.0}),
    "Rotation": (Rotation, {"count": 0, "size": 1, "noise": -1.0}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "knob"), [(kind, knob) for kind, (_, knobs) in WRONG.items() for knob in knobs])
def test_a_knob_that_cannot_be_is_refused_by_name(kind: str, knob: str) -> None:
    build, knobs = WRONG[kind]
    for value in (knobs[knob], NAN) if isinstance(knobs[knob], float) else (knobs[knob],):
        with pytest.raises(ValueError) as caught:
            build(**{knob: value})
        told = str(caught.value)
        assert kind in told and f"{knob}={value!r}" in told and told.count(";") == 1  # what was given; what is wanted


def test_saved_and_loaded_is_the_same(part: Bottleneck, tmp_path: Path) -> None:
    x = torch.randn(10, part.width)
    part.train()(x)
    part.after_step()
    loaded = type(part).load(part.save(tmp_path))
    assert torch.equal(loaded(x).z, part.eval()(x).z)


@pytest.mark.parametrize("name", CODED)
def test_codes_say_all_there_is(name: str) -> None:
    part = KINDS[name]()
    part.train()(torch.randn(200, part.width))
    out = part.eval()(torch.randn(200, part.width))
    assert out.codes is not None and out.codes.shape == (200, len(part.starts))
    torch.testing.assert_close(part.embed(out.codes), out.z)
    assert int(out.codes.min()) >= 0 and int(out.codes.max()) < part.codes
    with pytest.raises(ValueError, match="wanted"):
        part.embed(torch.zeros(4, 7, dtype=torch.int64))


@pytest.mark.parametrize("name", CODED)
def test_a_symbol_moves_its_own_numbers_and_no_others(name: str) -> None:
    part = KINDS[name]()
    part.train()(torch.randn(64, part.width))
    codes = part.eval()(torch.randn(32, part.width)).codes
    assert codes is not None
    reach = part.dim // len(set(part.starts))
    for symbol, start in enumerate(part.starts):
        other = codes.clone()
        other[:, symbol] = (codes[:, symbol] + 1) % part.codes
        moved = (part.embed(other) != part.embed(codes)).any(0).nonzero().flatten().tolist()
        assert moved == list(range(start, start + reach))


def asked(part: Bottleneck, *, every: int) -> None:
    """Three steps of training where no number can be read, as on a GPU that nobody waits for."""
    part.train()(torch.randn(10, part.width))
    for inner in part.modules():
        if isinstance(inner, Books):
            inner.every = every
    part.to("meta")
    for _ in range(3):
        out = part.bottle(torch.empty(10, part.width, device="meta", requires_grad=True))  # which has no autocast
        (out.z.sum() + out.loss).backward()
        part.after_step()


def test_no_step_waits_for_the_device(part: Bottleneck) -> None:
    asked(part, every=100)


def test_waiting_would_be_caught() -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        asked(VQ(**SIZES), every=2)


def test_compiled_it_is_the_same(part: Bottleneck) -> None:
    torch._dynamo.reset()
    part.train()(torch.randn(10, part.width))
    x, twin = torch.randn(10, part.width), copy.deepcopy(part)
    quick = torch.compile(twin, backend="eager", fullgraph=True)
    for _ in range(2):
        seed = torch.get_rng_state()
        plain = part(x)
        torch.set_rng_state(seed)
        graph = quick(x)
        assert torch.equal(plain.z, graph.z) and torch.equal(plain.loss, graph.loss)
        part.after_step()
        twin.after_step()
    assert all(torch.equal(a, b) for a, b in zip(part.buffers(), twin.buffers(), strict=True))


SHARES = """
from tacit.parts.quantize import LFQ, Gaussian, Sparse
said = {}
for part in (LFQ(3, groups=2), Gaussian(3, beta=1.0, floor=0.3), Sparse(6, sparsity=0.1, covariance=1.0)):
    torch.manual_seed(0)
    x, mix = torch.randn(16, 6), torch.randn(6, 6, requires_grad=True)
    out = part(x[8 * rank : 8 * rank + 8] @ mix)
    out.loss.backward()
    told = {name: value for name, value in out.metrics.items() if name in ("usage", "perplexity", "nats", "shared")}
    said[type(part).__name__] = [spread.average(mix.grad).flatten().tolist(), {k: float(v) for k, v in told.items()}]
"""


def test_two_processes_learn_from_the_batch_of_both(pair: Callable[[str], list[Any]]) -> None:
    mine, theirs = pair(SHARES)
    assert mine == theirs
    for part in (LFQ(3, groups=2), Gaussian(3, beta=1.0, floor=0.3), Sparse(6, sparsity=0.1, covariance=1.0)):
        torch.manual_seed(0)
        x, mix = torch.randn(16, 6), torch.randn(6, 6, requires_grad=True)
        out = part(x @ mix)
        (gradient,) = torch.autograd.grad(out.loss, mix)
        found, metrics = mine[type(part).__name__]
        assert found == pytest.approx(gradient.flatten().tolist(), rel=1e-4, abs=1e-5)
        assert metrics == pytest.approx({name: float(out.metrics[name]) for name in metrics}, rel=1e-4)


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


def test_noise_does_not_sink_under_its_floor_and_is_told() -> None:
    mean, log = torch.full((20_000, 2), 2.0), torch.tensor([[-50.0, math.log(0.25)]]).expand(20_000, 2)
    for sigma, least in (({}, math.exp(-6)), ({"sigma": 0.1}, 0.1)):
        found = Gaussian(2, beta=0.0, **sigma)(torch.cat([mean, log], 1))
        assert found.z.std(0).tolist() == pytest.approx([least, 0.5], rel=0.03)
        assert float(found.metrics["sigma"]) == pytest.approx((least + 0.5) / 2)


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


@pytest.mark.parametrize("levels", [(), (1, 3), (100,) * 5, 5, (5.5, 3)])
def test_fsq_refuses_levels_that_cannot_be(levels: Any) -> None:
    with pytest.raises(ValueError, match="levels"):
        FSQ(levels)


# LFQ ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "groups"), [(3, 1), (5, 2), (1, 2)])
def test_lfq_agrees_with_another_writing(bits: int, groups: int) -> None:
    theirs = pytest.importorskip("vector_quantize_pytorch").LFQ(
        codebook_size=2**bits, num_codebooks=groups, keep_num_codebooks_dim=True, dim=bits * groups,
        entropy_loss_weight=0.3, diversity_gamma=0.7, commitment_loss_weight=0.5,
    )  # fmt: skip
    x = 0.5 * torch.randn(400, bits * groups)
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    z, codes, loss = theirs.train()(other[:, None], inv_temperature=0.8)
    ours = LFQ(bits, groups=groups, entropy=0.3, diversity=0.7, sharpness=0.8, commitment=0.5)(own)
    torch.testing.assert_close(ours.z, z[:, 0])
    places = torch.arange(bits)
    flipped = (ours.codes.unsqueeze(-1) // 2**places % 2 * 2 ** places.flip(0)).sum(-1)  # they count the first bit most
    assert torch.equal(flipped, codes[:, 0].long())
    constant = 0.3 * 0.7 * bits * math.log(2)  # theirs is below nought at its best, ours is nought
    torch.testing.assert_close(ours.loss - constant, loss, rtol=1e-4, atol=1e-5)
    pull = torch.randn_like(x)
    ((ours.z * pull).sum() + ours.loss).backward()
    ((z[:, 0] * pull).sum() + loss).backward()
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_lfq_by_hand() -> None:
    part = LFQ(2, entropy=1.0, diversity=1.0, sharpness=1.0, commitment=0.0)
    sure = part(50 * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]))
    assert sure.codes.flatten().tolist() == [0, 1, 2, 3] and sure.z.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert float(sure.loss) == pytest.approx(0, abs=1e-5)  # each is sure, all are used alike
    assert float(part(50 * torch.ones(4, 2)).loss) == pytest.approx(2 * math.log(2), abs=1e-5)  # sure, and all the same
    assert float(part(torch.zeros(4, 2)).loss) == pytest.approx(2 * math.log(2), abs=1e-5)  # all alike, and unsure
    halves = part(torch.tensor([[50.0, 0.0], [-50.0, 0.0]]))
    assert float(halves.metrics["doubt"]) == pytest.approx(math.log(2), abs=1e-5)
    assert float(halves.metrics["uneven"]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("changes", "used"), [({}, True), ({"diversity": 1.0}, False), ({"entropy": 0.0}, False)])
def test_lfq_comes_back_from_a_collapse_by_its_entropies_alone(changes: dict[str, Any], used: bool) -> None:
    x, net = torch.randn(256, 4), nn.Linear(4, 4)
    with torch.no_grad():
        net.weight.mul_(0.3)
        net.bias.fill_(1.5)  # almost every sample has the same code
    part = LFQ(4, **changes)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    assert float(part(net(x)).metrics["perplexity"]) < 1.5
    for _ in range(300):
        optimiser.zero_grad()
        part(net(x)).loss.backward()
        optimiser.step()
    assert (float(part(net(x)).metrics["perplexity"]) > 8) == used


def test_lfq_refuses_bits_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="bits"):
        LFQ(0)


# Sparse ---------------------------------------------------------------------------------------------------------------


def test_sparse_pays_what_the_formula_says() -> None:
    x = torch.tensor([[1.0, 0.2], [3.0, 0.2], [1.0, -0.2], [3.0, -0.2]])

    def cost(**weight: float) -> float:
        return float(
            Sparse(2, **{**dict.fromkeys(("sparsity", "variance", "covariance", "mean"), 0.0), **weight})(x).loss
        )

    assert cost(sparsity=1) == pytest.approx((2 + 0.2) / 2)
    assert cost(variance=1) == pytest.approx((0 + 1 - math.sqrt(0.04 + 1e-4)) / 2, abs=1e-4)
    assert cost(covariance=1) == pytest.approx(0, abs=1e-6)
    assert cost(mean=1) == pytest.approx((4 + 0) / 2)
    both = x[:, :1].repeat(1, 2)  # the same number twice: its variance is 1, and so is what the two share
    assert float(Sparse(2, sparsity=0, variance=0, covariance=1, mean=0)(both).loss) == pytest.approx((1 + 1) / 2)
    assert float(Sparse(2)(x).metrics["quiet"]) == 0 and float(Sparse(2)(x / 3).metrics["quiet"]) == 0.5


@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_sparse_numbers_are_quiet_and_still_alive(sparsity: float) -> None:
    z = (0.1 * torch.randn(512, 6) + torch.randn(512, 1) + 1).requires_grad_()  # narrow, shared and off centre
    part = Sparse(6, sparsity=sparsity, variance=1.0, covariance=0.1, mean=1.0)
    optimiser = torch.optim.Adam([z], 0.03)
    for _ in range(500):
        optimiser.zero_grad()
        (512 * part(z).loss).backward()
        optimiser.step()
    told = part(z).metrics
    assert float(told["spread"]) > 0.6 and float(told["alive"]) == 1 and float(told["shared"]) < 0.2
    assert float(z.detach().mean(0).abs().max()) < 0.1
    assert float(told["quiet"]) > 0.3 if sparsity else float(told["quiet"]) < 0.2


def test_sparse_without_the_three_terms_would_die() -> None:
    z = torch.randn(64, 4, requires_grad=True)
    part = Sparse(4, sparsity=0.3, variance=0, covariance=0, mean=0)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(64 * part(z).loss, z)
        z.data -= 0.1 * gradient
    assert float(part(z).metrics["spread"]) < 0.1
