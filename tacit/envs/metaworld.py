"""Ten MetaWorld manipulation tasks, drawn upright and four times faster, with the experts the package brings."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tacit.clip import Space
from tacit.envs.control import Picture
from tacit.envs.simulator import Simulator, whole

# Mean returns, which are success rates, of random actions and of the expert: 40 episodes each.
TASKS = {
    "reach": (0.05, 1.0),
    "push": (0.0, 1.0),
    "pick-place": (0.0, 1.0),
    "drawer-open": (0.0, 1.0),
    "drawer-close": (0.225, 1.0),
    "button-press-topdown": (0.0, 1.0),
    "window-open": (0.0, 1.0),
    "window-close": (0.0, 1.0),
    "door-open": (0.0, 0.975),
    "peg-insert-side": (0.0, 0.875),
}


LAYOUT = ("body_pos", "body_quat", "site_pos")  # where an episode puts its furniture: part of the model, not the state


def _owned(value: Any) -> bool:
    """Whether this attribute of an environment is its own and plain, rather than a window into MuJoCo's memory."""
    if not isinstance(value, np.ndarray):
        return value is None or isinstance(value, bool | int | float | np.generic)
    while isinstance(value.base, np.ndarray):
        value = value.base
    return value.base is None


@contextmanager
def coarse(model: Any, cell: float) -> Iterator[None]:
    """Meshes without detail below ``cell`` metres while a renderer takes its copy; physics sees the whole ones again.

    The arm's 68,000 triangles are most of the time that software needs for a picture, and at 64 pixels each of them
    is far below one pixel.
    """
    names = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum")
    kept = {name: getattr(model, name).copy() for name in names}
    for mesh in range(model.nmesh):
        face = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
        vertex = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
        boxes = np.round(model.mesh_vert[vertex] / cell).astype(int)
        _, first, box = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
        corners = first[box.ravel()][kept["mesh_face"][face]]  # every vertex becomes the first one in its box
        ordered = np.sort(corners, axis=1)
        _, distinct = np.unique(ordered, axis=0, return_index=True)
        left = np.sort(distinct[(np.diff(ordered[distinct], axis=1) > 0).all(1)])  # the rest shrank to a line or point
        fewer = slice(face.start, face.start + len(left))
        model.mesh_face[fewer] = corners[left]
        model.mesh_facenormal[fewer] = kept["mesh_facenormal"][face][left]
        model.mesh_facetexcoord[fewer] = kept["mesh_facetexcoord"][face][left]
        model.mesh_facenum[mesh] = len(left)
    try:
        yield
    finally:
        for name, whole in kept.items():
            getattr(model, name)[:] = whole


class MetaWorld(Simulator):
    """One of ten tasks for a robot arm; an episode ends with success, and its return is 1 then and 0 otherwise."""

    def __init__(self, task: str, *, size: int = 64, repeat: int = 2, horizon: int = 120) -> None:
        if task not in TASKS:
            raise ValueError(f"MetaWorld has no task {task!r} here; it has {', '.join(TASKS)}.")
        try:
            import mujoco
            from metaworld import policies
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        except ImportError as error:
            raise ImportError('MetaWorld needs its package: pip install "tacit[metaworld]"') from error
        # The experts ask for more than a hand can do, say so at every step, and we clip it.
        warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")
        self._mujoco = mujoco
        self._env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        self._env._partially_observable = False  # the state tells the goal, as the experts expect
        vars(self._env).pop("sawyer_observation_space", None)  # made while the goal was hidden, it would clip it to 0
        self._env._freeze_rand_vec, self._env.seeded_rand_vec, self._env._set_task_called = False, True, True
        expert: Any = policies.ENV_POLICY_MAP[f"{task}-v3"]
        self._policy = expert()
        self._model, self._data = self._env.model, self._env.data
        self.start(0)
        self._picture = self._camera(size)
        self.name, self.size, self.repeat = f"metaworld/{task}", size, repeat
        self.horizon = min(horizon, self._env.max_path_length // repeat)
        self.fps = whole(1 / (self._model.opt.timestep * self._env.frame_skip * repeat))
        self.space = Space("continuous", 4)
        self.floor, self.ceiling = TASKS[task]

    def _camera(self, size: int) -> Picture:
        """Aim the package's ``corner2``, which hangs upside down, at where the hand works, and mark goals visibly."""
        camera, place = self._model.camera("corner2"), np.array([0.75, 0.075, 0.7])
        back = place - [0.0, 0.68, 0.12]
        right = np.cross([0, 0, 1], back)
        axes = np.stack([right, np.cross(back, right), back], axis=1)
        turn = np.empty(4)
        self._mujoco.mju_mat2Quat(turn, (axes / np.linalg.norm(axes, axis=0)).ravel())
        camera.pos, camera.quat, camera.fovy = place, turn, 42
        for site, _ in self._env._target_site_config:
            self._model.site(site).size = np.maximum(self._model.site(site).size, 0.025)
        with coarse(self._model, 1.2 / size):
            return Picture(self._model, size, camera="corner2", oversample=max(1, 64 // size))

    def start(self, seed: int) -> None:
        self._env.seed(seed)
        self._seen, _ = self._env.reset()
        self._mujoco.mj_forward(self._model, self._data)

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        for _ in range(self.repeat):
            self._seen, _, _, _, info = self._env.step(action)
            if info["success"]:
                return 1.0, True, True
        return 0.0, False, False

    def frame(self) -> np.ndarray:
        return self._picture.draw(self._data)

    def state(self) -> np.ndarray:
        """Hand, gripper and objects now and a step ago, and the goal."""
        return np.asarray(self._seen, np.float32)

    def rule(self) -> np.ndarray:
        return np.clip(self._policy.get_action(self._seen), -1, 1).astype(np.float32)

    def snapshot(self) -> dict[str, Any]:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(self._mujoco.mj_stateSize(self._model, kind))
        self._mujoco.mj_getState(self._model, self._data, physics, kind)
        return {
            "physics": physics,
            "warm": self._data.qacc_warmstart.copy(),
            "layout": {name: getattr(self._model, name).copy() for name in LAYOUT},
            "python": {name: copy.deepcopy(value) for name, value in vars(self._env).items() if _owned(value)},
            "seen": self._seen.copy(),
            "steps": self.steps,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        self._seen, self.steps = snapshot["seen"].copy(), snapshot["steps"]
        vars(self._env).update(copy.deepcopy(snapshot["python"]))
        for name, value in snapshot["layout"].items():
            getattr(self._model, name)[:] = value
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._mujoco.mj_setState(self._model, self._data, snapshot["physics"], kind)
        self._mujoco.mj_forward(self._model, self._data)
        self._data.qacc_warmstart[:] = snapshot["warm"]  # the line above moved where the solver starts from

    def close(self) -> None:
        self._picture.close()
