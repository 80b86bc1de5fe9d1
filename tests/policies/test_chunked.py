"""Acting in units: what is begun is done to its end, each row on its own, and then something else is begun."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tacit.clip import Clip, Space
from tacit.data import toys
from tacit.envs.dots import Board
from tacit.parts.keypoints import Keypoints
from tacit.parts.units import Units
from tacit.policies.chunked import Chunked, vocabulary
from tacit.recipes.chunks import TINY, chunks
from tacit.train import Plan

FIVE = Space("discrete", 5)


def policy() -> Chunked:
    """Knows the unit 1 2 3 and says it always; in row one it is in the middle of it."""
    units = Units(space=FIVE, size=7, longest=3).learn([torch.tensor([1, 2, 3] * 4)])
    assert units.pieces[6].tolist() == [1, 2, 3]
    made = Chunked(encoder=Keypoints(frame=(16, 16), points=2, width=8), features=4, units=units, past=0)
    torch.nn.init.constant_(made.head.net[-1].bias, -9.0)
    made.head.net[-1].bias.data[6] = 99.0
    return made


def test_a_unit_is_done_to_its_end() -> None:
    made, memory, done = policy(), None, []
    for _ in range(7):
        action, memory = made.act(Clip(frames=torch.zeros(2, 1, 3, 16, 16, dtype=torch.uint8)), memory)
        done.append(action.tolist())
        if len(done) == 2 and memory is not None:  # row one begins anew
            fresh = made.start(2)
            memory = {k: torch.cat([memory[k][:1], fresh[k][1:]]) for k in memory}
    assert [row[0] for row in done] == [1, 2, 3, 1, 2, 3, 1]
    assert [row[1] for row in done] == [1, 2, 1, 2, 3, 1, 2]


def test_what_is_not_in_the_vocabulary_is_never_said() -> None:
    units = Units(space=FIVE, size=9, longest=2).learn([torch.tensor([1, 2, 1, 2])])
    made = Chunked(encoder=Keypoints(frame=(16, 16), points=2, width=8), features=4, units=units, past=0)
    made.head.net[-1].bias.data[7:] = 99.0
    action, memory = made.act(Clip(frames=torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)), None)
    assert memory is not None and 0 <= action.item() < 5 and memory["left"].item() >= 0


def test_a_vocabulary_is_grown_from_labelled_stretches_only() -> None:
    """Two stretches that nobody recorded the middle of are no neighbours."""
    data = toys.dots(Board(size=16, discrete=True, goal=False), episodes=4, length=12).episodes
    actions = np.array([0, 1, 0, 1, -1, 0, 1, 0, 1, -1, 2])
    from tacit.data.episodes import Episodes

    told = Episodes.of([data.episode(i).replace(actions=actions) for i in range(4)], space=FIVE)
    units = vocabulary(Units(space=FIVE, size=12, longest=4), told)
    said = [row[row >= 0].tolist() for row in units.pieces if (row >= 0).sum() > 1]
    assert said == [[0, 1], [0, 1, 0, 1]]
    seen = vocabulary(Units(space=FIVE, size=12, longest=4), told, sights=2, sure=0.5)
    assert all(set(row[row >= 0].tolist()) <= {0, 1} for row in seen.pieces if (row >= 0).sum() > 1)


def test_how_sure_a_merge_is_cannot_be_asked_without_sights() -> None:
    data = toys.dots(Board(size=16, discrete=True, goal=False), episodes=2, length=12).episodes
    with pytest.raises(ValueError, match=r"sure=0.9 was given without sights: .* Give sights as well"):
        chunks(data, None, sure=0.9, plan=Plan(steps=1), **TINY)
    grown = [
        vocabulary(Units(space=FIVE, size=12, longest=4), data, sights=2, **sure).pieces
        for sure in ({}, {"sure": 0.5}, {"sure": 1.0})
    ]
    assert torch.equal(grown[0], grown[1]) and not torch.equal(grown[1], grown[2])
