"""Encoders: every weight learns, pictures stay in the layout they came in, and sizes are what was asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.part import Part
from tacit.parts.conv import Impala, Mlp, Strided, flat, laid

ENCODERS = [Impala(channels=6, frame=(20, 14), width=1, dim=24), Strided(channels=6, frame=(20, 14), width=8, dim=24)]


def pictures(count: int = 4, *, last: bool = False, frame: tuple[int, int] = (20, 14)) -> Tensor:
    x = torch.randn(count, 6, *frame)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def silent(part: Part, *args: Tensor) -> list[str]:
    """The weights that a random objective does not reach."""
    part.zero_grad()
    out = part(*args)
    (out.float() * torch.randn(out.shape)).sum().backward()
    return [
        name for name, p in part.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
    ]


@pytest.mark.parametrize("part", ENCODERS, ids=lambda p: type(p).__name__)
def test_every_weight_gets_a_gradient(part: Part) -> None:
    assert silent(part, pictures()) == []


def test_the_check_for_gradients_finds_a_cut() -> None:
    class Cut(Mlp):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return self.out(super().forward(x).new_zeros(len(x), 32))

    assert "first.weight" in silent(Cut(inputs=5, dim=2, width=32), torch.randn(3, 5))


@pytest.mark.parametrize("part", ENCODERS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_pictures_stay_channels_last_from_end_to_end(part: Part, half: bool) -> None:
    part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    strays: list[str] = []

    def look(name: str) -> None:
        def hook(_: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            for x in (given[0], out):
                if not x.is_contiguous(memory_format=torch.channels_last):
                    strays.append(name)

        hooks.append(part.get_submodule(name).register_forward_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in part.named_modules():
        if isinstance(module, nn.Conv2d):
            look(name)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = part(pictures(last=True))
    for hook in hooks:
        hook.remove()
    assert not strays and len(hooks) > 5
    assert out.shape == (4, 24)


@pytest.mark.parametrize("part", ENCODERS, ids=lambda p: type(p).__name__)
def test_layout_and_precision_change_nothing_but_the_last_digits(part: Part) -> None:
    x = pictures()
    plain = part.to(memory_format=torch.contiguous_format)(x)  # type: ignore[call-overload]
    last = part.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))  # type: ignore[call-overload]
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = part(x)
    assert (half.float() - plain).norm().item() < 0.05 * plain.norm().item()


@pytest.mark.parametrize("frame", [(64, 64), (32, 32), (56, 56), (12, 12), (17, 5), (1, 1)])
@pytest.mark.parametrize("kind", [Impala, Strided])
def test_any_frame_will_do(kind: type[Part], frame: tuple[int, int]) -> None:
    part = kind(channels=6, frame=frame, width=1, dim=7)
    assert part(pictures(2, frame=frame)).shape == (2, 7)
    assert part.dim == 7


@pytest.mark.parametrize("part", ENCODERS, ids=lambda p: type(p).__name__)
def test_other_frames_are_refused_with_both_sizes(part: Part) -> None:
    with pytest.raises(ValueError, match=r"\(2, 6, 20, 20\).*\(N, 6, 20, 14\)"):
        part(torch.randn(2, 6, 20, 20))


def test_impala_is_three_times_a_convolution_a_pool_and_two_residual_blocks() -> None:
    part = Impala(channels=6, frame=(20, 14), width=1, dim=24)
    x = picture = pictures()
    for stage in part.stages:
        x = F.max_pool2d(F.conv2d(x, stage.widen.weight, stage.widen.bias, padding=1), 3, 2, 1)
        for block in stage.blocks:
            y = F.conv2d(F.relu(x), block.one.weight, block.one.bias, padding=1)
            x = x + F.conv2d(F.relu(y), block.two.weight, block.two.bias, padding=1)
    wanted = F.linear(F.relu(x).permute(0, 2, 3, 1).reshape(4, -1), part.out.weight, part.out.bias)
    torch.testing.assert_close(part(picture), wanted)


def test_strided_features_have_mean_nought_and_deviation_one() -> None:
    out = ENCODERS[1](100 * pictures())
    torch.testing.assert_close(out.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(1, correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_flattening_copies_nothing() -> None:
    x = pictures(last=True)
    assert flat(x).data_ptr() == x.data_ptr()
    assert torch.equal(flat(x), flat(x.contiguous()))


def test_pictures_are_laid_as_the_weights_lie() -> None:
    x, weight = pictures(), torch.randn(8, 6, 3, 3)
    assert laid(x, weight) is x
    moved = laid(x, weight.contiguous(memory_format=torch.channels_last))
    assert moved.is_contiguous(memory_format=torch.channels_last) and torch.equal(moved, x)


def test_mlp_shows_the_last_inputs_again_before_every_block() -> None:
    x = torch.randn(3, 2, 10)
    for again in (0, 4, 10):
        part = Mlp(inputs=10, dim=5, width=16, depth=2, again=again)
        h = part.first(x)
        for spread, gather, norm in zip(part.spread, part.gather, part.norms, strict=True):
            h = norm(h + gather(F.gelu(spread(torch.cat([h, x[..., 10 - again :]], -1)))))
        torch.testing.assert_close(part(x), part.out(h))
        assert silent(part, x) == []
    assert Mlp(inputs=10, dim=5).again == 10


def test_mlp_refuses_what_it_was_not_built_for() -> None:
    with pytest.raises(ValueError, match="given 9 inputs and was built for 10"):
        Mlp(inputs=10, dim=2)(torch.randn(1, 9))
    with pytest.raises(ValueError, match="again is 11"):
        Mlp(inputs=10, dim=2, again=11)


@pytest.mark.parametrize("part", [*ENCODERS, Mlp(inputs=6, dim=2, width=8)], ids=lambda p: type(p).__name__)
def test_saved_and_loaded_is_the_same(part: Part, tmp_path: object) -> None:
    x = torch.randn(2, 6) if isinstance(part, Mlp) else pictures(2)
    loaded = type(part).load(part.save(str(tmp_path)))
    torch.testing.assert_close(loaded(x), part(x))
