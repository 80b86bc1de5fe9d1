"""Any Gymnasium environment behind our face: its actions reach it whole, its pictures come at our size."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from tacit.envs.plain import Plain


class Uneven(gymnasium.Env[Any, Any]):
    """Two joints with bounds of their own; what it was told is what it shows."""

    render_mode = "rgb_array"
    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    action_space = gymnasium.spaces.Box(np.array([0.0, -4.0], np.float32), np.array([1.0, 4.0], np.float32))
    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-9, 9, (2,), np.float32)})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        return {"state": np.zeros(2, np.float32), "mission": "reach"}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return (
            {"state": action, "mission": "reach"},
            float(action.sum()),
            False,
            bool(action[0] > 0.9),
            {"success": True},
        )

    def render(self) -> np.ndarray:  # type: ignore[override]
        picture = np.zeros((20, 40, 3), np.uint8)
        picture[:10] = 200
        return picture


def test_actions_are_stretched_to_uneven_bounds() -> None:
    simulator = Plain(Uneven(), size=10)
    assert (simulator.space.low, simulator.space.high, simulator.space.size) == (-1.0, 1.0, 2)
    observation, _ = simulator.reset(seed=0)
    assert simulator.text == "reach"
    assert simulator.fps == 25
    assert observation["frame"].shape == (10, 10, 3)
    assert observation["frame"][:5].min() == 200
    assert observation["frame"][5:].max() == 0
    for given, wanted in (([-1, -1], [0, -4]), ([0, 0.5], [0.5, 2]), ([7, 1], [1, 4])):
        observation, reward, _, truncated, info = simulator.step(np.array(given, np.float32))
        np.testing.assert_allclose(observation["state"], wanted)
        assert reward == pytest.approx(sum(wanted))
        assert truncated == (wanted[0] > 0.9)
        assert info == {"success": True}


def test_a_known_environment_is_faithful() -> None:
    simulator, bare = Plain(gymnasium.make("Pendulum-v1", render_mode="rgb_array")), gymnasium.make("Pendulum-v1")
    first, _ = simulator.reset(seed=4)
    np.testing.assert_array_equal(first["state"], bare.reset(seed=4)[0])
    assert (simulator.space.low, simulator.space.high) == (-2.0, 2.0)
    for action in (1.5, -0.3):
        seen, reward, *_ = simulator.step(np.array([action], np.float32))
        state, other, *_ = bare.step(np.array([action], np.float32))
        np.testing.assert_allclose(seen["state"], state, atol=1e-6)
        assert reward == pytest.approx(float(other))
    while not simulator.step(np.zeros(1, np.float32))[3]:
        assert simulator.steps < 200
    assert simulator.steps == 200  # the limit that comes with it
    simulator.close()


def test_a_snapshot_is_gone_back_to() -> None:
    simulator = Plain(gymnasium.make("MountainCar-v0", render_mode="rgb_array"), size=16)
    simulator.reset(seed=0)
    moment = simulator.snapshot()
    films = []
    for _ in range(2):
        simulator.restore(moment)
        films.append([simulator.step(np.array(2))[0]["state"] for _ in range(5)])
    np.testing.assert_array_equal(*films)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (gymnasium.spaces.MultiDiscrete([2, 2]), "MultiDiscrete"),
        (gymnasium.spaces.Box(-np.inf, np.inf, (2,)), "bounded Box"),
    ],
)
def test_what_has_no_place_is_refused(space: gymnasium.Space[Any], says: str) -> None:
    env = Uneven()
    env.action_space = space  # type: ignore[assignment]
    with pytest.raises(ValueError, match=says):
        Plain(env)


def test_an_environment_that_shows_nothing_says_so() -> None:
    simulator = Plain(gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match='render_mode="rgb_array"'):
        simulator.reset(seed=0)
