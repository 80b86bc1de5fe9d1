"""Intervals agree with hand-computed values, with scipy, and with the frequency they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tacit.evaluate.interval import Interval, bootstrap, mean, normalise, proportion, ratio, resummed, student

# Fisher and Yates' table, two-sided 95 %: what any statistics book prints
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize(("freedom", "value"), TABLE.items())
def test_student_agrees_with_the_printed_table(freedom: int, value: float) -> None:
    assert student(0.975, freedom) == pytest.approx(value, abs=6e-4)


def test_student_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in [*range(1, 41), 99, 100, 1001, 5000]:
        for probability in (0.003, 0.2, 0.6, 0.95, 0.975, 0.995):
            assert student(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)


def test_mean_of_five_seeds_by_hand() -> None:
    # 1..5: mean 3, sample variance 2.5, so the reach is 2.776445 * sqrt(2.5 / 5) = 1.963243
    found = mean([1, 2, 3, 4, 5])
    assert (found.value, found.n) == (3.0, 5)
    assert found.low == pytest.approx(1.036757, abs=1e-6)
    assert found.high == pytest.approx(4.963243, abs=1e-6)


def test_mean_is_cut_to_what_is_possible() -> None:
    free, cut = mean([0.9, 1.0, 0.7]), mean([0.9, 1.0, 0.7], within=(0, 1))
    assert free.high > 1 and cut.high == 1 and cut.low == free.low


def test_one_seed_gives_a_value_but_no_interval() -> None:
    found = mean([0.4])
    assert found.value == 0.4 and not found.known and found.n == 1
    assert math.isnan(mean([]).value)


def test_a_failed_run_is_not_averaged() -> None:
    with pytest.raises(ValueError, match="1 of 3 samples are not finite"):
        mean([0.1, math.nan, 0.3])
    with pytest.raises(ValueError, match="one dimension"):
        mean(np.zeros((3, 2)))


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + 1.92073 / 10) / 1.384146 = 0.716740, reach 0.226578 (Newcombe 1998, method 3)
    found = proportion(8, 10)
    assert found.low == pytest.approx(0.490162, abs=1e-5)
    assert found.high == pytest.approx(0.943318, abs=1e-5)


def test_wilson_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for n in (1, 7, 50, 1000):
        for hits in {0, 1, n // 2, n}:
            theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
            ours = proportion(hits, n)
            assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_at_the_ends_is_neither_empty_nor_outside() -> None:
    never, always = proportion(0, 20), proportion(20, 20)
    assert never.low == 0 and 0.1 < never.high < 0.2
    assert always.high == 1 and 0.8 < always.low < 0.9
    assert not proportion(0, 0).known
    with pytest.raises(ValueError, match="between 0 and the number"):
        proportion(3, 2)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_agrees_with_scipy(method: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(3).exponential(size=60)  # skewed, so that BCa and percentile differ
    theirs = stats.bootstrap(
        (x,), np.mean, method=method, n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    ours = bootstrap(x, method=method, draws=20_000)  # type: ignore[arg-type]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_bca_differs_from_percentile_on_skewed_data() -> None:
    x = np.random.default_rng(3).exponential(size=30) ** 2
    plain, corrected = bootstrap(x, method="percentile"), bootstrap(x)
    assert corrected.low > plain.low and corrected.high > plain.high + 0.1


def test_bootstrap_is_repeatable_and_follows_its_seed() -> None:
    x = np.random.default_rng(0).normal(size=25)
    assert bootstrap(x, seed=4) == bootstrap(x, seed=4) != bootstrap(x, seed=5)


def test_bootstrap_draws_whole_episodes() -> None:
    # 10 episodes of 50 equal rows: there are 10 independent things here, not 500
    level = np.random.default_rng(1).normal(size=10)
    rows, episodes = np.repeat(level, 50), np.repeat(np.arange(10)[::-1], 50)
    blind, honest = bootstrap(rows), bootstrap(rows, groups=episodes)
    assert honest.n == 10 and blind.n == 500
    assert honest.high - honest.low > 4 * (blind.high - blind.low)
    shuffle = np.random.default_rng(2).permutation(500)
    again = bootstrap(rows[shuffle], groups=episodes[shuffle])
    assert (again.low, again.high) == pytest.approx((honest.low, honest.high))


def test_bootstrap_takes_any_statistic_of_rows() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=400)
    pairs = np.stack([x, x + random.normal(size=400)], axis=1)
    found = bootstrap(pairs, lambda rows: float(np.asarray(np.corrcoef(rows.T))[0, 1]), draws=500)
    assert found.low < 2**-0.5 < found.high
    assert found.high - found.low < 0.15


def test_bootstrap_without_spread_or_without_enough() -> None:
    flat = bootstrap(np.ones(12))
    assert (flat.low, flat.high) == (1, 1)
    assert not bootstrap([2.0]).known
    assert bootstrap([]).n == 0
    with pytest.raises(ValueError, match="one group for each of the 3 rows"):
        bootstrap([1.0, 2.0, 3.0], groups=[0, 1])
    with pytest.raises(ValueError, match="'bca' or 'percentile'"):
        bootstrap([1.0, 2.0], method="basic")  # type: ignore[arg-type]


def test_intervals_hold_the_truth_as_often_as_they_promise() -> None:
    random = np.random.default_rng(7)
    held = {"t": 0, "wilson": 0, "bca": 0}
    for _ in range(400):
        found = mean(random.normal(0.5, 0.2, size=5))
        held["t"] += found.low <= 0.5 <= found.high
        share = proportion(int(random.binomial(40, 0.85)), 40)
        held["wilson"] += share.low <= 0.85 <= share.high
        drawn = bootstrap(random.normal(0.5, 0.2, size=30), draws=200)
        held["bca"] += drawn.low <= 0.5 <= drawn.high
    rates = {name: count / 400 for name, count in held.items()}
    assert 0.92 < rates["t"] < 0.98, rates
    assert 0.92 < rates["wilson"] < 0.98, rates
    assert 0.89 < rates["bca"] < 0.98, rates


def test_above_needs_a_gap() -> None:
    assert Interval(0.8, 0.7, 0.9, 5).above(Interval(0.5, 0.4, 0.6, 5))
    assert not Interval(0.8, 0.6, 0.9, 5).above(Interval(0.5, 0.4, 0.6, 5))
    assert not Interval(0.8, math.nan, math.nan, 1).above(Interval(0.5, 0.4, 0.6, 5))


def test_normalised_return() -> None:
    assert normalise([-20, 0, 21], floor=-20, ceiling=20).tolist() == [0, 0.5, 1.025]
    with pytest.raises(ValueError, match="more than random"):
        normalise([0.0], floor=1, ceiling=1)


@pytest.mark.parametrize("discrete", [False, True])
def test_sums_drawn_at_once_are_what_rows_drawn_one_by_one_come_to(discrete: bool) -> None:
    """The same draws and the same statistic: an interval that is the same to rounding."""
    random = np.random.default_rng(3)
    rows = random.integers(1, 9, (17, 2)) if discrete else np.abs(random.normal(1, 0.3, (17, 2)))
    slow = bootstrap(rows, lambda some: float(some[:, 0].sum() / some[:, 1].sum()), seed=5)
    fast = resummed(rows, ratio, seed=5)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), rel=1e-9)
    assert fast.n == slow.n == 17


def test_however_few_are_drawn_at_a_time_the_interval_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).random((16, 2))
    whole = resummed(rows, ratio)
    monkeypatch.setattr("tacit.evaluate.interval.AT_ONCE", 100)
    again = resummed(rows, ratio)
    assert (again.value, again.low, again.high) == pytest.approx((whole.value, whole.low, whole.high), rel=1e-12)


def test_sums_of_one_episode_have_no_interval_and_of_none_no_value() -> None:
    one, none = resummed([[1.0, 2.0]], ratio), resummed(np.zeros((0, 2)), ratio)
    assert one.value == 0.5 and not one.known and one.n == 1
    assert np.isnan(none.value) and none.n == 0
    with pytest.raises(ValueError, match="episodes, numbers"):
        resummed([1.0, 2.0], ratio)


def test_a_ratio_is_that_of_sums_or_of_what_is_above_others() -> None:
    assert float(ratio(np.array([1.0, 4.0]))) == 0.25
    assert float(ratio(np.array([3.0, 1.0, 5.0, 1.0]))) == 0.5
    assert np.isnan(ratio(np.array([1.0, 0.0])))
    assert ratio(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [0.5, 0.75]
