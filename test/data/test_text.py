"""Normalisers on the cases that break naive ones, and the units of error rates."""

from __future__ import annotations

import time

import pytest

from audiorl.data.text import normalizer, split_units
from audiorl.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  a \t b\u3000c\n", "a b c"),
        ("Mr. Don't, 3.5!", "Mr. Don't, 3.5!"),
    ],
)
def test_none_only_collapses_space(text: str, expected: str) -> None:
    assert normalizer("none")(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("HELLO, World!", "hello world"),
        ("Mr. Smith can't come", "mister smith can not come"),
        ("the colour grey was organised", "the color gray was organized"),
        ("um, [noise] well (laughs) yes", "well yes"),
        ("twenty one thousand five hundred", "21500"),
        ("$3.50 and five percent", "$3.50 and 5%"),
        ("one oh one", "101"),
        ("café naïve", "cafe naive"),
        ("we've they're she'll", "we have they are she will"),
    ],
)
def test_english_is_whispers(text: str, expected: str) -> None:
    assert normalizer("english")(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("……！", ""),
        ("你 好，世 界。", "你好世界"),
        ("\ufeff你好\u200b吗", "你好吗"),
        ("ＡＢＣ　ｄｅｆ", "abc def"),
        ("我用Ｗｉｎｄｏｗｓ系统", "我用 windows 系统"),
        ("don't 说 it’s", "dont 说 its"),
        ("２０２４年５月", "二零二四年五月"),
        ("1998年 10年 5年", "一九九八年十年五年"),
        ("0 10 11 20 21", "零十十一二十二十一"),
        ("105 110 111", "一百零五一百一十一百一十一"),
        ("1001 1010 1100", "一千零一一千零一十一千一百"),
        ("10000 10010 20300 110000", "一万一万零一十二万零三百十一万"),
        ("12345678", "一千二百三十四万五千六百七十八"),
        ("12,000块", "一万二千块"),
        ("3.14", "三点一四"),
        ("50%", "百分之五十"),
        ("-5度", "负五度"),
        ("13800138000", "一三八零零一三八零零零"),
        ("007", "零零七"),
        ("iphone13 pro", "iphone 十三 pro"),
    ],
)
def test_mandarin(text: str, expected: str) -> None:
    assert normalizer("mandarin")(text) == expected
    assert normalizer("mandarin")(expected) == expected


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("a bc  d", "word", ["a", "bc", "d"]),
        ("a bc", "char", ["a", "b", "c"]),
        ("你好", "char", ["你", "好"]),
        ("你好 hello 吗", "mixed", ["你", "好", "hello", "吗"]),
        ("用windows10系统", "mixed", ["用", "windows10", "系", "统"]),
        ("𠮷々〇カな", "mixed", ["𠮷", "々", "〇", "カ", "な"]),
        ("don't stop", "mixed", ["don't", "stop"]),
        ("한국어 말", "mixed", ["한국어", "말"]),
        ("", "word", []),
        ("  ", "char", []),
        ("", "mixed", []),
    ],
)
def test_split_units(text: str, unit: str, expected: list[str]) -> None:
    assert split_units(text, unit) == expected


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="none, english, mandarin"):
        normalizer("klingon")
    with pytest.raises(UserError, match="word, char, mixed"):
        split_units("a", "syllable")


def test_a_normalizer_is_built_once_and_remembers() -> None:
    english = normalizer("english")
    assert normalizer("english") is english
    english("A sentence that was seen")
    start = time.perf_counter()
    for _ in range(10_000):
        english("A sentence that was seen")
    assert time.perf_counter() - start < 0.5
