"""BabyAI: episodes follow from their seed, are restored exactly, and are won by the expert and seldom by chance."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("minigrid")

from tacit.envs.babyai import CARRY, TASKS, BabyAI
from tacit.envs.simulator import Demonstrator, Simulator


class Chance:
    """Uniformly random actions, the floor of the scale."""

    source = "chance"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def begin(self, simulator: Simulator) -> None:
        self.random = np.random.default_rng([self.seed, 5])
        self.seed += 1

    def act(self, simulator: Simulator) -> np.ndarray:
        return simulator.space.sample(self.random)


def played(simulator: Simulator, demonstrator: Demonstrator, seeds: range) -> tuple[float, float]:
    """The mean return and the share of successes."""
    returns, wins = [], []
    for seed in seeds:
        simulator.steps = 0
        simulator.start(seed)
        demonstrator.begin(simulator)
        total, over = 0.0, False
        while not over:
            reward, terminated, success = simulator.apply(demonstrator.act(simulator))
            simulator.steps += 1
            total, over = total + reward, terminated or simulator.steps >= simulator.horizon
        returns.append(total)
        wins.append(success)
    return float(np.mean(returns)), float(np.mean(wins))


def filmed(simulator: Simulator, actions: np.ndarray) -> tuple[np.ndarray, list[float], list[int]]:
    """Frames, rewards and what the expert would have done, along given actions, up to the end of the episode."""
    frames, rewards, advice = [simulator.frame()], [], []
    for action in actions:
        advice.append(int(simulator.rule()))
        observation, reward, terminated, _, _ = simulator.step(action)
        frames.append(observation["frame"])
        rewards.append(reward)
        if terminated:
            break
    return np.stack(frames), rewards, advice


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_wins_and_chance_is_far_below_it(task: str) -> None:
    simulator = BabyAI(task)
    best, wins = played(simulator, simulator.expert(), range(20))
    chance, luck = played(simulator, Chance(), range(20))
    assert wins == 1.0
    assert chance < best - 0.15
    assert luck < (1.0 if task == "GoToDoor" else 0.75)


@pytest.mark.parametrize("task", ["GoToRedBall", "PickupLoc"])
def test_floor_and_ceiling_are_what_is_measured(task: str) -> None:
    simulator = BabyAI(task)
    assert played(simulator, simulator.expert(), range(100))[0] == pytest.approx(simulator.ceiling, abs=0.02)
    assert played(simulator, Chance(), range(200))[0] == pytest.approx(simulator.floor, abs=0.12)


@pytest.mark.parametrize("task", ["GoToLocal", "PickupLoc", "OpenRedDoor", "GoToObjMazeS4R2"])
def test_the_expert_wins_from_its_own_eyes_too(task: str) -> None:
    simulator = BabyAI(task, view="ego")
    assert played(simulator, simulator.expert(), range(20))[1] >= 0.95


def test_noise_costs_return_but_the_expert_plans_anew() -> None:
    simulator = BabyAI("PickupLoc")
    clean, _ = played(simulator, simulator.expert(), range(40))
    noisy, wins = played(simulator, simulator.expert(noise=0.5), range(40))
    assert noisy < clean - 0.03
    assert wins >= 0.9


def test_the_expert_is_told_what_was_really_done_and_keeps_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = BabyAI("PutNextLocal")
    hired, hire = [], simulator._hire
    monkeypatch.setattr(simulator, "_hire", lambda: hired.append(1) or hire())
    _, wins = played(simulator, simulator.expert(noise=0.2), range(20))
    assert wins == 1.0 and len(hired) <= 22, "a bot that loses the thread is replaced; one that is told seldom loses it"


def test_an_episode_may_end_in_failure() -> None:
    simulator = BabyAI("OpenDoorsOrderN2Debug")  # opening the second door first ends it
    endings = []
    for seed in range(20):
        _, wins = played(simulator, simulator.expert(noise=0.6, seed=seed), range(seed, seed + 1))
        endings.append((simulator.steps < simulator.horizon, wins))
    assert (True, 0.0) in endings and (True, 1.0) in endings


@pytest.mark.parametrize("view", ["full", "ego"])
def test_the_seed_decides_the_episode(view: str) -> None:
    one, two = BabyAI("GoToLocal", view=view), BabyAI("GoToLocal", view=view)
    actions = np.random.default_rng(0).integers(3, size=15)
    for seed in (3, 4, 3):
        one.reset(seed=seed)
    two.reset(seed=3)
    first, second = filmed(one, actions), filmed(two, actions)
    assert one.text == two.text
    assert np.array_equal(first[0], second[0]) and first[1:] == second[1:]
    assert len({BabyAI("GoToLocal").reset(seed=seed)[0]["frame"].tobytes() for seed in range(10)}) == 10


@pytest.mark.parametrize(("task", "view"), [("GoToRedBall", "full"), ("PickupLoc", "full"), ("GoToObjMazeS4R2", "ego")])
def test_restoring_gives_the_same_frames_rewards_and_advice(task: str, view: str) -> None:
    simulator, other = BabyAI(task, view=view), BabyAI(task, view=view)
    random = np.random.default_rng(1)
    for seed in range(6):
        simulator.reset(seed=seed)
        filmed(simulator, random.integers(simulator.space.size, size=6))
        kept, steps = simulator.snapshot(), simulator.steps
        actions = random.integers(simulator.space.size, size=25)
        first = filmed(simulator, actions)
        other.reset(seed=seed + 1)
        for again in (simulator, other):
            again.restore(kept)
            assert again.steps == steps
            second = filmed(again, actions)
            assert np.array_equal(first[0], second[0]) and first[1:] == second[1:]


def test_asking_the_expert_neither_moves_the_world_nor_depends_on_having_asked() -> None:
    asked, silent = BabyAI("PickupDist"), BabyAI("PickupDist")
    random = np.random.default_rng(2)
    for seed in range(8):
        asked.reset(seed=seed)
        silent.reset(seed=seed)
        for action in random.integers(5, size=8):
            assert asked.rule() == asked.rule()
            ended = asked.step(action)[2]
            assert silent.step(action)[2] == ended
            if ended:
                break
        else:
            assert silent.rule() == asked.rule()
        assert np.array_equal(asked.frame(), silent.frame())


@pytest.mark.parametrize("size", [17, 40, 64, 84, 128])
@pytest.mark.parametrize("view", ["full", "ego"])
def test_frames_have_the_size_asked_for(size: int, view: str) -> None:
    for task in ("GoToRedBall", "OpenRedDoor", "OpenDoor"):
        frame = BabyAI(task, size=size, view=view).reset(seed=0)[0]["frame"]
        assert frame.shape == (size, size, 3) and frame.dtype == np.uint8
        assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 4


def test_a_frame_is_kept_by_who_holds_it() -> None:
    simulator = BabyAI("GoToObj")
    before = simulator.reset(seed=0)[0]["frame"]
    kept = before.copy()
    after = simulator.step(np.asarray(0))[0]["frame"]
    assert np.array_equal(before, kept) and not np.array_equal(before, after)
    for _ in range(3):
        simulator.step(np.asarray(0))
    assert np.array_equal(simulator.frame(), kept), "four turns to the left lead back to where one began"


def test_the_ego_view_has_the_agent_at_the_bottom_looking_up() -> None:
    simulator = BabyAI("GoToRedBallNoDists", view="ego", size=70)
    for seed in range(4):
        agent = simulator.reset(seed=seed)[0]["frame"][60:, 30:40].astype(int)
        red = (agent[..., 0] > 200) & (agent[..., 1] < 60)
        assert red[8, 2:8].sum() > red[2, 2:8].sum(), "the triangle's point is above its base"


def test_a_thing_in_the_hand_is_seen() -> None:
    simulator = BabyAI("PickupDist")
    pick = CARRY.index("pickup")
    for seed in range(50):
        simulator.reset(seed=seed)
        for action in [2] * 5:
            simulator.step(np.asarray(action))
        empty, bare = simulator.frame(), simulator.state()
        _, _, terminated, _, _ = simulator.step(np.asarray(pick))
        if not terminated and simulator.state()[-1] == 1:
            assert bare[-1] == 0
            y, x = np.nonzero((simulator.frame() != empty).any(-1))
            assert max(np.ptp(y), np.ptp(x)) >= 12, "both squares changed: the thing's and the agent's"
            return
    raise AssertionError("nothing wrong was ever picked up")


def test_the_instruction_can_be_fixed() -> None:
    wanted = "go to the blue ball"
    simulator, other = BabyAI("GoToLocal", instruction=wanted), BabyAI("GoToLocal", instruction=wanted)
    pictures = set()
    for seed in range(5):
        picture = simulator.reset(seed=seed)[0]["frame"]
        assert simulator.text == wanted
        assert np.array_equal(picture, other.reset(seed=seed)[0]["frame"])
        pictures.add(picture.tobytes())
    assert len(pictures) == 5
    with pytest.raises(ValueError, match="go to the red ball"):
        BabyAI("GoToRedBallGrey", instruction="go to the red bal").reset(seed=0)


def test_success_is_the_environments_own_reward() -> None:
    simulator = BabyAI("GoToRedBall")
    simulator.reset(seed=5)
    terminated = False
    while not terminated:
        _, reward, terminated, truncated, outcome = simulator.step(simulator.rule())
        assert outcome["success"] == (reward > 0)
    assert reward == pytest.approx(1 - 0.9 * simulator.steps / 64) and not truncated


def test_an_episode_is_cut_at_the_levels_own_limit() -> None:
    simulator = BabyAI("GoToRedBall", max_steps=7)
    for seed in range(5):
        simulator.reset(seed=seed)
        ends = [simulator.step(np.asarray(0))[2:4] for _ in range(7)]
        if not any(terminated for terminated, _ in ends):
            assert [truncated for _, truncated in ends] == [False] * 6 + [True]
            return
    raise AssertionError("turning on the spot won five times")


def test_the_state_tells_enough_to_turn_towards_the_target() -> None:
    simulator = BabyAI("GoToRedBallNoDists")
    simulator.reset(seed=0)
    assert simulator.state().dtype == np.float32 and simulator.observation_space.contains(simulator.observe())
    ahead = []
    for seed in range(60):
        simulator.reset(seed=seed)
        if simulator.rule() == 2:
            state = simulator.state()
            heading = {0: (1, 0), 1: (0, 1), 2: (-1, 0), 3: (0, -1)}[int(state[2:6].argmax())]
            ahead.append(np.sign(np.dot(heading, state[6:8])))
    assert len(ahead) > 10 and np.mean(np.array(ahead) > 0) > 0.9, "the expert walks to the ball"


def test_an_unknown_level_or_view_is_answered_with_the_likely_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="mean 'GoToRedBall'"):
        BabyAI("GoToRedBal")
    with pytest.raises(ValueError, match="full, ego"):
        BabyAI("GoToRedBall", view="top")
    simulator = BabyAI("PickupLoc")
    for seed in range(30):
        simulator.reset(seed=seed)
    assert capsys.readouterr().out == "", "MiniGrid's own prints are kept from the terminal"
