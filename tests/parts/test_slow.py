"""Slow copies: they follow by the stated share, never learn by themselves, and come back from disk as they were."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tacit.part import Part
from tacit.parts.books import VQ
from tacit.parts.conv import Mlp
from tacit.parts.slow import Slow


class Owner(Part):
    """A model with a target, wired as the docstring of ``Slow`` says."""

    def __init__(self, part: Part, memory: float = 0.9) -> None:
        self.part, self.slow = part, Slow(part, memory=memory)

    def after_step(self) -> None:
        super().after_step()
        self.slow.follow(self.part)


def small() -> Mlp:
    return Mlp(inputs=3, dim=2, width=8)


def test_follows_by_one_part_in_ten() -> None:
    owner = Owner(small(), memory=0.9)
    before = {name: p.clone() for name, p in owner.part.named_parameters()}
    with torch.no_grad():
        for p in owner.part.parameters():
            p.add_(1.0)
    for steps in (1, 2):
        owner.after_step()
        for name, p in owner.slow.part.named_parameters():
            torch.testing.assert_close(p, before[name] + 1 - 0.9**steps)


def test_nothing_reaches_the_copy_but_following() -> None:
    owner = Owner(small())
    x = torch.randn(4, 3)
    loss = (owner.part(x) - owner.slow(x) + 1).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in owner.part.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in owner.slow.parameters())
    assert not {id(p) for p in owner.slow.parameters()} & {id(p) for p in owner.part.parameters()}
    assert not owner.slow(x).requires_grad
    before = [p.clone() for p in owner.slow.parameters()]
    owner.slow.after_step()
    assert all(torch.equal(a, b) for a, b in zip(before, owner.slow.parameters(), strict=True))


def test_the_copy_takes_no_part_in_training_mode() -> None:
    class Sampled(Part):
        def __init__(self) -> None:
            self.drop, self.vq = nn.Dropout(0.5), VQ(groups=1, tokens=1, dim=4, codes=4)

        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return self.drop(self.vq(x).z)

    owner = Owner(Sampled()).train()
    x = torch.randn(16, 4)
    assert owner.part.training and not owner.slow.part.training
    assert torch.equal(owner.slow(x), owner.slow(x))
    assert not owner.slow.part.get_buffer("vq.hits").any()
    owner.part(x)
    owner.after_step()
    for name, buffer in owner.part.named_buffers():  # what is counted is copied as it is
        assert torch.equal(owner.slow.part.get_buffer(name), buffer), name


def test_saved_and_loaded_is_the_same(tmp_path: object) -> None:
    owner = Owner(small())
    with torch.no_grad():
        owner.part.out.weight.add_(1.0)
    owner.after_step()
    loaded = Owner.load(owner.save(str(tmp_path)), classes=[Owner])
    assert loaded.slow.memory == 0.9
    for (name, a), (_, b) in zip(owner.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert not any(p.requires_grad for p in loaded.slow.parameters())
    assert not torch.equal(loaded.slow.part.out.weight, loaded.part.out.weight)


@pytest.mark.parametrize("memory", [-0.1, 1.1])
def test_memory_out_of_range_is_refused(memory: float) -> None:
    with pytest.raises(ValueError, match="0 copies at once"):
        Slow(small(), memory=memory)


def test_following_a_stranger_is_refused() -> None:
    with pytest.raises(ValueError, match=r"norms\.3|spread\.3|gather\.3"):
        Slow(small()).follow(Mlp(inputs=3, dim=2, width=8, depth=4))
