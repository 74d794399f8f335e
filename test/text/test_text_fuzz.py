"""Normalisers and numbers on random texts: no exception, no space around, nothing left to do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from audiorl.text.keywords import read
from audiorl.text.mandarin_numbers import read_numbers
from audiorl.text.normalise import UNITS, normalizer, split_units, spoken

NAMES = ("none", "english", "english_words", "mandarin", "mandarin_simplified")
PIECES = """one two half and a point double oh o hundred thousand per cent dollars first st th s mr
hmm um can't won't 's i'd've 7 11 007 2.5 2.0 $5 £3 5% 1st 20s 10:30 919-696 1,000 ½ ™ … ’ ‘ ` ( )
[x] < > _ - + % . , 两 二 幺 个 年 2024 月 点 半 分 至 到 百分之一百 零年代 ‰ × ÷ = / ~ ² ㎡ ¥ ° : 3
0 張 軟件 ｗ １ ٣ \u0301 \u200b \u3000 \x00 İ ß ŉ ﷺ 🙂""".split()
PIECES += [" ", " ", ""]
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text(max_size=20))
SPACED = st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join)
FIXED = settings(max_examples=400, derandomize=True, database=None, deadline=None)


@FIXED
@given(st.sampled_from(NAMES), TEXTS | SPACED)
def test_normalisers_are_settled_after_once(name: str, text: str) -> None:
    once = normalizer(name)(text)
    assert once == " ".join(once.split())
    assert normalizer(name)(once) == once
    assert name == "none" or not any(set(word) <= set(".,$%£-+’'") for word in once.split())
    assert all("".join(split_units(once, unit)) == once.replace(" ", "") for unit in UNITS)
    read(text, name)
    assert spoken(spoken(text)) == spoken(text)


@FIXED
@given(st.sampled_from(NAMES), TEXTS, st.sampled_from("’‘ʼ＇´`"))
def test_apostrophes_are_alike(name: str, text: str, mark: str) -> None:
    if name != "none":
        assert normalizer(name)(text.replace("'", mark)) == normalizer(name)(text)


DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")}
UNITS_OF_TEN = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}


def value(numeral: str) -> int:
    """The number that a reading says, by splitting it at its largest unit."""
    for name, unit in reversed(UNITS_OF_TEN.items()):
        high, found, low = numeral.rpartition(name) if unit > 10**4 else numeral.partition(name)
        if found:
            return (value(high) if high else 1) * unit + value(low)
    return DIGITS[numeral.lstrip("零")] if numeral.strip("零") else 0


@FIXED
@given(
    st.integers(0, 10**8 - 1), st.sampled_from(["{}", "有{}个", "{:,}人", "-{}度", "{}%", "{} 元"])
)
def test_numbers_round_trip(number: int, form: str) -> None:
    said = normalizer("mandarin")(form.format(number))
    said = said.removesuffix("个").removesuffix("人").removesuffix("度").removesuffix("元")
    said = said.removeprefix("有").removeprefix("负").removeprefix("百分之")
    assert value(said) == number


@FIXED
@given(st.text("0123456789.:/-%‰~+=×年月日个 ", max_size=12))
def test_no_digit_is_left(text: str) -> None:
    assert not any(c.isdigit() for c in read_numbers(text))
