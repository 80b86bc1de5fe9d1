"""Rotations: what two come to and what undoes one hold exactly, and the latent says what the input asked for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.linalg import matrix_exp

from tacit.parts.rotation import Rotation


def skew(x: Tensor, *, size: int) -> Tensor:
    """Skew matrices (..., size, size) from their numbers above the diagonal, row by row."""
    matrices = torch.zeros(*x.shape[:-1], size, size, dtype=x.dtype)
    rows, columns = torch.triu_indices(size, size, 1)
    matrices[..., rows, columns], matrices[..., columns, rows] = -x, x
    return matrices


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 4.0])
def test_the_latent_is_the_exponential(size: int, scale: float) -> None:
    part = Rotation(3, size=size)
    x = scale * torch.randn(50, part.width)
    wanted = matrix_exp(skew(x.double().view(50, 3, -1), size=size))
    found = part(x).z.view(50, 3, size, size)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5)
    unit = torch.eye(size, dtype=torch.float64).expand(50, 3, -1, -1)
    torch.testing.assert_close(found.double() @ found.double().mT, unit, rtol=0, atol=2e-6)
    assert bool((torch.linalg.det(found) > 0).all())  # a rotation, not a mirror


def test_a_turn_in_the_plane_by_hand() -> None:
    z = Rotation(2, size=2)(torch.tensor([[math.pi / 2, -math.pi / 6]])).z
    wanted = torch.tensor([[0.0, -1.0, 1.0, 0.0, math.sqrt(0.75), 0.5, -0.5, math.sqrt(0.75)]])
    torch.testing.assert_close(z, wanted, rtol=0, atol=1e-6)


def test_a_turn_about_an_axis_as_rodrigues_says() -> None:
    x = torch.randn(20, 3).double()
    angle = x.norm(dim=1)[:, None, None]
    unit = skew(x, size=3) / angle
    wanted = torch.eye(3) + angle.sin() * unit + (1 - angle.cos()) * unit @ unit
    torch.testing.assert_close(Rotation(1)(x.float()).z.view(20, 3, 3).double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_composing_and_undoing_hold_exactly(size: int) -> None:
    part = Rotation(2, size=size)
    a, b, c = (part(3 * torch.randn(16, part.width)).z for _ in range(3))
    same: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}
    nothing = part.identity.expand(16, -1)
    torch.testing.assert_close(part.compose(a, part.inverse(a)), nothing, **same)
    torch.testing.assert_close(part.compose(part.inverse(a), a), nothing, **same)
    torch.testing.assert_close(part.compose(a, nothing), a, **same)
    torch.testing.assert_close(part.compose(nothing, a), a, **same)
    torch.testing.assert_close(part.compose(part.compose(a, b), c), part.compose(a, part.compose(b, c)), **same)
    undone = part.compose(part.inverse(b), part.inverse(a))
    torch.testing.assert_close(part.inverse(part.compose(a, b)), undone, **same)
    commute = torch.allclose(part.compose(a, b), part.compose(b, a), atol=1e-3)
    assert commute == (size == 2)


def test_what_comes_first_turns_first() -> None:
    part = Rotation(1)
    first, then = part(torch.randn(1, 3)).z, part(torch.randn(1, 3)).z
    vector = torch.randn(3)
    turned = then.view(3, 3) @ (first.view(3, 3) @ vector)
    torch.testing.assert_close(part.compose(first, then).view(3, 3) @ vector, turned)


def test_turns_in_planes_add_up() -> None:
    part = Rotation(3, size=2)
    a, b = torch.randn(8, 3), torch.randn(8, 3)
    torch.testing.assert_close(part.compose(part(a).z, part(b).z), part(a + b).z, rtol=0, atol=1e-5)
    torch.testing.assert_close(part.inverse(part(a).z), part(-a).z, rtol=0, atol=1e-6)


def test_many_steps_stay_a_rotation() -> None:
    part = Rotation(1, size=4)
    step = part(0.3 * torch.randn(1, 6)).z
    z = part.identity[None]
    for _ in range(1000):
        z = part.compose(z, step)
    matrix = z.view(4, 4).double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(4).double(), rtol=0, atol=1e-3)


def test_nought_is_nothing_and_has_a_gradient() -> None:
    part = Rotation(2, size=3)
    x = torch.zeros(4, 6, requires_grad=True)
    z = part(x).z
    torch.testing.assert_close(z, part.identity.expand(4, -1), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad((z * torch.randn(4, 18)).sum(), x)
    assert gradient.isfinite().all() and (gradient != 0).all()


def test_the_gradient_is_the_exponentials() -> None:
    part, x, pull = Rotation(1, size=4), torch.randn(5, 6), torch.randn(5, 16)
    own, other = x.clone().requires_grad_(), x.double().requires_grad_()
    (part(own).z * pull).sum().backward()
    (matrix_exp(skew(other, size=4)).flatten(1) * pull).sum().backward()
    torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-4, atol=1e-4)  # type: ignore[union-attr]


def test_absurd_inputs_stay_rotations() -> None:
    z = Rotation(1, size=3)(torch.tensor([[1e6, -1e6, 3e5]])).z.view(3, 3)
    torch.testing.assert_close(z @ z.T, torch.eye(3), rtol=0, atol=1e-5)


def test_noise_keeps_to_the_group_and_to_training() -> None:
    part = Rotation(1, size=3, noise=0.5)
    x = torch.randn(32, 3)
    z = part.train()(x).z
    assert not torch.equal(z, part(x).z)
    torch.testing.assert_close(part.compose(z, part.inverse(z)), part.identity.expand(32, -1), rtol=0, atol=1e-5)
    assert torch.equal(part.eval()(x).z, part(x).z)


def test_an_unseen_sum_of_turns_is_predicted_where_free_numbers_are_not() -> None:
    """Latents learnt from single steps of a turning dial give the double step when composed."""
    part, encode = Rotation(1, size=2), nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 1))
    start, turn = 2 * math.pi * torch.rand(2048), 2 * torch.rand(2048) - 1

    def seen(angle: Tensor) -> Tensor:
        return torch.stack([angle.cos(), angle.sin()], 1)

    def moved(frame: Tensor, z: Tensor) -> Tensor:
        return (z.view(-1, 2, 2) @ frame.unsqueeze(-1)).squeeze(-1)

    optimiser = torch.optim.Adam(encode.parameters(), 0.01)
    for _ in range(300):
        z = part(encode(torch.cat([seen(start), seen(start + turn)], 1))).z
        miss = (moved(seen(start), z) - seen(start + turn)).square().mean()
        optimiser.zero_grad()
        miss.backward()
        optimiser.step()
    z = part(encode(torch.cat([seen(start), seen(start + turn)], 1))).z.detach()
    four = part.compose(part.compose(z, z), part.compose(z, z))  # as far as no single step ever went
    assert float((moved(seen(start), four) - seen(start + 4 * turn)).square().mean()) < 0.02
    back = moved(seen(start + turn), part.inverse(z))
    assert float((back - seen(start)).square().mean()) < 0.01


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 1}, {"noise": -1.0}])
def test_what_cannot_turn_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Rotation"):
        Rotation(**wrong)  # type: ignore[arg-type]
