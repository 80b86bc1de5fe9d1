"""Further costs: each lowers what it names, in a model that would not by itself, and none is met by shrinking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.check import check_latents
from tacit.clip import Clip
from tacit.data.toys import dots, linear
from tacit.envs.dots import Board
from tacit.latents.forward import Change, Moved
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions
from tacit.latents.signals import Arrow, Body, Composition, Covariance, Flowing, Motion, Null, Reversal, Signal, between
from tacit.latents.step import Step
from tacit.part import Part
from tacit.parts.keypoints import Keypoints
from tacit.parts.mlp import Flat
from tacit.parts.nested import Nested
from tacit.parts.quantize import Bottled, Bottleneck, Free
from tacit.parts.rotation import Rotation
from tacit.train import Plan, fit

SIDE, WIDTH = (12, 12), 4


def seeing(*signals: Signal, reach: int = 1) -> LatentActions:
    torch.manual_seed(0)
    look = Flat(frame=SIDE)
    return LatentActions(
        encoder=look,
        inverse=Between(features=look.dim, dim=WIDTH, width=64),
        bottleneck=Free(WIDTH),
        forward=Change(encoder=look, features=look.dim, dim=WIDTH, width=64),
        signals=signals,
        reach=reach,
    )


def feeling(*signals: Signal, reach: int = 2) -> LatentActions:
    torch.manual_seed(0)
    return LatentActions(
        inverse=Between(features=8, dim=WIDTH, width=64),
        bottleneck=Free(WIDTH),
        forward=Change(encoder=Nothing(), features=8, dim=WIDTH, width=64),
        signals=signals,
        reach=reach,
        of="state",
    )


class Nothing(Part):
    """States are features as they are."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x


def step(made: LatentActions, clip: Clip) -> Step:
    with torch.no_grad():
        return made._pair(clip, None)


@pytest.mark.parametrize("kind", [Null, Reversal, Composition, Arrow])
def test_the_signal_lowers_what_it_names(kind: type[Signal]) -> None:
    """In a model that is no less of use for it: another transition's latents predict worse."""
    sight = kind is Arrow
    toy: Any = (
        dots(Board(size=12), episodes=200, length=10) if sight else linear(episodes=200, size=8, actions=2, exogenous=1)
    )
    costs = []
    for signals in ((), (kind(1.0),)):
        made = seeing(*signals) if sight else feeling(*signals)
        plan = Plan(steps=700 if sight else 300, batch=64, rate=3e-3, seed=0, log_every=400, device="cpu")
        made = fit(made, toy.episodes.clips(made.length), None, plan).eval()
        clip = toy.episodes.clips(3).batch(np.arange(128))
        torch.manual_seed(0)
        with torch.no_grad():
            costs.append(float(kind(1.0).cost(made, step(made, clip))))
            z, goal = made.infer(clip), made.targets(clip)
            own, others = ((made.predict(clip, z.roll(k, 0)) - goal).square().mean() for k in (0, 1))
        assert float(own) < 0.9 * float(others)
    assert costs[1] < 0.5 * costs[0]


class Doubling(LatentActions):
    """Its latent is the change of the state, so that every identity holds and can be computed by hand."""

    def found(self, clip: Clip) -> Bottled:
        assert clip.state is not None
        z = (clip.state[:, 1:] - clip.state[:, :-1]).flatten(0, 1)
        return Bottled(z, z.new_zeros(()), {})


def moved(z: Tensor, *, pairs: Tensor, offset: float = 0.0) -> tuple[LatentActions, Step]:
    look = Flat(frame=(1, 1))
    made = Doubling(
        inverse=Between(features=2, dim=2), bottleneck=Free(2), of="state",
        forward=Change(encoder=look, features=2, dim=2),
    )  # fmt: skip
    clip, found = Clip(state=pairs), Bottled(z, z.new_zeros(()), {})
    ends = torch.tensor([[0, 1]]).repeat(len(pairs), 1)
    return made, Step(clip, ends, found, pairs, z, z, z)


