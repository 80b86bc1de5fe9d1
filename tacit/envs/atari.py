"""Pong and Breakout through ale-py, each with an expert that is a rule over the game's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tacit.clip import Space
from tacit.envs.simulator import Simulator

SKIP = 4  # frames a decision; the experts' tables of how a paddle coasts hold for this alone


@dataclass(frozen=True)
class Paddle:
    """How our paddle answers a key held for one decision: it glides on, so that where it will rest must be foreseen."""

    glide: tuple[float, ...]  # pixels moved, so many frames after the key went down
    still: tuple[float, float]  # pixels yet to come: for a key just held, and for each pixel moved last decision
    range: tuple[float, float]  # where it can rest

    def rest(self, place: float, before: float, *, key: int) -> float:
        return place + self.still[0] * key + self.still[1] * (place - before)

    def steer(self, worth: Callable[[float], float], rest: float, *, frames: float) -> int:
        """The key now, -1, 0 or 1, that leads to the most worthy place ``frames`` from now.

        One key moves the paddle by more than its own length, so a place between two rests is passed in flight: by
        a last key so late that the ball arrives while the paddle still glides.
        """
        whole, best, chosen = self.glide[-1], -np.inf, 0
        for keys in range(-7, 8):
            wait = abs(keys) + 2 if keys else 0
            late = max(0.0, SKIP * abs(keys) + 8 - frames) if keys else 0.0
            last = [(0, 0, 0.0)]
            while wait < frames / SKIP:
                after = int(frames - SKIP * wait)
                if after < len(self.glide):
                    last += [(key, wait, key * float(self.glide[after])) for key in (-1, 1)]
                wait += 1
            for key, begin, flight in last:
                place = min(max(rest + whole * keys + flight, self.range[0]), self.range[1])
                score = worth(place) - 0.03 * abs(keys) - 0.01 * abs(key) - 0.2 * late
                if score > best:
                    best, chosen = score, int(np.sign(keys)) or (key if begin == 0 else 0)
        return chosen


@dataclass(frozen=True)
class Game:
    """Where a game keeps what matters, found by fitting every byte of memory to the sprites on the screen."""

    keys: tuple[str, ...]  # the ALE's names for our actions; the second moves the paddle to smaller coordinates
    names: tuple[str, ...]
    crop: tuple[int, int, int, int]  # left, top, right, bottom of the playfield
    bytes: tuple[int, ...]  # ball x, ball y, our paddle, and the opponent's paddle where there is one
    shift: tuple[int, ...]  # added to those bytes: pixels of the screen
    paddle: Paddle
    floor: float
    ceiling: float


def _fold(place: float, low: float, high: float) -> float:
    """Where a ball is that would be at ``place``, had there been no walls at ``low`` and ``high``."""
    along = (place - low) % (2 * (high - low))
    return low + min(along, 2 * (high - low) - along)


def _gap(place: float, speed: float) -> float:
    """How far Pong's opponent, who follows the ball at 7 pixels a decision, lags when our shot arrives."""
    follower = ball = place
    for step in range(1, 30):
        ball = _fold(place + speed * step, 31.5, 193.5)
        follower += max(-7.0, min(7.0, ball - follower))
    return abs(ball - follower)


