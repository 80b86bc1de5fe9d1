"""Forward models by attention: each hears its latent and no later frame, and is taught what its method says it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.check import check_latents
from tacit.clip import Clip
from tacit.latents.foresight import Added, Features, Patched, Rolled, Unrolled
from tacit.latents.hindsight import Acting, Asked, Contrast, Reader, Window
from tacit.latents.model import LatentActions
from tacit.parts.conv import Strided
from tacit.parts.mlp import Flat
from tacit.parts.patches import Patches, PatchTransformer
from tacit.parts.quantize import Free
from tacit.parts.slow import Slow

SIDE = (8, 8)
SIZE: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2}


def tokens() -> PatchTransformer:
    """Pictures of eight by eight as four tokens of five numbers."""
    return PatchTransformer(frame=SIDE, patch=4, dim=5, layers=1, heads=1)


def vector() -> Strided:
    return Strided(channels=3, frame=SIDE, width=4, dim=5, stages=(1, 1))


KINDS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {  # each with its features' shape; latents are of six
    "patched": (lambda: Patched(frame=SIDE, patch=4, features=5, dim=6, tokens=3, **SIZE), (4, 5)),
    "added": (lambda: Added(frame=SIDE, patch=4, dim=6, **SIZE), (4, 5)),
    "unrolled": (lambda: Unrolled(frame=SIDE, patch=4, dim=6, **SIZE), (4, 5)),
    "features": (lambda: Features(encoder=tokens(), features=5, tokens=4, dim=6, codes=3, **SIZE), (4, 5)),
    "rolled": (lambda: Rolled(encoder=vector(), features=5, dim=6, **SIZE), (5,)),
}
WINDOWS = ("unrolled", "rolled")


def given(shape: tuple[int, ...], *, frames: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(3, frames, 3, *SIDE) - 0.5, torch.randn(3, frames, *shape), torch.randn(3, frames, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_the_latent_is_heard_and_no_other_clips(kind: str) -> None:
    build, shape = KINDS[kind]
    part, (frames, features, z) = build(), given(shape)
    said = part(frames, features, z[:, -1])
    assert said.shape == part.wanted(frames[:, -1]).shape
    for number in range(6):
        other = z[:, -1].clone()
        other[1, number] += 1
        moved = (part(frames, features, other) - said).abs().flatten(1).amax(1)
        assert (moved[[0, 2]] == 0).all() and moved[1] > 1e-4
    if kind in ("patched", "added", "unrolled"):
        assert said.shape == (3, 3, *SIDE)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_present_counts_where_the_latents_of_the_past_are_not_given(kind: str) -> None:
    build, shape = KINDS[kind]
    part, (frames, features, z) = build(), given(shape)
    said = part(frames, features, z[:, -1])
    later = torch.rand_like(frames) - 0.5, torch.randn_like(features)
    for new, old in zip(later, (frames, features), strict=True):
        new[:, -1] = old[:, -1]
    assert torch.equal(part(*later, z[:, -1]), said)
    reads = [
        (part(torch.rand_like(frames) - 0.5, features, z[:, -1]) - said).abs().max() > 1e-4,
        (part(frames, torch.randn_like(features), z[:, -1]) - said).abs().max() > 1e-4,
    ]
    assert reads == ([True, False] if kind in ("added", "unrolled") else [False, True])


@pytest.mark.parametrize("frame", range(4))
@pytest.mark.parametrize("kind", WINDOWS)
def test_a_window_hears_frames_and_latents_up_to_each_and_no_later(kind: str, frame: int) -> None:
    build, shape = KINDS[kind]
    part, whole = build(), given(shape, frames=4)
    said = part.along(*whole)
    for which in (0, 2) if kind == "unrolled" else (1, 2):
        other = [x.clone() for x in whole]
        other[which][1, frame] = torch.rand_like(other[which][1, frame]) - 0.5
        moved = (part.along(*other) - said).abs().flatten(2).amax(2)
        assert (moved[[0, 2]] == 0).all() and (moved[1, :frame] == 0).all() and (moved[1, frame:] > 1e-5).all()


@pytest.mark.parametrize("kind", WINDOWS)
def test_one_step_is_the_last_of_a_window(kind: str) -> None:
    build, shape = KINDS[kind]
    part, (frames, features, z) = build(), given(shape)
    assert torch.equal(part(frames, features, z), part.along(frames, features, z)[:, -1])
    alone = part.along(frames[:, -1:], features[:, -1:], z[:, -1:])[:, 0]
    assert torch.equal(part(frames, features, z[:, -1]), alone)
    short = part.along(frames[:, :2], features[:, :2], z[:, :2])
    torch.testing.assert_close(short, part.along(frames, features, z)[:, :2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_it_learns_and_comes_back_from_disk(kind: str, tmp_path: Path) -> None:
    build, shape = KINDS[kind]
    part, (frames, features, z) = build(), given(shape)
    z = z if kind in WINDOWS else z[:, -1]
    said = part(frames, features, z)
    (said * torch.randn_like(said)).sum().backward()
    weights = {name: p for name, p in part.named_parameters() if p.requires_grad}
    assert [name for name, p in weights.items() if p.grad is None or not p.grad.any()] == []
    assert not any(name.startswith("eye") for name in weights)
    loaded = type(part).load(part.save(tmp_path))
    assert torch.equal(loaded(frames, features, z), said)
    assert torch.equal(loaded.wanted(frames[:, 0]), part.wanted(frames[:, 0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert part(frames, features, z).isfinite().all()


def test_what_it_paints_is_a_picture() -> None:
    for kind in ("added", "unrolled"):
        part = KINDS[kind][0]()
        torch.nn.init.normal_(part.paint.last.weight, std=100)
        frames, features, z = given((4, 5))
        assert 0.49 < part(frames, features, z[:, -1]).abs().max() <= 0.5


def test_the_painter_does_not_teach_the_encoder() -> None:
    part, (frames, features, z) = KINDS["patched"][0](), given((4, 5))
    part(frames, features.requires_grad_(), z[:, -1].requires_grad_()).sum().backward()
    assert features.grad is None


def test_a_rolled_model_teaches_the_encoder_by_what_it_starts_from_and_not_by_where_it_is_to_arrive() -> None:
    eyes = vector()
    part = Rolled(encoder=eyes, features=5, dim=6, **SIZE)
    frames, features, z = given((5,))
    part.along(frames, features.requires_grad_(), z).sum().backward()
    assert features.grad is not None and features.grad.any()
    assert not part.wanted(frames[:, 0]).requires_grad
    with torch.no_grad():
        for weight in eyes.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    part.follow(eyes)
    assert torch.equal(part.wanted(frames[:, 0]), F.normalize(eyes(frames[:, 0]), dim=-1))  # no memory: itself
    slow = Rolled(encoder=eyes, features=5, dim=6, memory=0.9, **SIZE)
    before = slow.wanted(frames[:, 0])
    with torch.no_grad():
        eyes.out.weight.mul_(-1)
    slow.follow(eyes)
    apart = (slow.wanted(frames[:, 0]) - before).norm() / (F.normalize(eyes(frames[:, 0]), dim=-1) - before).norm()
    assert 0 < apart < 0.5


def test_only_the_direction_of_a_rolled_guess_counts() -> None:
    part, wanted = KINDS["rolled"][0](), torch.randn(4, 3, 5)
    assert float(part.cost(3 * wanted, wanted)) == pytest.approx(0, abs=1e-6)
    assert float(part.cost(-wanted, wanted)) == pytest.approx(2, abs=1e-6)
    guess = torch.randn(4, 3, 5)
    angles = [torch.dot(a, b) / a.norm() / b.norm() for a, b in zip(guess.view(-1, 5), wanted.view(-1, 5), strict=True)]
    torch.testing.assert_close(part.cost(guess, wanted), 1 - torch.stack(angles).mean())
    part = KINDS["features"][0]()
    torch.testing.assert_close(part.cost(guess, wanted), (guess - wanted).square().mean())


def test_an_encoder_without_weights_is_looked_through_and_not_copied() -> None:
    look = Flat(frame=SIDE)
    part, frames = Rolled(encoder=look, features=64, dim=2, **SIZE), torch.rand(2, 3, *SIDE)
    part.follow(look)
    assert part.eye is look and torch.equal(part.wanted(frames), F.normalize(look(frames), dim=-1))


def test_features_hear_instructions_but_not_their_padding() -> None:
    part = Features(encoder=tokens(), features=5, tokens=4, dim=6, codes=3, told=7, **SIZE)
    frames, features, z = given((4, 5))
    told, known = torch.randn(3, 6, 7), torch.arange(6) < torch.tensor([[6], [2], [0]])
    said = part(frames, features, z[:, -1], told=told, known=known)
    said.sum().backward()
    assert part.listen is not None and part.listen.weight.grad is not None and part.listen.weight.grad.any()
    padded = torch.where(known[..., None], told, torch.randn(3, 6, 7))
    assert torch.equal(part(frames, features, z[:, -1], told=padded, known=known), said)
    zeros = torch.where(known[..., None], told, 0.0)
    assert torch.equal(part(frames, features, z[:, -1], told=zeros), said)
    torch.testing.assert_close(part(frames, features, z[:, -1])[2], said[2])  # the third is told nothing
    assert (part(frames, features, z[:, -1], told=told) - said).abs().amax((1, 2))[1:].min() > 1e-4
    with pytest.raises(ValueError, match="none can be heard"):
        KINDS["features"][0]()(frames, features, z[:, -1], told=told)


def test_what_does_not_fit_is_refused() -> None:
    frames, features, z = given((4, 5))
    for kind in KINDS:
        with pytest.raises(ValueError, match="Latents of shape"):
            KINDS[kind][0]()(frames, torch.randn(3, 3, *KINDS[kind][1]), z[:, -1, :4])
    with pytest.raises(ValueError, match="one is no choice: take Added"):
        Patched(frame=SIDE, patch=4, features=5, dim=6, tokens=1, **SIZE)
    with pytest.raises(ValueError, match="Features of shape"):
        KINDS["patched"][0]()(frames, features[:, :, :3], z[:, -1])
    with pytest.raises(ValueError, match="6 numbers do not part evenly among 4 tokens"):
        Features(encoder=tokens(), features=5, tokens=4, dim=6, codes=4, **SIZE)


# -- the methods, whole --------------------------------------------------------------------------------------------


def lapa() -> LatentActions:
    inverse = Contrast(features=8, grid=(2, 2), dim=8, side=2, spatial=1, **SIZE)
    forward = Patched(frame=SIDE, patch=4, features=8, dim=8, **SIZE)
    return LatentActions(
        encoder=Patches(frame=SIDE, patch=4, dim=8), inverse=inverse, bottleneck=Free(8), forward=forward
    )


def genie() -> LatentActions:
    inverse, forward = Acting(frame=SIDE, patch=4, dim=4, **SIZE), Unrolled(frame=SIDE, patch=4, dim=4, **SIZE)
    return LatentActions(inverse=inverse, bottleneck=Free(4), forward=forward, past=2, along=True)


def adaworld() -> LatentActions:
    inverse, forward = Acting(frame=SIDE, patch=4, dim=4, **SIZE), Added(frame=SIDE, patch=4, dim=4, **SIZE)
    return LatentActions(inverse=inverse, bottleneck=Free(4), forward=forward)


def univla() -> LatentActions:
    eyes = Slow(tokens(), memory=1.0)
    inverse = Reader(features=5, tokens=4, dim=8, **SIZE)
    forward = Features(encoder=eyes, features=5, tokens=4, dim=8, **SIZE)
    return LatentActions(encoder=eyes, inverse=inverse, bottleneck=Free(8), forward=forward)


def asking() -> LatentActions:
    forward = Added(frame=SIDE, patch=4, dim=4, **SIZE)
    return LatentActions(
        encoder=tokens(), inverse=Asked(features=5, dim=4, queries=2, **SIZE), bottleneck=Free(4), forward=forward
    )


def dynamo() -> LatentActions:
    eyes = vector()
    inverse, forward = Window(features=5, dim=3, **SIZE), Rolled(encoder=eyes, features=5, dim=3, **SIZE)
    return LatentActions(encoder=eyes, inverse=inverse, bottleneck=Free(3), forward=forward, past=2, along=True)


@pytest.mark.parametrize("method", [lapa, genie, adaworld, univla, asking, dynamo])
def test_a_whole_method_keeps_the_promises_of_latent_actions(method: Callable[[], LatentActions]) -> None:
    check_latents(method(), Clip(frames=torch.randint(256, (4, 5, 3, *SIDE), dtype=torch.uint8)))
