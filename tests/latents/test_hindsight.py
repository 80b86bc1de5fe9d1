"""Inverse models by attention: each sees both frames and its past, no later frame and no other clip, and hears text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tacit.latents.hindsight import Acting, Asked, Contrast, Reader, Window

SIZE: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2}
KINDS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "acting": (lambda: Acting(frame=(8, 8), patch=4, dim=6, tokens=2, **SIZE), (3, 8, 8)),
    "contrast": (lambda: Contrast(features=5, grid=(4, 2), dim=8, spatial=1, **SIZE), (8, 5)),
    "reader": (lambda: Reader(features=5, tokens=4, dim=6, queries=3, **SIZE), (4, 5)),
    "window": (lambda: Window(features=5, dim=3, **SIZE), (5,)),
    "near window": (lambda: Window(features=5, dim=3, reach=1, **SIZE), (5,)),
}


def told_reader() -> Reader:
    return Reader(features=5, tokens=4, dim=6, queries=3, told=7, **SIZE)


@pytest.mark.parametrize("frame", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_sees_its_goal_and_nothing_after(kind: str, frame: int) -> None:
    build, shape = KINDS[kind]
    part, x = build(), torch.randn(3, 5, *shape)
    other = x.clone()
    other[1, frame] = torch.randn(shape)
    moved = (part.along(other) - part.along(x)).abs().amax(2)
    assert (moved[[0, 2]] == 0).all()
    assert (moved[1, : max(frame - 1, 0)] == 0).all()
    assert (moved[1, max(frame - 1, 0) : frame + 1] > 1e-4).all()  # as the goal, and as the frame left behind


@pytest.mark.parametrize("kind", KINDS)
def test_one_transition_is_the_last_of_its_window(kind: str) -> None:
    build, shape = KINDS[kind]
    part, x = build(), torch.randn(3, 5, *shape)
    whole = part.along(x)
    assert whole.shape == (3, 4, part.dim)
    for end in range(2, 6):
        torch.testing.assert_close(part(x[:, : end - 1], x[:, end - 1]), whole[:, end - 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, "asked"])
def test_all_of_it_learns_and_comes_back_from_disk(kind: str, tmp_path: Path) -> None:
    build, shape = {**KINDS, "asked": (lambda: Asked(features=5, dim=6, queries=2, **SIZE), (4, 5))}[kind]
    part, seen, goal = build(), torch.randn(3, 2, *shape), torch.randn(3, *shape)
    said = part(seen, goal)
    (said * torch.randn_like(said)).sum().backward()
    assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert torch.equal(type(part).load(part.save(tmp_path))(seen, goal), said)
    with torch.autocast("cpu", torch.bfloat16):
        assert part(seen, goal).isfinite().all()


def test_what_stands_still_says_the_same_whatever_it_is() -> None:
    part = KINDS["contrast"][0]()
    still = torch.randn(3, 1, 8, 5).expand(-1, 4, -1, -1)
    said = part.along(still)
    torch.testing.assert_close(said, said[:1, :1].expand(3, 3, -1))
    assert (part.along(torch.randn(3, 4, 8, 5)) - said).abs().amax(2).min() > 1e-3


def test_each_token_of_a_contrast_is_one_part_of_the_grid() -> None:
    part = Contrast(features=5, grid=(4, 6), dim=12, side=2, spatial=0, **SIZE)
    x = torch.randn(1, 2, 24, 5)
    for row in range(4):
        for column in range(6):
            other = x.clone()
            other[0, 1, row * 6 + column] += 1
            moved = (part.along(other) - part.along(x)).view(4, 3).abs().amax(1) > 1e-6
            assert moved.nonzero().flatten().tolist() == [row // 2 * 2 + column // 3]


def test_questions_see_now_and_then_and_which_is_which() -> None:
    part = Asked(features=5, dim=6, queries=2, **SIZE)
    nn.init.normal_(part.read.when)
    seen, goal = torch.randn(3, 4, 4, 5), torch.randn(3, 4, 5)
    said = part(seen, goal)
    past = seen.clone()
    past[:, :-1] = torch.randn(3, 3, 4, 5)
    assert torch.equal(part(past, goal), said)
    assert (part(seen, torch.randn(3, 4, 5)) - said).abs().amax(1).min() > 1e-4
    assert (part(goal[:, None], seen[:, -1]) - said).abs().amax(1).min() > 1e-4


def moved_by(part: Reader, x: Tensor, *, told: Tensor, other: Tensor, known: Tensor | None = None) -> Tensor:
    return (part.along(x, told=other, known=known) - part.along(x, told=told, known=known)).abs().amax((1, 2))


def test_instructions_are_heard_and_their_padding_is_not() -> None:
    part, x, told = told_reader(), torch.randn(3, 4, 4, 5), torch.randn(3, 6, 7)
    assert (moved_by(part, x, told=told, other=torch.randn(3, 6, 7)) > 1e-4).all()
    known = torch.arange(6) < torch.tensor([[6], [2], [0]])
    padded = torch.where(known[..., None], told, torch.randn(3, 6, 7))
    assert (moved_by(part, x, told=told, other=padded, known=known) == 0).all()
    zeros = torch.where(known[..., None], told, 0.0)  # without a word of padding, zeros are it
    assert torch.equal(part.along(x, told=zeros), part.along(x, told=told, known=known))
    torch.testing.assert_close(
        part.along(x[1:2], told=told[1:2, :2]), part.along(x, told=zeros)[1:2], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(part.along(x[2:]), part.along(x, told=zeros)[2:], rtol=1e-4, atol=1e-5)
    assert torch.equal(part(x[:, :3], x[:, 3], told=zeros), part.along(x, told=zeros)[:, -1])
    assert torch.equal(part.along(x, told=told[:, 0]), part.along(x, told=told[:, :1]))  # a sentence is one token


def test_the_ear_for_instructions_learns() -> None:
    part = told_reader()
    part(torch.randn(2, 1, 4, 5), torch.randn(2, 4, 5), told=torch.randn(2, 3, 7)).square().sum().backward()
    assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="7 numbers do not part evenly among 2 tokens"):
        Acting(frame=(8, 8), patch=4, dim=7, tokens=2, **SIZE)
    with pytest.raises(ValueError, match=r"A grid of \(4, 3\) patches does not part into 2 by 2"):
        Contrast(features=5, grid=(4, 3), dim=8, **SIZE)
    with pytest.raises(ValueError, match="none can be heard; build the model with told=7"):
        KINDS["reader"][0]()(torch.randn(2, 1, 4, 5), torch.randn(2, 4, 5), told=torch.randn(2, 3, 7))
    with pytest.raises(ValueError, match=r"Embeddings of shape \(2, 2, 4, 5\)"):
        Window(features=5, dim=3, **SIZE)(torch.randn(2, 1, 4, 5), torch.randn(2, 4, 5))
    with pytest.raises(ValueError, match=r"Features of shape \(2, 2, 5\)"):
        KINDS["reader"][0]()(torch.randn(2, 1, 5), torch.randn(2, 5))
