"""Rollouts play exactly the episodes asked for, the same ones however they are spread, and count them rightly."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tacit.clip import Clip, Space
from tacit.envs.simulator import Expert, Simulator
from tacit.evaluate.rollout import Chance, Rollouts, renew, rollout, select, summary
from tacit.part import Part


class Corridor(Simulator):
    """A walk to one of two ends: the seed says which, and the first frame alone shows it."""

    name, horizon, fps = "tests/corridor", 12, 5.0
    space, size = Space("discrete", 3, names=("left", "right", "stay")), 8
    floor, ceiling = -4.0, 6.0
    text = "go to the end that was shown"

    def __init__(self, space: Space | None = None) -> None:
        self.space = space or type(self).space
        self.closed = False

    def start(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.goal, self.place = int(random.choice([-1, 1])), int(random.integers(-1, 2))
        self.reach = int(random.integers(3, 6))
        self.began = True

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        assert action.shape in ((), (1,))
        step = np.sign(float(action.item())) if not self.space.discrete else (-1, 1, 0)[int(action)]
        self.place, self.began = self.place + int(step), False
        arrived = self.place * self.goal >= self.reach
        return (10.0 if arrived else -1.0), arrived, arrived

    def frame(self) -> np.ndarray:
        frame = np.zeros((self.size, self.size, 3), np.uint8)
        frame[np.clip(self.place + 4, 0, 7), :, 0] = 255
        if self.began:
            frame[:, 0 if self.goal < 0 else 7, 1] = 255
        return frame

    def state(self) -> np.ndarray:
        return np.array([self.place, self.goal if self.began else 0], np.float32)

    def rule(self) -> np.ndarray:
        right = self.goal > 0
        return np.asarray(int(right)) if self.space.discrete else np.array([1.0 if right else -1.0], np.float32)

    def snapshot(self) -> Any:
        return self.place, self.goal, self.reach, self.began

    def restore(self, snapshot: Any) -> None:
        self.place, self.goal, self.reach, self.began = snapshot

    def close(self) -> None:
        self.closed = True


class Recall(NamedTuple):
    goal: Tensor
    steps: dict[str, Tensor]


class Mindful:
    """Reads the goal off the first frame and keeps it in mind: any mix-up of memory rows shows as failure."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.texts: set[Any] = set()

    def start(self, batch: int) -> Recall:
        return Recall(torch.zeros(batch), {"count": torch.zeros(batch, 2, dtype=torch.long)})

    def act(self, observation: Clip, memory: Recall) -> tuple[Tensor, Recall]:
        assert observation.frames is not None and observation.state is not None
        assert observation.frames.dtype == torch.uint8 and observation.frames.shape[1:] == (1, 3, 8, 8)
        assert observation.state.shape[1:] == (1, 2) and not torch.is_grad_enabled()
        self.batches.append(len(observation))
        self.texts |= set(observation.text or ())
        shown = observation.frames[:, 0, 1, 0]  # the green row: its first or last column is lit on the first frame
        seen = (shown[:, 7] > 0).float() - (shown[:, 0] > 0).float()
        assert ((memory.steps["count"][:, 0] == 0) == (seen != 0)).all(), "memory and episode are out of step"
        goal = torch.where(seen != 0, seen, memory.goal)
        return (goal > 0).long(), Recall(goal, {"count": memory.steps["count"] + 1})


class Draws:
    """Acts at random from torch's own generator."""

    def start(self, batch: int) -> None:
        return None

    def act(self, observation: Clip, memory: None) -> tuple[Tensor, None]:
        return torch.randint(3, (len(observation),)), None


class Learned(Part):
    """A policy with weights, to be saved and sent about: it walks to the right, or to the left when so built."""

    def __init__(self, *, right: bool) -> None:
        self.bias = nn.Parameter(torch.tensor([0.0, 1.0 if right else -1.0, -5.0]))
        self.drop = nn.Dropout(0.9)

    def start(self, batch: int) -> None:
        return None

    def act(self, observation: Clip, memory: None) -> tuple[Tensor, None]:
        return self.drop(self.bias.expand(len(observation), 3)).argmax(-1), None


