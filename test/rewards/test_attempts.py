"""Rewards that fail: on some samples, on all of them, or only on all together."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import pytest

from audiorl.data.utterance import Utterance
from audiorl.rewards import Reward, Sample, WeightedSum

UTTERANCES, GROUP = 50, 4


def samples() -> list[Sample]:
    """Unlike hypotheses: "0-0" is the first of u0."""
    return [
        Sample(Utterance(f"u{u}", "x.wav", "go", "s"), f"{u}-{g}", True)
        for u in range(UTTERANCES)
        for g in range(GROUP)
    ]


class Failing:
    """A reward that fails on some texts; `calls` are the sizes of what it was asked."""

    def __init__(self, *bad: str) -> None:
        self.bad, self.calls = bad, []

    def __call__(self, asked: Sequence[Sample]) -> list[float]:
        self.calls.append(len(asked))
        for sample in asked:
            if sample.text in self.bad or "all" in self.bad:
                raise ValueError(f"cannot read {sample.text}")
        return [1.0] * len(asked)


def lost(reward: Reward) -> list[str]:
    """The texts that are unscorable."""
    given = samples()
    total = WeightedSum({"mine": (reward, 1.0)})(given).total
    assert {value for value in total if not math.isnan(value)} <= {0.0, 1.0}
    return [s.text for s, value in zip(given, total, strict=True) if math.isnan(value)]


@pytest.mark.parametrize("kind", ["sample", "gate"])
def test_only_what_fails_is_unscorable(kind: str, caplog) -> None:
    failing = Failing("3-1", "7-0", "7-2")
    assert lost(Reward(failing, kind)) == ["3-1", "7-0", "7-2"]
    assert len(failing.calls) == 1 + UTTERANCES + 2 * GROUP
    (told,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "mine failed on 3 of 200 samples, first of utterance u3, which are" in told.getMessage()
    assert caplog.text.count("Traceback") == 1 and "ValueError: cannot read 3-1" in caplog.text
    assert "reward mine: 3 of 200 samples are unscorable" in caplog.text


def test_groups_are_not_divided(caplog) -> None:
    failing = Failing("0-3", "9-0")
    expected = [f"{u}-{g}" for u in (0, 9) for g in range(GROUP)]
    assert lost(Reward(failing, "group")) == expected
    assert failing.calls == [GROUP] * UTTERANCES
    assert "mine failed on 8 of 200 samples, first of utterance u0, which" in caplog.text
    assert caplog.text.count("Traceback") == 1


def test_bad_utterances_in_front_are_no_reason_to_give_up() -> None:
    bad = [f"{u}-{g}" for u in range(7) for g in range(GROUP)]
    assert lost(Reward(Failing(*bad))) == bad


@pytest.mark.parametrize("kind", ["sample", "group"])
def test_what_always_fails_is_not_asked_for_ever(kind: str, caplog) -> None:
    failing = Failing("all")
    assert len(lost(Reward(failing, kind))) == 200
    assert len(failing.calls) < 50
    assert "mine failed on 200 of 200 samples, first of utterance u0" in caplog.text
    assert caplog.text.count("Traceback") == 1


def test_a_failure_of_the_whole_alone_loses_nothing_but_is_told(caplog) -> None:
    def crowded(asked: Sequence[Sample]) -> list[float]:
        if len(asked) > 8:
            raise MemoryError("too many")
        return [1.0] * len(asked)

    assert lost(Reward(crowded)) == []
    assert "reward mine failed on 0 of 200 samples" in caplog.text
    assert "MemoryError: too many" in caplog.text
