"""Four robots with two joints each, as different as two joints can be, in one MuJoCo room and with one task.

Each brings its tip to a disc. Joints slide or turn (named as in textbooks: P slides, R turns), so an action, the wished
speeds of the two motors as shares of the fastest, means another movement in each body, and in those that turn another
one in every pose. They share the look of tip and disc, and nothing else: not the links, their colours or their pace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tacit.clip import Space
from tacit.envs.control import Picture
from tacit.envs.simulator import Simulator, whole

ROOM = 0.17  # targets and starts lie so far from the middle at most, along either axis
NEAR = 0.05  # closer than this the tip is there: a reward of 1 for each decision
PACE = 0.1  # seconds a decision
DAMPING = 0.05  # of the expert's inverse Jacobian, where two joints nearly move alike


@dataclass(frozen=True)
class Body:
    """One robot: its joints from the floor up, where they stand, how far they lead, and how fast they go."""

    joints: str  # of "P" and "R"
    base: tuple[float, float]
    links: tuple[float, float]  # lengths; a slide's is what is drawn of it
    fastest: tuple[float, float]  # metres or radians a second
    colour: tuple[float, float, float]
    rest: tuple[float, float]  # a pose whose tip lies in the room


BODIES = {
    "gantry": Body("PP", (0.0, 0.0), (0.5, 0.34), (0.3, 0.3), (0.85, 0.75, 0.2), (0.0, 0.0)),
    "elbow": Body("RR", (0.0, -0.32), (0.25, 0.25), (0.9, 1.4), (0.3, 0.7, 0.35), (2.4, -1.7)),
    "crane": Body("RP", (-0.34, -0.1), (0.2, 0.3), (0.9, 0.3), (0.65, 0.35, 0.75), (0.2, 0.0)),
    "cart": Body("PR", (0.0, -0.33), (0.5, 0.53), (0.3, 0.7), (0.9, 0.55, 0.45), (-0.2, 0.8)),
}


class Arm(Simulator):
    """One of ``BODIES``, driven at the speeds of its joints, until time is up."""

    horizon = 30

    def __init__(self, body: str, *, size: int = 32) -> None:
        import mujoco

        self._mujoco, self.body, self.size, self.name = mujoco, BODIES[body], size, f"arms/{body}"
        self._model = mujoco.MjModel.from_xml_string(described(self.body))
        self._data = mujoco.MjData(self._model)
        self._picture = Picture(self._model, size, camera="above")
        self._repeat = round(PACE / self._model.opt.timestep)
        self.fps, self.space = whole(1 / PACE), Space("continuous", 2)
        self._jacobian, self._tip = np.zeros((3, 2)), self._model.site("tip").id
        self.start(0)

    def start(self, seed: int) -> None:
        """Begin with the tip where chance puts it: found by walking there from rest."""
        random = np.random.default_rng(seed)
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self.body.rest
        self._goal, begin = random.uniform(-ROOM, ROOM, (2, 2))
        for _ in range(60):
            self._mujoco.mj_forward(self._model, self._data)
            self._data.qpos += 0.3 * self._turned(begin - self._data.site_xpos[self._tip, :2])
        self._model.body("goal").pos[:2] = self._goal
        self._mujoco.mj_forward(self._model, self._data)

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self._data.ctrl[:] = np.asarray(action) * self.body.fastest
        self._mujoco.mj_step(self._model, self._data, self._repeat)
        self._mujoco.mj_forward(self._model, self._data)
        near = bool(np.linalg.norm(self._goal - self._data.site_xpos[self._tip, :2]) < NEAR)
        return float(near), False, near

    def frame(self) -> np.ndarray:
        return self._picture.draw(self._data)

    def state(self) -> np.ndarray:
        tip = self._data.site_xpos[self._tip, :2]
        return np.concatenate([self._data.qpos, self._data.qvel, tip, self._goal]).astype(np.float32)

    def rule(self) -> np.ndarray:
        speed = 3.0 * (self._goal - self._data.site_xpos[self._tip, :2])
        action = self._turned(speed) / self.body.fastest
        return (action / max(1.0, np.abs(action).max())).astype(np.float32)

    def snapshot(self) -> tuple[np.ndarray, np.ndarray, int]:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        held = np.empty(self._mujoco.mj_stateSize(self._model, kind))
        self._mujoco.mj_getState(self._model, self._data, held, kind)
        return held, self._goal.copy(), self.steps

    def restore(self, snapshot: tuple[np.ndarray, np.ndarray, int]) -> None:
        held, goal, self.steps = snapshot
        self._goal = goal.copy()
        self._model.body("goal").pos[:2] = goal
        self._mujoco.mj_setState(self._model, self._data, held, self._mujoco.mjtState.mjSTATE_INTEGRATION)
        self._mujoco.mj_forward(self._model, self._data)

    def close(self) -> None:
        self._picture.close()

    def _turned(self, speed: np.ndarray) -> np.ndarray:
        """The joints' speeds that move the tip so: damped least squares."""
        self._mujoco.mj_jacSite(self._model, self._data, self._jacobian, None, self._tip)
        j = self._jacobian[:2]
        return np.asarray(j.T @ np.linalg.solve(j @ j.T + DAMPING**2 * np.eye(2) * 0.1, speed))


