"""BabyAI: rooms of coloured things and an instruction in words, from MiniGrid, with its own bot as the expert."""

from __future__ import annotations

import contextlib
import difflib
import io
import math
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np

from tacit.clip import Space
from tacit.envs.simulator import Simulator

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle")  # in MiniGrid's order; its "done" does nothing
WALK = ("left", "right", "forward")
CARRY = (*WALK, "pickup", "drop")  # "drop", because a wrong thing in the hand bars the right one
OPEN = (*WALK, "toggle")

# Each task's actions, and the mean return of uniformly random actions over them and of the noiseless expert, both in
# the full view: 200 episodes, seeds 0 to 199, MiniGrid 3.2.0. Other levels have all six actions and are not measured.
TASKS: dict[str, tuple[tuple[str, ...], float, float]] = {
    "GoToRedBallNoDists": (WALK, 0.258, 0.932),
    "GoToRedBallGrey": (WALK, 0.198, 0.919),
    "GoToRedBall": (WALK, 0.262, 0.925),
    "GoToRedBlueBall": (WALK, 0.2, 0.923),
    "GoToObj": (WALK, 0.252, 0.932),
    "GoToLocal": (WALK, 0.292, 0.929),
    "GoToDoor": (WALK, 0.706, 0.99),
    "PickupLoc": (CARRY, 0.109, 0.917),
    "PickupDist": (CARRY, 0.133, 0.905),
    "OpenRedDoor": (OPEN, 0.155, 0.92),
    "OpenDoor": (OPEN, 0.326, 0.99),
}

VIEWS = ("full", "ego")
PATIENCE = 5000  # episodes drawn in search of a fixed instruction; about 2 s
UNSEEN = "unseen"

Square = tuple[Any, ...] | str | None


class Moment(NamedTuple):
    """Where an episode stands: all of BabyAI follows from the level's seed and the actions since."""

    seed: int
    taken: tuple[int, ...]
    steps: int


