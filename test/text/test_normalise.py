"""Normalisers on the cases that break naive ones, and the units of error rates."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from importlib.resources import files

import pytest

from audiorl.errors import UserError
from audiorl.text.normalise import normal_units, normalizer, split_units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  a \t b\u3000c\n", "a b c"),
        ("Mr. Don't, 3.5!", "Mr. Don't, 3.5!"),
        ("a\u200bb", "a\u200bb"),
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
        ("hel\u200blo w\xador\u2060ld\ufeff twenty\u200d one", "hello world 21"),
    ],
)
def test_english_is_whispers(text: str, expected: str) -> None:
    assert normalizer("english")(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call seven, ELEVEN", "call seven eleven"),
        ("twenty one 21 colours", "twenty one 21 colors"),
        ("um, it's two", "it is two"),
        ("one hundred and a half", "one hundred and a half"),
    ],
)
def test_english_words_are_left_apart(text: str, expected: str) -> None:
    assert normalizer("english_words")(text) == expected


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
        ("１２３．５％ 50 %", "百分之一百二十三点五百分之五十"),
        ("２个 两个 12个 第2个 2.5个", "二个二个十二个第二个二点五个"),
        ("2000 两千 20000 两万 两百 2亿", "二千二千二万二万二百二亿"),
        ("二〇二四年 2024年", "二零二四年二零二四年"),
        ("10:30 和 ２３：０５", "十点三十和二十三点零五"),
        ("10:30:15 100:20 35:40", "十点三十十五秒一百比二十三十五比四十"),
        ("20~30 20～30", "二十到三十二十到三十"),
        ("010-62345678", "零一零六二三四五六七八"),
        ("3-1", "三一"),
        ("3/4的人 １／２", "四分之三的人二分之一"),
        ("½ 3½杯 ¾.", "二分之一三又二分之一杯四分之三"),
        (
            "24/7 2024/5/1 5/12日 1/2/3",
            "二十四七二零二四年五月一日五月十二日一二三",
        ),  # no fractions
        ("比分1:0 100:98 16:9", "比分一比零一百比九十八十六比九"),
        ("3:30 1:2:3 v1:2", "三点三十一比二比三 v 一二"),
        ("$100 ＄3.5万 ¥100元 $20-30", "一百美元三点五万美元一百元二十到三十美元"),
        ("￥12,000 €5 £1亿", "一万二千元五欧元一亿英镑"),
        ("hk$100 $5 million", "hk 一百五 million"),
        ("3°C 25℃ -5°c 90°F 30°角", "三摄氏度二十五摄氏度负五摄氏度九十华氏度三十度角"),
        ("100-200 100–200公里", "一百到二百一百到二百公里"),
        ("3-5天 1-2个 10-20% 5%-10%", "三到五天一到二个百分之十到百分之二十百分之五到百分之十"),
        ("2019-2020年", "二零一九到二零二零年"),
        ("波音737-800 3-201室 10-20-30", "波音七百三十七八百三二百零一室一零二零三零"),  # no ranges
        ("100000000 1200000000 1000100000", "一亿十二亿十亿零一十万"),
        ("1000000000000 13800000000", "一万亿一三八零零零零零零零零"),
        ("123456789 1/123456789", "一二三四五六七八九一一二三四五六七八九"),
        ("打\u200b开w\u200bi\u2060fi \u202a1\u200b2\u202c", "打开 wifi 十二"),
    ],
)
def test_mandarin(text: str, expected: str) -> None:
    assert normalizer("mandarin")(text) == expected
    assert normalizer("mandarin")(expected) == expected


def whispers_own() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    table = files("whisper_normalizer").joinpath("normalizers", "english.json")
    normalize = EnglishTextNormalizer(json.loads(table.read_text(encoding="utf-8")))
    return lambda text: normalize(text).strip()


def test_the_short_way_of_english_ends_where_whispers_does() -> None:
    """Plain texts are spelled word by word; the words here are those that could prevent that."""
    draw, whisper = random.Random(1), whispers_own()
    odd = """one two three half a and point double triple zero oh o hundred thousand percent per
    cent dollars pounds cents first thirty st th s mr um hmm can not cannot won't let us colour grey
    organised gonna wanna t d ll k w xi iii dr col miss""".split()
    plain = "the light in kitchen is on turn it off we have seen them and a half of what".split()
    for _ in range(3000):
        words = draw.choices(odd, k=draw.randint(0, 4)) + draw.choices(plain, k=draw.randint(0, 5))
        draw.shuffle(words)
        text = " ".join(words)
        # Twice: of ¢100 s, which Whisper's makes of "hundred cent s", ours makes ¢100s.
        assert normalizer("english")(text) == normalizer("english")(whisper(text)), text


def test_the_short_way_of_english_on_real_text(shared_data) -> None:
    whisper = whispers_own()
    lines = (shared_data("text") / "librispeech_dev-clean.tsv").read_text().splitlines()[:500]
    for line in lines:
        text = line.partition("\t")[2]
        assert normalizer("english")(text) == whisper(text), text


def test_normal_units() -> None:
    assert normal_units("It's TWENTY two", "english", "word") == ("it", "is", "22")
    assert normal_units("２个app", "mandarin", "mixed") == ("二", "个", "app")
    assert normal_units("", "none", "char") == ()


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
