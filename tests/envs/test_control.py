"""dm_control behind the face: exact restoring, seeds, experts worth recording, pictures in which things show."""

import pickle
import time

import numpy as np
import pytest

pytest.importorskip("dm_control", reason='needs pip install "tacit[control]"')

from tacit.data.collect import collect
from tacit.envs.control import TASKS, Control


def episode(env, seed, *, noise=None):
    """The return, success and frames of the expert, or of random actions where there is no noise to add."""
    env.reset(seed=seed)
    agent, random = env.expert(noise=noise or 0.0, seed=seed), np.random.default_rng(seed)
    agent.begin(env)
    total, over = 0.0, False
    while not over:
        action = env.space.sample(random) if noise is None else agent.act(env)
        reward, over, success = env.apply(action)
        env.steps += 1
        total, over = total + reward, over or env.steps >= env.horizon
    return total, success


@pytest.fixture(scope="module", params=sorted(TASKS))
def env(request):
    env = Control(request.param, size=64)
    yield env
    env.close()


def test_frames_come_in_the_size_asked_for_and_depend_on_the_state_alone(env):
    small = Control(env.name.split("/")[1], size=32)
    for each in (env, small):
        seen, _ = each.reset(seed=3)
        assert seen["frame"].shape == (each.size, each.size, 3) and seen["frame"].dtype == np.uint8
        assert seen["frame"].std() > 5
        assert each.observation_space.contains(seen)
        np.testing.assert_array_equal(each.frame(), seen["frame"])
    small.close()


def test_one_seed_is_one_episode(env):
    runs = []
    for seed in (1, 1, 2):
        env.reset(seed=seed)
        runs.append(np.stack([env.step(env.rule())[0]["frame"] for _ in range(10)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_restoring_gives_the_same_future_here_and_in_another_process(env):
    env.reset(seed=4)
    random = np.random.default_rng(0)
    for _ in range(5):
        env.step(env.space.sample(random))
    saved = pickle.dumps(env.snapshot())
    actions = [env.space.sample(random) for _ in range(15)]

    def future(simulator):
        simulator.restore(pickle.loads(saved))
        first = simulator.observe()
        rest = [simulator.step(action) for action in actions]
        return [first, *(step[0] for step in rest)], [step[1] for step in rest], simulator.steps

    other = Control(env.name.split("/")[1], size=64)
    other.reset(seed=9)
    once, again, elsewhere = future(env), future(env), future(other)
    other.close()
    for run in (again, elsewhere):
        assert run[1:] == once[1:]
        for a, b in zip(once[0], run[0], strict=True):
            np.testing.assert_array_equal(a["state"], b["state"])
            np.testing.assert_array_equal(a["frame"], b["frame"])


def test_the_expert_wins_far_above_chance_and_noise_harms_it(env):
    seeds = range(4)
    expert = [episode(env, seed, noise=0.0) for seed in seeds]
    chance = [episode(env, seed) for seed in seeds]
    noisy = [episode(env, seed, noise=1.0) for seed in seeds]
    middle = env.floor + 0.7 * (env.ceiling - env.floor)
    assert np.mean([r for r, _ in expert]) > middle > np.mean([r for r, _ in chance]) * 2
    assert all(won for _, won in expert) and sum(won for _, won in chance) <= 1
    assert np.mean([r for r, _ in noisy]) < np.mean([r for r, _ in expert]) - 1


def test_one_decision_shows_in_the_picture(env):
    env.reset(seed=5)
    for _ in range(3):
        before = env.frame()
        after = env.step(env.rule())[0]["frame"]
        assert np.abs(after.astype(int) - before).max() > 20


def test_a_hundred_decisions_with_pictures_take_less_than_a_second(env):
    env.reset(seed=6)
    best = np.inf
    for _ in range(3):  # the best of three: the machine has other work
        began = time.perf_counter()
        for _ in range(30):
            env.step(env.rule())
        best = min(best, time.perf_counter() - began)
    assert best < 0.3


def test_the_point_mass_starts_anywhere_at_rest_and_shows_at_32_pixels():
    env = Control("point_mass", size=32)
    starts = []
    for seed in range(60):
        starts.append(env.reset(seed=seed)[0]["state"])
        warm = env.frame().astype(int) @ [1, 0, -1] > 40  # nothing else is, but for the target
        assert warm.sum() >= 4
    starts = np.stack(starts)
    assert (np.abs(starts[:, :2]).max(0) > 0.2).all() and (starts[:, 2:] == 0).all()
    assert (starts[:, 0] > 0).any() and (starts[:, 0] < 0).any()
    env.close()


def test_an_unknown_task_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="point_mass"):
        Control("walker")


@pytest.mark.parametrize(("repeat", "rate"), [(12, 4.0), (10, 5.0), (200, 1.0)])
def test_any_length_of_a_decision_can_be_recorded(repeat, rate, tmp_path):
    """4.2 and 0.25 decisions a second are none that a dataset could hold."""
    data = collect(
        "control/point_mass", tmp_path / "d", episodes=1, workers=1, options={"repeat": repeat, "horizon": 3}
    )
    assert data.spec.fps == rate
