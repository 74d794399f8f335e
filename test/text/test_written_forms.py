"""Texts that say the same in two ways of writing: the normaliser makes one of both."""

from __future__ import annotations

import re
import sys

import pytest

from audiorl.errors import UserError
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import normal_units, normalizer

SPACES = """
有 2 个苹果 | 有两个苹果
2024 年 3 月 | 二零二四年三月
¥ 200 元 | 二百元
3 / 4 的人 | 四分之三的人
下午 2 : 30 | 下午两点三十
下午 2: 30 | 下午两点三十
共 3 - 5 天 | 共三到五天
涨了 5 % | 涨了百分之五
20 % ~ 30 % | 百分之二十到百分之三十
2002 - 01 - 28 | 二零零二年一月二十八日
第 2 天 | 第二天
用 iphone 13 拍 | 用 iphone 十三拍
10 -5 | 十负五
A + B | a 加 b
"""
MEASURES = """
2分钟 | 两分钟
2小时 | 两小时
2年 | 两年
2名 | 二名
2宗地块 | 两宗地块
2 千克 | 两千克
22届 | 二十二届
第2项 | 第二项
"""
CLOCKS = """
8点-9点 | 八点到九点
上午9:00 | 上午九点
12:00之前 | 十二点之前
9:05 | 九点零五分
9：30 | 九点半
9:15 | 九点一刻
3:00整 | 三点整
23:59 | 二十三点五十九分
0:30 | 零点三十分
9:00-10:30 | 九点到十点半
08:00～17:30 | 八点到十七点三十
10:30:15 | 十点三十分十五秒
08点 | 八点
比分21:9 | 比分二十一比九
35:40 | 三十五比四十
比例1:2:3 | 比例一比二比三
"""
DATES = """
二○二四年 | 二零二四年
3号-5号 | 三号到五号
2002-01-28 | 二零零二年一月二十八日
2002/01/28 | 二零零二年一月二十八日
2002.01.28 | 二零零二年一月二十八日
2024/5/1 | 二零二四年五月一日
2024-03 | 二零二四年三月
2024年03月 | 二零二四年三月
5月01日 | 五月一日
于12/25日 | 于十二月二十五日
2024 . 1 . 28 | 二零二四年一月二十八日
5/1号 | 五月一号
5月01日 | 五月一日
12月25日 18:00 | 十二月二十五日十八点
2019年-2020年 | 二零一九年到二零二零年
2019-2020年 | 二零一九到二零二零年
90年代 | 九零年代
3000年 | 三千年
12024年 | 一万二千零二十四年
"""
SIGNS = """
5‱ | 万分之五
5 % - 10 % | 百分之五到百分之十
3 > 2 | 三大于二
3 < 5 | 三小于五
3 x 4 | 三乘四
3✕4 | 三乘四
3∗4 | 三乘四
3≠4 | 三不等于四
√9 | 根号九
10^3 | 十的三次方
3‰ | 千分之三
0.5 ‰ | 千分之零点五
100% | 百分之百
150% | 百分之一百五十
3×4 | 三乘四
1920x1080 | 一千九百二十乘一千零八十
8÷2=4 | 八除以二等于四
3+4=7 | 三加四等于七
7-4=3 | 七减四等于三
5 + 3 - 2 = 6 | 五加三减二等于六
C++ | c 加加
±5 | 正负五
≥18岁 | 大于等于十八岁
3>2 | 三大于二
气温-5℃ | 气温负五摄氏度
100m² | 一百平方米
3·15晚会 | 三一五晚会
张×× | 张
**重点** <b>字</b> | 重点 b 字 b
"""
AMOUNTS = """
5€ | 五欧元
5 £ | 五英镑
5$ | 五美元
5￥ | 五元
¥45 | 四十五元
￥1,234.5 | 一千二百三十四点五元
$3.5万 | 三点五万美元
£ 20 | 二十英镑
3km外 | 三公里外
60 km/h | 六十公里每小时
5kg大米 | 五公斤大米
100ml水 | 一百毫升水
30min | 三十分钟
1/2 | 二分之一
½ | 二分之一
3-5个 | 三至五个
10-15分钟 | 十到十五分钟
5-10% | 百分之五到百分之十
3.5-5.5% | 百分之三点五到百分之五点五
3～5‰ | 千分之三到千分之五
波音737-800客机 | 波音七百三十七八百客机
3-201室 | 三二百零一室
15-12 | 十五十二
13800138000 | 幺三八零零幺三八零零零
电话010-62345678转2 | 电话零一零六二三四五六七八转二
（010）62345678 | 零一零六二三四五六七八
138 0013 8000 | 幺三八零零幺三八零零零
400 810 5999 | 四零零八幺零五九九九
拨打120急救 | 拨打幺二零急救
80后和90后 | 八零后和九零后
版本1.2.3 | 版本一点二点三
版本v1.2.3 | 版本 v 一点二点三
60后面 | 六十后面
3-5km | 三到五公里
192.168.1.1 | 一九二点一六八点一点一
"""
APOSTROPHES = """
it’s late | it's late
I don‘t | I don't
weʼll go | we'll go
you＇re | you're
they´ve | they've
she`d | she'd
‘yes’ he said | yes he said
well… yes | well yes
…and then… | and then
wait.... what | wait what
what . ever , | what ever
$ % and £ | and
iPhone™ | iphonetm
ＡＢＣ | abc
snake_case | snake case
- 5 apples. | 5 apples
"""
DIGITS = """
two three point five | 2 3.5
one point five two point five | 1.5 2.5
five sixes | 5 6s
seven eleven | 7 11
one two three | 1 2 3
extension four oh two | extension 4 0 2
extension four oh two | extension 402
nine nine nine nine | 9 9 9 9
ten thirty | 10:30
nine one nine six nine six | 919-696
oh oh seven | 007
oh oh seven | 0 0 7
version two point zero | version 2.0
iPhone five s | iPhone 5s
minus five | −5
minus five degrees | ‑5 degrees
five percent | 5 %
five five five one two three four five six seven | (555) 123-4567
fifty cents | 50¢
five o'clock | 5:00
ten a m | 10:00 am
ten a.m. | 10 am
one half | ½
one half | 1/2
three and a half | 3½
three and a half | 3 1/2
three quarters | ¾
minus five degrees | -5 degrees
plus five | +5
one | 1
in nineteen ninety five three men | in 1995 3 men
"""