def test_what_holds_by_construction_costs_nothing_and_what_does_not_costs_its_share() -> None:
    states = torch.randn(5, 3, 2)
    made, given = moved(states[:, 1] - states[:, 0], pairs=states)
    for kind in (Null, Reversal, Composition):
        assert float(kind().cost(made, given)) == pytest.approx(0, abs=1e-6)
    z = given.found.z
    made.found = lambda clip: Bottled(torch.ones(len(pairs_of(clip)), 2) * 3, z.new_zeros(()), {})  # type: ignore[method-assign]
    assert float(Null().cost(made, given)) == pytest.approx(9 / float(z.square().mean()), rel=1e-5)
    assert float(Reversal().cost(made, given)) == pytest.approx(36 / 9)  # 3 + 3, in units of 3
    assert float(Composition().cost(made, given)) == pytest.approx(1)  # 3 + 3 - 3


def pairs_of(clip: Clip) -> Tensor:
    assert clip.state is not None
    return clip.state[:, :-1].flatten(0, 1)


class Turning(Doubling):
    """Its latent is two turns by so much of the state's change, and by a little more where it is told to be ``off``."""

    size, off = 1.0, 0.0

    def found(self, clip: Clip) -> Bottled:
        return self.bottleneck(self.size * (super().found(clip).z + self.off))


def turned(bottleneck: Bottleneck, **how: float) -> tuple[LatentActions, Step]:
    torch.manual_seed(0)
    look = Flat(frame=(1, 1))
    made = Turning(
        inverse=Between(features=2, dim=2), bottleneck=bottleneck, of="state",
        forward=Change(encoder=look, features=4, dim=8),
    )  # fmt: skip
    made.size, made.off = how.get("size", 1.0), how.get("off", 0.0)
    states = torch.randn(16, 3, 2)
    z = made.eval().found(Clip(state=states[:, :2])).z
    ends = torch.tensor([[0, 1]]).repeat(len(states), 1)
    return made, Step(Clip(state=states), ends, Bottled(z, z.new_zeros(()), {}), states, z, z, z)


def slotted(budget: int | None) -> Nested:
    part = Nested(Rotation(2, size=2), slots=2, budget=budget)
    torch.nn.init.constant_(part.null, 3.0)  # as after training: no turn at all, nor a number to be added up
    return part


TURNS = {"turns": lambda: Rotation(2, size=2), "slots": lambda: slotted(None), "a slot left out": lambda: slotted(1)}


@pytest.mark.parametrize("kind", [Null, Reversal, Composition])
@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_turns_are_told_from_no_turn_and_come_together_as_turns(turns: Any, kind: type[Signal]) -> None:
    """What is so by construction costs nothing; what is not costs its share, however small all turns are."""
    with torch.no_grad():
        exact = float(kind().cost(*turned(turns())))
        large, small = (float(kind().cost(*turned(turns(), off=0.5, size=size))) for size in (0.1, 0.02))
    assert exact == pytest.approx(0, abs=1e-6)
    assert large > 0.03 and small == pytest.approx(large, rel=0.02)


def test_the_null_of_a_turn_can_be_learnt() -> None:
    said = torch.randn(8, 3, requires_grad=True)  # what the inverse model says where nothing changed
    made, given = turned(Rotation(2, size=2))
    made.bottleneck = Rotation(1, size=3)
    made.found = lambda clip: made.bottleneck(said)  # type: ignore[method-assign]
    given = given._replace(found=made.bottleneck(torch.randn(8, 3)))
    optimiser = torch.optim.Adam([said], 0.05)
    for _ in range(100):
        optimiser.zero_grad()
        Null().cost(made, given).backward()
        optimiser.step()
    assert float(said.detach().abs().max()) < 0.05


def test_each_of_two_signals_of_a_class_has_a_metric_of_its_own() -> None:
    made = feeling(Body(state=8, dim=WIDTH, width=8), Null(0.5), Body(state=8, dim=WIDTH, width=32))
    costs = iter((1.0, 2.0, 4.0))
    for signal in made.signals:
        signal.cost = lambda model, step, cost=next(costs): torch.tensor(cost)  # type: ignore[method-assign,assignment]
    metrics = made.loss(Clip(state=torch.randn(4, 3, 8)))[1]
    assert [float(metrics[name]) for name in ("body", "null", "body.2")] == [1, 2, 4]


