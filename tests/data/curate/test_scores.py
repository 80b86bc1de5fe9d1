"""Scores on planted faults: the planted episode is last, equal ones are told by chance only, and order is nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.clip import Episode, Space
from tacit.data.curate import (
    LOOKS,
    SCORES,
    Score,
    chance,
    consistency,
    diversity,
    information,
    smoothness,
    steadiness,
    typical_actions,
    typical_ends,
    typical_length,
    typical_states,
)
from tacit.data.curate.information import _digamma
from tacit.data.episodes import Episodes

SPACE = Space("continuous", 2, -3.0, 3.0)
Fault = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def walks(count: int = 30, *, spoil: tuple[int, ...] = (), fault: Fault | None = None, seed: int = 0) -> Episodes:
    """Somebody walks home, each action a fraction of the way; ``fault`` spoils the states and actions of some."""
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        angle, far = random.uniform(0, 2 * np.pi), random.uniform(1.5, 2)
        place, state, actions = far * np.array([np.cos(angle), np.sin(angle)]), [], []
        for _ in range(30):
            state.append(place)
            actions.append(-0.15 * place + 0.01 * random.normal(size=2))
            place = place + actions[-1]
        x, a = np.stack([*state, place]), np.stack(actions)
        if number in spoil and fault is not None:
            x, a = fault(x, a, random)
        found.append(Episode(state=x.astype(np.float32), actions=a.astype(np.float32)))
    return Episodes.of(found, space=SPACE, name="walks")


def auroc(score: np.ndarray, bad: tuple[int, ...]) -> float:
    flawed = np.isin(np.arange(len(score)), bad)
    clean, spoilt = score[~flawed][:, None], score[flawed]
    return float((clean > spoilt).mean() + (clean == spoilt).mean() / 2)


def trembling(x: np.ndarray, a: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return x, a + 0.2 * (-1.0) ** np.arange(len(a))[:, None]


def astray(x: np.ndarray, a: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = x.copy()
    x[10:15] += 6
    return x, a


def halved(x: np.ndarray, a: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return x[:6], a[:5]


def opposite(x: np.ndarray, a: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return x, -a


def wild(x: np.ndarray, a: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    a = a.copy()
    a[12:15] = [2.5, -2.5]
    return x, a


def shuffled(x: np.ndarray, a: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return x, random.permutation(a)


FINDS: list[tuple[Score, Fault]] = [
    (smoothness, trembling),
    (steadiness, trembling),
    (typical_actions, wild),
    (typical_states, astray),
    (typical_ends, halved),
    (typical_length, halved),
    (consistency, opposite),
    (consistency, shuffled),
    (information, shuffled),
]


@pytest.mark.parametrize(("score", "fault"), FINDS, ids=[f"{s.__name__}-{f.__name__}" for s, f in FINDS])
def test_the_planted_episode_is_last(score: Score, fault: Fault) -> None:
    assert int(np.argmin(score(walks(spoil=(17,), fault=fault)))) == 17
    bad = (3, 8, 15, 22, 27)
    assert auroc(score(walks(spoil=bad, fault=fault)), bad) > 0.95


@pytest.mark.parametrize("by", ["mahalanobis", "neighbours"])
def test_either_measure_of_outliers_finds_them(by: str) -> None:
    assert int(np.argmin(typical_states(walks(spoil=(4,), fault=astray), by=by))) == 4
    assert int(np.argmin(typical_actions(walks(spoil=(4,), fault=wild), by=by))) == 4


def test_a_regression_finds_divergent_actions_too() -> None:
    assert int(np.argmin(consistency(walks(spoil=(4,), fault=opposite), by="ridge"))) == 4


def test_states_and_actions_are_judged_apart() -> None:
    """A strange state says nothing against the actions, and the other way round."""
    bad = (3, 8, 15, 22, 27)
    clean = walks()
    assert np.allclose(typical_actions(walks(spoil=bad, fault=astray)), typical_actions(clean))
    assert np.allclose(typical_states(walks(spoil=bad, fault=wild)), typical_states(clean))
    assert np.allclose(smoothness(walks(spoil=bad, fault=astray)), smoothness(clean))


def test_what_no_other_shows_is_diverse() -> None:
    def elsewhere(x: np.ndarray, a: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return x + 5, a

    assert int(np.argmax(diversity(walks(spoil=(9,), fault=elsewhere)))) == 9


def test_divergence_is_the_variance_of_the_action_that_the_state_leaves_open() -> None:
    """Unit noise on top of what the state says: a mean of k neighbours misses by 1 + 1/k of its variance."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(40):
        x = random.uniform(-1, 1, (51, 1))
        found.append(Episode(state=x.astype(np.float32), actions=random.normal(size=(50, 1)).astype(np.float32)))
    data = Episodes.of(found, space=Space("continuous", 1, -9.0, 9.0))
    assert np.isclose(-consistency(data, k=5).mean(), 1.2, rtol=0.1)
    assert np.isclose(-consistency(data, by="ridge").mean(), 1.0, rtol=0.1)


