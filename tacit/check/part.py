"""What a part promises: it learns everywhere, repeats itself, changes nothing by looking, and is saved whole."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tacit.check.promise import Broken, differing, equal, few, leaves, seeded
from tacit.clip import Clip
from tacit.part import Part

STEPS, RATE = 4, 1e-4  # a copy is trained a little: a layer that starts at zero lets no gradient by at first

Cost = Callable[[Any], Tensor]


def check_part(part: Part, clip: Clip | None = None, *, inputs: Sequence[Any] = ()) -> None:
    """Hold a part to what ``fit`` and ``save`` rely on: it learns everywhere, repeats itself, and is saved whole.

    A model is tried by its loss on ``clip``; a part that lies inside one, by its answer to ``inputs``.
    """
    cost = costing(clip, inputs)
    _leaves_alone(part, cost, clip)
    after, costs, lost = tried(part, cost)
    if lost:
        names = ", ".join(f"{name} ({how})" for name, how in list(lost.items())[:3])
        raise Broken(
            part,
            "every weight learns",
            seen=f"no gradient reached {len(lost)} of {sum(1 for _ in part.parameters())} weights: {names}",
            look="Look for detach, no_grad, rounding without a straight-through gradient or an unused branch; what is "
            "not to learn says so with requires_grad_(False).",
        )
    again, repeated, _ = tried(part, cost)
    if repeated != costs or differing(after, again):
        raise Broken(
            part,
            "it repeats itself from equal weights and an equal torch seed",
            seen=f"the losses were {few(costs)} and then {few(repeated)}",
            look="Draw all chance from torch's generator, and keep nothing outside parameters and buffers.",
        )
    _goes_on(after, cost)


def costing(clip: Clip | None, inputs: Sequence[Any]) -> Cost:
    """What to train by: the loss, or for a part without one how far its answer is from something arbitrary."""

    def loss(part: Any) -> Tensor:
        value, metrics = part.loss(clip.to(part.device))  # type: ignore[union-attr]
        odd = [n for n, v in {"loss": value, **metrics}.items() if torch.as_tensor(v).numel() != 1]
        if odd or not value.isfinite().all():
            raise Broken(
                part,
                "its loss is one finite number beside named numbers",
                seen=f"{odd[0]!r} is not one number" if odd else f"the loss is {value.item()}",
                look="Return (loss, {name: number}).",
            )
        return value

    def answer(part: Any) -> Tensor:
        found = [x for x in leaves(part(*inputs)) if isinstance(x, Tensor) and x.is_floating_point()]
        goals = [torch.linspace(-1, 1, x.numel(), device=x.device).view(x.shape) for x in found]
        misses = [(x.float() - goal).square().sum() for x, goal in zip(found, goals, strict=True)]
        return torch.stack(misses).sum() if misses else torch.zeros(())

    return answer if clip is None else loss


def _leaves_alone(part: Part, cost: Cost, clip: Clip | None) -> None:
    """Evaluating changes neither the part nor the batch."""
    quiet = copy.deepcopy(part).eval()
    kept = None if clip is None else clip.map(torch.clone)
    with seeded(part.device), torch.no_grad():
        cost(quiet)
    changed = differing(part, quiet) + ([] if clip is None or equal(kept, clip) else ["the clip it was given"])
    if changed:
        raise Broken(
            part,
            "looking changes nothing",
            seen=f"in evaluation mode it altered {', '.join(changed[:3])}",
            look="Count and follow only `if self.training`, and never write into a batch.",
        )


def tried(part: Any, cost: Cost) -> tuple[Any, list[float], dict[str, str]]:
    """A copy after a few steps, what each cost, and the weights that learnt nothing, with how that showed."""
    part = copy.deepcopy(part).train()
    weights = {n: p for n, p in part.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(weights.values(), lr=RATE) if weights else None
    costs, touched, reached = [], set[str](), set[str]()
    with seeded(part.device), torch.inference_mode(False), torch.enable_grad():
        for _ in range(STEPS):
            value = cost(part)
            costs.append(float(value.detach()))
            if optimiser is not None:
                optimiser.zero_grad(set_to_none=True)
                if value.requires_grad:
                    value.backward()
                graded = {n: p.grad for n, p in weights.items() if p.grad is not None}
                touched |= graded.keys()
                reached |= {n for n, grad in graded.items() if grad.any()}
                optimiser.step()
            part.after_step()
    lost = {n: "always zero" if n in touched else "not in the graph" for n in weights if n not in reached}
    return part, costs, lost


def reloaded(part: Part) -> Any:
    """The part as it is after saving and loading, or in what that differs."""
    classes = list({type(m) for m in part.modules() if isinstance(m, Part)})
    with (
        tempfile.TemporaryDirectory() as folder,
        seeded(part.device, seed=2),
    ):  # what a constructor draws is no part of it
        try:
            loaded = type(part).load(part.save(Path(folder) / "one"), classes=classes).to(part.device)
            loaded.save(Path(folder) / "two")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise _not_whole(part, str(error)) from error
        one, two = ((Path(folder) / name / "config.json").read_text() for name in ("one", "two"))
    lost = differing(part, loaded) + ([] if one == two else ["what the constructor was given"])
    if lost:
        raise _not_whole(part, f"after loading {', '.join(lost[:3])} differ")
    return loaded


def _goes_on(part: Part, cost: Cost) -> None:
    """What is loaded learns on as the original does: nothing that matters is held outside the files."""
    loaded = reloaded(part)
    for each in (part, loaded):  # fit lays pictures out otherwise than a constructor, and sums then round otherwise
        each.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    (here, before, _), (there, after, _) = tried(part, cost), tried(loaded, cost)
    if before != after or differing(here, there):
        raise _not_whole(part, f"after loading the losses go on as {few(after)}, and else as {few(before)}")


def _not_whole(part: Part, seen: str) -> Broken:
    look = (
        "Keep what training changes in parameters and buffers, and all else in constructor arguments: numbers, text, "
    )
    return Broken(part, "what is saved is the whole of it", seen=seen, look=look + "spaces and parts.")
