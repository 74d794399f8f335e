"""Ratios of sums with their intervals, against a plain bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from audiorl.score.ratio import Metric, Ratio, ratios

METRICS = {
    "share": Metric("share %", ("bad", "worse"), ("all",)),
    "sum": Metric("sum", ("bad",), ("one",), 2.0),
    "nothing": Metric("nothing", ("bad",), ("none",)),
}


def rows(seed: int, count: int = 40) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "bad": rng.integers(3),
            "worse": rng.random(),
            "all": 1 + rng.random(),
            "one": 1,
            "none": 0,
        }
        for _ in range(count)
    ]


def test_values_and_draws() -> None:
    given = rows(0)
    found = ratios(METRICS, given, samples=300, seed=5)
    whole = sum(r["bad"] + r["worse"] for r in given) / sum(r["all"] for r in given)
    assert found["share"].value == pytest.approx(100 * whole)
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, 40, size=(300, 40))
    slow = [
        100
        * sum(given[i]["bad"] + given[i]["worse"] for i in draw)
        / sum(given[i]["all"] for i in draw)
        for draw in drawn
    ]
    np.testing.assert_allclose(found["share"].draws, slow)
    low, high = np.percentile(slow, [2.5, 97.5])
    assert found["share"].interval == pytest.approx((low, high))
    assert found["sum"].value == pytest.approx(2 * np.mean([r["bad"] for r in given]))


def test_nothing_to_divide_by_is_not_known() -> None:
    found = ratios(METRICS, rows(0), 100, 1)["nothing"]
    assert not found.known
    assert all(map(math.isnan, found.interval))
    assert not (found - found).significant


def test_differences_are_paired() -> None:
    """A system that is a little worse in every utterance differs, however unlike utterances are."""
    one = [{"x": 10.0 * i, "n": 1} for i in range(50)]
    two = [{"x": 10.0 * i + 1, "n": 1} for i in range(50)]
    mean = {"x": Metric("x", ("x",), ("n",), 1.0)}
    before, after = (ratios(mean, r, 200, 1)["x"] for r in (one, two))
    gap = after - before
    assert gap.value == pytest.approx(1)
    assert gap.interval == pytest.approx((1, 1))
    assert gap.significant
    low, high = before.interval
    assert low < after.value < high  # unpaired, nothing would be shown
    assert not (before - before).significant


def test_interval_of_draws_that_are_known() -> None:
    ratio = Ratio(1.0, np.array([np.nan, 1.0, 1.0]))
    assert ratio.interval == (1.0, 1.0)
