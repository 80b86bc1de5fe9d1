"""Forward models of states, and around others: a state is led on, a change added, and a mask says what counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.check import check_latents
from tacit.clip import Clip
from tacit.data.clips import Clips
from tacit.data.toys import linear
from tacit.latents.denoise import Denoised
from tacit.latents.foresight import Added, Unrolled
from tacit.latents.forward import Onward
from tacit.latents.hindsight import Window
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions
from tacit.latents.stated import Alone, Onto, Stated
from tacit.part import Part
from tacit.parts.masks import Moving
from tacit.parts.mlp import Flat, Layers
from tacit.parts.quantize import Free
from tacit.train import Plan, fit

SIZE: dict[str, Any] = {"frame": (8, 8), "patch": 4, "dim": 2, "width": 8, "layers": 1, "heads": 2}


class Half(Part):
    """A segmenter that always sees the left half."""

    def forward(self, pair: Tensor) -> Tensor:  # type: ignore[override]
        mask = torch.zeros(len(pair), 1, *pair.shape[-2:])
        mask[..., : pair.shape[-1] // 2] = 1
        return mask


def states(*, along: bool) -> LatentActions:
    torch.manual_seed(0)
    return LatentActions(
        encoder=Layers(inputs=6, dim=8, width=16, depth=1),
        inverse=Window(features=8, dim=2, width=8, layers=1, heads=2, reach=1),
        bottleneck=Free(2),
        forward=Stated(state=6, features=8, dim=2, width=32),
        of="state",
        along=along,
        past=2,
    )


@pytest.mark.parametrize("along", [False, True])
def test_a_model_of_states_keeps_its_promises_and_learns_what_moves_them(along: bool) -> None:
    toy = linear(episodes=60, length=12, size=6, actions=2, exogenous=1, spread=0.1, noise=0.01)
    made, clips = states(along=along), Clips(toy.episodes, 4)
    check_latents(made, clips.batch(np.arange(0, 80, 10)))
    assert float(made.loss(clips.batch([0, 1]))[1]["fvu"]) == pytest.approx(1)  # it begins by adding nothing
    made = fit(made, clips, None, Plan(steps=150, batch=64, rate=5e-3, warmup=10, log_every=400, device="cpu"))
    clip = clips.batch(np.arange(200))
    with torch.no_grad():
        miss = (made.predict(clip, made.infer(clip)) - made.targets(clip)).square().mean()
    assert clip.state is not None
    assert float(miss) < 0.7 * float(clip.state.diff(dim=1).square().mean())


@pytest.mark.parametrize("kind", [Added, Unrolled])
def test_a_change_is_added_to_the_present(kind: type[Onward]) -> None:
    inner = kind(**SIZE)
    part, seen, z = Onto(inner), torch.rand(3, 2, 3, 8, 8) - 0.5, torch.randn(3, 2)
    torch.testing.assert_close(part(seen, seen, z) - seen[:, -1], inner(seen, seen, z))
    assert torch.equal(part.wanted(seen[:, 0]), seen[:, 0])
    if kind is Unrolled:
        after = part.along(seen, seen, z[:, None].expand(-1, 2, -1))
        torch.testing.assert_close(after - seen, inner.along(seen, seen, z[:, None].expand(-1, 2, -1)))


def test_only_what_the_mask_shows_counts_and_only_that_teaches() -> None:
    part = Alone(Added(**SIZE), Half())
    pair, wanted = torch.rand(4, 2, 3, 8, 8) - 0.5, torch.rand(4, 3, 8, 8)
    guess = wanted.clone()
    guess[..., 4:] += 1
    assert float(part.cost(guess, wanted, pair=pair)) == 0
    guess = (wanted + 0.5).requires_grad_()
    cost = part.cost(guess, wanted, pair=pair)
    assert cost.item() == pytest.approx(0.25)  # a mean over what counts, however little that is
    cost.backward()
    assert guess.grad is not None and guess.grad[..., :4].all() and not guess.grad[..., 4:].any()
    some = Alone(Added(**SIZE), Half(), rest=0.5)
    far = wanted + torch.cat([torch.zeros(4, 3, 8, 4), torch.ones(4, 3, 8, 4)], -1)
    assert float(some.cost(far, wanted, pair=pair)) == pytest.approx(0.5 / 1.5)


def test_tokens_are_masked_by_where_they_lie() -> None:
    part, pair = Alone(Added(**SIZE), Half(), grid=(2, 2)), torch.zeros(1, 2, 3, 8, 8)
    wanted = torch.zeros(1, 4, 5)
    for token, cost in enumerate((0.5, 0, 0.5, 0)):  # row by row: the first and third lie left
        guess = wanted.clone()
        guess[:, token] = 1
        assert float(part.cost(guess, wanted, pair=pair)) == pytest.approx(cost)
    with pytest.raises(ValueError, match="masked by their grid"):
        Alone(Added(**SIZE), Half()).cost(wanted, wanted, pair=pair)


def test_in_a_model_the_mask_sees_the_transition_and_the_rest_may_change_as_it_likes() -> None:
    shown: list[Tensor] = []

    class Seen(Half):
        def forward(self, pair: Tensor) -> Tensor:  # type: ignore[override]
            shown.append(pair)
            return super().forward(pair)

    torch.manual_seed(0)
    model = LatentActions(
        encoder=Flat(frame=(8, 8)), inverse=Between(features=64, dim=2, width=8), bottleneck=Free(2),
        forward=Alone(Added(**SIZE), Seen()),
    )  # fmt: skip
    clip = Clip(frames=torch.rand(6, 2, 3, 8, 8))
    loss = float(model.eval().loss(clip)[1]["fvu"])
    assert clip.frames is not None and torch.equal(shown[0], clip.frames - 0.5)
    held = model.bottleneck(torch.randn(6, 2))
    model.bottleneck.forward = lambda x: held  # type: ignore[method-assign,misc,assignment]
    loss = float(model.loss(clip)[0])
    other = clip.map(torch.clone)
    other.frames[:, 1, ..., 4:] = torch.rand(6, 3, 8, 4)  # type: ignore[index]
    assert float(model.loss(other)[0]) == loss
    other.frames[:, 1, ..., :4] = torch.rand(6, 3, 8, 4)  # type: ignore[index]
    assert float(model.loss(other)[0]) != loss


def test_a_masked_model_and_one_that_adds_keep_their_promises() -> None:
    torch.manual_seed(0)
    model = LatentActions(
        encoder=Flat(frame=(8, 8)), inverse=Between(features=64, dim=2, width=8), bottleneck=Free(2),
        forward=Alone(Onto(Added(**SIZE)), Moving(), rest=0.1),
    )  # fmt: skip
    check_latents(model, Clip(frames=torch.rand(6, 3, 3, 8, 8)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="use it alone"):
        Onto(Denoised(**SIZE))
    with pytest.raises(ValueError, match="one mask is enough"):
        Alone(Alone(Added(**SIZE), Half()), Half())
    with pytest.raises(ValueError, match="gave a mask"):
        Alone(Added(**SIZE), Flat(frame=(8, 8))).cost(
            torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), pair=torch.zeros(2, 2, 3, 8, 8)
        )