def pairs(table: str) -> list[list[str]]:
    return [line.split(" | ") for line in table.strip().splitlines()]


@pytest.mark.parametrize("table", [SPACES, MEASURES, CLOCKS, DATES, SIGNS, AMOUNTS])
def test_mandarin_as_written_and_as_read(table: str) -> None:
    read = normalizer("mandarin")
    for written, said in pairs(table):
        assert read(written) == read(said), (written, said)
        assert not re.search(r"\d", read(written)), written


@pytest.mark.parametrize("table", [APOSTROPHES, DIGITS])
def test_english_in_two_spellings(table: str) -> None:
    read = normalizer("english")
    for one, other in pairs(table):
        assert read(one) == read(other), (one, other)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("english", "seven eleven", "7 12"),
        ("english", "call 4 0 2", "call 4 2"),
        ("english", "$5 7", "57"),
        ("english", "we'll", "well"),
        ("english", "1/2", "12"),
        ("english", "3½", "31 2"),
        ("mandarin", "1.2.3", "1.23"),
        ("mandarin", "2:30", "2:3"),
        ("mandarin", "-5度", "5度"),
        ("mandarin", "3-5天", "35天"),
        ("mandarin", "10 20", "1020"),
        ("mandarin", "2024年", "2024人"),
    ],
)
def test_what_differs_stays_different(name: str, one: str, other: str) -> None:
    assert normalizer(name)(one) != normalizer(name)(other)


