"""LunarLander: a craft to be set down between two flags, from Gymnasium, with its bundled heuristic as the expert."""

from __future__ import annotations

import difflib
import os
from typing import Any, NamedTuple

import numpy as np

from tacit.clip import Space
from tacit.envs.simulator import Simulator

# Each task's actions, and the mean return of uniformly random actions and of the noiseless heuristic: 200 episodes,
# seeds 0 to 199, gymnasium 1.4.0. The heuristic succeeds in 0.90 (discrete) and 0.995 (continuous), chance in none.
TASKS: dict[str, tuple[Space, float, float]] = {
    "discrete": (Space("discrete", 4, names=("nothing", "left", "main", "right")), -182.5, 244.8),
    "continuous": (Space("continuous", 2, names=("main", "side")), -224.9, 284.6),
}

WIDTH, HEIGHT = 20.0, 400 / 30  # the world in Box2D's units, as far as it is seen
AGEING = 0.15  # how much older a spark of the exhaust grows in one step
SPARK = 2 / 30  # and its radius
SOLVED = 200.0  # the return from which Gymnasium calls an episode a solution

Point = tuple[float, float]


class Moment(NamedTuple):
    """Where an episode stands: all of it follows from the seed and the actions since."""

    seed: int
    taken: tuple[Any, ...]
    steps: int


class Lander(Simulator):
    """LunarLander-v3, by four engine choices or two throttles; success is coming to rest with a return of 200 or more.

    The contacts inside a Box2D world cannot be copied out, so saving keeps the seed and the actions, and restoring
    plays them again: exact, about 0.15 ms an action, so 30 ms where the heuristic lands.
    """

    fps = 50.0
    horizon = 1000

    def __init__(self, task: str, *, size: int = 64, **options: Any) -> None:
        if task not in TASKS:
            near = difflib.get_close_matches(task, TASKS, n=1, cutoff=0.0)[0]
            raise ValueError(f"Lander has no task {task!r}. Did you mean {near!r}? It has: {', '.join(TASKS)}.")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
            from gymnasium.envs.box2d.lunar_lander import LunarLander, heuristic
        except ImportError as missing:  # Gymnasium's own DependencyNotInstalled is one too
            raise ImportError('The lander needs Box2D and pygame: pip install "tacit[lander]"') from missing
        self.space, self.floor, self.ceiling = TASKS[task]
        self.name, self.size = f"lander/{task}", size
        self._pygame: Any = pygame
        self._heuristic: Any = heuristic
        # With a render mode it keeps the sparks of its exhaust, which are decoration only; drawn they are here.
        self._world: Any = LunarLander(render_mode="rgb_array", continuous=not self.space.discrete, **options)
        self._side = size * max(2, -(-256 // size))  # drawn larger, then averaged down
        self.start(0)

    def start(self, seed: int) -> None:
        self._seen, _ = self._world.reset(seed=seed)
        self._seed, self._taken, self._total = seed, list[Any](), 0.0
        self._backdrop: Any = None

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        chosen = int(action) if self.space.discrete else np.array(action, np.float32)
        self._seen, reward, terminated, _, _ = self._world.step(chosen)
        self._taken.append(chosen)
        self._total += float(reward)
        for spark in self._world.particles:  # Gymnasium ages them whenever it draws; here time does, whoever looks
            spark.ttl -= AGEING
        self._world._clean_particles(False)
        return float(reward), bool(terminated), not self._world.lander.awake and self._total >= SOLVED

    def frame(self) -> np.ndarray:
        """The scene in Gymnasium's colours and proportions, drawn without touching it and some five times faster."""
        draw = self._pygame.draw
        if self._backdrop is None:
            self._backdrop = self._scenery()
        canvas = self._backdrop.copy()
        for spark in self._world.particles:
            x, y = self._spot(spark.position)
            shade = [int(max(0.2, level) * 255) for level in (0.15 + spark.ttl, 0.5 * spark.ttl, 0.5 * spark.ttl)]
            across, down = 2 * SPARK / WIDTH * self._side, 2 * SPARK / HEIGHT * self._side
            draw.ellipse(canvas, shade, (x - across / 2, y - down / 2, across, down))
        for body in self._world.drawlist:
            outline = [self._spot(body.transform * corner) for corner in body.fixtures[0].shape.vertices]
            draw.polygon(canvas, body.color1, outline)
            draw.polygon(canvas, body.color2, outline, width=max(1, self._side // 300))
        small = self._pygame.transform.smoothscale(canvas, (self.size, self.size))
        pixels = np.frombuffer(self._pygame.image.tobytes(small, "RGB"), np.uint8)
        return pixels.reshape(self.size, self.size, 3).copy()

    def _spot(self, point: Any) -> Point:
        return point[0] / WIDTH * self._side, (1 - point[1] / HEIGHT) * self._side

    def _scenery(self) -> Any:
        """What stands still in one episode: sky, ground and the two flags."""
        draw, world = self._pygame.draw, self._world
        canvas = self._pygame.Surface((self._side, self._side), depth=32)
        canvas.fill((255, 255, 255))
        for sky in world.sky_polys:
            draw.polygon(canvas, (0, 0, 0), [self._spot(corner) for corner in sky])
        for x in (world.helipad_x1, world.helipad_x2):
            foot, top, y = world.helipad_y, world.helipad_y + 50 / 30, world.helipad_y + 40 / 30
            pole = max(1, self._side // 300)
            draw.line(canvas, (255, 255, 255), self._spot((x, foot)), self._spot((x, top)), pole)
            cloth = [(x, top), (x, y), (x + 25 / 30, (top + y) / 2)]
            draw.polygon(canvas, (204, 204, 0), [self._spot(corner) for corner in cloth])
        return canvas

    def state(self) -> np.ndarray:
        """Place, velocity, angle, angular velocity, and whether each leg touches the ground."""
        return np.array(self._seen, np.float32)

    def rule(self) -> np.ndarray:
        return np.asarray(self._heuristic(self._world, self._seen), self.space.dtype)

    def snapshot(self) -> Moment:
        return Moment(self._seed, tuple(self._taken), self.steps)

    def restore(self, snapshot: Moment) -> None:
        self.start(snapshot.seed)
        for action in snapshot.taken:
            self.apply(action)
        self.steps = snapshot.steps
