"""Detectors of hallucination: which units they point at. Their rates: test/rewards."""

from __future__ import annotations

import pytest

from audiorl.text.align import align
from audiorl.text.detectors import (
    Span,
    beyond_audio,
    bursts,
    compressible,
    compression_ratio,
    covered,
    foreign,
    loops,
    overlong,
)


@pytest.mark.parametrize(
    ("hyp", "ref", "spans"),
    [
        ("", "", []),
        ("a b c d", "", []),
        ("a b b b c", "", []),  # three are no loop
        ("a b b b b c", "", [(2, 5)]),  # the first one may have been said
        ("x a b a b a b a b a", "", [(3, 9)]),  # a cut fifth time is left out
        ("a b b b b c", "a b b b b c", []),  # the speaker said so
        ("know know know know", "no no no no", []),  # and was misheard
        ("b b b b b b", "b b b", [(3, 6)]),  # said three times
        ("b b b b b", "b b b", []),  # that is nearly what was said
        ("a a a a b b b b", "", [(1, 4), (5, 8)]),
        ("well sososososososo then", "", [(1, 2)]),
        ("well hahaha then", "", []),
        ("1000000 111111111", "", []),  # digits do not loop, they count
        ("shhhhhhhh", "shhhhhhhhhh", []),
    ],
)
def test_loops(hyp: str, ref: str, spans: list[tuple[int, int]]) -> None:
    assert loops(hyp.split(), ref.split()) == [Span(*span) for span in spans]


@pytest.mark.parametrize("n", [1, 2, 7, 19, 20])
def test_loops_of_any_length(n: int) -> None:
    phrase = [f"w{i}" for i in range(n)]
    assert loops(["before", *phrase * 4, "after"]) == [Span(1 + n, 1 + 4 * n)]


def test_compression_ratio_is_whispers() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("turn on the light in the kitchen please") < 2.4
    # Characters repeat without any repeated word.
    assert compression_ratio("ha" * 100) > 2.4


def test_compressible_text_is_no_fault_where_the_reference_is_so_too() -> None:
    text = "la la la " * 30
    assert compressible(text.split(), text) == [Span(0, 90)]
    assert compressible(text.split(), text, text) == []
    assert compressible(["short"], "short") == []


@pytest.mark.parametrize(
    ("ref", "hyp", "spans"),
    [
        ("a b", "a b", []),
        ("a b c", "a v w x y c", []),  # the fifth is a substitution
        ("a b", "a 1 2 3 4 5 b", [(1, 6)]),
        ("a b", "1 2 3 4 5 6 a b", [(0, 6)]),
        ("a b", "a b 1 2 3 4 5", [(2, 7)]),
        ("a b c d", "a 1 2 3 4 5 b 1 2 3 4 5 6 c d", [(1, 6), (7, 13)]),
        ("", "1 2 3 4 5", [(0, 5)]),
        ("q a b c d e f g h", "a b c d 1 2 3 4 5 e f g h", [(4, 9)]),  # a deletion takes no place
    ],
)
def test_bursts(ref: str, hyp: str, spans: list[tuple[int, int]]) -> None:
    assert bursts(align(ref.split(), hyp.split())) == [Span(*span) for span in spans]


def test_overlong() -> None:
    assert overlong("a b c d".split(), ["a", "b"]) == []
    assert overlong("a b c d e".split(), ["a", "b"]) == [Span(4, 5)]


def test_beyond_audio() -> None:
    hyp = "a b c d e f g".split()
    assert beyond_audio(hyp, 1.0, 8.0) == []
    assert beyond_audio(hyp, 0.5, 8.0) == [Span(4, 7)]
    assert beyond_audio(hyp, 0.55, 8.0) == [Span(5, 7)]  # the fifth has begun
    assert beyond_audio(hyp, 0.5, 8.0, said=7) == []
    assert beyond_audio(hyp, None, 8.0) == []


@pytest.mark.parametrize(
    ("hyp", "ref", "spans"),
    [
        ("打 开 空 调", "turn on the air", [(0, 4)]),
        ("turn on the air", "打 开 空 调", [(0, 4)]),
        ("打 开 the air conditioner", "打 开 空 调", [(2, 5)]),
        ("打 开 a 空 调", "打 开 空 调", []),  # one stray unit is an error, no translation
        ("ok", "好 的", [(0, 1)]),  # but here it is all there is
        ("用 wifi 上 网", "用 wifi 上 网", []),
        ("включи свет на кухне", "turn on the light", [(0, 4)]),
        ("スイッチ を い れ て", "打 开 空 调", [(0, 5)]),
        ("1 2 3 4", "one two", []),
        ("das licht ist nicht an", "the light is not on with the others", [(0, 5)]),
        ("das licht ist nicht an", "licht an", []),  # of what language it is, nothing tells
        ("we saw die walkure", "we saw the die walkure of the opera", []),
        ("", "the light is not on", []),
        ("anything", "", []),
    ],
)
def test_foreign(hyp: str, ref: str, spans: list[tuple[int, int]]) -> None:
    assert foreign(hyp.split(), ref.split()) == [Span(*span) for span in spans]


def test_covered_counts_each_unit_once() -> None:
    assert covered([]) == 0
    assert covered([Span(0, 3), Span(2, 5), Span(7, 8)]) == 6