def test_covariance_is_that_of_numpy() -> None:
    rows = torch.randn(40, 3)
    made, given = moved(rows[:, :2], pairs=torch.randn(40, 2, 2))
    told = np.cov(rows.numpy().T)
    wanted = (told[~np.eye(3, dtype=bool)] ** 2).mean()
    assert float(Covariance().cost(made, given._replace(features=rows[:, None]))) == pytest.approx(wanted, rel=1e-4)


def test_the_body_is_led_by_the_latent() -> None:
    """States that move by z: learnt in a moment, and impossible from the state alone."""
    torch.manual_seed(0)
    state, z = torch.randn(512, 2), torch.randn(512, 2)
    made, given = moved(z, pairs=torch.stack([state, state + z], 1))
    body = Body(state=2, dim=2, width=32)
    before = float(body.cost(made, given))
    optimiser = torch.optim.Adam(body.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        body.cost(made, given).backward()
        optimiser.step()
    assert float(body.cost(made, given)) < 0.1 < 0.8 < before
    shuffled = given._replace(found=given.found._replace(z=z.roll(1, 0)))
    assert float(body.cost(made, shuffled)) > 0.8


def flowing(move: int) -> tuple[Tensor, Tensor]:
    """Pictures of a smooth blob, and of it so many pixels farther to the right."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    there = torch.tensor([[5.0, 7.0], [7.0, 5.0], [6.0, 9.0]])

    def shown(right: float) -> Tensor:
        squares = (x - there[:, :1, None] - right).square() + (y - there[:, 1:, None]).square()
        return (squares / -6).exp()[:, None].expand(-1, 3, -1, -1) - 0.5

    return shown(0), shown(move)


def test_what_moves_as_it_was_filmed_costs_little_and_what_stays_or_goes_elsewhere_much() -> None:
    made, given = moved(torch.zeros(3, 2), pairs=torch.zeros(3, 2, 2))
    now, then = flowing(2)
    given = given._replace(present=now, wanted=then)
    costs = {k: float(Motion().cost(made, given._replace(guess=flowing(k)[1]))) for k in (-2, 0, 1, 2, 3)}
    assert costs[0] == pytest.approx(1)
    assert costs[2] < 0.1 < 0.15 < costs[1] < 0.5
    assert 0.15 < costs[3] < 0.6 and costs[-2] > 2


def test_a_prediction_is_taught_to_move_and_what_stood_still_is_left_alone() -> None:
    made, given = moved(torch.zeros(3, 2), pairs=torch.zeros(3, 2, 2))
    now, then = flowing(2)
    guess = now.clone().requires_grad_()
    Motion().cost(made, given._replace(present=now, wanted=then, guess=guess)).backward()
    assert guess.grad is not None
    assert float((guess.grad * (then - now)).sum()) < 0  # downhill lies what was filmed
    assert float(guess.grad[..., 0].abs().max()) < 1e-3 * float(guess.grad.abs().max())
    still = now.clone().requires_grad_()
    cost = Motion().cost(made, given._replace(present=now, wanted=now, guess=still))
    cost.backward()
    assert float(cost) == 0 and still.grad is not None and not still.grad.any()


def flowed(moves: Tensor) -> Step:
    """Transitions in which a blob moves so many pixels to the right, as the latent says in its own units."""
    pairs = torch.cat([torch.stack(flowing(int(k)), 1)[:1] for k in moves])
    z, none = moves[:, None] / 2.0, torch.zeros(())
    ends = torch.tensor([[0, 1]]).repeat(len(moves), 1)
    features = torch.zeros(len(moves), 2, 3)
    return Step(Clip(frames=pairs), ends, Bottled(z, none, {}), features, z, z, z, pairs)


def test_the_latent_learns_to_tell_how_the_picture_flows() -> None:
    torch.manual_seed(0)
    moves, part = torch.tensor([-2, -1, 0, 1, 2]).repeat(8), Flowing(features=3, dim=1, width=32)
    given, made = flowed(moves), seeing()
    assert float(part.cost(made, given)) == pytest.approx(1, abs=0.3)
    optimiser = torch.optim.Adam(part.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        part.cost(made, given).backward()
        optimiser.step()
    assert float(part.cost(made, given)) < 0.1
    others = given._replace(found=given.found._replace(z=given.found.z.flip(0)))
    assert float(part.cost(made, others)) > 1
    z = given.found.z.clone().requires_grad_()
    part.cost(made, given._replace(found=given.found._replace(z=z))).backward()
    assert z.grad is not None and z.grad.any()


def test_flow_outside_the_mask_is_not_told() -> None:
    class Nowhere(Part):
        def forward(self, pair: Tensor) -> Tensor:  # type: ignore[override]
            return torch.zeros(len(pair), 1, 16, 16)

    given, part = flowed(torch.tensor([2, -2])), Flowing(features=3, dim=1, mask=Nowhere())
    with torch.no_grad():
        for weight in part.parameters():
            weight.zero_()
    assert float(part.cost(seeing(), given)) == 0  # nothing flows there, and that is what it says


def test_flow_is_told_at_every_transition_of_a_window() -> None:
    given, part = flowed(torch.tensor([2, 1, -1, -2])), Flowing(features=3, dim=1)
    along = given._replace(clip=Clip(frames=torch.zeros(2, 3, 3, 16, 16)), features=torch.zeros(2, 3, 3))
    assert torch.equal(part.cost(seeing(), along), part.cost(seeing(), given))
    with pytest.raises(ValueError, match="a model of states has none"):
        part.cost(seeing(), given._replace(pair=torch.zeros(4, 2, 8)))


def test_each_latent_is_told_the_text_of_its_own_clip() -> None:
    made, given = moved(torch.zeros(2, 2), pairs=torch.zeros(2, 3, 2))
    heard: list[Any] = []
    made.found = lambda clip: heard.append(clip.text) or Bottled(torch.zeros(len(clip), 2), torch.zeros(()), {})  # type: ignore[method-assign,func-returns-value]
    given = given._replace(clip=given.clip.replace(text=("left", "right")), ends=torch.zeros(4, 2, dtype=torch.int64))
    between(made, given, pairs=torch.zeros(8, 2, 2))
    between(made, given, pairs=torch.zeros(6, 2, 2), each=1)
    assert heard == [("left", "left", "right", "right") * 2, ("left", "right") * 3]


def test_a_model_with_all_of_them_keeps_its_promises() -> None:
    kinds = (Null(), Reversal(), Composition(), Arrow(), Covariance(), Body(state=4, dim=4))
    clip = Clip(frames=torch.rand(8, 3, 3, 16, 16), state=torch.randn(8, 3, 4))
    made = LatentActions(
        encoder=Keypoints(frame=(16, 16), points=2, width=8),
        inverse=Between(features=4, dim=4, width=16),
        bottleneck=Free(4),
        forward=Moved(frame=(16, 16), points=2, width=8),
        signals=kinds,
        reach=2,
    )
    check_latents(made, clip)
    assert {"null", "reversal", "composition", "arrow", "covariance", "body"} <= set(made.loss(clip)[1])


def test_what_cannot_be_is_refused() -> None:
    made = seeing(Composition())
    with pytest.raises(ValueError, match="trains on 3"):
        made.loss(Clip(frames=torch.zeros(4, 2, 3, *SIDE)))
    with pytest.raises(ValueError, match="Body wants the body's state"):
        seeing(Body(state=2, dim=WIDTH)).loss(Clip(frames=torch.zeros(4, 2, 3, *SIDE)))
    with pytest.raises(ValueError, match="has none"):
        seeing().loss(Clip(state=torch.zeros(4, 2, 3)))
    with pytest.raises(ValueError, match="Motion is seen in pictures; Change"):
        seeing(Motion()).loss(Clip(frames=torch.zeros(4, 2, 3, *SIDE)))
    with pytest.raises(ValueError, match="a temperature"):
        Arrow(heat=0)
    with pytest.raises(TypeError, match="does not say what it costs"):
        Signal().cost(made, None)  # type: ignore[arg-type]