def pong(now: tuple[float, ...], before: tuple[float, ...], *, key: int) -> int:
    """Meet the ball with the fifth of the paddle whose angle the opponent can follow least."""
    paddle = GAMES["pong"].paddle
    rest = paddle.rest(now[2], before[2], key=key)
    vx, vy = now[0] - before[0], now[1] - before[1]
    if not (now[0] and before[0]) or not 0 < vx < 30:
        return -1 if rest > 117 else 1 if rest < 93 else 0  # go back to the middle
    away = max(0.0, (139 - now[0]) / vx)
    hit = _fold(now[1] + vy * away, 31.5, 193.5)
    gaps = [min(_gap(hit, speed), 30.0) for speed in (-8.0, -4.0, 0.0, 4.0, 8.0)]

    def worth(place: float) -> float:
        # Foreseen places err by a pixel, so each is worth the mean over its neighbourhood; off the paddle is worst.
        offs = [hit - place + error for error in (-1.0, 0.0, 1.0)]
        fifths = [max(0, int((off + 3.5) // 4)) if -2.5 <= off < 16.5 else None for off in offs]
        values = [-0.1 * abs(off - 7) if n is None else 1 + gaps[n] / 10 for off, n in zip(offs, fifths, strict=True)]
        return sum(values) / 3

    return paddle.steer(worth, rest, frames=SKIP * away)


def breakout(now: tuple[float, ...], before: tuple[float, ...], *, key: int) -> int:
    """Follow a rising ball loosely and be under a falling one."""
    paddle = GAMES["breakout"].paddle
    rest = paddle.rest(now[2], before[2], key=key)
    vx, vy = now[0] - before[0], now[1] - before[1]
    if not (now[1] and before[1]) or vy <= 0 or now[1] > 186:
        off = now[0] - rest - 7
        return -1 if off < -16 else 1 if off > 16 else 0
    away = (186 - now[1]) / vy
    if away > 1.5 and not 13 < now[0] < 145:
        return 0  # a bounce off the wall hides the speed until the next look
    hit = _fold(now[0] + vx * away, 7, 151)
    # The outer the bounce the steeper the angle; alternating by where the ball comes down keeps it from circling.
    aim = 4.0 if int(hit) % 2 else 10.0

    def worth(place: float) -> float:
        off = hit - place
        return -0.05 * abs(off - 7) if not 0 <= off <= 14 else 1 - 0.02 * abs(off - aim)

    return paddle.steer(worth, rest, frames=SKIP * away)


GAMES = {
    "pong": Game(
        keys=("NOOP", "RIGHT", "LEFT"),
        names=("stay", "up", "down"),
        crop=(0, 34, 160, 194),
        bytes=(49, 54, 51, 50),
        shift=(-49, -13, -13, -15),
        paddle=Paddle((0, 0, 2.5, 2.5, 9.5, 9.5, 16.5, 16.5, 19.5, 19.5, 21.5, 21.5, 22.5), (10.3, 0.27), (25, 190)),
        floor=-8.5,
        ceiling=2.8,
    ),
    "breakout": Game(
        keys=("NOOP", "LEFT", "RIGHT"),
        names=("stay", "left", "right"),
        crop=(8, 32, 152, 196),
        bytes=(99, 101, 72),
        shift=(-49, 9, -47),
        paddle=Paddle((0, 0, 3, 7.5, 12, 17.5, 20.5, 21.5, 22.5), (10.5, 0.0), (8, 144)),
        floor=1.2,
        ceiling=12.5,
    ),
}
RULES = {"pong": pong, "breakout": breakout}


class Atari(Simulator):
    """Pong for a while, scored by the difference in points, or one life of Breakout, scored by its points.

    Success is more points won than lost, or a ball still in play at the end. The ball is served for the player,
    so that every action is a movement.
    """

    def __init__(
        self, task: str, *, size: int = 64, horizon: int = 400, sticky: float = 0.0, bold: bool = True
    ) -> None:
        if task not in GAMES:
            raise ValueError(f"Atari has no game {task!r}; it has {', '.join(GAMES)}.")
        try:
            import ale_py
        except ImportError as error:
            raise ImportError('Atari needs ale-py: pip install "tacit[atari]"') from error
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale, self._game, self._task, self._bold = ale_py.ALEInterface(), GAMES[task], task, bold
        self._ale.setInt("frame_skip", SKIP)
        self._ale.setFloat("repeat_action_probability", sticky)
        rom: Any = ale_py.roms.get_rom_path(task)
        self._sticky, self._rom = sticky, rom
        self._ale.loadROM(self._rom)
        self._switched_on = self._ale.cloneState(include_rng=True)
        self._keys = [getattr(ale_py.Action, key) for key in self._game.keys]
        self._fire = ale_py.Action.FIRE
        self.name, self.size, self.horizon, self.fps = f"atari/{task}", size, horizon, 60 / SKIP
        self.space = Space("discrete", len(self._keys), names=self._game.names)
        self.floor, self.ceiling = self._game.floor, self._game.ceiling
        self._picture: np.ndarray | None = None
        self.start(0)

    def start(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        if self._sticky:
            self._ale.setInt("random_seed", int(random.integers(2**31 - 1)))
            self._ale.loadROM(self._rom)  # only loading reads the seed, and it takes as long as 200 decisions
        else:
            self._ale.restoreState(self._switched_on)
        self._points = 0.0
        self._pressed, self._before = 0, self._sprites()
        # The console has no chance of its own, and the same serve leads to the same rally. So an episode begins in
        # the middle of one, after a while of clumsy play.
        left = int(random.integers(5, 80))
        while left > 0 or self._task == "breakout" and self._sprites()[1] > 120:  # nor with a ball that is all but past
            self.apply(self.space.sample(random) if random.random() < 0.3 else self.rule())
            self._serve()
            left -= 1
        self._points = 0.0

    def _serve(self) -> None:
        """Put the ball into play; Pong does so by itself."""
        while self._task == "breakout" and not self._sprites()[1]:
            self._ale.act(self._fire)

    def _sprites(self) -> tuple[float, ...]:
        """Left or upper edges on the screen, in pixels; a ball that is not out is at (0, 0)."""
        memory = self._ale.getRAM()
        places = [float(memory[b]) + s for b, s in zip(self._game.bytes, self._game.shift, strict=True)]
        return tuple(places) if memory[self._game.bytes[1]] else (0.0, 0.0, *places[2:])

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        before, lives = self._sprites(), self._ale.lives()
        reward = float(self._ale.act(self._keys[int(action)]))
        self._points += reward
        self._before, self._pressed, self._picture = before, (0, -1, 1)[int(action)], None
        lost = self._ale.game_over() or self._ale.lives() < lives
        return reward, lost, self._points > 0 if self._task == "pong" else not lost

    def frame(self) -> np.ndarray:
        if self._picture is None:
            left, top, right, bottom = self._game.crop
            screen = self._ale.getScreenRGB()[top:bottom, left:right]
            if self._bold:
                # A ball two pixels wide all but vanishes when shrunk, so what outshines the ground grows.
                screen = np.maximum.reduce([screen[:, 4:], screen[:, 2:-2], screen[:, :-4]])
                screen = np.maximum(screen[1:], screen[:-1])
            shrunk = Image.fromarray(screen).resize((self.size, self.size), Image.Resampling.BOX)
            self._picture = np.asarray(shrunk)
        return self._picture

    def state(self) -> np.ndarray:
        """Ball and paddles now and a decision ago, each about 0 to 1, and the key pressed last: paddles glide."""
        return np.array([*self._sprites(), *self._before, 160 * self._pressed], np.float32) / 160

    def rule(self) -> np.ndarray:
        return np.asarray((0, 2, 1)[RULES[self._task](self._sprites(), self._before, key=self._pressed)])

    def snapshot(self) -> Any:
        # The ALE does not bring the picture back with the machine, so the picture travels along.
        machine = self._ale.cloneState(include_rng=True)
        return machine, self._points, self._before, self._pressed, self.frame(), self.steps

    def restore(self, snapshot: Any) -> None:
        machine, self._points, self._before, self._pressed, self._picture, self.steps = snapshot
        self._ale.restoreState(machine)