TRADITIONAL = """
這個軟件後來更新了 | 这个软件后来更新了
下午兩點半，請開會！ | 下午两点半请开会
二〇二四年 9 月，臺灣 | 二零二四年九月台湾
乾隆皇帝 | 乾隆皇帝
頭髮發現 | 头发发现
"""


def test_traditional_characters_by_name_of_the_normalizer() -> None:
    simplified = normalizer("mandarin_simplified")
    for traditional, simple in pairs(TRADITIONAL):
        assert simplified(traditional) == simplified(simple) == normalizer("mandarin")(simple)
    assert normalizer("mandarin")("軟件") == "軟件"


def test_a_missing_opencc_is_named_with_its_command(monkeypatch) -> None:
    import opencc

    monkeypatch.setitem(sys.modules, opencc.__name__, None)
    normalizer.cache_clear()
    with pytest.raises(UserError, match="pip install opencc"):
        normalizer("mandarin_simplified")


def errors(texts: list[str], change, name: str, unit: str) -> Counts:
    return sum(
        (
            count_errors(*(normal_units(t, name, unit) for t in (text, change(text))))
            for text in texts
        ),
        Counts(),
    )


@pytest.mark.parametrize(
    ("corpus", "column"),
    [("librispeech_dev-clean", 1), ("libritts_train-clean-100_part", 2), ("ljspeech", 1)],
)
def test_english_corpora_against_themselves_as_they_are_typeset(
    shared_data, corpus, column
) -> None:
    lines = (shared_data("text") / f"{corpus}.tsv").read_text("utf-8").splitlines()[::6]
    texts = [line.split("\t")[column] for line in lines]
    for change in (
        lambda t: t.replace("'", "’"),
        lambda t: f"…{t}…",
        lambda t: f"“{t.lower()}...”",
    ):
        assert errors(texts, change, "english", "word").errors == 0


NUMERALS = "零一二三四五六七八九"
YEAR = re.compile(f"[{NUMERALS}]{{4}}(?=年)")
NUMBER = re.compile(f"(百分之)?([两{NUMERALS}十百千万亿]+)(?:点([{NUMERALS}]+)(?![十百千万亿分]))?")


def value(numeral: str) -> int | None:
    """The number below 10000 that characters say; None of digits in a row and of 十百, say."""
    if numeral == "两":
        return 2
    units, ones = "(?:[一二三四五六七八九][千百十]零?)", f"[{NUMERALS}]"
    if not re.fullmatch(f"十?{ones}?|{units}+{ones}?", numeral):
        return None
    total = digit = 0
    for character in numeral:
        if character in NUMERALS:
            digit = NUMERALS.index(character)
        else:
            total, digit = total + (digit or 1) * {"十": 10, "百": 100, "千": 1000}[character], 0
    return total + digit


def in_digits(text: str, space: str) -> str:
    """A transcript of AISHELL with years, 两, numbers below 10000 and percentages in digits."""

    def number(match: re.Match) -> str:
        share, whole, part = match.groups()
        counted = re.sub("[万亿]+$", "", whole)
        unit = whole[len(counted) :]
        if not counted or value(counted) is None or (share and unit):
            return match[0]
        digits = str(value(counted)) + (f".{spelled(part)}" if part else "")
        return f"{space}{digits}{space}{unit}" + (f"%{space}" if share else "")

    def spelled(digits: str) -> str:
        return "".join(str(NUMERALS.index(digit)) for digit in digits)

    text = YEAR.sub(lambda match: f"{space}{spelled(match[0])}{space}", text)
    return NUMBER.sub(number, text)


@pytest.mark.parametrize("space", ["", " "])
def test_mandarin_corpus_against_itself_in_digits(shared_data, space: str) -> None:
    lines = (shared_data("text") / "aishell1_dev.ner.tsv").read_text("utf-8").splitlines()
    texts = [re.sub(r"[<>()\[\]]", "", line.split("\t")[1]) for line in lines]
    counts = errors(texts, lambda text: in_digits(text, space), "mandarin", "char")
    assert counts.units == 205341
    assert sum(text != in_digits(text, space) for text in texts) > 4000
    assert counts.rate <= 0.0003