def same(one: Rollouts, other: Rollouts) -> bool:
    names = ("returns", "successes", "lengths", "seeds")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("count", [1, 3, 7, 50])
def test_same_episodes_whatever_the_number_of_simulators(count: int) -> None:
    alone = rollout(Mindful(), [Corridor()], episodes=23, seed=5)
    together = rollout(Mindful(), [Corridor() for _ in range(count)], episodes=23, seed=5)
    assert len(together) == 23 and same(alone, together)
    assert together.successes.all() and len(set(together.lengths)) > 3
    assert (together.returns == 11 - together.lengths).all()
    assert len(set(together.seeds)) == 23


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("renew", lambda memory, rows, fresh, batch: memory),  # a new episode inherits the last one's memory
        ("select", lambda memory, rows: select(memory, [*rows[1:], rows[0]])),  # rows change places
    ],
)
def test_a_planted_mix_up_of_memory_is_noticed(name: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"tacit.evaluate.rollout.{name}", broken)
    try:
        done = rollout(Mindful(), [Corridor() for _ in range(5)], episodes=23, seed=5)
    except AssertionError as error:
        assert "out of step" in str(error)
    else:
        assert not done.successes.all()


def test_another_seed_gives_other_episodes() -> None:
    one, other = (rollout(Mindful(), [Corridor()] * 1, episodes=10, seed=seed) for seed in (0, 1))
    assert not set(one.seeds) & set(other.seeds)


def test_policy_is_called_in_batches_and_told_the_text() -> None:
    policy = Mindful()
    done = rollout(policy, [Corridor() for _ in range(8)], episodes=24, seed=0)
    assert max(policy.batches) == 8 and policy.batches[0] == 8
    assert sum(policy.batches) == done.lengths.sum()  # no row is played after its end, none twice
    assert policy.texts == {Corridor.text}
    rollout(asked := Mindful(), [Corridor()], episodes=2, seed=0, text="stay where you are")
    assert asked.texts == {"stay where you are"}


def test_scripted_actors_do_not_depend_on_the_order_of_playing() -> None:
    for actor in (Expert(noise=0.4, seed=3), Chance(seed=3)):
        one = rollout(actor, [Corridor()], episodes=12, seed=2)
        many = rollout(actor, [Corridor() for _ in range(5)], episodes=12, seed=2)
        assert same(one, many)
        assert actor.seed == 3  # the caller's own is left as it was


def test_each_episode_has_chances_of_its_own() -> None:
    began: list[int] = []

    class Noted(Chance):
        def begin(self, simulator: Simulator) -> None:
            began.append(self.seed)
            super().begin(simulator)

    done = rollout(Noted(), Corridor, episodes=9, seed=2)
    assert sorted(began) == sorted(done.seeds) and len(set(began)) == 9


def test_expert_is_at_the_top_and_chance_at_the_bottom() -> None:
    expert = rollout(Expert(), Corridor, episodes=60, seed=0)
    chance = rollout(Chance(), Corridor, episodes=60, seed=0)
    assert expert.successes.mean() == 1 and chance.successes.mean() < 0.5
    assert chance.lengths.max() == Corridor.horizon


def test_a_drawing_policy_repeats_itself_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    one, again = (rollout(Draws(), Corridor, episodes=12, seed=4) for _ in range(2))
    assert same(one, again) and torch.equal(before, torch.get_rng_state())
    assert not np.array_equal(one.returns, rollout(Draws(), Corridor, episodes=12, seed=5).returns)


def test_the_first_episodes_are_filmed_from_first_to_last_frame() -> None:
    done = rollout(Mindful(), [Corridor() for _ in range(4)], episodes=9, seed=1, record=3)
    assert len(done.films) == 3
    for film, length, seed in zip(done.films, done.lengths, done.seeds, strict=False):
        world = Corridor()
        first = world.reset(seed=int(seed))[0]["frame"]
        assert film.shape == (length + 1, 8, 8, 3) and film.dtype == np.uint8
        assert (film[0] == first).all() and (film[1:, :, :, 1] == 0).all()