def described(body: Body) -> str:
    """The MJCF of one robot: what slides is drawn as a rail and a block, what turns as a link."""
    red, green, blue = body.colour
    paint = f'rgba="{red} {green} {blue} 1" contype="0" conaffinity="0"'
    kinds, (one, two) = body.joints, body.links
    first, second, tip = _first(kinds[0], one, paint), _second(kinds, two, paint), _tip(kinds, two)
    carried = f"{one} 0 0.02" if kinds == "RR" else "0 0 0.02"
    return f"""
<mujoco>
  <option timestep="0.01" gravity="0 0 0" integrator="implicitfast"/>
  <visual><global offwidth="256" offheight="256"/><headlight ambient="0.6 0.6 0.6" diffuse="0.4 0.4 0.4"/></visual>
  <worldbody>
    <camera name="above" pos="0 0 1.2" fovy="33"/>
    <geom type="plane" size="1 1 0.1" pos="0 0 -0.05" rgba="0.12 0.13 0.16 1"/>
    <body name="goal" pos="0 0 -0.03"><geom type="cylinder" size="{NEAR} 0.005" rgba="0.2 0.45 1 1" contype="0"
      conaffinity="0"/></body>
    <body pos="{body.base[0]} {body.base[1]} 0">{first}
      <body pos="{carried}">{second}
        <body pos="{tip}"><site name="tip" size="0.01"/><geom type="sphere" size="0.035" pos="0 0 0.06"
          rgba="0.95 0.15 0.1 1" contype="0" conaffinity="0"/></body>
      </body>
    </body>
  </worldbody>
  <actuator><velocity joint="first" kv="20"/><velocity joint="second" kv="20"/></actuator>
</mujoco>"""


def _joint(name: str, kind: str, axis: str) -> str:
    return f'<joint name="{name}" type="{"hinge" if kind == "R" else "slide"}" axis="{axis}" armature="1" damping="1"/>'


def _first(kind: str, length: float, paint: str) -> str:
    if kind == "R":
        link = f'<geom type="capsule" fromto="0 0 0 {length} 0 0" size="0.02" {paint}/>'
        return _joint("first", kind, "0 0 1") + link
    return _joint("first", kind, "1 0 0") + f'<geom type="box" size="0.05 0.03 0.01" {paint}/>'


def _second(kinds: str, length: float, paint: str) -> str:
    then, link = kinds[1], f'<geom type="capsule" fromto="0 0 0 {length} 0 0" size="0.015" {paint}/>'
    if then == "R":
        return _joint("second", then, "0 0 1") + link
    if kinds == "PP":  # a bar across the room, on which the tip rides
        bar = f'<geom type="capsule" fromto="0 -0.35 0 0 0.35 0" size="0.012" {paint}/>'
        return _joint("second", then, "0 1 0") + bar
    return _joint("second", then, "1 0 0") + link  # along the link that turns


def _tip(kinds: str, length: float) -> str:
    return "0 0 0" if kinds == "PP" else f"{length} 0 0"
