"""Procgen's coinrun, maze and bigfish, with experts that read the level out of the game's saved state."""

from __future__ import annotations

import heapq
import struct
import sys
import types
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tacit.clip import Space
from tacit.envs.simulator import Simulator

# Procgen's first nine actions; its other six do nothing in these games.
NAMES = ("left down", "left", "left up", "down", "stay", "up", "right down", "right", "right up")
STAY, RESET = 4, -1
MISSING = "Procgen has no package for this Python and numpy that pip alone installs; run: bash bench/install_procgen.sh"


@dataclass(frozen=True)
class Level:
    """What a game's saved bytes say: entities, the agent first, and the grid they move in."""

    places: np.ndarray  # (n, 31): x, y, their speeds, half width, half height, ...
    kinds: np.ndarray  # (n,)
    grid: np.ndarray  # (height, width), row 0 at the bottom

    @classmethod
    def read(cls, saved: bytes) -> Level:
        at = 4 + 4 + _int(saved, 4) + 17 * 4  # version, the game's name, seventeen options
        for _ in range(2):  # two random generators: a flag and a text each
            at += 8 + _int(saved, at + 4)
        at += 15 * 4
        cells, count = _int(saved, at), _int(saved, at + 4)
        words = np.frombuffer(saved, "<i4", count * 31, at + 8).reshape(count, 31)
        side = round(cells**0.5)
        grid = saved.index(struct.pack("<3i", side, side, cells), at + 8 + count * 124) + 12
        return cls(words.view("<f4"), words[:, 6], np.frombuffer(saved, "<i4", cells, grid).reshape(side, side))

    @property
    def agent(self) -> tuple[float, float, float, float]:
        x, y, vx, vy = self.places[0, :4].tolist()
        return x, y, vx, vy


def _int(saved: bytes, at: int) -> int:
    return int.from_bytes(saved[at : at + 4], "little", signed=True)


class Engine:
    """One running game whose whole state is read and written as bytes."""

    def __init__(self, game: str) -> None:
        self._env = _package().ProcgenGym3Env(
            num=1, env_name=game, distribution_mode="easy", num_threads=0, rand_seed=0, num_levels=0, start_level=0
        )
        self._room = self._env._ffi.new("char[]", 2**20)
        self._fresh = self.read()

    def read(self) -> bytes:
        length = self._env.call_c_func("get_state", 0, self._room, 2**20)
        return bytes(self._env._ffi.buffer(self._room, length))

    def write(self, saved: bytes) -> None:
        self._env.call_c_func("set_state", 0, saved, len(saved))

    def start(self, seed: int) -> None:
        """Begin level ``seed``: narrow the range that levels are drawn from to that one, and ask for another level."""
        saved = bytearray(self._fresh)
        struct.pack_into("<2i", saved, 8 + _int(self._fresh, 4) + 13 * 4, seed, seed + 1)
        self.write(bytes(saved))
        self.step(RESET)

    def step(self, action: int) -> tuple[float, bool]:
        """The reward, and whether that was the end; the next level has then begun already."""
        self._env.act(np.array([action]))
        reward, _, first = self._env.observe()
        return float(reward[0]), bool(first[0])

    def picture(self) -> np.ndarray:
        return self._env.observe()[1]["rgb"][0].copy()

    def close(self) -> None:
        self._env.close()


def _package() -> Any:
    """Procgen, which imports the long abandoned gym for one registration that nobody here needs."""
    names = ("gym", "gym.envs", "gym.envs.registration")
    standing = {name: types.ModuleType(name) for name in names if "gym" not in sys.modules}
    if standing:
        standing[names[-1]].register = lambda **_: None  # type: ignore[attr-defined]
        sys.modules.update(standing)
    try:
        import procgen
    except ImportError as error:
        raise ImportError(MISSING) from error
    finally:
        for name in standing:
            del sys.modules[name]
    return procgen


def maze(level: Level) -> int:
    """The first step of a shortest way to the cheese."""
    free, (x, y) = level.grid != 51, (int(v) for v in level.agent[:2])
    goal = tuple(np.argwhere(level.grid == 2)[0])
    moves = {1: (0, -1), 3: (-1, 0), 5: (1, 0), 7: (0, 1)}
    queue, first = deque([(y, x)]), {(y, x): STAY}
    while queue:
        here = queue.popleft()
        if here == goal:
            break
        for action, (dy, dx) in moves.items():
            there = (here[0] + dy, here[1] + dx)
            if min(there) >= 0 and max(there) < len(free) and free[there] and there not in first:
                first[there] = action if first[here] == STAY else first[here]
                queue.append(there)
    return first.get(goal, STAY)