def test_evaluation_mode_is_on_while_playing_and_undone_after() -> None:
    policy = Learned(right=True).train()
    done = rollout(policy, Corridor, episodes=20, seed=0)
    assert policy.training
    # with its dropout on, the policy would dither; walking straight it arrives, or is cut at the horizon
    assert set(done.lengths[done.successes]) <= {2, 3, 4, 5, 6} and done.lengths[~done.successes].min() == 12


def test_workers_play_the_same_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where the other process finds this file's classes
    policy = Learned(right=False)
    here = rollout(policy, Corridor, episodes=9, seed=3, record=2)
    spread = rollout(policy, Corridor, episodes=9, seed=3, record=2, workers=2)
    assert same(here, spread) and 0 < here.successes.mean() < 1
    assert all((a == b).all() for a, b in zip(here.films, spread.films, strict=True))
    scripted = rollout(Expert(noise=0.5), functools.partial(Corridor), episodes=5, seed=3, workers=2)
    assert same(scripted, rollout(Expert(noise=0.5), [Corridor()], episodes=5, seed=3))


def test_a_policy_may_be_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tacit.evaluate.rollout.Part.load", lambda folder, classes: Learned(right=folder == tmp_path))
    one, other = (rollout(folder, Corridor, episodes=9, seed=3) for folder in (tmp_path, tmp_path / "b"))
    assert same(one, rollout(Learned(right=True), Corridor, episodes=9, seed=3)) and not same(one, other)


def test_opened_simulators_are_closed_even_when_the_policy_fails() -> None:
    opened: list[Corridor] = []

    def open_() -> Corridor:
        opened.append(Corridor())
        return opened[-1]

    rollout(Chance(), open_, episodes=20, seed=0, lockstep=3)
    assert len(opened) == 3 and all(world.closed for world in opened)

    class Broken(Draws):
        def act(self, observation: Clip, memory: None) -> tuple[Tensor, None]:
            return torch.full((len(observation),), -1), None

    with pytest.raises(ValueError, match=r"Broken gave an action that cannot be taken"):
        rollout(Broken(), open_, episodes=2, seed=0)
    assert all(world.closed for world in opened)
    mine = Corridor()
    rollout(Chance(), [mine], episodes=1, seed=0)
    assert not mine.closed


def test_continuous_actions() -> None:
    class Pushes(Draws):
        value = 1.0

        def act(self, observation: Clip, memory: None) -> tuple[Tensor, None]:
            return torch.full((len(observation), 1), self.value, dtype=torch.bfloat16), None

    space = Space("continuous", 1)
    done = rollout(Pushes(), [Corridor(space), Corridor(space)], episodes=8, seed=0)
    assert 0 < done.successes.mean() < 1
    Pushes.value = float("nan")
    with pytest.raises(ValueError, match="cannot be taken"):
        rollout(Pushes(), [Corridor(space)], episodes=1, seed=0)


def test_what_was_given_wrongly_is_said() -> None:
    with pytest.raises(ValueError, match="no simulators"):
        rollout(Chance(), [], episodes=1, seed=0)
    with pytest.raises(ValueError, match="episodes=0"):
        rollout(Chance(), Corridor, episodes=0, seed=0)
    with pytest.raises(TypeError, match="object cannot act"):
        rollout(object(), Corridor, episodes=1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="opens its simulators itself"):
        rollout(Chance(), [Corridor()], episodes=4, seed=0, workers=2)
    with pytest.raises(ValueError, match="top level of a module"):
        rollout(Chance(), lambda: Corridor(), episodes=4, seed=0, workers=2)


@dataclass(frozen=True)
class Held:
    past: Tensor
    nothing: None = None