class BabyAI(Simulator):
    """One BabyAI level, seen whole from above or through the agent's own eyes.

    Saving keeps the seed and the actions, and restoring plays them again: exact, a few hundred bytes, about 0.5 ms for
    the room and 5 us an action; the bot, which plans from the whole past, is brought up to date when next asked.
    """

    def __init__(
        self, task: str, *, size: int = 64, view: str = "full", instruction: str | None = None, **options: Any
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"The view is {view!r}; it must be one of {', '.join(VIEWS)}.")
        actions, self.floor, self.ceiling = TASKS.get(task, (ACTIONS, math.nan, math.nan))
        self.name, self.size, self.view, self.instruction = f"babyai/{task}", size, view, instruction
        self.space = Space("discrete", len(actions), names=actions)
        self._choices = [ACTIONS.index(action) for action in actions]
        self._level = _level(task, options)
        # The symbolic observation is never looked at, and building it is 95 % of a step.
        vars(self._level)["gen_obs"] = dict
        # Who sees the whole frame sees everything, and an expert that went exploring would not follow from it. Behind
        # closed doors the bot finds its way only by exploring, so in levels of many rooms it keeps to what it saw.
        one_room = self._level.num_rows == self._level.num_cols == 1
        self._knowing = view == "full" and (one_room or task in TASKS)
        columns, rows = (self._level.agent_view_size,) * 2 if view == "ego" else (self._level.width, self._level.height)
        self._columns = columns
        self._boxes = _boxes(size, columns, rows)
        self._image = np.zeros((size, size, 3), np.uint8)
        self._drawn: list[Square] = ["nothing"] * (columns * rows)
        self._seed = 0
        self._begin(0)

    def start(self, seed: int) -> None:
        if self.instruction is None:
            return self._begin(seed)
        random, seen = np.random.default_rng(seed), set()
        for _ in range(PATIENCE):
            self._begin(int(random.integers(2**31)))
            if self.text == self.instruction:
                return None
            seen.add(str(self.text))
        near = difflib.get_close_matches(self.instruction, sorted(seen), n=3, cutoff=0) or sorted(seen)[:3]
        raise ValueError(
            f"No episode of {self.name} in {PATIENCE} says {self.instruction!r}. It says, for example: "
            + "; ".join(repr(text) for text in near)
        )

    def _begin(self, seed: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # MiniGrid prints a line for every room it rejects
            self._level.reset(seed=seed)
        self._seed, self._taken, self._advice = seed, list[int](), 0
        self._bot: Any = None  # hired when first asked
        self.text, self.horizon = str(self._level.mission), int(self._level.max_steps)

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        choice = self._choices[int(action)]
        _, reward, terminated, _, _ = self._level.step(choice)
        self._taken.append(int(action))
        if self._bot is not None and not terminated:
            self._advice = self._ask(choice)
        return float(reward), bool(terminated), reward > 0

    def frame(self) -> np.ndarray:
        squares = self._seen() if self.view == "ego" else self._whole()
        for place, square in enumerate(squares):
            if square != self._drawn[place]:
                across, down = self._boxes[place]
                self._image[down, across] = _tile(square, down.stop - down.start, across.stop - across.start)
        self._drawn = squares
        return self._image.copy()

    def _whole(self) -> list[Square]:
        """The whole grid, with what the agent carries drawn under it, since it is nowhere else to be seen."""
        level = self._level
        squares: list[Square] = [None if thing is None else thing.encode() for thing in level.grid.grid]
        here = int(level.agent_pos[1]) * level.width + int(level.agent_pos[0])
        held = None if level.carrying is None else level.carrying.encode()
        squares[here] = (held or squares[here], int(level.agent_dir))
        return squares

    def _seen(self) -> list[Square]:
        """The squares in front of the agent, turned so that it looks up, and dark where it cannot see."""
        grid, seen = self._level.gen_obs_grid()
        squares: list[Square] = [None if thing is None else thing.encode() for thing in grid.grid]
        squares = [square if sees else UNSEEN for square, sees in zip(squares, seen.T.ravel(), strict=True)]
        here = len(squares) - 1 - self._columns // 2
        squares[here] = (squares[here], 3)
        return squares

    def state(self) -> np.ndarray:
        """Agent's place and heading, the way to the nearest target, what bars the four squares around, a full hand."""
        level = self._level
        place, forward = np.asarray(level.agent_pos), np.asarray(level.dir_vec)
        ways = (forward, level.right_vec, -forward, -level.right_vec)
        cells = [level.grid.get(*(place + way)) for way in ways]
        barred = [cell is not None and not cell.can_overlap() for cell in cells]
        targets = [np.asarray(spot) - place for spot in _targets(level.instrs)]
        towards = min(targets, key=lambda gap: int(np.abs(gap).sum()), default=np.zeros(2))
        scale = max(level.width, level.height)
        heading = np.eye(4)[level.agent_dir]
        parts = (place / scale, heading, towards / scale, barred, [level.carrying is not None])
        return np.concatenate(parts).astype(np.float32)

    def rule(self) -> np.ndarray:
        if self._bot is None:
            self._catch_up()
        return np.asarray(self._advice)

    def _catch_up(self) -> None:
        """Show the bot the whole episode so far, since it plans from everything it saw and everything that was done."""
        taken = self._taken
        self._begin(self._seed)
        self._bot = self._hire()
        self._advice = self._ask(None)
        for action in taken:
            self.apply(np.asarray(action))

    def _hire(self) -> Any:
        from minigrid.utils.baby_ai_bot import BabyAIBot

        bot: Any = BabyAIBot(self._level)  # type: ignore[no-untyped-call]
        if self._knowing:
            bot.vis_mask[:] = True
            vars(bot)["_process_obs"] = lambda: None
        return bot

    def _ask(self, taken: int | None) -> int:
        """The bot's answer, told what was really done; one that has lost the thread is replaced by a fresh one."""
        from minigrid.utils.baby_ai_bot import DisappearedBoxError

        action = None if taken is None else self._level.actions(taken)
        for told in (action, None):
            try:
                answer = self._bot.replan(told)
            except (DisappearedBoxError, AssertionError, AttributeError, IndexError, TypeError):
                answer = None  # all of them seen from the bot once a mission has become impossible
            if answer is not None and int(answer) in self._choices:
                return self._choices.index(int(answer))
            self._bot = self._hire()
        return 0

    def snapshot(self) -> Moment:
        return Moment(self._seed, tuple(self._taken), self.steps)

    def restore(self, snapshot: Moment) -> None:
        self._begin(snapshot.seed)
        for action in snapshot.taken:
            self.apply(np.asarray(action))
        self.steps = snapshot.steps


def _level(task: str, options: dict[str, Any]) -> Any:
    """MiniGrid's own level of that name, or an error that says which was probably meant."""
    try:
        import minigrid  # noqa: F401  (importing it registers the levels)
    except ImportError as missing:
        raise ImportError('BabyAI needs MiniGrid: pip install "tacit[babyai]"') from missing
    levels = {name.split("-")[1]: name for name in gymnasium.registry if name.startswith("BabyAI-")}
    if task not in levels:
        near = difflib.get_close_matches(task, levels, n=1, cutoff=0.0)[0]
        raise ValueError(f"BabyAI has no level {task!r}. Did you mean {near!r}? It has: {', '.join(levels)}.")
    return gymnasium.make(levels[task], disable_env_checker=True, **options).unwrapped


def _targets(instruction: Any) -> list[tuple[int, int]]:
    """Where the things stand that the first unfinished part of an instruction speaks of."""
    if hasattr(instruction, "instr_a"):
        parts = [(instruction.instr_a, instruction.a_done), (instruction.instr_b, instruction.b_done)]
        if type(instruction).__name__ == "AfterInstr":
            parts.reverse()
        left = [part for part, done in parts if done != "success"]
        return _targets(left[0]) if left else []
    if hasattr(instruction, "desc"):
        return list(instruction.desc.obj_poss)
    held = any(thing is instruction.env.carrying for thing in instruction.desc_move.obj_set)
    return list((instruction.desc_fixed if held else instruction.desc_move).obj_poss)


def _boxes(size: int, columns: int, rows: int) -> list[tuple[slice, slice]]:
    """The pixels of every square, row by row, filling a square picture without any resizing afterwards."""
    longest = max(columns, rows)

    def edges(count: int) -> list[int]:
        starts = (np.arange(count + 1) + (longest - count) / 2) * size / longest
        return [int(edge) for edge in np.rint(starts)]

    across, down = edges(columns), edges(rows)
    return [(slice(across[i], across[i + 1]), slice(down[j], down[j + 1])) for j in range(rows) for i in range(columns)]


_tiles: dict[tuple[Square, int, int], np.ndarray] = {}


def _tile(square: Square, height: int, width: int) -> np.ndarray:
    """MiniGrid's own drawing of one square at the pixels it has, drawn once."""
    key = (square, height, width)
    if key not in _tiles:
        from minigrid.core.grid import Grid
        from minigrid.core.world_object import WorldObj

        if square == UNSEEN or not height or not width:
            _tiles[key] = np.zeros((height, width, 3), np.uint8)
            return _tiles[key]
        holds_agent = isinstance(square, tuple) and len(square) == 2
        thing, heading = cast(Any, square if holds_agent else (square, None))
        side = max(height, width)
        side *= -(-16 // side)  # drawn below 16 pixels, MiniGrid's thin outlines fall between the samples
        drawn = Grid.render_tile(WorldObj.decode(*thing) if thing else None, heading, tile_size=side)
        narrow = _shares(height, side) @ drawn.transpose(2, 0, 1) @ _shares(width, side).T
        _tiles[key] = np.rint(narrow.transpose(1, 2, 0)).astype(np.uint8)
    return _tiles[key]


def _shares(wanted: int, given: int) -> np.ndarray:
    """The weights, (wanted, given), by which area-averaging turns ``given`` pixels of a line into ``wanted``."""
    edges = np.arange(wanted + 1)[:, None] * given / wanted
    below = np.clip(edges - np.arange(given), 0, 1)
    return (below[1:] - below[:-1]) * wanted / given
