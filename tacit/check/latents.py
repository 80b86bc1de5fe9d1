"""What a latent action model promises: its latents see the next frame, and are all that a prediction knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tacit.check.part import check_part, costing, tried
from tacit.check.promise import ALIKE, Broken, altered, apart, not_causal, seeded
from tacit.clip import Clip
from tacit.evaluate.holdout import Inferring, place, still
from tacit.latents.model import LatentActions
from tacit.part import Part

MOVED = 0.1  # the share of latents that another next frame must move; of a few codes not all will


def check_latents(model: Inferring, clip: Clip, *, margin: float | None = None) -> None:
    """Hold a latent action model to: latents see the next frame, and nothing else of the future reaches a prediction.

    With ``margin``, for a model that has been trained, latents of other transitions must predict worse by that share.
    """
    clip = clip.to(place(model))
    bare = Clip(frames=clip.frames, state=clip.state, text=clip.text)
    if margin is not None:
        _uses_its_latents(model, bare, margin)
    given = model
    if isinstance(model, Part):
        check_part(model, clip)
        model = tried(model, costing(clip, ()))[0]  # past a start at zero, behind which anything could hide
    z, steps, dim = _asked(model, "infer", bare), (len(clip), clip.time - 1), getattr(model, "dim", None)
    if z.ndim != 3 or z.shape != (*steps, dim or z.shape[-1]) or not z.isfinite().all():
        raise _misshapen(model, clip, f"infer gave {tuple(z.shape)}, finite or not; wanted {(*steps, dim or 'D')}")
    guess, goal = _asked(model, "predict", bare, z), _asked(model, "targets", bare)
    if guess.shape != goal.shape or goal.shape[:2] != steps:
        raise _misshapen(model, clip, f"predict gave {tuple(guess.shape)} and targets {tuple(goal.shape)}")
    _sees_the_next_frame((given, model), bare)
    for j in range(1, clip.time):
        _sees_no_later(model, bare, j, said=(z, guess, goal))
    if not apart(_asked(model, "predict", bare, z.roll(1, 0) + 1), guess).any():
        raise Broken(model, "its predictions hear the latent", seen="another latent changed none", look="Pass z on.")
    mine, past = _asked(model, "infer", bare[:1]), getattr(model, "past", 0)
    later = _asked(model, "infer", bare.steps(1, clip.time))
    if apart(mine, z[:1], by=ALIKE).any() or apart(later[:, past:], z[:, 1 + past :], by=ALIKE).any():
        raise Broken(
            model,
            "a latent depends on its own frames only",
            seen="inferred without the other clips, or from one frame later on, it was another",
            look="Look for norms over the batch or over time, and for positions counted from the clip's start.",
        )
    if isinstance(model, LatentActions):
        _leaks_in_training(model, clip)


def _asked(model: Any, question: str, *given: Any) -> Tensor:
    with still(model):
        found: Tensor = getattr(model, question)(*given)
    return found.float()


def _misshapen(model: Any, clip: Clip, seen: str) -> Broken:
    seen = f"for {(len(clip), clip.time)} frames {seen}"
    look = "Action t leads from frame t to frame t + 1."
    return Broken(model, "T frames have T - 1 latents, predictions and targets", seen=seen, look=look)


def _sees_the_next_frame(models: Sequence[Any], clip: Clip) -> None:
    """Before or after a few steps: codes that follow the encoder may for a while all be one."""
    for j in range(1, clip.time):
        moved = []
        for model in models:
            pair = [_asked(model, "infer", given)[:, j - 1] for given in (clip, altered(clip, slice(j, j + 1)))]
            moved.append(float(apart(*pair).float().mean()))
        if max(moved) < MOVED:
            raise Broken(
                models[0],
                "z depends on the next frame",
                seen=f"noise in place of frame {j} moved latent {j - 1} in {max(moved):.0%} of the clips",
                look="See that the inverse model is given frame t + 1, and that what it says is not lost on the way.",
            )


def _sees_no_later(model: Any, clip: Clip, j: int, *, said: tuple[Tensor, Tensor, Tensor]) -> None:
    """With frame ``j`` and all after it altered, nothing before has moved."""
    (z, guess, goal), changed, alone = said, altered(clip, slice(j, None)), altered(clip, slice(j, j + 1))
    if apart(_asked(model, "predict", changed, z)[:, :j], guess[:, :j]).any():
        raise Broken(
            model,
            "no future frame reaches a prediction but through z",
            seen=f"predictions up to frame {j} moved with frames from {j} on while z was held",
            look="Look for norms, attention or statistics over time in the forward model and its encoder.",
        )
    if apart(_asked(model, "infer", changed)[:, : j - 1], z[:, : j - 1]).any():
        raise not_causal(model, f"latents of transitions that end before frame {j} changed with frames from {j} on")
    apiece = apart(_asked(model, "targets", alone).transpose(0, 1), goal.transpose(0, 1)).tolist()
    moved = [t for t, m in enumerate(apiece) if m]
    if j - 1 not in moved or not set(moved) <= set(range(j - 1, j - 1 + getattr(model, "stack", 1))):
        raise Broken(
            model,
            "target t is what frame t + 1 shows",
            seen=f"altering frame {j} moved targets {moved}",
            look="Compare the steps of `targets` with those of `predict`.",
        )


def _leaks_in_training(model: LatentActions, clip: Clip) -> None:
    """The loss, which may take another way than ``predict``: z is held, the goal altered, the prediction watched."""
    if model.onward.denoises:  # it is shown the goal under noise, and `predict` has been held to showing it none
        return
    held: list[Any] = []
    said: list[list[Tensor]] = []
    name = "along" if model.along else "forward"
    bottle, foretell = model.bottleneck.forward, getattr(model.onward, name)

    def hold(*given: Any) -> Any:
        if len(said) == 1:
            held.append(bottle(*given))
            return held[-1]
        return held.pop(0)

    def watch(*given: Any, **more: Any) -> Any:
        found = foretell(*given, **more)
        said[-1].append(found.float())
        return found

    goal = clip.time - 1 if model.along else model.past + 1
    try:
        model.bottleneck.forward = hold  # type: ignore[method-assign]
        setattr(model.onward, name, watch)
        for given in (clip, altered(clip, slice(goal, None))):
            said.append([])
            with seeded(model.device), torch.no_grad():
                model.train().loss(given)
    finally:
        del model.bottleneck.forward
        delattr(model.onward, name)
    if not said[0] or len(said[0]) != len(said[1]) or any(apart(*pair).any() for pair in zip(*said, strict=True)):
        raise Broken(
            model,
            "no future frame reaches a prediction but through z",
            seen="in its loss the prediction moved with the goal while z was held, or was not made once a step",
            look="Look at what the forward model is given in `loss`, and for batch norm.",
        )


def _uses_its_latents(model: Any, clip: Clip, margin: float) -> None:
    z, goal = _asked(model, "infer", clip), _asked(model, "targets", clip)
    others = z.flatten(0, 1).roll(z.shape[0] * z.shape[1] // 2, 0).view_as(z)
    own, swapped = ((_asked(model, "predict", clip, given) - goal).square().mean().item() for given in (z, others))
    if not swapped > (1 + margin) * own:
        raise Broken(
            model,
            "another transition's latent predicts worse",
            seen=f"the error is {own:.4g} with its own latent and {swapped:.4g} with another's, not {margin:.0%} more",
            look="The forward model does not need z: give it less of the future, and see that frames do change.",
        )
