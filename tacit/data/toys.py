"""Generated worlds, made in seconds, in which all that is hidden elsewhere is known: actions, exogenous state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board

MEMORY = 0.98  # how much of a linear toy's state is left after a step: nearly all, so a change is nearly the action
PIXELS = 2**17  # painted at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class Toy:
    """A generated world's recordings, beside the exogenous state that no recording would hold."""

    episodes: Episodes
    exogenous: list[np.ndarray]  # one (T, E) float32 an episode, in step with its frames


def linear(
    *,
    episodes: int = 400,
    length: int = 51,
    size: int = 64,
    actions: int = 8,
    exogenous: int = 8,
    spread: float = 0.5,
    noise: float = 0.05,
    determinism: float = 0.0,
    seed: int = 0,
) -> Toy:
    """State trajectories whose every change is action plus exogenous noise, where theory says what must come out.

    The observation mixes ``actions`` endogenous and ``exogenous`` foreign numbers through orthogonal directions.
    Actions have unit deviation when random, foreign changes ``spread``. ``determinism`` chi makes the demonstrator
    ``a = chi * Pi(o) + (1 - chi) * noise``, where Pi pulls the state home and has unit deviation too.
    """
    if actions + exogenous > size:
        raise ValueError(f"{actions} + {exogenous} directions do not fit in {size} numbers; raise size to their sum.")
    _checked(episodes, length, determinism)
    mixing, starting, acting, drifting, watching = np.random.default_rng(seed).spawn(5)
    basis = np.linalg.qr(mixing.normal(size=(size, actions + exogenous)))[0].T
    chi = determinism
    # The deviation at which the state is stationary, from v = (m - chi/sqrt(v))^2 v + (1 - chi)^2 with m = MEMORY.
    pull, rest = MEMORY * chi, 1 - MEMORY**2
    deviation = (np.sqrt(pull**2 + rest * (chi**2 + (1 - chi) ** 2)) - pull) / rest
    inner = np.empty((episodes, length, actions))
    foreign = np.empty((episodes, length, exogenous))
    done = np.empty((episodes, length - 1, actions))
    inner[:, 0] = deviation * starting.normal(size=(episodes, actions))
    foreign[:, 0] = spread / np.sqrt(rest) * drifting.normal(size=(episodes, exogenous))
    for t in range(length - 1):
        done[:, t] = -chi * inner[:, t] / deviation + (1 - chi) * acting.normal(size=(episodes, actions))
        inner[:, t + 1] = MEMORY * inner[:, t] + done[:, t]
        foreign[:, t + 1] = MEMORY * foreign[:, t] + spread * drifting.normal(size=(episodes, exogenous))
    state = np.concatenate([inner, foreign], -1) @ basis + noise * watching.normal(size=(episodes, length, size))
    columns = zip(state.astype(np.float32), done.astype(np.float32), strict=True)
    recorded = [Episode(state=s, actions=a, source="expert" if chi else "play") for s, a in columns]
    space = Space("continuous", actions, low=-8.0, high=8.0)
    return Toy(Episodes.of(recorded, space=space, fps=10.0), list(foreign.astype(np.float32)))


def dots(
    board: Board | None = None, *, episodes: int = 400, length: int = 51, determinism: float = 0.0, seed: int = 0
) -> Toy:
    """Pictures of a body that obeys, a distractor that does not, and a goal: the pixel toy of latent-action claims.

    ``determinism`` chi goes from play (0, uniformly random) to expert (1, straight to the goal): a mixture of the two
    commands, or, where actions are choices, the chance of the expert's. With a goal an episode ends when it is there.
    The exogenous state does not depend on ``determinism``. ``state`` is the body's position, then the goal's.
    """
    board = board or Board()
    _checked(episodes, length, determinism)
    starting, acting, drifting = np.random.default_rng(seed).spawn(3)
    positions = np.empty((episodes, length, 2))
    positions[:, 0], goals = board.begin(episodes, starting)
    foreign = np.empty((episodes, length, 4 if board.distractor else 0))
    foreign[:, 0] = board.wander(episodes, drifting)
    done = np.stack([board.space.blank(episodes)] * (length - 1), 1)
    for t in range(length - 1):
        done[:, t] = _command(board, positions[:, t], goals, determinism, acting)
        positions[:, t + 1] = board.move(positions[:, t], done[:, t])
        foreign[:, t + 1] = board.drifted(foreign[:, t], drifting.normal(size=(episodes, 2)))
    there = board.arrived(positions, goals[:, None]) & board.goal
    counts = np.where(there.any(1), there.argmax(1) + 1, length)
    keep = np.arange(length) < counts[:, None]  # (episodes, length): what lies behind the arrival is never painted
    owner = np.nonzero(keep)[0]
    frames = _painted(board, positions[keep], goals[owner], foreign[keep])
    state = np.concatenate([positions[keep], goals[owner]], -1).astype(np.float32)
    stops = np.cumsum(counts)
    recorded, source = [], "expert" if determinism else "play"
    for i, (stop, count) in enumerate(zip(stops, counts, strict=True)):
        span, success = slice(stop - count, stop), bool(there[i].any())
        rewards = np.zeros(count - 1, np.float32)
        rewards[-1:] = success
        recorded.append(
            Episode(
                frames=frames[span],
                state=state[span],
                actions=done[i, : count - 1],
                rewards=rewards if board.goal else None,
                source=source,
                success=success if board.goal else None,
            )
        )
    tracks = [foreign[i, :count].astype(np.float32) for i, count in enumerate(counts)]
    return Toy(Episodes.of(recorded, space=board.space, fps=10.0), tracks)


def _command(
    board: Board, positions: np.ndarray, goals: np.ndarray, determinism: float, random: np.random.Generator
) -> np.ndarray:
    count, expert = len(positions), board.expert(positions, goals)
    if board.discrete:
        return np.where(random.random(count) < determinism, expert, random.integers(5, size=count))
    return determinism * expert + (1 - determinism) * random.uniform(-1, 1, (count, 2))


def _painted(board: Board, positions: np.ndarray, goals: np.ndarray, exogenous: np.ndarray) -> np.ndarray:
    frames = np.empty((len(positions), board.size, board.size, 3), np.uint8)
    many = max(1, PIXELS // board.size**2)
    for start in range(0, len(frames), many):
        part = slice(start, start + many)
        frames[part] = board.draw(positions[part], goals=goals[part], exogenous=exogenous[part])
    return frames


def _checked(episodes: int, length: int, determinism: float) -> None:
    if episodes < 1 or length < 2 or not 0 <= determinism <= 1:
        raise ValueError(
            f"Given episodes {episodes}, length {length}, determinism {determinism}; "
            "wanted at least 1 episode of at least 2 frames and a determinism between 0 and 1."
        )
