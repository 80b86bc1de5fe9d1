"""Two bottlenecks beside each other: the old one stays as it is, and the new one alone is the latent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tacit.parts.beside import Beside
from tacit.parts.books import Learnt
from tacit.parts.quantize import Free
from tacit.parts.rotation import Rotation


def book(dim: int = 3) -> Learnt:
    return Learnt(tokens=2, dim=dim, codes=4, cosine=False, patience=2, every=1)


def both(*, alone: float = 0.5) -> Beside:
    torch.manual_seed(0)
    old = book()
    for _ in range(3):
        old.train()(torch.randn(32, old.width))
        old.after_step()
    return Beside(old, book(2), alone=alone)


def test_the_latent_is_the_new_one_and_the_old_one_is_told_besides_in_training() -> None:
    part, x = both(), torch.randn(64, 10)
    found = part.eval()(x)
    assert found.z.shape == (64, part.dim) == (64, 4) and found.codes.shape == (64, 2)
    assert torch.equal(found.z, part.new(x[:, 6:]).z) and torch.allclose(part.embed(found.codes), found.z, atol=1e-6)
    assert torch.equal(found.beside, part.old(x[:, :6]).z)
    other = torch.cat([x[:, :6], torch.randn(64, 4)], 1)
    assert torch.equal(part(other).beside, found.beside)


def test_the_new_ones_latents_compose_as_they_do_without_the_old_one() -> None:
    new = Rotation(1, size=2)
    part, (a, b) = Beside(Free(1), new), new(torch.randn(2, 1)).z.unbind()
    assert torch.equal(part.compose(a, b), new.compose(a, b)) and torch.equal(part.inverse(a), new.inverse(a))
    assert torch.equal(part.identity, new.identity)


def test_a_share_of_samples_goes_without_and_teaches_the_new_one_nothing() -> None:
    part, x = both(), torch.randn(400, 10, requires_grad=True)
    with torch.no_grad():
        part.blank.fill_(7.0)
    found = part.train()(x)
    lost = (found.beside == 7).all(1)
    assert 0.4 < float(lost.float().mean()) < 0.6
    torch.cat([found.z, found.beside], 1).sum().backward()
    heard = x.grad.abs() > 0  # type: ignore[union-attr]
    assert not heard[lost].any() and heard[~lost].all()
    assert part.blank.grad is not None and part.blank.grad.tolist() == [int(lost.sum())] * 6


def test_the_old_book_neither_learns_nor_counts_nor_is_set_down_anew() -> None:
    given = book()
    part = Beside(given, book(2))
    before = {name: value.clone() for name, value in part.old.state_dict().items()}
    for _ in range(8):
        part.train()
        found = part(torch.ones(4, 10))  # all alike: codes that nothing chooses die
        (found.loss + found.beside.sum() + found.z.sum()).backward()
        part.after_step()
    assert all(torch.equal(value, before[name]) for name, value in part.old.state_dict().items())
    assert not part.old.training and part.old.book.grad is None
    assert int(part.new.clock) == 9 and int(part.new.resets) > 0
    assert given.book.requires_grad  # the first stage's own stays as it is


def test_it_comes_back_from_disk_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    part, x = both().eval(), torch.randn(5, 10)
    again = Beside.load(part.save(tmp_path))
    assert torch.equal(again(x).z, part(x).z) and torch.equal(again(x).beside, part(x).beside)
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        Beside(Free(2), Free(2), alone=0.0)
