"""Failures of LLM decoders: which names scoring gives them."""

from __future__ import annotations

import pytest

from audiorl.score.failures import NAMES, find_failures
from audiorl.text.align import align


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
        ("a laugh", "ha" * 100, ["looping"]),
        ("打 开 空 调", "turn on the air", ["other_language"]),
        ("turn on the air", "打 开 空 调 打 开 空 调 好", ["insertion_burst", "other_language"]),
    ],
)
def test_failures(ref: str, hyp: str, expected: list[str]) -> None:
    assert failures(ref, hyp) == expected


def test_the_names_are_those_that_reports_list() -> None:
    found = {name for hyp in ("", "x " * 9, "打 开 空 调") for name in failures("a b", hyp)}
    assert found | {"truncated"} == set(NAMES)
