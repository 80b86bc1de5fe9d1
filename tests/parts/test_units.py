"""Units: letters merged by how often they are neighbours, said back exactly, and taught only where they are certain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.clip import Space
from tacit.parts.units import NOTHING, PAD, UNKNOWN, Units, ahead, centred

THREE = Space("discrete", 3)
TALE = torch.tensor([0, 1, 0, 1, 2, 0, 1, 0, 1])


def grown(**more: int) -> Units:
    return Units(**{"space": THREE, "size": 6, "longest": 4, **more}).learn([TALE])  # type: ignore[arg-type]


def test_the_most_frequent_neighbours_are_merged_first() -> None:
    """By hand: 01 occurs four times, then (01)(01) twice, and no other pair twice."""
    units = grown()
    said = [[x for x in row if x != PAD] for row in units.pieces.tolist()]
    assert said == [[0], [1], [2], [0, 1], [0, 1, 0, 1], []]
    assert units.encode(TALE).tolist() == [4, 2, 4]
    assert units.encode(torch.tensor([0, 1, 0, 0, 1, 2])).tolist() == [3, 0, 3, 2]
    assert [[x for x in row if x != PAD] for row in grown(longest=2).pieces.tolist()][3:] == [[0, 1], [], []]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=6), st.integers(4, 20))
def test_what_is_encoded_is_decoded_exactly(stretches: list[list[int]], size: int) -> None:
    known = [torch.tensor(stretch) for stretch in stretches]
    units = Units(space=Space("discrete", 4), size=size, longest=5).learn(known)
    for stretch in [*known, torch.tensor([3, 2, 1, 0] * 4)]:
        assert units.decode(units.encode(stretch)).tolist() == stretch.tolist()
    lengths = units.lengths
    used = units.pieces[lengths > 0]
    assert len({tuple(row) for row in used.tolist()}) == len(used)
    assert sum(len(units.encode(x)) for x in known) <= sum(len(x) for x in known)


def test_vectors_are_said_by_the_nearest_centre() -> None:
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    near = corners[torch.tensor([0, 1, 0, 1, 2, 0, 1])] + 0.01 * torch.randn(7, 2)
    units = Units(space=Space("continuous", 2), size=5, letters=3, longest=2).learn([near])
    again = units.decode(units.encode(near))
    assert (again - near).abs().max() < 0.05
    assert len(units.encode(near)) == 4
    assert units.spell(torch.full((1, 2), float("nan"))).tolist() == [UNKNOWN]


def test_centres_are_the_means_of_what_is_near() -> None:
    points = torch.tensor([[0.0], [0.2], [5.0], [5.2], [9.0]])
    assert sorted(centred(points, 3).flatten().tolist()) == pytest.approx([0.1, 5.1, 9.0])
    with pytest.raises(ValueError, match="5 labelled actions cannot have 6 centres"):
        centred(points, 6)


def test_a_unit_is_certain_only_where_no_longer_one_might_begin() -> None:
    units = grown()
    rows = torch.tensor([[0, 1, 0, 1], [0, 1, 0, UNKNOWN], [0, 1, NOTHING, NOTHING], [2, UNKNOWN, UNKNOWN, UNKNOWN]])
    unit, certain = units.begin(rows)
    assert certain.tolist() == [True, False, True, True]
    assert unit[certain].tolist() == [4, 3, 2]
    assert not units.begin(torch.full((1, 4), UNKNOWN))[1].any()


def test_beyond_the_last_step_nothing_is_known_unless_all_is_over() -> None:
    found = ahead(torch.tensor([[0, 1], [2, 0]]), 3, over=torch.tensor([True, False]))
    assert found.tolist() == [[[0, 1, NOTHING], [1, NOTHING, NOTHING]], [[2, 0, UNKNOWN], [0, UNKNOWN, UNKNOWN]]]


def test_a_pair_is_merged_only_where_what_is_seen_lets_the_second_be_told() -> None:
    """After 0, what comes next is anybody's guess where 0 is seen, and always 2 where 1 is seen."""
    random = np.random.default_rng(0)
    fair = [torch.tensor([0, int(random.integers(1, 3))]) for _ in range(100)]
    sure = [torch.tensor([0, 2]) for _ in range(20)] + [torch.tensor([1, 1]) for _ in range(20)]
    stretches, sights = fair + sure, [torch.zeros(2, dtype=torch.int64)] * 100 + [torch.ones(2, dtype=torch.int64)] * 40
    blind = Units(space=THREE, size=4, longest=2).learn(stretches)
    assert blind.pieces[3].tolist() == [0, 2]
    assert Units(space=THREE, size=5, longest=2).learn(stretches, sights, sure=0.9).pieces[3:].tolist() == [
        [1, 1],
        [PAD, PAD],
    ]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="2 units of at most 8 actions cannot hold 3 letters"):
        Units(space=THREE, size=2)
    with pytest.raises(ValueError, match="nobody recorded"):
        grown().encode(torch.tensor([0, -1]))
