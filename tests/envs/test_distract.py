"""Distractors move of themselves, are known, leave the task as it was, and are saved; simulators open by name."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tacit.envs
from tacit.clip import Space
from tacit.envs import names, simulator
from tacit.envs.distract import KINDS, Distract
from tacit.envs.simulator import Simulator


class Slide(Simulator):
    """A white square on black that goes left or right; it wins at the right border."""

    name, horizon, text = "slide/plain", 12, "go right"
    space = Space("discrete", 2, names=("left", "right"))

    def __init__(self, size: int = 64) -> None:
        self.size, self.place = size, 0

    def start(self, seed: int) -> None:
        self.place = int(np.random.default_rng(seed).integers(2, 5))

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self.place = int(np.clip(self.place + 2 * int(action) - 1, 0, 7))
        return float(self.place == 7), self.place == 7, self.place == 7

    def frame(self) -> np.ndarray:
        frame, cell = np.zeros((self.size, self.size, 3), np.uint8), self.size // 8
        frame[3 * cell : 4 * cell, self.place * cell : (self.place + 1) * cell] = 255
        return frame

    def state(self) -> np.ndarray:
        return np.array([self.place], np.float32)

    def rule(self) -> np.ndarray:
        return np.asarray(1)

    def snapshot(self) -> Any:
        return self.place

    def restore(self, snapshot: Any) -> None:
        self.place = snapshot


def filmed(simulator: Simulator, actions: Any) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Frames, the distractor's states and rewards along given actions."""
    frames, outside, rewards = [simulator.frame()], [simulator.exogenous()], []
    for action in actions:
        observation, reward, *_ = simulator.step(np.asarray(action))
        frames.append(observation["frame"])
        outside.append(simulator.exogenous())
        rewards.append(reward)
    return np.stack(frames), np.stack([vector for vector in outside if vector is not None]), rewards


@pytest.mark.parametrize("kind", KINDS)
def test_the_distractor_moves_and_no_action_moves_it(kind: str) -> None:
    world = Distract(Slide(), kind)
    world.reset(seed=3)
    frames, left, _ = filmed(world, [0] * 10)
    world.reset(seed=3)
    _, right, _ = filmed(world, [1, 0, 1, 1, 0, 1, 0, 0, 1, 1])
    assert left.dtype == np.float32 and np.isfinite(left).all()
    assert np.array_equal(left, right)
    assert (np.abs(np.diff(left, axis=0)).max(1) > 0).all()
    still = np.abs(np.diff(frames[4:].astype(int), axis=0))[:, :20]  # the square stays at the left border, below
    assert (still.max((1, 2, 3)) > 10).all()


@pytest.mark.parametrize("kind", KINDS)
def test_motion_differs_between_episodes_and_seeds_and_looks_only_between_seeds(kind: str) -> None:
    first, twin, other = Distract(Slide(), kind), Distract(Slide(), kind), Distract(Slide(), kind, seed=1)
    for world in (first, twin, other):
        world.reset(seed=0)
    assert np.array_equal(first.frame(), twin.frame())
    assert not np.allclose(first.exogenous(), other.exogenous())
    twin.reset(seed=1)
    assert not np.allclose(first.exogenous(), twin.exogenous())
    assert first.name == first.inside.name and first.space == first.inside.space