AHEAD = 12  # decisions that bigfish looks ahead
TURN = np.array([(action // 3 - 1, action % 3 - 1) for action in range(9)], float)


def bigfish(level: Level) -> int:
    """Hold whichever direction soonest eats something smaller without touching anything larger."""
    place, speed = np.tile(level.places[0, :4].astype(float), (9, 1)).reshape(9, 2, 2).swapaxes(0, 1)
    path = np.empty((9, AHEAD, 2))
    radius = level.places[0, 4:6].astype(float)
    for step in range(AHEAD):
        speed = 0.45 * speed + 0.225 * TURN  # measured: half the speed stays, then a tenth is lost
        place = np.clip(place + speed, radius, 20 - radius)
        path[:, step] = place
    score = -0.005 * np.abs(path[:, -1] - 10).sum(-1) ** 2 - 0.01 * np.abs(TURN).sum(-1)
    fish = level.places[1:]
    if not len(fish):
        return int(score.argmax())
    ahead = np.arange(1, AHEAD + 1)[:, None]
    where = np.stack([fish[:, 0] + fish[:, 2] * ahead, fish[:, 1] + fish[:, 3] * ahead], -1)  # (AHEAD, n, 2)
    gap = np.abs(path[:, :, None] - where[None]) - (radius + fish[:, 4:6])  # (9, AHEAD, n, 2)
    larger = fish[:, 4] > level.places[0, 4]
    touch = (gap < np.where(larger, 0.15, -0.1)[:, None]).all(-1)
    soon = np.where(touch, 1.0 - 0.06 * np.arange(AHEAD)[:, None], 0.0).max(1)  # (9, n)
    far = np.maximum(gap[:, -1], 0).sum(-1)
    score = score - 100 * (soon * larger).max(1) + 10 * (soon * ~larger).max(1)
    if (~larger).any():
        score = score - 0.3 * far[:, ~larger].min(1)
    return int(score.argmax())


# What coinrun's expert tries in turn, each held so long: right and jumping first, waiting and turning back last.
TRIES = ((8, 4), (7, 4), (5, 4), (4, 4), (1, 4), (2, 4), (8, 10), (2, 10))


def _follow(engine: Engine, saved: bytes, action: int, length: int) -> tuple[bytes | None, float, int]:
    """Where an action held for a while leads, in a copy of the game: nowhere if the level ends first."""
    engine.write(saved)
    for step in range(length):
        reward, over = engine.step(action)
        if over:
            return None, reward, step + 1
    return engine.read(), 0.0, length


def coinrun(engine: Engine, saved: bytes, *, gain: float = 8.0, budget: int = 150) -> list[int]:
    """A plan that ends at the coin or safely on the ground further right: best-first search in a copy of the game.

    A rule that runs and jumps when it meets something gets the coin in 7 levels of 10; this hardly ever fails.
    """
    start = Level.read(saved).agent[0]
    # Tries wait in the queue with what they start from, and are carried out only when their turn comes.
    queue: list[tuple[float, int, bytes, list[int], int, int]] = []
    seen: set[tuple[int, ...]] = set()
    best, plan, pushed, worth = -np.inf, [STAY] * 4, 0, 0.0
    after: bytes | None = saved
    way: list[int] = []
    for _ in range(budget):
        if after is not None:
            for rank, (action, hold) in enumerate(TRIES):
                pushed += 1
                heapq.heappush(queue, (worth + rank, pushed, after, way, action, hold))
        if not queue:
            break
        _, _, here, so_far, action, hold = heapq.heappop(queue)
        after, reward, length = _follow(engine, here, action, hold)
        way = so_far + [action] * length
        if reward > 0:
            return way
        if after is None:
            continue
        x, y, vx, vy = Level.read(after).agent
        spot = (round(x), round(y), round(2 * vx), round(vy))
        if spot in seen:
            after = None
            continue
        seen.add(spot)
        worth = 0.05 * len(way) - x - 0.3 * y
        if abs(vy) < 1e-6:  # on the ground, where it is safe to stop planning
            if x - start >= gain:
                return way
            if x - 0.02 * len(way) > best:
                best, plan = x - 0.02 * len(way), way
    return plan


@dataclass(frozen=True)
class Game:
    """How long an episode is, what its state shows, and the measured ends of its scale."""

    horizon: int
    goal: float  # the return that counts as success
    solid: tuple[int, ...]  # kinds of cells: what stops the agent,
    deadly: tuple[int, ...]  # what ends the level,
    prize: tuple[int, ...]  # and what it is all about
    floor: float
    ceiling: float


GAMES = {
    "coinrun": Game(200, 10.0, (15, 16), (17, 18), (1,), 0.8, 10.0),
    "maze": Game(100, 10.0, (51,), (), (2,), 2.9, 10.0),
    "bigfish": Game(400, 10.0, (), (), (), 0.8, 21.8),
}


RULES = {"maze": maze, "bigfish": bigfish}


class Procgen(Simulator):
    """One Procgen game in its easy mode, a level a seed; success is the coin, the cheese, or ten fish eaten.

    The game begins its next level in the very step that ends one, so an episode's last frame and state are those
    of the step before.
    """

    def __init__(self, task: str, *, size: int = 64, horizon: int | None = None) -> None:
        if task not in GAMES:
            raise ValueError(f"Procgen has no game {task!r} here; it has {', '.join(GAMES)}.")
        self._task, self._game, self._engine = task, GAMES[task], Engine(task)
        self._copy: Engine | None = None  # where coinrun's expert tries things out
        self.name, self.size, self.fps = f"procgen/{task}", size, 15.0
        self.horizon = horizon or self._game.horizon
        self.space = Space("discrete", len(NAMES), names=NAMES)
        self.floor, self.ceiling = self._game.floor, self._game.ceiling
        self.start(0)

    def start(self, seed: int) -> None:
        self._engine.start(seed)
        self._total, self._over = 0.0, False
        self._plan: list[int] = []
        self._look()

    def _look(self) -> None:
        self._saved, picture = self._engine.read(), self._engine.picture()
        if self.size != len(picture):
            sharp = Image.Resampling.BOX if self.size < len(picture) else Image.Resampling.BICUBIC
            picture = np.asarray(Image.fromarray(picture).resize((self.size, self.size), sharp))
        self._picture, self._level = picture, Level.read(self._saved)

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        reward, self._over = self._engine.step(int(action))
        self._total += reward
        self._plan = self._plan[1:] if self._plan and self._plan[0] == int(action) else []
        if not self._over:
            self._look()
        return reward, self._over, self._total >= self._game.goal

    def frame(self) -> np.ndarray:
        return self._picture

    def state(self) -> np.ndarray:
        """The agent; the 15 by 15 cells around it (1 solid, -1 deadly, 2 the prize); the eight nearest others."""
        places, level, game = self._level.places, self._level, self._game
        x, y = places[0, :2]
        others = places[1:] - np.where(np.arange(31) < 2, places[0], 0)
        near = others[np.argsort(np.abs(others[:, :2]).sum(1), kind="stable")[:8], :6]
        cells = np.zeros((15, 15), np.float32)
        row, column = (min(max(int(v), 0), len(level.grid) - 1) for v in (y, x))  # bigfish may touch the very edge
        window = np.pad(level.grid, 7, constant_values=-1)[row : row + 15, column : column + 15]
        for value, kinds in ((1, (*game.solid, -1)), (-1, game.deadly), (2, game.prize)):
            cells[np.isin(window, kinds)] = value
        rest = np.zeros((8, 6), np.float32)
        rest[: len(near)] = near
        return np.concatenate([places[0, :6], cells.ravel(), rest.ravel()]).astype(np.float32)

    def rule(self) -> np.ndarray:
        if self._task != "coinrun":
            return np.asarray(RULES[self._task](self._level))
        if not self._plan:
            self._copy = self._copy or Engine(self._task)
            self._plan = coinrun(self._copy, self._saved)
        return np.asarray(self._plan[0])

    def snapshot(self) -> Any:
        return self._engine.read(), self._saved, self._picture, self._total, self._over, tuple(self._plan), self.steps

    def restore(self, snapshot: Any) -> None:
        now, self._saved, self._picture, self._total, self._over, plan, self.steps = snapshot
        self._plan, self._level = list(plan), Level.read(self._saved)
        self._engine.write(now)

    def close(self) -> None:
        for engine in (self._engine, self._copy):
            if engine is not None:
                engine.close()
