"""The watch flags a reward that rises while the judge's score falls, and nothing else."""

from __future__ import annotations

import json
import logging

import pytest

from audiorl.train.watch import HackingWatch, trend

UP, DOWN = [0.1, 0.2, 0.3, 0.4], [0.8, 0.7, 0.6, 0.5]
NOISY_UP, NOISY_DOWN = [0.1, 0.3, 0.2, 0.4], [0.8, 0.6, 0.7, 0.5]


def watched(rewards: list[float], judged: list[float], action: str = "flag") -> HackingWatch:
    watch = HackingWatch(action, 4)
    for step, scores in enumerate(zip(rewards, judged, strict=True)):
        watch.look(10 * step, *scores)
    return watch


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
        found = [watch.look(10 * i, r, j) for i, (r, j) in enumerate(zip(UP, DOWN, strict=True))]
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
    resumed.look(30, UP[3], DOWN[3])
    assert resumed.should_stop
    assert HackingWatch("stop", 4, resumed.history).should_stop
