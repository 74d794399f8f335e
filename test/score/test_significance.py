"""Intervals cover, planted differences are found, absent ones are not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from audiorl.score import significance
from audiorl.score.significance import by_source, compare, permutation_test, rate_interval

SAMPLES = 400


def corpus(rng: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors and units of `count` utterances; how hard each is varies."""
    units = rng.integers(2, 20, count)
    hardness = rng.beta(2, 2 / rate - 2, count)
    return rng.binomial(units, hardness), units


def test_rows_of_a_source_are_summed() -> None:
    columns = np.array([[1, 10], [2, 20], [4, 40]])
    assert by_source(columns, ["b", "a", "b"]).tolist() == [[5, 50], [2, 20]]
    assert by_source(columns, ["c", "b", "a"]).tolist() == columns.tolist()


def test_interval_holds_the_rate_and_matches_theory() -> None:
    rng = np.random.default_rng(0)
    errors, units = corpus(rng, 2000, 0.2)
    low, high = rate_interval(errors, units, 4000, seed=1)
    rate = errors.sum() / units.sum()
    # Standard error of a ratio of means (delta method).
    deviation = np.std(errors - rate * units) / units.mean() / np.sqrt(len(units))
    assert low == pytest.approx(rate - 1.96 * deviation, abs=0.1 * deviation)
    assert high == pytest.approx(rate + 1.96 * deviation, abs=0.1 * deviation)


def test_interval_covers_95_percent() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        errors, units = corpus(rng, 150, 0.2)
        low, high = rate_interval(errors, units, SAMPLES, seed=2)
        covered += low <= 0.2 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_seed_decides() -> None:
    errors, units = corpus(np.random.default_rng(2), 100, 0.2)
    assert rate_interval(errors, units, SAMPLES, 1) == rate_interval(errors, units, SAMPLES, 1)
    assert rate_interval(errors, units, SAMPLES, 1) != rate_interval(errors, units, SAMPLES, 2)


def test_identical_systems() -> None:
    errors, units = corpus(np.random.default_rng(3), 100, 0.2)
    c = compare(errors, errors, units, SAMPLES, seed=1)
    assert (c.difference, c.interval, c.relative) == (0.0, (0.0, 0.0), 0.0)
    assert (c.p_bootstrap, c.p_permutation, c.better, c.worse) == (1.0, 1.0, 0, 0)
    assert not c.significant


def test_planted_difference_is_found() -> None:
    rng = np.random.default_rng(4)
    before, units = corpus(rng, 1000, 0.25)
    after = rng.binomial(before, 0.85)  # 15 % of the errors mended
    c = compare(before, after, units, 2000, seed=1)
    assert c.significant
    assert c.difference == pytest.approx((after.sum() - before.sum()) / units.sum())
    assert c.interval[0] < c.difference < c.interval[1] < 0
    assert c.relative == pytest.approx(-0.15, abs=0.03)
    assert c.relative_interval[0] < -0.15 < c.relative_interval[1] < 0
    assert c.p_bootstrap < 0.01
    assert c.p_permutation < 0.01
    assert (c.better, c.worse) == (int((after < before).sum()), 0)
    # The same the other way round.
    back = compare(after, before, units, 2000, seed=1)
    assert back.significant
    assert back.interval == pytest.approx((-c.interval[1], -c.interval[0]))


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    rng = np.random.default_rng(5)
    before, units = corpus(rng, 300, 0.25)
    after = rng.binomial(before, 0.9)
    one = rate_interval(before, units, 2000, 1)
    two = rate_interval(after, units, 2000, 1)
    assert two[1] > one[0]  # they overlap
    assert compare(before, after, units, 2000, 1).significant


def test_absent_difference_is_rarely_found() -> None:
    rng = np.random.default_rng(6)
    found = found_permuted = 0
    for _ in range(200):
        units = rng.integers(2, 20, 120)
        hardness = rng.beta(2, 6, 120)
        before, after = rng.binomial(units, hardness), rng.binomial(units, hardness)
        c = compare(before, after, units, SAMPLES, seed=3)
        found += c.significant
        found_permuted += c.p_permutation < 0.05
    assert 0.01 <= found / 200 <= 0.10
    assert 0.01 <= found_permuted / 200 <= 0.10


def test_permutation_is_exact_on_few_utterances() -> None:
    differences = np.array([3, 1, 2, -1, 2, 0, 1])
    moved = differences[differences != 0]
    sums = [abs(np.dot(signs, moved)) for signs in itertools.product((-1, 1), repeat=len(moved))]
    exact = np.mean([value >= differences.sum() for value in sums])
    assert permutation_test(differences, 20000, seed=1) == pytest.approx(exact, abs=0.01)


def test_no_errors_before() -> None:
    zero, units = np.zeros(20, int), np.full(20, 5)
    c = compare(zero, zero, units, SAMPLES, seed=1)
    assert c.relative is None
    assert c.relative_interval is None


def test_blocks_bound_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, units = corpus(np.random.default_rng(7), 50, 0.2)
    monkeypatch.setattr(significance, "BLOCK", 120)
    assert significance._blocks(7, 50) == [2, 2, 2, 1]
    low, high = rate_interval(errors, units, SAMPLES, seed=1)
    assert low < errors.sum() / units.sum() < high