def test_information_is_near_that_of_a_gaussian() -> None:
    """Correlation r: -log(1 - r^2) / 2 nats, up to the constants that the score leaves out."""

    def gaussian(r: float) -> float:
        random, found = np.random.default_rng(0), []
        for _ in range(40):
            s = random.normal(size=(51, 1))
            a = r * s[:-1] + np.sqrt(1 - r * r) * random.normal(size=(50, 1))
            found.append(Episode(state=s.astype(np.float32), actions=a.astype(np.float32)))
        data = Episodes.of(found, space=Space("continuous", 1, -9.0, 9.0))
        return float(information(data).mean())

    gain = gaussian(0.9) - gaussian(0.0)
    assert np.isclose(gain, -np.log(1 - 0.81) / 2, rtol=0.15)


def test_digamma_obeys_its_recurrence() -> None:
    n = np.arange(1, 60)
    assert np.isclose(_digamma(np.array([1]))[0], -np.euler_gamma)
    assert np.allclose(_digamma(n + 1) - _digamma(n), 1 / n)


def test_chance_tells_nothing_apart() -> None:
    bad = tuple(range(0, 400, 3))
    assert abs(auroc(chance(walks(400, spoil=bad, fault=opposite)), bad) - 0.5) < 0.1
    assert not np.allclose(chance(walks()), chance(walks(), seed=1))


@settings(max_examples=8)
@given(st.permutations(range(12)))
def test_the_order_of_the_episodes_is_nothing_to_any_score(order: list[int]) -> None:
    data = walks(12, spoil=(2, 5), fault=halved)
    for score in SCORES.values():
        assert np.allclose(score(data.select(order)), score(data)[order], atol=1e-6), score.__name__


@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_one_number_an_episode(name: str) -> None:
    value = SCORES[name](walks(7))
    assert value.shape == (7,) and np.isfinite(value).all()
    assert LOOKS.keys() == SCORES.keys()


@pytest.mark.parametrize("name", [n for n, looks in LOOKS.items() if looks in ("actions", "both")])
def test_what_looks_at_actions_says_that_it_needs_labels(name: str) -> None:
    data = walks(5)
    with pytest.raises(ValueError, match="needs labels"):
        SCORES[name](data.unlabelled())


@pytest.mark.parametrize("name", [n for n, looks in LOOKS.items() if looks not in ("actions", "both")])
def test_what_does_not_look_at_actions_needs_no_labels(name: str) -> None:
    data = walks(9)
    assert np.allclose(SCORES[name](data.unlabelled()), SCORES[name](data))


def test_an_episode_without_labels_is_not_judged_and_others_are() -> None:
    data = walks(10)
    mask = np.ones(int(data.lengths.sum()), bool)
    mask[data.starts[4] : data.starts[4] + data.lengths[4]] = False
    part = Episodes(data.reader, labels=mask)
    for name in ("smoothness", "steadiness", "typical_actions", "consistency", "diversity", "information"):
        value = SCORES[name](part)
        assert np.isnan(value[4]) and np.isfinite(np.delete(value, 4)).all(), name


def test_a_gap_between_labels_is_no_jerk() -> None:
    """Actions on both sides of a gap differ by the whole way between them."""
    ramp = np.linspace(-1, 1, 40)[:, None].repeat(2, 1).astype(np.float32)
    holed = ramp.copy()
    holed[10:30] = np.nan
    states = np.zeros((41, 1), np.float32)
    data = Episodes.of([Episode(state=states, actions=a) for a in (ramp, holed)], space=SPACE)
    assert np.allclose(smoothness(data), 0, atol=1e-6)
    assert np.allclose(steadiness(data), 0, atol=1e-6)


def test_discrete_actions_and_pictures_are_judged_as_well() -> None:
    """The action says which side the dot is on; in one episode it says the other."""
    random, found = np.random.default_rng(0), []
    for number in range(12):
        column = random.integers(12, size=21)
        frames = np.zeros((21, 12, 12, 3), np.uint8)
        frames[np.arange(21), :, column] = 255
        side = (column[:-1] >= 6).astype(np.int64)
        found.append(Episode(frames=frames, actions=1 - side if number == 6 else side))
    data = Episodes.of(found, space=Space("discrete", 2))
    assert int(np.argmin(consistency(data))) == 6


def test_one_episode_cannot_be_judged_by_others() -> None:
    with pytest.raises(ValueError, match="at least two"):
        typical_states(walks(1))
