"""The verdict on models of states, with and without pictures beside them."""

from __future__ import annotations

import numpy as np
from torch import Tensor, cat

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.evaluate.verdict import Pair, Verdict, examine


def driven(*, late: bool = False, filmed: bool = False) -> Episodes:
    """A point and its speed, which is the action: states of four numbers, filmed with nothing moving in the picture."""
    random, episodes = np.random.default_rng(0), []
    for _ in range(60):
        acts = random.uniform(-1, 1, (12, 2)).astype(np.float32)
        speed = np.concatenate([np.zeros((1, 2), np.float32), acts])
        state = np.concatenate([speed.cumsum(0), speed], 1)
        frames = np.full((13, 8, 8, 3), random.integers(256), np.uint8) if filmed else None
        said = np.concatenate([acts[:1], acts[:-1]]) if late else acts
        episodes.append(Episode(frames=frames, state=state, actions=said))
    return Episodes.of(episodes, space=Space("continuous", 2), fps=10.0)


def judged(data: Episodes) -> Verdict:
    def moved(o: Tensor, z: Tensor) -> Tensor:
        return cat([o[:, :2] + z, z], 1)

    return examine(Pair(encode=lambda o, after: after[:, 2:], predict=moved, of="state"), data, most=256)


def test_late_labels_that_a_speed_gives_away_are_no_habit() -> None:
    """Where the state holds what was done last, a late label is told by it; the action itself is as free as ever."""
    found = judged(driven(late=True))
    assert found.name == "misaligned" and "too deterministic" not in found.ailments, found.headline
    told = found["D"].value
    assert told is not None and told.value is not None and told.value < 0.3


def test_a_model_of_states_is_asked_of_states_where_there_are_pictures_too() -> None:
    found = judged(driven(filmed=True))
    more = {v.name: v.value for v in found["C1"].more + found["C3"].more}
    assert more["missed 4 steps on by its own predictions"] == 0
    assert more["gradient of the prediction by the future, of that by the present"] == 0
    assert found["C1"].outcome == "pass" and found.name == "working", found.headline
