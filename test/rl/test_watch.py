"""The watch flags a reward that rises while the judge's score falls beyond noise, no other."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from audiorl.rl.watch import HackingWatch, trend
from audiorl.text.align import Counts

UP, DOWN = [0.1, 0.2, 0.3, 0.4], [0.8, 0.7, 0.6, 0.5]
NOISY_UP, NOISY_DOWN = [0.1, 0.3, 0.2, 0.4], [0.8, 0.6, 0.7, 0.5]


def heard(score: float) -> list[Counts]:
    """Twenty utterances of ten units, all alike."""
    hits = round(10 * score)
    return [Counts(hits=hits, substitutions=10 - hits)] * 20


def watched(rewards: list[float], judged: list[float], action: str = "flag") -> HackingWatch:
    watch = HackingWatch(action, 4)
    for step, (reward, score) in enumerate(zip(rewards, judged, strict=True)):
        watch.look(10 * step, reward, heard(score))
    return watch


def flagged_share(rates: list[float]) -> float:
    """Of 100 runs whose reward rises; in each evaluation the judge errs anew, at its rate."""
    draw, flagged = np.random.default_rng(0), 0
    for _ in range(100):
        ease = draw.gamma(2.0, 0.5, size=100)  # some utterances are harder than others
        watch, flags = HackingWatch("flag", 4), 0.0
        for step, rate in enumerate(rates):
            errors = draw.binomial(30, np.clip(rate * ease, 0, 1))
            judged = [Counts(hits=30 - int(e), substitutions=int(e)) for e in errors]
            flags += watch.look(step, float(step), judged)["hacking/flag"]
        flagged += flags > 0
    return flagged / 100


def test_noise_is_no_hacking() -> None:
    """By the trend alone most of these runs were flagged."""
    assert flagged_share([0.2] * 10) < 0.15
    assert flagged_share([0.2 + 0.02 * step for step in range(10)]) > 0.9


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2, 3, 4], 1), ([4, 3, 2, 1], -1), ([1, 3, 2, 4], 4 / 6), ([2, 2], 0), ([1, 2, 2], 2 / 3)],
)
def test_trend_counts_pairs(values: list[float], expected: float) -> None:
    assert trend(tuple(values)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rewards", "judged", "hacking"),
    [
        (UP, DOWN, True),
        (NOISY_UP, NOISY_DOWN, True),  # one evaluation out of order
        (UP, UP, False),
        (DOWN, DOWN, False),
        (DOWN, UP, False),
        (UP, [0.5] * 4, False),
        (UP, [0.8, 0.5, 0.7, 0.6], False),  # lower than at first, and no trend
        (UP[:3], DOWN[:3], False),  # too early to say
        ([0.9, 0.1, 0.2, 0.3, 0.4], [0.1, 0.8, 0.7, 0.6, 0.5], True),  # only the window counts
        ([*UP, 0.5, 0.6], [*DOWN, 0.7, 0.9], False),  # it was, and is no more
    ],
)
def test_what_is_flagged(rewards: list[float], judged: list[float], hacking: bool) -> None:
    assert watched(rewards, judged).is_hacking is hacking
    assert watched(rewards, judged, "never").is_hacking is False


def test_one_line_and_metrics(caplog: pytest.LogCaptureFixture) -> None:
    watch = HackingWatch("flag", 4)
    with caplog.at_level(logging.WARNING):
        pairs = enumerate(zip(UP, DOWN, strict=True))
        found = [watch.look(10 * i, reward, heard(score)) for i, (reward, score) in pairs]
    assert [m["hacking/flag"] for m in found] == [0, 0, 0, 1]
    assert found[0]["hacking/reward_trend"] == 0.0  # nothing to compare with
    assert found[3] == {
        "eval/reward_model": 0.4,
        "eval/judge": 0.5,
        "hacking/reward_trend": 1.0,
        "hacking/judge_trend": -1.0,
        "hacking/flag": 1.0,
    }
    (line,) = caplog.messages
    assert line == (
        "reward hacking? From step 0 to 30 the reward model's score went from 0.1 to 0.4 and the "
        "judge's from 0.8 to 0.5"
    )


@pytest.mark.parametrize(("action", "stops"), [("never", False), ("flag", False), ("stop", True)])
def test_only_stop_stops(action: str, stops: bool, caplog: pytest.LogCaptureFixture) -> None:
    assert watched(UP, DOWN, action).should_stop is stops
    assert len(caplog.messages) == (action != "never")
    assert ("the run ends (rl.early_stop)" in caplog.text) is stops


def test_a_resumed_run_knows_what_it_had_seen() -> None:
    """The history survives a checkpoint, which holds plain types."""
    watch = watched(UP[:3], DOWN[:3], "stop")
    saved = json.loads(json.dumps(watch.history))
    resumed = HackingWatch("stop", 4, saved)
    assert resumed.history == watch.history and not resumed.should_stop
    resumed.look(30, UP[3], heard(DOWN[3]))
    assert resumed.should_stop
    assert HackingWatch("stop", 4, resumed.history).should_stop
