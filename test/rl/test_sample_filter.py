"""The filter keeps exactly the right rollouts, and counts the others by reason."""

from __future__ import annotations

import math

import pytest

from audiorl.rl.sample_filter import filter_samples
from audiorl.text import detectors
from audiorl.text.detectors import Span, token_loops

SPEECH = [7, 7, 3, 9, 9, 9, 9, 1, 4, 2]  # a long sound, and no loop of 8


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "LOOP_TOKENS", 8)


def test_each_reason_keeps_one_out(eight) -> None:
    rows = [SPEECH, SPEECH, [1, 2] * 5, SPEECH[:1], SPEECH, SPEECH, SPEECH, [5] * 8]
    finished = [True, False, True, True, True, True, True, False]
    room = [True, True, True, False, True, True, True, True]
    advantages = [0.5, 2.0, 2.0, 2.0, 0.0, -1.0, math.nan, 2.0]
    found = filter_samples(rows, finished, room, advantages)
    assert found.kept == [True, False, False, False, False, False, False, False]
    assert found.reasons == {"unterminated": 2, "looping": 1, "too_short": 1, "not_positive": 3}
    assert found.metrics() == {
        "diffro/total": 8.0,
        "diffro/kept": 1.0,
        "diffro/unterminated": 2.0,
        "diffro/looping": 1.0,
        "diffro/too_short": 1.0,
        "diffro/not_positive": 3.0,
    }
    unfiltered = filter_samples(rows, finished, room, None)
    assert unfiltered.kept == [True, False, False, False, True, True, True, False]
    assert "not_positive" not in unfiltered.reasons


@pytest.mark.parametrize(
    ("tokens", "spans"),
    [
        (SPEECH, []),
        ([], []),
        ([5] * 7, []),
        ([5] * 8, [(0, 8)]),
        ([1, 5, 6, 5, 6, 5, 6, 5, 6, 2], [(1, 9)]),
        ([1, 5, 6, 5, 6, 5, 6, 2], []),  # three times only
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], []),
    ],
)
def test_loops_of_tokens(eight, tokens: list[int], spans: list[tuple[int, int]]) -> None:
    assert token_loops(tokens) == [Span(*span) for span in spans]


def test_a_phrase_that_comes_back_and_back_is_a_loop() -> None:
    phrase = list(range(100, 118))
    assert token_loops([1, *phrase * 4, 2]) == [Span(1, 1 + 4 * 18)]
    assert token_loops([1, *phrase, 3, *phrase, 2]) == []
