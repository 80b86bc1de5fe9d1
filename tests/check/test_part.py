"""Every part of tacit keeps what a part promises, and a double that breaks one promise is refused by its name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tacit
from tacit.check import Broken, check_latents, check_part
from tacit.clip import Clip, Space
from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board
from tacit.latents.decode import Decoder
from tacit.latents.denoise import Denoised
from tacit.latents.dream import Dreamer
from tacit.latents.foresight import Added, Features, Foreseen, Patched, Raw, Rolled, Unrolled
from tacit.latents.forward import Ahead, Change, Moved, Onward, Painted, Pixels
from tacit.latents.hindsight import Acting, Asked, Contrast, Reader, Window
from tacit.latents.inverse import Between, Difference, Pair, Stacked
from tacit.latents.model import LatentActions
from tacit.latents.signals import Arrow, Body, Composition, Covariance, Flowing, Motion, Null, Reversal, Signal
from tacit.latents.stated import Alone, Onto, Stated, Wrapped
from tacit.latents.supervised import Multistep, Supervised
from tacit.part import Part
from tacit.parts.attention import Causal, Queries, SpaceTime
from tacit.parts.beside import Beside
from tacit.parts.books import NSVQ, VQ, Books, Learnt, Residual
from tacit.parts.conv import Impala, Mlp, Strided
from tacit.parts.features import Frozen
from tacit.parts.flow import Flow
from tacit.parts.keypoints import Keypoints, Repaint
from tacit.parts.language import Sentences
from tacit.parts.manifold import Manifold, Within
from tacit.parts.masks import Moving
from tacit.parts.mlp import Flat, Layers
from tacit.parts.nested import Nested
from tacit.parts.outputs import Head
from tacit.parts.patches import Patches, PatchTransformer, Pictures, Squeezed
from tacit.parts.pretrained import Borrowed
from tacit.parts.quantize import FSQ, LFQ, Bottleneck, Free, Gaussian, Sparse
from tacit.parts.rotation import Rotation
from tacit.parts.slow import Slow
from tacit.parts.unet import UNet
from tacit.parts.units import Units
from tacit.policies.chunked import Chunked
from tacit.policies.cloning import Cloning, Following
from tacit.policies.inferring import Inferring
from tacit.policies.instructed import Instructed
from tacit.policies.joystick import Joystick
from tacit.policies.led import Led
from tacit.policies.policy import Policy
from tacit.policies.predictive import Predictive
from tacit.worlds.belief import Belief

SIDE = (16, 16)
PLANE, FIVE = Space("continuous", 2), Space("discrete", 5)
SLIGHT: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2}
BOARD = Board(size=16, goal=False)


@pytest.fixture(scope="module")
def data() -> Episodes:
    """Ten episodes of dots that move as told."""
    return toys.dots(BOARD, episodes=10, length=12).episodes


@pytest.fixture(scope="module")
def clip(data: Episodes) -> Clip:
    return data.clips(5).batch(np.arange(0, 64, 8))


def pictures(channels: int = 3, *, count: int = 4) -> Tensor:
    return torch.rand(count, channels, *SIDE) - 0.5


def seen(frames: int = 1) -> Tensor:
    """Pictures up to the present one, (B, T, C, H, W)."""
    return torch.rand(4, frames, 3, *SIDE) - 0.5


def tokens(*frames: int) -> Tensor:
    """Four tokens of four numbers for each of four pictures, or for so many frames of four clips."""
    return torch.randn(4, *frames, 4, 4)


def eyes() -> Keypoints:
    return Keypoints(frame=SIDE, points=2, width=8)


def pilot(**kind: Any) -> Cloning:
    return Cloning(encoder=eyes(), features=4, past=1, width=16, **kind)


def found() -> LatentActions:
    return LatentActions(
        encoder=eyes(), inverse=Difference(features=4), bottleneck=Free(4), forward=Moved(frame=SIDE, points=2, width=8)
    )


def decoding() -> Decoder:
    """A decoder with none of its map at zero, where nothing would tell it from an empty one."""
    decoder = Decoder(space=PLANE, latent=4, features=4)
    for buffer in decoder.buffers():
        nn.init.normal_(buffer, 1, 0.1)
    return decoder


# -- every part ----------------------------------------------------------------------------------------------------

ABSTRACT = {Part, Policy, Onward, Pixels, Raw, Foreseen, Bottleneck, Books, Signal, Borrowed, Wrapped}
TOLD = (torch.linspace(-1, 1, 16).view(4, 4), torch.linspace(1, 0, 16).view(4, 4), torch.linspace(0, 1, 16).view(4, 4))
INSIDE: dict[type[Part], Callable[[], tuple[Part, tuple[Any, ...]]]] = {
    Impala: lambda: (Impala(channels=3, frame=SIDE, width=1, dim=8), (pictures(),)),
    Strided: lambda: (Strided(channels=3, frame=SIDE, width=4, dim=8), (pictures(),)),
    Mlp: lambda: (Mlp(inputs=4, dim=3, width=8, depth=2), (TOLD[0],)),
    Layers: lambda: (Layers(inputs=4, dim=3, width=8), (TOLD[0],)),
    Flat: lambda: (Flat(frame=SIDE), (pictures(),)),
    Between: lambda: (Between(features=4, dim=3, width=8), (TOLD[0][:, None], TOLD[1])),
    Change: lambda: (
        Change(encoder=Flat(frame=SIDE), features=256, dim=4, width=8), (seen(), torch.rand(4, 1, 256), TOLD[0])
    ),
    UNet: lambda: (UNet(channels=3, frame=SIDE, base=8, dim=4), (pictures(), TOLD[0])),
    Keypoints: lambda: (eyes(), (pictures(),)),
    Repaint: lambda: (Repaint(frame=SIDE, points=2, width=8), (seen(), TOLD[0][:, None], TOLD[1])),
    Slow: lambda: (Slow(Strided(channels=3, frame=SIDE, width=4, dim=8)), (pictures(),)),
    Flow: lambda: (Flow(), (pictures(), pictures())),
    Free: lambda: (Free(4), (TOLD[0],)),
    Gaussian: lambda: (Gaussian(2), (TOLD[0],)),
    VQ: lambda: (VQ(groups=1, tokens=2, dim=2, codes=4), (TOLD[0],)),
    Learnt: lambda: (Learnt(groups=1, tokens=2, dim=2, codes=4), (TOLD[0],)),
    NSVQ: lambda: (NSVQ(groups=1, tokens=2, dim=2, codes=4), (TOLD[0],)),
    Residual: lambda: (Residual(NSVQ(groups=1, tokens=2, dim=2, codes=4), stages=2), (TOLD[0],)),
    FSQ: lambda: (FSQ((5, 3), groups=2), (TOLD[0],)),
    LFQ: lambda: (LFQ(2, groups=2), (TOLD[0],)),
    Sparse: lambda: (Sparse(4), (TOLD[0],)),
    Rotation: lambda: (Rotation(4, size=2), (TOLD[0],)),
    Nested: lambda: (Nested(Free(4), slots=4), (TOLD[0],)),
    Within: lambda: (Within(features=4, prior=Manifold(space=PLANE, dim=1, width=8), apart=0.1), (TOLD[0],)),
    Head: lambda: (Head(features=4, space=FIVE, width=8), (TOLD[0],)),
    Stacked: lambda: (Stacked(frame=SIDE, frames=2, dim=4, width=1, features=8), (seen(), pictures())),
    Pair: lambda: (Pair(features=4, dim=3, width=8, blocks=1), (TOLD[0][:, None], TOLD[1])),
    Difference: lambda: (Difference(features=4), (TOLD[0][:, None], TOLD[1])),
    Painted: lambda: (Painted(frame=SIDE, frames=1, dim=4, base=8), (seen(), seen(), TOLD[0])),
    Moved: lambda: (Moved(frame=SIDE, points=2, width=8), (seen(), TOLD[0][:, None], TOLD[1])),
    Ahead: lambda: (
        Ahead(encoder=eyes(), features=4, dim=4, width=8, blocks=1), (seen(), TOLD[0][:, None], TOLD[1])
    ),
    Patches: lambda: (Patches(frame=SIDE, patch=8, dim=8), (pictures(),)),
    Pictures: lambda: (Pictures(frame=SIDE, patch=8, dim=4), (tokens(),)),
    PatchTransformer: lambda: (
        PatchTransformer(frame=SIDE, patch=8, dim=8, layers=1, heads=2, pooled=True), (pictures(),)
    ),
    Causal: lambda: (Causal(dim=4, layers=1, heads=2), (tokens(),)),
    SpaceTime: lambda: (SpaceTime(dim=4, layers=1, heads=2, extra=1), (tokens(3),)),
    Queries: lambda: (Queries(features=4, dim=8, queries=2, heads=2), (tokens(),)),
    Acting: lambda: (Acting(frame=SIDE, patch=8, dim=2, **SLIGHT), (seen(), pictures())),
    Contrast: lambda: (Contrast(features=4, grid=(2, 2), dim=4, spatial=1, **SLIGHT), (tokens(1), tokens())),
    Reader: lambda: (Reader(features=4, tokens=4, dim=4, **SLIGHT), (tokens(1), tokens())),
    Asked: lambda: (Asked(features=4, dim=4, **SLIGHT), (tokens(1), tokens())),
    Window: lambda: (Window(features=4, dim=2, **SLIGHT), (TOLD[0][:, None], TOLD[1])),
    Patched: lambda: (
        Patched(frame=SIDE, patch=8, features=4, dim=4, tokens=2, **SLIGHT), (seen(), tokens(1), TOLD[0])
    ),
    Added: lambda: (Added(frame=SIDE, patch=8, dim=4, **SLIGHT), (seen(), seen(), TOLD[0])),
    Unrolled: lambda: (Unrolled(frame=SIDE, patch=8, dim=4, **SLIGHT), (seen(4), seen(4), tokens())),
    Features: lambda: (
        Features(encoder=Patches(frame=SIDE, patch=8, dim=4), features=4, tokens=4, dim=4, **SLIGHT),
        (seen(), tokens(1), TOLD[0]),
    ),
    Rolled: lambda: (Rolled(encoder=eyes(), features=4, dim=4, **SLIGHT), (seen(4), tokens(), tokens())),
    Decoder: lambda: (decoding(), TOLD),
    Beside: lambda: (Beside(Free(2), Free(2), alone=0.5), (TOLD[0],)),
    Moving: lambda: (Moving(), (seen(2),)),
    Squeezed: lambda: (
        Squeezed(Patches(frame=SIDE, patch=8, dim=4), features=4, dim=2, layers=1, heads=1), (pictures(),)
    ),
    Stated: lambda: (Stated(state=3, features=4, dim=4, width=8), (torch.ones(4, 1, 3), TOLD[0][:, None], TOLD[1])),
    Onto: lambda: (Onto(Added(frame=SIDE, patch=8, dim=4, **SLIGHT)), (seen(), seen(), TOLD[0])),
    Alone: lambda: (Alone(Added(frame=SIDE, patch=8, dim=4, **SLIGHT), Moving()), (seen(), seen(), TOLD[0])),
    Denoised: lambda: (Denoised(frame=SIDE, patch=8, dim=4, **SLIGHT), (seen(), seen(), TOLD[0])),
}  # fmt: skip


class Lengths(Part):
    """A language in which a text means how long it is."""

    def forward(self, texts: tuple[str, ...]) -> Tensor:  # type: ignore[override]
        return torch.tensor([[float(len(text)), 1.0] for text in texts])


def believing() -> Belief:
    return Belief(space=PLANE, features=4, seen=768, encoder=eyes(), hidden=8, unsure=3)


WHOLE: dict[type[Part], Callable[[], Part]] = {
    Multistep: lambda: Multistep(encoder=eyes(), features=4, space=PLANE, reach=3, width=8),
    Dreamer: lambda: Dreamer(latents=found(), features=4, width=8),
    Manifold: lambda: Manifold(space=PLANE, dim=1, width=8),
    Chunked: lambda: Chunked(encoder=eyes(), features=4, units=Units(space=PLANE, size=6, letters=4, longest=2)),
    Led: lambda: Led(encoder=eyes(), features=4, prior=Manifold(space=PLANE, dim=1, width=8), width=16, apart=0.1),
    Predictive: lambda: Predictive(
        encoder=eyes(), features=4, paint=Repaint(frame=SIDE, points=2, width=8), space=PLANE, width=8
    ),
    Belief: believing,
    Inferring: lambda: Inferring(world=believing(), width=8),
    Instructed: lambda: Instructed(
        encoder=eyes(), features=4, space=PLANE, window=5, language=Lengths(), told=2, dim=2, width=8
    ),
    Joystick: lambda: Joystick(language=Lengths(), told=2, space=PLANE, features=4, encoder=eyes(), width=8),
    LatentActions: found,
    Supervised: lambda: Supervised(encoder=eyes(), features=4, head=Head(features=12, space=PLANE)),
    Cloning: lambda: pilot(space=PLANE),
}
# Has no loss: tried as a policy, below. Have none of their own: tried in a model, in tests/latents/test_signals.py.
# Take an extra: tried in tests/parts/test_features.py and test_language.py.
ELSEWHERE = {Following, Units, Arrow, Body, Composition, Covariance, Flowing, Motion, Null, Reversal, Frozen, Sentences}


def every_part() -> set[type[Part]]:
    for module in pkgutil.walk_packages(tacit.__path__, "tacit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds, found = [Part], set[type[Part]]()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found |= {kind} if kind.__module__.startswith("tacit.") else set()
    return found


def test_every_part_of_tacit_is_checked() -> None:
    here: set[type[Part]] = {*ABSTRACT, *INSIDE, *WHOLE, *ELSEWHERE}
    assert {k.__name__ for k in every_part()} == {k.__name__ for k in here}


@pytest.mark.parametrize("kind", INSIDE)
def test_a_part_inside_a_model_keeps_its_promises(kind: type[Part]) -> None:
    part, inputs = INSIDE[kind]()
    check_part(part, inputs=inputs)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_model_keeps_its_promises(kind: type[Part], clip: Clip) -> None:
    check_part(WHOLE[kind](), clip.replace(text=("go", "stay here") * 4))


class Plain(Part):
    """Reads the actions of the clip from its state, well; the doubles below each spoil one thing."""

    count: Tensor

    def __init__(self, width: int = 4, given: Any = None) -> None:
        super().__init__()
        self.net = nn.Linear(width, 2)
        self.register_buffer("count", torch.tensor(0))
        self.calls = 0

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None and clip.actions is not None
        miss = (self.net(clip.state[:, :-1] / 12) - clip.actions).square().mean()
        return miss, {"miss": miss.detach()}


class Nan(Plain):
    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        return super().loss(clip)[0] / 0, {}


class Wide(Plain):
    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        return super().loss(clip)[0], {"actions": clip.actions}  # type: ignore[dict-item]


class Spare(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


class Rounded(Plain):
    """Rounding has a slope of zero everywhere: the graph is whole and nothing is learnt."""

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.net(clip.state).round() - 1).square().mean() + 0 * super().loss(clip)[0], {}  # type: ignore[arg-type]


class Chancy(Plain):
    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        return super().loss(clip)[0] * float(1 + np.random.default_rng().random()), {}


class Counting(Plain):
    """Counts on its own, where no file will find it."""

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += self.training
        return super().loss(clip)[0] * self.calls, {}


class Watched(Plain):
    """Counts while it is only looked at."""

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        self.count += 1
        return super().loss(clip)


class Scaling(Plain):
    """Normalises the batch where it lies."""

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        clip.state.div_(2)  # type: ignore[union-attr]
        return super().loss(clip)


class Shorn(Plain):
    """Leaves a buffer out of what it saves."""

    slow: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slow", torch.ones(()), persistent=False)

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        return super().loss(clip)[0] * self.slow, {}

    def after_step(self) -> None:
        self.slow *= 2


def test_the_plain_part_is_sound(clip: Clip) -> None:
    check_part(Plain(), clip)


SPOILT: list[tuple[Callable[[], Part], str]] = [
    (Nan, "its loss is one finite number .*the loss is"),
    (Wide, "its loss is one finite number .*'actions' is not one number"),
    (Spare, r"every weight learns: no gradient reached 2 of 4 weights: unused.weight \(not in the graph\)"),
    (Rounded, r"every weight learns: no gradient reached 2 of 2 weights: net.weight \(always zero\)"),
    (Chancy, "it repeats itself"),
    (Counting, "what is saved is the whole of it: after loading the losses go on as"),
    (Shorn, "what is saved is the whole of it: after loading the losses go on as"),
    (lambda: Plain(given=object()), "what is saved is the whole of it: .*argument of type object"),
    (Watched, "looking changes nothing: in evaluation mode it altered count"),
    (Scaling, "looking changes nothing: in evaluation mode it altered the clip"),
]


@pytest.mark.parametrize(("spoilt", "promise"), SPOILT)
def test_a_part_that_breaks_a_promise_is_named(spoilt: Callable[[], Part], promise: str, clip: Clip) -> None:
    with pytest.raises(Broken, match=promise):
        check_part(spoilt(), clip)


def test_a_check_leaves_no_trace(clip: Clip) -> None:
    part = found()
    before, random = {k: v.clone() for k, v in part.state_dict().items()}, torch.get_rng_state()
    check_latents(part, clip)
    assert all(torch.equal(v, before[k]) for k, v in part.state_dict().items()) and part.training
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(p.grad is not None for p in part.parameters())