@pytest.mark.parametrize("kind", KINDS)
def test_restoring_covers_the_distractor(kind: str) -> None:
    world, other = Distract(Slide(), kind), Distract(Slide(), kind)
    world.reset(seed=5)
    filmed(world, [0, 1, 0])
    kept = world.snapshot()
    first = filmed(world, [0, 1, 1, 0])
    other.reset(seed=6)
    for again in (world, other):
        again.restore(kept)
        assert again.steps == 3
        assert all(np.array_equal(a, b) for a, b in zip(first, filmed(again, [0, 1, 1, 0]), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_is_as_it_was(kind: str) -> None:
    plain, world = Slide(), Distract(Slide(), kind)
    plain.reset(seed=2)
    world.reset(seed=2)
    assert (world.text, world.horizon) == (plain.text, plain.horizon)
    while True:
        assert world.rule() == plain.rule() and np.array_equal(world.state(), plain.state())
        ours, theirs = world.step(world.rule())[1:], plain.step(plain.rule())[1:]
        assert ours == theirs
        assert world.inside.steps == world.steps
        if ours[1]:
            break
    play = world.play(seed=0)
    world.reset(seed=3)
    play.begin(world)
    assert play.act(world) in (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_scales_it_from_nothing_and_the_agent_still_shows(kind: str) -> None:
    plain = Slide()
    plain.reset(seed=0)
    change = []
    for strength in (0.0, 0.3, 1.0, 3.0):
        world = Distract(Slide(), kind, strength=strength)
        differences = []
        for seed in range(12):
            world.reset(seed=seed)
            differences.append(np.abs(world.frame().astype(int) - world.inside.frame()).mean())
        change.append(np.mean(differences))
    assert change[0] == 0 and change[1] > 1 and change[1] < change[2] < change[3]
    assert np.array_equal(Distract(plain, kind, strength=0.0).frame(), plain.frame())


def test_the_strongest_background_leaves_the_agent_brighter_than_itself() -> None:
    world = Distract(Slide(), "background", strength=3.0)
    for seed in range(8):
        world.reset(seed=seed)
        frame, agent = world.frame().astype(int), world.inside.frame()[..., 0] == 255
        assert frame[agent].mean() > 160
        assert np.abs(frame[agent] - 255).mean() < 0.35 * 255


def test_sprites_keep_to_the_picture_and_fly_with_momentum() -> None:
    world = Distract(Slide(), "sprites", strength=3.0)
    world.reset(seed=0)
    _, path, _ = filmed(world, [0] * 400)
    places, speeds = path[:, :12], path[:, 12:]
    assert places.min() >= 0 and places.max() <= 1
    assert places.min() < 0.05 and places.max() > 0.95
    likeness = np.corrcoef(np.abs(speeds[:-1]).ravel(), np.abs(speeds[1:]).ravel())[0, 1]
    assert likeness > 0.7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [16, 64, 96])
def test_frames_keep_their_size_and_the_simulators_own_is_left_alone(kind: str, size: int) -> None:
    world = Distract(Slide(size), kind)
    frame = world.reset(seed=0)[0]["frame"]
    assert frame.shape == (size, size, 3) and frame.dtype == np.uint8
    own = world.inside.frame()
    assert np.array_equal(world._layer.paint(own), frame) and np.array_equal(own, world.inside.frame())
    assert np.array_equal(frame, world.frame()), "looking twice shows the same"


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_costs_little(kind: str) -> None:
    world = Distract(Slide(), kind)
    frame, times = world.inside.frame(), []
    for _ in range(200):
        begun = time.perf_counter()
        world._layer.paint(frame)
        times.append(time.perf_counter() - begun)
    assert np.median(times) < 1e-3  # 0.1 ms on an idle core


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="sprites, background"):
        Distract(Slide(), "snow")
    with pytest.raises(ValueError, match="between 0"):
        Distract(Slide(), "sprites", strength=-1)


def test_names_are_listed_and_a_near_miss_is_answered_with_the_likely_one() -> None:
    listed = names()
    assert {"babyai/GoToRedBall", "lander/discrete", "lander/continuous"} <= set(listed)
    assert len(set(listed)) == len(listed) and all(name.count("/") == 1 for name in listed)
    written = {path.stem for path in Path(tacit.envs.__file__).parent.glob("*.py")}
    assert {name.partition("/")[0] for name in listed} == written - {"__init__", "simulator", "distract", "plain"}
    for wrong, right in (
        ("lander/continous", "lander/continuous"),
        ("babyia/GoToObj", "babyai/GoToObj"),
        ("landre", "lander/"),
    ):
        with pytest.raises(ValueError, match=right) as caught:
            simulator(wrong)
        assert wrong in str(caught.value) and "lander/discrete" in str(caught.value)


def test_listing_names_imports_none_of_the_extras() -> None:
    import subprocess

    heavy = ("minigrid", "ale_py", "Box2D", "pygame", "mujoco", "dm_control", "metaworld", "procgen")
    code = f"import sys, tacit.envs; tacit.envs.names(); print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_simulator_opens_by_name_with_its_options_and_its_distractor() -> None:
    pytest.importorskip("minigrid")
    plain = simulator("babyai/GoToObj", size=48, view="ego")
    assert plain.name == "babyai/GoToObj" and plain.reset(seed=0)[0]["frame"].shape == (48, 48, 3)
    assert plain.exogenous() is None
    world = simulator("babyai/GoToObj", distract="sprites", strength=0.5, distract_seed=4)
    assert isinstance(world, Distract) and world.exogenous() is not None
    assert (world.kind, world.strength, world.seed) == ("sprites", 0.5, 4)
    with pytest.raises(ValueError, match="sprites, background"):
        simulator("babyai/GoToObj", distract="sprite")
    for seed in range(5):
        world.reset(seed=seed)
        while True:
            _, _, terminated, truncated, outcome = world.step(world.rule())
            if terminated or truncated:
                break
        assert outcome["success"]
