"""Distractors: things that move in the picture and that no action can move, laid over any simulator."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from tacit.envs.simulator import Demonstrator, Expert, Simulator

KINDS = ("sprites", "background")
MEMORY = 0.95  # how much of a distractor's speed is left after one decision; the rest is chance
BLOBS = 6  # sprites in the picture
WAVES = 6  # plane waves that make up the moving background
VEIL = 0.3  # the most by which a background covers what is not background itself, so that the agent always shows
NEAR = 128.0  # at this summed difference of the channels from the background's colour a pixel is none of it

Motion = tuple[np.ndarray, ...]


class Layer(Protocol):
    """What is laid over a picture; ``motion`` is all that changes, and is replaced, never written into."""

    motion: Motion

    def begin(self, frame: np.ndarray, random: np.random.Generator) -> None: ...
    def advance(self, random: np.random.Generator) -> None: ...
    def paint(self, frame: np.ndarray) -> np.ndarray: ...
    def vector(self) -> np.ndarray: ...


class Moment(NamedTuple):
    """The simulator's own state, and beside it the distractor's."""

    inside: Any
    motion: Motion
    random: dict[str, Any]
    steps: int


class Distract(Simulator):
    """Any simulator with soft coloured sprites flying over it, or with a coloured texture drifting behind it.

    ``seed`` decides how the distractor looks and, together with the episode's seed, how it moves: no two episodes see
    the same motion, and no action changes it. Strength 0 leaves the picture alone; 1 is plainly in the way.
    """

    def __init__(self, simulator: Simulator, kind: str = "sprites", *, strength: float = 1.0, seed: int = 0) -> None:
        if kind not in KINDS:
            raise ValueError(f"The distractor is {kind!r}; it must be one of {', '.join(KINDS)}.")
        if not 0 <= strength <= 3:
            raise ValueError(f"The distractor's strength is {strength}; it must lie between 0 (none) and 3.")
        self.inside, self.kind, self.strength, self.seed = simulator, kind, strength, seed
        self.name, self.space, self.size, self.fps = simulator.name, simulator.space, simulator.size, simulator.fps
        self.floor, self.ceiling = simulator.floor, simulator.ceiling
        look = np.random.default_rng([seed, 11])
        self._layer: Layer = (
            Sprites(self.size, strength, random=look)
            if kind == "sprites"
            else Background(self.size, strength, random=look)
        )
        self.start(0)

    def start(self, seed: int) -> None:
        self.inside.steps = 0
        self.inside.start(seed)
        self._mirror()
        self._random = np.random.default_rng([self.seed, seed, 12])
        self._layer.begin(self.inside.frame(), self._random)

    def _mirror(self) -> None:
        self.text, self.horizon = self.inside.text, self.inside.horizon

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        outcome = self.inside.apply(action)
        self.inside.steps += 1
        self._layer.advance(self._random)
        return outcome

    def frame(self) -> np.ndarray:
        frame = self.inside.frame()
        return self._layer.paint(frame) if self.strength else frame

    def state(self) -> np.ndarray:
        return self.inside.state()

    def exogenous(self) -> np.ndarray:
        own, inner = self._layer.vector(), self.inside.exogenous()
        return np.concatenate([own, [] if inner is None else inner]).astype(np.float32)

    def rule(self) -> np.ndarray:
        return self.inside.rule()

    def expert(self, *, noise: float = 0.0, seed: int = 0) -> Expert:
        return self.inside.expert(noise=noise, seed=seed)

    def play(self, *, seed: int = 0) -> Demonstrator:
        return self.inside.play(seed=seed)

    def snapshot(self) -> Moment:
        return Moment(self.inside.snapshot(), self._layer.motion, dict(self._random.bit_generator.state), self.steps)

    def restore(self, snapshot: Moment) -> None:
        self.inside.restore(snapshot.inside)
        self._mirror()
        self._layer.motion = snapshot.motion
        self._random.bit_generator.state = snapshot.random
        self.steps = snapshot.steps

    def stir(self, seed: int) -> bool:
        self.inside.stir(seed)
        self._random = np.random.default_rng([seed, 15])
        return True

    def close(self) -> None:
        self.inside.close()


class Sprites:
    """Soft-edged discs that fly about with momentum, bounce off the border and are pasted over the picture."""

    def __init__(self, size: int, strength: float, *, random: np.random.Generator) -> None:
        self.size, self.speed, self.opacity = size, 0.03 * strength, min(0.95, 0.9 * strength)
        self.radii = random.uniform(0.05, 0.11, BLOBS) * size * (0.5 + 0.5 * strength)
        self.colours = _colours(random, BLOBS)
        self.pixels = np.arange(size, dtype=np.float32) + 0.5
        self.motion: Motion = ()

    def begin(self, frame: np.ndarray, random: np.random.Generator) -> None:
        self.motion = (random.uniform(0, 1, (BLOBS, 2)), random.normal(0, self.speed, (BLOBS, 2)))

    def advance(self, random: np.random.Generator) -> None:
        place, speed = self.motion
        speed = _drift(speed, self.speed, random)
        place = place + speed
        outside = (place < 0) | (place > 1)
        place = 1 - np.abs(1 - np.abs(place))  # reflected at both borders
        self.motion = (place, np.where(outside, -speed, speed))

    def paint(self, frame: np.ndarray) -> np.ndarray:
        canvas, soft = frame.copy(), max(1.0, self.size / 48)
        places = self.motion[0] * self.size
        for (y, x), radius, colour in zip(places.tolist(), self.radii.tolist(), self.colours, strict=True):
            reach = radius + soft
            top, left = max(0, int(y - reach)), max(0, int(x - reach))
            rows, columns = self.pixels[top : int(y + reach) + 1] - y, self.pixels[left : int(x + reach) + 1] - x
            cover = (radius - np.sqrt((rows * rows)[:, None] + columns * columns)) / soft + 0.5
            cover = np.minimum(np.maximum(cover, 0), 1)[..., None] * self.opacity
            patch = canvas[top : top + len(rows), left : left + len(columns)]
            patch[:] = patch + cover * (colour - patch) + 0.5
        return canvas

    def vector(self) -> np.ndarray:
        """Every sprite's place and speed, as shares of the picture's side."""
        return np.concatenate([part.ravel() for part in self.motion])


class Background:
    """A smooth coloured texture whose waves drift each on its own, in place of the picture's commonest colour.

    Elsewhere it is a thin veil. The texture is a sum of plane waves, so that any drift is one small matrix product.
    """

    def __init__(self, size: int, strength: float, *, random: np.random.Generator) -> None:
        self.size, self.speed = size, 0.25 * strength
        self.behind, self.before = min(0.95, 0.85 * strength), min(VEIL, 0.15 * strength)
        cycles = random.choice([-1, 1], (WAVES, 2)) * random.integers(1, 5, (WAVES, 2))
        along = 2 * np.pi * (np.arange(size) + 0.5) / size
        down = cycles[:, :1] * along
        self.across = cycles[:, 1:] * along
        self.down = np.concatenate([np.cos(down), -np.sin(down)]).T.astype(np.float32)  # (size, 2 WAVES)
        colours = _colours(random, WAVES) - 127.5
        self.colours = colours * 110 / np.abs(colours).sum(0)  # so that their sum stays between 17 and 237
        self.motion: Motion = ()

    def begin(self, frame: np.ndarray, random: np.random.Generator) -> None:
        coarse = (frame >> 6).astype(np.int64) @ np.array([16, 4, 1])
        ground = np.median(frame[coarse == np.bincount(coarse.ravel()).argmax()], axis=0).astype(np.float32)
        self.motion = (random.uniform(0, 2 * np.pi, WAVES), random.normal(0, self.speed, WAVES), ground)

    def advance(self, random: np.random.Generator) -> None:
        phase, speed, ground = self.motion
        speed = _drift(speed, self.speed, random)
        self.motion = ((phase + speed) % (2 * np.pi), speed, ground)

    def texture(self) -> np.ndarray:
        """The background alone, (size, size, 3) float32."""
        turned = (self.across + self.motion[0][:, None])[..., None]
        waves = np.concatenate([np.cos(turned) * self.colours[:, None], np.sin(turned) * self.colours[:, None]])
        flat = self.down @ waves.reshape(2 * WAVES, -1).astype(np.float32)
        return flat.reshape(self.size, self.size, 3) + 127.5

    def paint(self, frame: np.ndarray) -> np.ndarray:
        there = frame.astype(np.float32)
        far = np.abs(there - self.motion[2]).sum(-1, keepdims=True)
        cover = np.maximum(self.behind - far * ((self.behind - self.before) / NEAR), self.before)
        there += cover * (self.texture() - there) + 0.5
        return there.astype(np.uint8)

    def vector(self) -> np.ndarray:
        """Every wave's phase, as cosine and sine, and its speed."""
        phase, speed, _ = self.motion
        return np.concatenate([np.cos(phase), np.sin(phase), speed])


def _drift(speed: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    """Speeds a decision later: mostly as before, a little by chance, and in the long run of deviation ``scale``."""
    return np.asarray(MEMORY * speed + (1 - MEMORY**2) ** 0.5 * random.normal(0, scale, speed.shape))


def _colours(random: np.random.Generator, count: int) -> np.ndarray:
    """Bright colours (count, 3) of hues spread evenly round the wheel."""
    hues = (np.arange(count) + random.uniform()) / count
    wheel = np.cos(2 * np.pi * (hues[:, None] - np.arange(3) / 3))
    return (127.5 + 127.5 * np.clip(1.4 * wheel, -1, 1)).astype(np.float32)
