"""Policies keep their promises, and a double that breaks one is refused by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tacit.check import Broken, check_policy
from tacit.clip import Clip, Space
from tacit.data import toys
from tacit.envs.dots import Board
from tacit.latents.decode import decoder
from tacit.latents.forward import Moved
from tacit.latents.inverse import Difference
from tacit.latents.model import LatentActions, label
from tacit.parts.conv import Strided
from tacit.parts.keypoints import Keypoints
from tacit.parts.quantize import Free
from tacit.policies.chunked import Chunked
from tacit.policies.cloning import Cloning, Following
from tacit.policies.inferring import Inferring
from tacit.policies.instructed import Instructed
from tacit.policies.led import Led
from tacit.policies.policy import Policy
from tacit.policies.predictive import Predictive
from tacit.train import Plan, cycle, fit
from tests.check.test_part import WHOLE

SIDE, PLANE, FIVE = (16, 16), Space("continuous", 2), Space("discrete", 5)
DOTS = {kind: toys.dots(Board(size=16, discrete=kind), episodes=10, length=12).episodes for kind in (False, True)}


def clip(kind: bool = False) -> Clip:
    return DOTS[kind].clips(5).batch(np.arange(0, 48, 8))


def eyes() -> Keypoints:
    return Keypoints(frame=SIDE, points=2, width=8)


@pytest.mark.parametrize("past", [0, 1, 3])
@pytest.mark.parametrize("space", [PLANE, FIVE], ids=["plane", "five"])
def test_cloning_of_actions_keeps_its_promises(space: Space, past: int) -> None:
    policy = Cloning(encoder=eyes(), features=4, space=space, past=past, width=16)
    check_policy(policy, clip(space.discrete), space=space)


def test_the_first_frame_stands_for_all_before_it_in_training_as_in_use() -> None:
    """Also where the encoder sees frames in stacks: as they are cloned, so they are acted on, from the first step."""
    stacked = Strided(channels=6, frame=SIDE, width=4, dim=4)
    policy = Cloning(encoder=stacked, features=4, space=PLANE, past=2, stack=2, width=16).eval()
    given, memory, said = clip(), policy.start(len(clip())), list[Tensor]()
    padded = torch.cat([given.frames[:, :1].expand(-1, 3, -1, -1, -1), given.frames], 1)  # type: ignore[index]
    for t in range(given.time):
        action, memory = policy.act(given.steps(t, t + 1), memory)
        torch.testing.assert_close(action, policy.said(padded[:, t : t + 4]))
        said.append(action)
    taught = given.replace(actions=torch.stack(said, 1)[:, :-1].detach(), mask=torch.ones_like(given.mask))  # type: ignore[arg-type]
    assert policy.loss(taught)[1]["miss"] < 1e-9


def test_cloning_of_latents_and_following_them_keep_their_promises() -> None:
    latents = LatentActions(
        encoder=eyes(), inverse=Difference(features=4), bottleneck=Free(4), forward=Moved(frame=SIDE, points=2, width=8)
    )
    shown = label(latents, DOTS[False])
    given = shown.clips(5).batch(np.arange(0, 48, 8))
    pilot = Cloning(encoder=eyes(), features=4, latent=4, past=2, width=16)
    fit(pilot, cycle([given]), None, Plan(steps=2))
    check_policy(pilot, given, space=Space("continuous", 4, low=-1e3, high=1e3))
    following = Following(pilot=pilot, latents=latents, decoder=decoder(latents, DOTS[False].keep_labels(24))[0])
    check_policy(following, clip(), space=PLANE)


@pytest.mark.parametrize("kind", [Predictive, Inferring, Instructed, Chunked, Led])
def test_whoever_learns_in_hindsight_acts_on_the_past_alone(kind: type[Policy]) -> None:
    """A forecast, a goal or an instruction is learnt from later frames; what is done never hears of them."""
    given = clip()
    check_policy(WHOLE[kind](), given.replace(text=("left", "right") * (len(given) // 2)), space=PLANE)  # type: ignore[arg-type]


class Walker(Policy):
    """Goes where a linear map of the state and of the step's number says; the doubles below each spoil one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)
        self.steps = 0

    def start(self, batch: int) -> Any:
        return {"count": torch.zeros(batch)}

    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        memory = memory or self.start(len(observation))
        said = torch.tanh(self.net(observation.state[:, 0] / 12) + memory["count"][:, None])  # type: ignore[index]
        return said, {"count": memory["count"] + 0.1}

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None and clip.actions is not None and clip.mask is not None
        miss = (self.told(clip.state / 12) - clip.actions).square().mean(-1)
        return miss[clip.mask].mean(), {}

    def told(self, state: Tensor) -> Tensor:
        return torch.tanh(self.net(state[:, :-1]))


class Peeking(Walker):
    """Taught with one frame more than it will have when it acts."""

    def told(self, state: Tensor) -> Tensor:
        return torch.tanh(self.net(state[:, 1:]))


class Hidden(Walker):
    """Counts its steps on itself, through all episodes."""

    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        self.steps += 1
        return super().act(observation, {"count": torch.full((len(observation),), 0.1 * self.steps)})


class Overwriting(Walker):
    """Alters the memory it was given."""

    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        said, _ = super().act(observation, memory)
        memory = memory or self.start(len(observation))
        memory["count"] += 0.1
        return said, memory


class Crowded(Walker):
    """Sums over the batch: an episode acts otherwise beside others."""

    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        said, memory = super().act(observation, memory)
        return said - said.mean(0), memory


class Growing(Walker):
    """Keeps a list that is longer each step, so that no episode can begin beside one that goes on."""

    def start(self, batch: int) -> Any:
        return []

    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        said = self.net(observation.state[:, 0] / 120)  # type: ignore[index]
        return said, [*(memory or []), observation.state[:, 0]]  # type: ignore[index]


class Wild(Walker):
    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        said, memory = super().act(observation, memory)
        return 40 * said, memory


class Forgetful(Walker):
    """Acts by something that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.rand(2)

    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        said, memory = super().act(observation, memory)
        return said * self.bias, memory


class Drawing(Walker):
    """Draws what it does, as a policy may."""

    def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
        said, memory = super().act(observation, memory)
        return (said + 0.1 * torch.randn_like(said)).clamp(-1, 1), memory


@pytest.mark.parametrize("kind", [Walker, Drawing])
def test_a_sound_policy_passes(kind: type[Policy]) -> None:
    check_policy(kind(), clip(), space=PLANE)


SPOILT: dict[type[Policy], str] = {
    Peeking: "what comes later changes nothing before: what it is taught of step 0",
    Hidden: "all it remembers is in the memory it returns",
    Overwriting: "all it remembers is in the memory it returns",
    Crowded: "each row acts as it would alone",
    Growing: "one row's episode may begin anew while the others go on",
    Wild: "its actions are actions of the space",
    Forgetful: "what is saved is the whole of it",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_policy_that_breaks_a_promise_is_named(kind: type[Policy]) -> None:
    with pytest.raises(Broken, match=SPOILT[kind]):
        check_policy(kind(), clip(), space=PLANE)
