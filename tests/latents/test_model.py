"""The latent action model: all of it learns, it is deaf to what is not its to hear, on pictures and on states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tacit.clip import Clip
from tacit.latents.forward import Change
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions
from tacit.parts.mlp import Flat, Layers
from tacit.parts.quantize import Free


def test_between_looks_at_now_and_then_only() -> None:
    inverse, seen, goal = Between(features=4, dim=2, width=8), torch.randn(3, 5, 4), torch.randn(3, 4)
    z, past = inverse(seen, goal), seen.clone()
    past[:, :-1] += 1
    assert torch.equal(inverse(past, goal), z)
    assert not torch.equal(inverse(seen, goal + 1), z)
    past[:, -1] += 1
    assert not torch.equal(inverse(past, goal), z)


def test_change_adds_to_the_present() -> None:
    forward = Change(encoder=Flat(frame=(2, 2)), features=4, dim=2, depth=0)
    features, z = torch.randn(3, 2, 4), torch.randn(3, 2)
    with torch.no_grad():
        for weight in forward.parameters():
            weight.zero_()
    assert torch.equal(forward(torch.randn(3, 2, 3, 2, 2), features, z), features[:, -1])
    frames = torch.rand(3, 3, 2, 2)
    assert torch.equal(forward.wanted(frames), Flat(frame=(2, 2))(frames))


def test_a_model_of_them_learns_everywhere_and_comes_back_from_disk(tmp_path: Path) -> None:
    look = Flat(frame=(4, 4))
    model = LatentActions(
        encoder=look,
        inverse=Between(features=16, dim=2, width=8),
        bottleneck=Free(2),
        forward=Change(encoder=look, features=16, dim=2, width=8),
        shift=1,
        cyclic=True,
    )
    clip = Clip(frames=torch.randint(256, (6, 2, 3, 4, 4), dtype=torch.uint8))
    model.loss(clip)[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    again = LatentActions.load(model.eval().save(tmp_path))
    assert (again.shift, again.cyclic) == (1, True)
    assert torch.equal(again.infer(clip), model.infer(clip))


def test_a_target_that_would_learn_to_see_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="Layers learns"):
        Change(encoder=Layers(inputs=4, dim=4), features=4, dim=2)
