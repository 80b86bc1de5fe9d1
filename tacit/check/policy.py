"""What a policy promises: each row acts alone, on what it has seen so far, with all it remembers in its memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from tacit.check.part import check_part, costing, reloaded, tried
from tacit.check.promise import ALIKE, Broken, accept, altered, apart, equal, not_causal, seeded
from tacit.clip import Clip, Space
from tacit.evaluate.holdout import still
from tacit.evaluate.rollout import renew, select
from tacit.part import Part
from tacit.policies.policy import Policy


def check_policy(policy: Policy, clip: Clip, *, space: Space) -> None:
    """Hold a policy to acting row by row on what it has seen so far, with all that it remembers in its memory."""
    clip = clip.to(policy.device)
    if type(policy).loss is not Part.loss:
        check_part(policy, clip)
        if not policy.hindsight:
            _learns_from_the_past(policy, clip)
    loaded = reloaded(policy)
    with still(policy):
        acted, memories = _acted(policy, clip)
        if apart(torch.stack(_acted(loaded, clip)[0]), torch.stack(acted), by=ALIKE).any():
            raise Broken(
                policy, "what is saved is the whole of it", seen="loaded, it acts otherwise", look="See `Part`."
            )
        for said in acted:
            accept(policy, said, count=len(clip), space=space)
        for t in reversed(range(clip.time)):
            before = copy.deepcopy(memories[t])
            repeated, _ = _act(policy, clip, t, memories[t])
            if apart(repeated, acted[t]).any() or not equal(before, memories[t]):
                raise Broken(
                    policy,
                    "all it remembers is in the memory it returns",
                    seen=f"asked step {t} again with that step's memory, it acted otherwise or altered the memory",
                    look="Keep nothing of an episode on the policy itself, and write into copies of the memory.",
                )
        if not _by_chance(policy, clip):
            _alone(policy, clip, torch.stack(acted))
            _begins_anew(policy, clip, torch.stack(acted))
        for j in range(1, clip.time):
            changed, _ = _acted(policy, altered(clip, slice(j, None)))
            if torch.stack([apart(a, b) for a, b in zip(changed[:j], acted[:j], strict=True)]).any():
                raise not_causal(policy, f"what it did before step {j} changed with what it saw from then on")


def _by_chance(policy: Any, clip: Clip) -> bool:
    """Whether it draws what it does: then a row alone draws otherwise than beside others."""
    one, other = (_act(policy, clip, 0, policy.start(len(clip)), seed=seed)[0] for seed in (0, 1))
    return bool(apart(one, other).any())


def _alone(policy: Any, clip: Clip, together: Tensor) -> None:
    rows = (0, len(clip) - 1)
    alone = [torch.stack(_acted(policy, clip[i : i + 1])[0])[:, 0] for i in rows]
    astray = [apart(mine, together[:, i], by=ALIKE) for mine, i in zip(alone, rows, strict=True)]
    if torch.cat(astray).any() or apart(_act(policy, clip, 0, None)[0], together[0]).any():
        raise Broken(
            policy,
            "each row acts as it would alone, and None is a memory that has not begun",
            seen="one episode beside others, or begun from None, acted otherwise",
            look="Look for sums over the batch, and for batch norm in training mode.",
        )


def _act(policy: Any, clip: Clip, t: int, memory: Any, *, seed: int = 0) -> tuple[Tensor, Any]:
    now = [None if x is None else x[:, t : t + 1] for x in (clip.frames, clip.state)]
    torch.manual_seed(1000 * t + seed)
    found: tuple[Tensor, Any] = policy.act(Clip(frames=now[0], state=now[1], text=clip.text), memory)
    return found


def _acted(policy: Any, clip: Clip) -> tuple[list[Tensor], list[Any]]:
    """What is done at each step, and the memory with which each step began."""
    memory, said, memories = policy.start(len(clip)), [], []
    for t in range(clip.time):
        memories.append(memory)
        actions, memory = _act(policy, clip, t, memory)
        said.append(actions)
    return said, [*memories, memory]


def _begins_anew(policy: Any, clip: Clip, together: Tensor) -> None:
    """As in rollouts: one row's episode ends and begins again, and the others go on."""
    half = clip.time // 2
    memory = _acted(policy, clip)[1][half]
    try:
        memory = select(memory, range(len(clip)))
        memory = renew(memory, [0], fresh=policy.start(1), batch=len(clip))
        said, _ = _act(policy, _spliced(clip, half), half, memory)
        fine = not apart(said, torch.cat([together[0, :1], together[half, 1:]]), by=ALIKE).any()
        seen = "begun again beside others that went on, it acted otherwise"
    except (ValueError, TypeError) as error:
        fine, seen = False, str(error)
    if not fine:
        raise Broken(
            policy,
            "one row's episode may begin anew while the others go on",
            seen=seen,
            look="Let `start` give tensors that lead with the batch, of the same names and shapes as `act` gives.",
        )


def _spliced(clip: Clip, t: int) -> Clip:
    """The clip with row 0's first frame at time ``t``."""

    def put(x: Tensor | None) -> Tensor | None:
        if x is not None:
            x = x.clone()
            x[0, t] = x[0, 0]
        return x

    return clip.replace(frames=put(clip.frames), state=put(clip.state))


def _learns_from_the_past(policy: Any, clip: Clip) -> None:
    """What is taught of step ``t`` may not depend on what was seen after it, or acting is not what was learnt."""
    twin = tried(policy, costing(clip, ()))[0].eval()

    def lesson(given: Clip, t: int) -> Tensor:
        """What step ``t`` contributes: its share of the loss, or where latents are cloned the loss's slope there."""
        with seeded(twin.device), torch.inference_mode(False), torch.enable_grad():
            if given.latents is not None:
                latents = given.latents.detach().clone().requires_grad_(True)
                loss, _ = twin.loss(given.replace(latents=latents))
                if loss.requires_grad:
                    slope = torch.autograd.grad(loss, latents, allow_unused=True)[0]
                    if slope is not None:
                        return slope[:, t]
            mask = torch.arange(clip.time - 1, device=clip.device) == t
            told: Tensor = twin.loss(given.replace(mask=mask.expand(len(clip), -1)))[0]
            return told.detach()[None]

    for t in range(clip.time - 1):
        if apart(lesson(clip, t), lesson(altered(clip, slice(t + 1, None)), t)).any():
            raise not_causal(policy, f"what it is taught of step {t} changed with frames from {t + 1} on")
