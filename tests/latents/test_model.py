"""The latent action model: all of it learns, it is deaf to what is not its to hear, on pictures and on states."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tacit.check import check_latents
from tacit.clip import Clip, Space, each, floats
from tacit.latents.foresight import Features, Rolled
from tacit.latents.forward import Change, Painted
from tacit.latents.hindsight import Reader, Window
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions
from tacit.latents.signals import Composition, Signal
from tacit.part import Part
from tacit.parts.conv import Strided
from tacit.parts.mlp import Flat, Layers
from tacit.parts.outputs import Head
from tacit.parts.patches import PatchTransformer
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


def test_jitter_gives_both_models_one_light_and_leaves_evaluation_alone() -> None:
    look = Flat(frame=(4, 4))
    given: list[torch.Tensor] = []

    class Looked(Between):
        def forward(self, seen: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            given.append(torch.cat([seen, goal[:, None]], 1).mean(-1))
            return super().forward(seen, goal)

    model = LatentActions(
        encoder=look,
        inverse=Looked(features=look.dim, dim=2, width=8),
        bottleneck=Free(2),
        forward=Change(encoder=look, features=look.dim, dim=2, width=8),
        jitter=0.2,
    )
    clip = Clip(frames=torch.full((64, 2, 3, 4, 4), 128, dtype=torch.uint8))
    step: list[torch.Tensor] = []
    model.onward.cost = lambda guess, wanted: step.append(wanted) or (guess - wanted).square().mean()  # type: ignore[method-assign,assignment,func-returns-value]
    model.loss(clip)
    light = given[0][:, 0]
    assert torch.equal(given[0][:, 0], given[0][:, 1])  # of both frames
    assert 0.1 < float(light.max() - light.min()) <= 0.4
    assert torch.allclose(step[0].mean(-1), given[0][:, 1])  # of the target too
    model.infer(clip)
    assert float(given[1].std()) == 0
    with pytest.raises(ValueError, match="no jitter"):
        LatentActions(inverse=Between(features=4, dim=2), bottleneck=Free(2), forward=look, of="state", jitter=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"of": "latents"}, {"past": -1}, {"reach": 0}, {"shift": -1}, {"jitter": -0.1}, {"jitter": math.nan},
        {"weight": -1.0}, {"weight": math.nan},
    ],
)  # fmt: skip
def test_knobs_that_cannot_be_are_refused_by_name(wrong: dict[str, Any]) -> None:
    look, [(name, value)] = Flat(frame=(4, 4)), wrong.items()
    with pytest.raises(ValueError, match=f"Given .*{name}={value!r}.*; wanted"):
        LatentActions(
            encoder=look, inverse=Between(features=16, dim=2), bottleneck=Free(2),
            forward=Change(encoder=look, features=16, dim=2), **wrong,
        )  # fmt: skip


# -- whole windows, states, instructions, several cameras ----------------------------------------------------------

SLIGHT: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2}


def window(
    *,
    of: Any = "frames",
    past: int = 2,
    reach: int | None = None,
    label: Part | None = None,
    signals: tuple[Signal, ...] = (),
) -> LatentActions:
    """A model that learns from every transition of a clip."""
    torch.manual_seed(0)
    eyes: Any = (
        Layers(inputs=3, dim=8) if of == "state" else Strided(channels=3, frame=(8, 8), width=4, dim=8, stages=(1,))
    )
    size: dict[str, Any] = {"features": 8, "dim": 2, "reach": reach, **SLIGHT}
    return LatentActions(
        encoder=eyes, inverse=Window(**size), bottleneck=Free(2), forward=Rolled(encoder=eyes, memory=0.9, **size),
        along=True, past=past, of=of, label=label, signals=signals,
    )  # fmt: skip


def clips(*, frames: int, batch: int = 4) -> dict[str, Clip]:
    seen = torch.randint(256, (batch, frames, 3, 8, 8), dtype=torch.uint8)
    return {"frames": Clip(frames=seen), "state": Clip(state=torch.randn(batch, frames, 3))}


@pytest.mark.parametrize("of", ["frames", "state"])
def test_along_a_long_clip_each_transition_is_as_in_its_own_window(of: str) -> None:
    model, clip = window(of=of).eval(), clips(frames=9)[of]
    with torch.no_grad():
        z = model.infer(clip)
        guess, goal = model.predict(clip, z), model.targets(clip)
        for t in range(8):
            begin = max(0, t - model.past)
            own = clip.steps(begin, t + 2)  # past, present and goal: at most past + 2
            torch.testing.assert_close(model.latest(own), z[:, t], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model.infer(own)[:, -1], z[:, t], rtol=1e-4, atol=1e-5)
            said = model.predict(own, z[:, begin : t + 1])
            torch.testing.assert_close(said[:, -1], guess[:, t], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model.targets(own)[:, -1], goal[:, t], rtol=1e-4, atol=1e-5)


def looking(past: int, stack: int = 1) -> LatentActions:
    """A model to which each frame that it looks at matters."""
    torch.manual_seed(0)
    size = {"frame": (8, 8), "width": 4, "dim": 8, "stages": (1,)}
    painted = Painted(frame=(8, 8), frames=past + 1, dim=2, base=4)
    return LatentActions(
        encoder=Strided(channels=3 * stack, **size), inverse=Looking(frames=past + 2), bottleneck=Free(2),  # type: ignore[arg-type]
        forward=painted if stack == 1 else Change(encoder=Flat(frame=(8, 8)), features=8, dim=2),
        past=past, stack=stack,
    ).eval()  # fmt: skip


@pytest.mark.parametrize(("past", "stack"), [(0, 1), (2, 1), (0, 3), (1, 2)])
def test_the_last_transition_alone_is_as_among_the_others(past: int, stack: int) -> None:
    """Inferred and predicted alone it is what it is among others, of clips longer and shorter than what is seen."""
    model = looking(past, stack)
    for frames in (2, model.past + 2, 7):
        clip = clips(frames=frames)["frames"]
        with torch.no_grad():
            z = model.infer(clip)
            torch.testing.assert_close(model.latest(clip), z[:, -1], rtol=1e-4, atol=1e-5)
            whole = model.predict(clip, z)
            for count in range(1, frames):
                few = model.predict(clip, z[:, -count:])
                torch.testing.assert_close(few, whole[:, -count:], rtol=1e-4, atol=1e-5)


def test_more_or_fewer_latents_than_a_model_can_take_are_refused() -> None:
    along, clip = window(of="frames"), clips(frames=4)["frames"]
    for model, counts, wanted in ((looking(1), (0, 4), "1 to 3"), (along, (0, 2, 4), "wanted 3")):
        for count in counts:
            with pytest.raises(ValueError, match=wanted):
                model.predict(clip, torch.zeros(len(clip), count, 2))


@pytest.mark.parametrize("kind", ["alone", "along"])
def test_a_clip_of_one_frame_has_no_latent(kind: str) -> None:
    model, clip = looking(1) if kind == "alone" else window(of="frames"), clips(frames=1)["frames"]
    for ask in (model.infer, model.latest, lambda clip: model.predict(clip, torch.zeros(len(clip), 0, 2))):
        with pytest.raises(ValueError, match="clip of 1 frame.*wanted 2 or more"):
            ask(clip)


def test_two_steps_of_a_window_are_compared_where_its_clips_hold_two() -> None:
    model = window(signals=(Composition(),))
    with pytest.raises(ValueError, match=r"trains on 5: data.clips\(5\)"):
        model.loss(clips(frames=4)["frames"])
    assert model.loss(clips(frames=5)["frames"])[1]["composition"] > 0


class Looking(Part):
    """An inverse model to which every frame of its past matters, and in which order they come."""

    def __init__(self, *, frames: int) -> None:
        self.net = Layers(inputs=8 * frames, dim=2)

    def forward(self, seen: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([seen.flatten(1), goal], 1))


def test_every_label_of_a_window_reaches_the_head_from_its_own_latent() -> None:
    told: list[tuple[torch.Tensor, ...]] = []

    class Listening(Head):
        def cost(self, features: torch.Tensor, actions: torch.Tensor, *, known: torch.Tensor) -> torch.Tensor:
            told.append((features.detach(), actions, known))
            return super().cost(features, actions, known=known)

    model = window(label=Listening(features=2, space=Space("discrete", 5)))
    clip = clips(frames=4)["frames"]
    mask = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]]).bool()
    actions = torch.where(mask, torch.arange(12).view(4, 3) % 5, -1)
    loss, metrics = model.loss(clip.replace(actions=actions, mask=mask))
    [(features, given, known)] = told
    assert torch.equal(given, actions.flatten()) and torch.equal(known, mask.flatten())
    assert torch.allclose(features, model.infer(clip).flatten(0, 1), atol=1e-5)
    loss.backward()
    assert (
        metrics["label"] > 0
        and model.label is not None
        and all(p.grad is not None and p.grad.any() for p in model.label.parameters())
    )
    without = model.loss(clip.replace(actions=actions, mask=torch.zeros_like(mask)))[1]
    assert without["label"] == 0


@pytest.mark.parametrize("of", ["frames", "state"])
def test_models_of_windows_keep_their_promises(of: str) -> None:
    check_latents(window(of=of, past=3), clips(frames=5, batch=6)[of])


class Words(Part):
    """Each word as one of a few vectors; nothing said is nothing."""

    dim = 3

    def forward(self, texts: Any) -> torch.Tensor:  # type: ignore[override]
        known = {"": torch.zeros(3), "left": torch.eye(3)[0], "right": torch.eye(3)[1]}
        return torch.stack([known[text] for text in texts])[:, None]


def talking() -> LatentActions:
    torch.manual_seed(0)
    eyes = PatchTransformer(frame=(8, 8), patch=4, dim=8, layers=1, heads=2)
    size: dict[str, Any] = {"features": 8, "tokens": 4, "dim": 4, "told": 3, **SLIGHT}
    return LatentActions(
        encoder=eyes, inverse=Reader(queries=2, **size), bottleneck=Free(4),
        forward=Features(encoder=eyes, codes=2, **size), language=Words(),
    )  # fmt: skip


def test_what_is_said_is_heard_by_both_models_and_each_clip_hears_its_own() -> None:
    model, clip = talking().eval(), clips(frames=3)["frames"]
    said, other = (clip.replace(text=text) for text in (("left", "right", "", "left"), ("left", "left", "", "right")))
    with torch.no_grad():
        z = [model.infer(given) for given in (said, other)]
        guess = [
            model.predict(given, z[0]) for given in (said, other)
        ]  # one latent: only the forward model's ears differ
    for one, two in (z, guess):
        moved = (one - two).abs().flatten(1).amax(1) > 1e-6
        assert moved.tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="the clip has no text"):
        model.infer(clip)


def test_a_model_that_is_told_keeps_its_promises() -> None:
    clip = clips(frames=3, batch=6)["frames"].replace(text=("left", "right", "left", "", "right", "left"))
    check_latents(talking(), clip)


def sided(**more: Any) -> LatentActions:
    torch.manual_seed(0)
    return LatentActions(
        encoder=Flat(frame=(4, 4)), inverse=Between(features=16, dim=2, width=8), bottleneck=Free(2),
        forward=Change(encoder=Flat(frame=(4, 4)), features=16, dim=2, width=8), views=2, **more,
    )  # fmt: skip


def test_one_view_leads_anothers_picture_on_and_never_its_own() -> None:
    model, heard = sided(), dict[str, torch.Tensor]()

    def read(seen: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        heard["inverse"] = torch.stack([seen[:, -1], goal], 1).mean(-1)
        return torch.zeros(len(seen), 2, requires_grad=True)

    model.inverse.forward = read  # type: ignore[method-assign]
    side = torch.tensor([0.25, 0.75]).repeat_interleave(4)  # what each camera sees is of one brightness
    step = model._pair(Clip(frames=side.expand(64, 2, 3, 4, 8)), None)
    inverse, led = heard["inverse"], step.wanted.mean(-1)
    assert torch.equal(inverse[:, 0], inverse[:, 1]) and torch.equal(step.present.mean(-1), led)
    assert torch.equal(inverse[:, 0], -led)  # a quarter above or below the middle: always the other one
    assert 16 < int((led > 0).sum()) < 48
    assert step.pair is not None and step.pair.shape == (64, 2, 3, 4, 4)


def test_in_use_the_first_view_is_read_and_led_on() -> None:
    model, frames = sided().eval(), torch.rand(5, 3, 3, 4, 8)
    other = frames.clone()
    other[..., 4:] = torch.rand(5, 3, 3, 4, 4)
    with torch.no_grad():
        z = model.infer(Clip(frames=frames))
        assert torch.equal(model.infer(Clip(frames=other)), z)
        assert torch.equal(model.predict(Clip(frames=other), z), model.predict(Clip(frames=frames), z))
        assert torch.equal(model.targets(Clip(frames=frames)), Flat(frame=(4, 4))(frames[:, 1:, ..., :4] - 0.5))
    check_latents(sided(), Clip(frames=frames))
    for ask in (sided().loss, sided().infer):
        with pytest.raises(ValueError, match="2 views side by side, and the pictures are 7 wide"):
            ask(Clip(frames=frames[..., :7]))
    with pytest.raises(ValueError, match="several views are of pictures"):
        sided(ahead=False)


def stacking(**more: Any) -> LatentActions:
    torch.manual_seed(0)
    parts = {
        "encoder": Strided(channels=9, frame=(8, 8), width=4, dim=8),
        "inverse": Between(features=8, dim=2, width=16),
        "bottleneck": Free(2),
        "forward": Painted(frame=(8, 8), frames=3, dim=2, base=4),
    }
    return LatentActions(**{**parts, "stack": 3, "reach": 2, **more})


def test_a_stack_is_each_frame_with_those_before_it() -> None:
    model, frames = stacking().eval(), torch.randint(256, (2, 6, 3, 8, 8), dtype=torch.uint8)
    first, clip = frames[:, :1], Clip(frames=frames)
    padded = torch.cat([first, first, frames], 1)
    by_hand = torch.stack([padded[:, t : t + 3].flatten(1, 2) for t in range(6)], 1)
    torch.testing.assert_close(model.features(clip), each(model.encoder, floats(by_hand)))
    assert torch.equal(model.targets(clip), floats(frames)[:, 1:]), "of a stack only the newest picture is painted"
    assert model.past == 2 and model.length == 5
    torch.testing.assert_close(model.infer(clip)[:, 3:], model.infer(clip.steps(1, 6))[:, 2:])


def test_what_cannot_be_stacked_is_refused() -> None:
    for wrong in ({"stack": 0}, {"views": 2}, {"of": "state"}, {"encoder": None}):
        with pytest.raises(ValueError, match="what is stacked is one view's pictures"):
            stacking(**wrong)
