"""LunarLander: episodes follow from their seed, are restored exactly, and are won by the heuristic, never by chance."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("Box2D")
pytest.importorskip("pygame")

from tacit.envs.lander import SOLVED, TASKS, Lander


def flown(simulator: Lander, seed: int, *, noise: float | None) -> tuple[float, bool, bool]:
    """The return, whether it succeeded, and whether it ended of itself; ``noise`` None is chance."""
    simulator.steps = 0
    simulator.start(seed)
    expert, random = simulator.expert(noise=noise or 0.0, seed=seed), np.random.default_rng([seed, 5])
    expert.begin(simulator)
    total = 0.0
    for _ in range(simulator.horizon):
        action = simulator.space.sample(random) if noise is None else expert.act(simulator)
        reward, terminated, success = simulator.apply(action)
        total += reward
        if terminated:
            return total, success, True
    return total, success, False


def filmed(simulator: Lander, actions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[float]]:
    frames, states, rewards = [simulator.frame()], [simulator.state()], []
    for action in actions:
        observation, reward, terminated, _, _ = simulator.step(action)
        frames.append(observation["frame"])
        states.append(observation["state"])
        rewards.append(reward)
        if terminated:
            break
    return np.stack(frames), np.stack(states), rewards


@pytest.mark.parametrize("task", TASKS)
def test_the_heuristic_lands_and_chance_crashes(task: str) -> None:
    simulator = Lander(task)
    best = [flown(simulator, seed, noise=0.0) for seed in range(20)]
    chance = [flown(simulator, seed, noise=None) for seed in range(100)]
    assert np.mean([success for _, success, _ in best]) >= (0.75 if task == "discrete" else 0.95)
    assert not any(success for _, success, _ in chance)
    assert np.mean([total for total, _, _ in best]) == pytest.approx(simulator.ceiling, abs=30)
    assert np.mean([total for total, _, _ in chance]) == pytest.approx(simulator.floor, abs=40)


def test_noise_costs_return() -> None:
    simulator = Lander("continuous")
    clean = np.mean([flown(simulator, seed, noise=0.0)[0] for seed in range(8)])
    assert np.mean([flown(simulator, seed, noise=1.5)[0] for seed in range(8)]) < clean - 30


def test_success_is_coming_to_rest_with_a_solving_return() -> None:
    simulator = Lander("discrete")
    seen = set()
    for seed in range(20):
        total, success, ended = flown(simulator, seed, noise=0.0)
        at_rest = ended and not simulator._world.lander.awake
        assert success == (at_rest and total >= SOLVED)
        seen.add(success)
    assert seen == {True, False}


@pytest.mark.parametrize("task", TASKS)
def test_the_seed_decides_the_episode_and_restoring_is_exact(task: str) -> None:
    simulator, other = Lander(task), Lander(task)
    random = np.random.default_rng(0)
    for seed in range(2):
        first_actions = [simulator.space.sample(random) for _ in range(40)]
        actions = [simulator.space.sample(random) for _ in range(100)]  # as a rule into the ground
        for each in (simulator, other):
            each.reset(seed=seed)
        one, two = filmed(simulator, first_actions), filmed(other, first_actions)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
        kept = simulator.snapshot()
        onward = filmed(simulator, actions)
        other.reset(seed=9)
        for each in (simulator, other):
            each.restore(kept)
            assert each.steps == 40
            assert all(np.array_equal(a, b) for a, b in zip(onward, filmed(each, actions), strict=True))


def test_looking_changes_nothing() -> None:
    watched, unwatched = Lander("continuous"), Lander("continuous")
    for each in (watched, unwatched):
        each.reset(seed=4)
    for _ in range(60):
        action = watched.rule()
        watched.step(action)
        assert np.array_equal(watched.frame(), watched.frame())
        unwatched.apply(action)
    assert np.array_equal(watched.frame(), unwatched.frame()), "the exhaust ages with time, not with looking"
    assert np.array_equal(watched.state(), unwatched.state())


def test_the_exhaust_shows_which_engine_fires() -> None:
    pictures = []
    for action in range(4):
        simulator = Lander("discrete", size=128)
        simulator.reset(seed=2)
        for _ in range(20):
            simulator.step(np.asarray(0))
        for _ in range(2):
            observation = simulator.step(np.asarray(action))[0]
        pictures.append(observation["frame"].astype(int))
    for action in (1, 2, 3):
        assert np.abs(pictures[action] - pictures[0]).max() > 40


@pytest.mark.parametrize("size", [32, 64, 84, 256])
def test_frames_have_the_size_asked_for(size: int) -> None:
    simulator = Lander("discrete", size=size)
    frame = simulator.reset(seed=0)[0]["frame"]
    assert frame.shape == (size, size, 3) and frame.dtype == np.uint8
    assert (frame[-1] == 255).all() and frame[size // 2, 1].max() == 0, "ground below, sky above"
    assert simulator.observation_space.contains(simulator.observe())


def test_the_picture_is_gymnasiums_own_but_for_the_scale() -> None:
    simulator = Lander("discrete", size=200)
    simulator.reset(seed=1)
    for _ in range(70):
        simulator.step(np.asarray(0))
    ours = simulator.frame().astype(float)
    theirs = simulator._world.render().astype(float)  # (400, 600, 3)
    theirs = theirs.reshape(200, 2, 200, 3, 3).mean((1, 3))
    assert np.abs(ours - theirs).mean() < 1.5
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99


def test_an_unknown_task_is_answered_with_the_likely_one() -> None:
    with pytest.raises(ValueError, match="mean 'continuous'"):
        Lander("continous")
