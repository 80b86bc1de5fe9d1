"""dm_control's point_mass, reacher and cheetah, drawn fast, each with an expert in closed form."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tacit.clip import Space
from tacit.envs.simulator import Simulator, whole

# MuJoCo reads this once, when it is first imported; without a display only EGL and OSMesa draw at all.
os.environ.setdefault("MUJOCO_GL", "egl")


class Picture:
    """Draws a MuJoCo model without the shadows, reflections and samples that take most of the time in software."""

    def __init__(self, model: Any, size: int, *, camera: str, oversample: int = 2) -> None:
        import mujoco

        model.vis.quality.offsamples = 0  # averaging a larger picture is cheaper than MuJoCo's own anti-aliasing
        model.vis.quality.shadowsize = 0
        self.camera, self.oversample = camera, oversample
        self._renderer = mujoco.Renderer(model, size * oversample, size * oversample, max_geom=1000)
        self.close = weakref.finalize(self, self._renderer.close)
        atexit.register(self.close)  # late registrations run early: before EGL itself ends, or it ends in a traceback
        self._costly = [int(getattr(mujoco.mjtRndFlag, "mjRND_" + n)) for n in ("SHADOW", "REFLECTION", "SKYBOX")]

    def draw(self, data: Any) -> np.ndarray:
        self._renderer.update_scene(data, self.camera)
        self._renderer.scene.flags[self._costly] = 0
        large, n = self._renderer.render(), self.oversample
        if n == 1:
            return large
        wide = large.astype(np.uint16)  # strided sums: eight times faster than reshape and mean
        rows = sum(wide[i::n] for i in range(n))
        return ((sum(rows[:, i::n] for i in range(n)) + n * n // 2) // (n * n)).astype(np.uint8)


@dataclass(frozen=True)
class Task:
    """What tells one of the three apart: its pace, its camera, where it starts, what wins it and who can do it."""

    title: str  # dm_control's name for the task
    joints: int  # how many numbers an action has
    repeat: int  # simulator steps a decision
    horizon: int
    camera: str
    view: float  # the camera's vertical field of view in degrees, so that what matters fills the picture
    floor: float
    ceiling: float
    place: Callable[[Any, np.random.Generator], None]
    sense: Callable[[Any], np.ndarray]
    rule: Callable[[Any, float], np.ndarray]
    won: Callable[[Any, float], bool]


class Control(Simulator):
    """One of three dm_control tasks; a return is the sum of the task's own reward, once a decision."""

    def __init__(self, task: str, *, size: int = 64, repeat: int | None = None, horizon: int | None = None) -> None:
        if task not in TASKS:
            raise ValueError(f"Control has no task {task!r}; it has {', '.join(TASKS)}.")
        try:
            import mujoco
            from dm_control import suite
        except ImportError as error:
            raise ImportError('Control needs dm_control: pip install "tacit[control]"') from error
        self._mujoco, self._task, self.size = mujoco, TASKS[task], size
        env = suite.load(task, self._task.title)
        self._physics, self._reward = env.physics, env.task.get_reward
        self._model, self._data = self._physics.model.ptr, self._physics.data.ptr
        self._model.camera(self._task.camera).fovy = self._task.view
        if task == "point_mass":
            # Drawn 2.5 times as wide, or it is one pixel at 32. Its weight is set apart and it touches nothing.
            self._model.geom("pointmass").size = 0.025
        self._picture = Picture(self._model, size, camera=self._task.camera)
        self.name = f"control/{task}"
        self.repeat, self.horizon = repeat or self._task.repeat, horizon or self._task.horizon
        self.fps = whole(1 / (self._model.opt.timestep * self.repeat))
        self.space = Space("continuous", self._task.joints)
        self.floor, self.ceiling = self._task.floor, self._task.ceiling
        self._total = 0.0
        self.start(0)

    def start(self, seed: int) -> None:
        self._total = 0.0
        with self._physics.reset_context():
            self._task.place(self._physics, np.random.default_rng(seed))

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self._physics.set_control(action)
        self._physics.step(self.repeat)
        reward = float(self._reward(self._physics))
        self._total += reward
        return reward, False, self._task.won(self._physics, self._total)

    def frame(self) -> np.ndarray:
        return self._picture.draw(self._data)

    def state(self) -> np.ndarray:
        return self._task.sense(self._physics).astype(np.float32)

    def rule(self) -> np.ndarray:
        pace = self._model.opt.timestep * self.repeat
        return np.clip(self._task.rule(self._physics, pace), -1, 1).astype(np.float32)

    def snapshot(self) -> tuple[np.ndarray, np.ndarray, float, int]:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        whole = np.empty(self._mujoco.mj_stateSize(self._model, kind))
        self._mujoco.mj_getState(self._model, self._data, whole, kind)
        return whole, self._model.geom_pos.copy(), self._total, self.steps

    def restore(self, snapshot: tuple[np.ndarray, np.ndarray, float, int]) -> None:
        whole, places, self._total, self.steps = snapshot
        self._model.geom_pos[:] = places  # reacher's target is part of the model, not of the state
        self._mujoco.mj_setState(self._model, self._data, whole, self._mujoco.mjtState.mjSTATE_INTEGRATION)
        # dm_control leaves a step half done, positions known and forces not; mj_step1 is that half.
        self._mujoco.mj_step1(self._model, self._data)

    def close(self) -> None:
        self._picture.close()


def _mass_place(physics: Any, random: np.random.Generator) -> None:
    physics.data.qpos[:] = random.uniform(-0.28, 0.28, 2)


