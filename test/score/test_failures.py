"""Failures of LLM decoders, and keywords."""

from __future__ import annotations

import pytest

from audiorl.score.align import Counts, align
from audiorl.score.failures import (
    compression_ratio,
    count_keywords,
    find_failures,
    keyword_scores,
    longest_burst,
    repetitions,
)


def failures(ref: str, hyp: str) -> list[str]:
    alignment = align(ref.split(), hyp.split())
    return find_failures(ref.split(), hyp.split(), ref, hyp, alignment)


@pytest.mark.parametrize(
    ("ref", "hyp", "expected"),
    [
        ("turn on the light", "turn on the light", []),
        ("turn on the light", "turn off a light", []),
        ("turn on the light", "", ["empty"]),
        ("", "thank you", []),  # no speech: counted elsewhere
        ("", "", []),
        ("a b c d", "a b b b c d", []),  # three are no loop
        ("a b c d e", "a b b b b c d e", ["looping"]),
        ("a b b b b c", "a b b b b d", []),  # the speaker said so
        ("a b c d e f g h", "a b to the to the to the to the", ["looping"]),
        ("a b c d e f", "a b c v w x y z d e f", ["insertion_burst"]),
        ("a b c d e f", "a b c w x y z d e f", []),  # four in a row
        ("a b c", "u v w x y z", []),
        ("a b c", "t u v w x y z", ["insertion_burst"]),  # more than twice as long
        ("a b c", "a b c " + "on and on " * 20, ["looping", "insertion_burst"]),
    ],
)
def test_failures(ref: str, hyp: str, expected: list[str]) -> None:
    assert failures(ref, hyp) == expected


def test_repetitions() -> None:
    assert repetitions([]) == 0
    assert repetitions(["a"]) == 1
    assert repetitions("a b a b c".split()) == 2
    assert repetitions("a b a b a".split()) == 2  # a cut third
    assert repetitions("x a b c a b c a b c".split()) == 3
    assert repetitions("a b c a".split()) == 1


def test_compression_ratio_is_whispers() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("turn on the light in the kitchen please") < 2.4
    # Characters repeat without any repeated word, so only this rule sees it.
    text = "ha" * 100
    assert compression_ratio(text) > 2.4
    assert failures("a laugh", text) == ["looping"]


def test_longest_burst() -> None:
    assert longest_burst(align("a b".split(), "x y a z b".split())) == 2
    assert longest_burst(align("a".split(), "a".split())) == 0


def test_keywords() -> None:
    phrases = {("new", "york"), ("oslo",)}

    def count(ref: str, hyp: str) -> Counts:
        return count_keywords(ref.split(), hyp.split(), phrases)

    assert count("go to new york", "go to new york") == Counts(hits=1)
    assert count("go to new york", "go to york new") == Counts(deletions=1)
    assert count("go home", "go oslo") == Counts(insertions=1)  # said nowhere: precision
    assert count("oslo oslo", "oslo") == Counts(hits=1, deletions=1)
    assert count("oslo in new york", "oslo oslo york") == Counts(1, 0, 1, 1)


def test_keyword_scores() -> None:
    scores = keyword_scores(Counts(hits=6, deletions=2, insertions=4))
    assert (scores["reference"], scores["hypothesis"]) == (8, 10)
    assert scores["precision"] == pytest.approx(0.6)
    assert scores["recall"] == pytest.approx(0.75)
    assert scores["f1"] == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    assert keyword_scores(Counts())["f1"] == 0