def test_success_and_a_scale_that_nobody_tells_are_not_made_up() -> None:
    class Silent(Corridor):
        floor = ceiling = math.nan

        def step(self, action: np.ndarray) -> Any:
            return (*super().step(action)[:4], {})

    found = rollout(Chance(), [Silent()], episodes=4, seed=0)
    assert found.successes is None and found.row()["success"] is None
    assert [value.name for value in summary(found, Silent())] == ["return", "episode length"]


def test_memory_rows_are_picked_and_begun_anew() -> None:
    memory: Any = {"a": (torch.arange(4), [torch.arange(8).reshape(4, 2)]), "b": Held(torch.arange(4) * 10), "c": None}
    picked = select(memory, [3, 1])
    assert picked["a"][0].tolist() == [3, 1] and picked["b"].past.tolist() == [30, 10] and picked["c"] is None
    fresh = {"a": (torch.tensor([-1]), [torch.tensor([[-1, -1]])]), "b": Held(torch.tensor([-1])), "c": None}
    placed = renew(memory, [2], fresh=fresh, batch=4)
    assert placed["a"][0].tolist() == [0, 1, -1, 3] and placed["a"][1][0][2].tolist() == [-1, -1]
    assert placed["b"].past.tolist() == [0, 10, -1, 30]
    assert memory["a"][0].tolist() == [0, 1, 2, 3]  # what was handed in is left alone


def test_memory_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(TypeError, match="holds a int"):
        select((torch.zeros(2), 3), [0])
    grown, start = torch.zeros(4, 6, 2), torch.zeros(1, 1, 2)
    with pytest.raises(ValueError, match="keeps its shape"):
        renew(grown, [0], fresh=start, batch=4)
    with pytest.raises(ValueError, match="keeps its shape"):
        renew(
            torch.zeros(2, 4, 8), [0], fresh=torch.zeros(2, 1, 8), batch=4
        )  # (layers, batch, width), as of torch's GRU
    with pytest.raises(ValueError, match="let start give the same as act"):
        renew((torch.zeros(4), torch.zeros(4)), [0], fresh=(None, torch.zeros(1)), batch=4)
    with pytest.raises(ValueError, match="let start give the same as act"):
        renew({"a": torch.zeros(4)}, [0], fresh={"b": torch.zeros(1)}, batch=4)


def test_memory_may_grow_where_one_simulator_plays() -> None:
    class Hoards(Draws):
        def start(self, batch: int) -> Any:
            return torch.zeros(batch, 0)

        def act(self, observation: Clip, memory: Any) -> tuple[Tensor, Any]:
            longer = torch.cat([memory, memory.new_zeros(len(memory), 1)], 1)
            return torch.ones(len(observation), dtype=torch.long), longer

    assert len(rollout(Hoards(), [Corridor()], episodes=4, seed=0)) == 4  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give one simulator"):
        rollout(Hoards(), [Corridor() for _ in range(3)], episodes=9, seed=0)  # type: ignore[arg-type]


def test_summary_by_hand() -> None:
    successes = np.array([True, True, True, False])
    done = Rollouts(np.array([6.0, 6.0, 6.0, -14.0]), successes, np.array([3, 4, 5, 12]), np.arange(4), seed=7)
    values = {v.name: v for v in summary(done, Corridor(), name="tacit")}
    success, scaled = values["tacit: success"], values["tacit: normalised return"]
    assert success.value == 0.75 and success.n == 4
    assert (success.low, success.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson
    # normalised: 1, 1, 1, -1: mean 0.5, deviation 1, so the reach is 3.1824 * 1 / 2
    assert scaled.value == pytest.approx(0.5) and scaled.high == pytest.approx(0.5 + 1.5912, abs=1e-3)
    assert success.data == "4 new episodes of tests/corridor, seed 7"
    row = done.row()
    assert (row["success"], row["return"], row["episodes"]) == (0.75, 1.0, 4)
    assert row["return_low"] < 1 < row["return_high"]