def _mass_rule(physics: Any, pace: float) -> np.ndarray:
    # Damping 1 on a mass of 0.3: let go at speed v, it coasts 0.3 v further. Full force is a final speed of 0.1.
    # So this push makes the coasting end at the target, straight towards it and never harder than allowed.
    data = physics.data
    push = -(data.qpos + MASS_LEAD * data.qvel) / (0.1 * pace)
    return push / max(1.0, np.abs(push).max())


def _mass_won(physics: Any, total: float) -> bool:
    return bool(physics.mass_to_target_dist() < physics.named.model.geom_size["target", 0])


def _arm_place(physics: Any, random: np.random.Generator) -> None:
    model = physics.named.model
    physics.data.qpos[:] = random.uniform((-np.pi, -2.7), (np.pi, 2.7))
    angle, radius = random.uniform(0, 2 * np.pi), random.uniform(0.05, 0.20)
    model.geom_size["target", 0] = 0.05  # dm_control's "easy"
    model.geom_pos["target", :2] = radius * np.cos(angle), radius * np.sin(angle)


def _arm_rule(physics: Any, pace: float) -> np.ndarray:
    # Two links of 0.12: the law of cosines gives the elbow, twice; take the bend that is nearer.
    x, y = physics.named.model.geom_pos["target", :2]
    bend = np.arccos(np.clip((x * x + y * y) / (2 * 0.12**2) - 1, -1, 1))
    shoulder, wrist = physics.data.qpos
    errors = []
    for elbow in (bend, -bend):
        turn = np.arctan2(y, x) - elbow / 2 - shoulder
        errors.append(np.array([(turn + np.pi) % (2 * np.pi) - np.pi, elbow - wrist]))
    return ARM_GAIN * min(errors, key=lambda e: np.abs(e).max()) - ARM_BRAKE * physics.data.qvel


def _arm_won(physics: Any, total: float) -> bool:
    radii = physics.named.model.geom_size[["target", "finger"], 0].sum()
    return bool(physics.finger_to_target_dist() < radii)


def _run_place(physics: Any, random: np.random.Generator) -> None:
    limited = physics.model.jnt_limited == 1
    low, high = physics.model.jnt_range[limited].T
    physics.data.qpos[limited] = random.uniform(low, high)
    physics.step(200)  # dm_control's own: it falls on its feet before the clock starts
    physics.data.time = 0


def _run_rule(physics: Any, pace: float) -> np.ndarray:
    data = physics.data
    return GAIT @ np.concatenate([data.qpos[1:], 0.1 * data.qvel, [1.0]])


MASS_LEAD = 0.25
ARM_GAIN, ARM_BRAKE = 3.0, 0.3
# One row a motor: gains on the eight angles and heights, on a tenth of the nine speeds, and a constant. Found by
# augmented random search (returns of a gait and of its mirror image in 12 random directions of 0.1, then 0.05, from
# two starts each, weighing the best 8) in eleven minutes on one core, and rounded; a search's product, not a design.
# Feedback from the pose and no clock: who sees the pose can copy it.
GAIT = np.array(
    [
        [0.2, 0.4, -1.1, -0.7, -0.4, 2.3, 0, -0.1, 0.7, 1.3, -0.2, 0.2, 0.8, -0.1, 1.1, 0.5, 0.7, -0.5],
        [-2.7, -1.9, 0.8, -0.2, 0.5, 0, -1, 0.2, 0.2, 0.5, -0.2, -0.5, 1.7, 0.1, 0.3, -1.8, -0.4, 0.3],
        [1, 3.5, 0.7, -0.7, 0.9, -0.9, 0.3, -0.2, 0.3, -1.6, -0.1, 0.7, 0.5, -0.4, 0.1, -0.6, 1, -1.1],
        [0.3, 0.6, 0.3, 0.7, -0.1, 1.4, 0.1, -1.4, -1, 1.4, -0.5, 0.8, -0.2, 0.1, 1.2, -0.3, -0.8, -1],
        [-1.4, 1, -1.7, -1.2, 0.2, -0.7, -0.9, -0.5, 0.3, -1.4, 1.4, -1.5, -1.2, 0.6, 0, 1, -1.5, 0],
        [1.8, 0.4, 0.6, 1, 0, 0.5, 1.3, 0.3, -1.3, 0.3, 0.6, 1, 0.9, -0.1, 1.6, -0.1, 0.1, -0.4],
    ]
)  # fmt: skip

TASKS = {
    "point_mass": Task(
        title="easy", joints=2, repeat=6, horizon=50, camera="fixed", view=44.0, floor=0.17, ceiling=34.5,
        place=_mass_place, rule=_mass_rule, won=_mass_won,
        sense=lambda p: np.concatenate([p.data.qpos, p.data.qvel]),
    ),
    "reacher": Task(
        title="easy", joints=2, repeat=2, horizon=60, camera="fixed", view=40.0, floor=4.8, ceiling=52.2,
        place=_arm_place, rule=_arm_rule, won=_arm_won,
        sense=lambda p: np.concatenate(
            [np.cos(p.data.qpos[:1]), np.sin(p.data.qpos[:1]), p.data.qpos[1:], p.data.qvel,
             p.finger_to_target(), p.named.model.geom_pos["target", :2]]
        ),
    ),
    "cheetah": Task(
        title="run", joints=6, repeat=4, horizon=250, camera="side", view=45.0, floor=3.3, ceiling=109.4,
        place=_run_place, rule=_run_rule, won=lambda p, total: total >= 60.0,
        sense=lambda p: np.concatenate([p.data.qpos[1:], p.data.qvel]),
    ),
}  # fmt: skip
