"""Numbers in Mandarin text, written in characters as they are read.

Ambiguous forms are rewritten only where it is safe: 10:30 is a time and 1:0 a score, 3/4 a fraction
and 24/7 none, 100-200 a range and 737-800 none. By hand: of the 82 forms in
the tests cn2an reads 31 (10:30 as 十:三十) and wetext, the port of WeTextProcessing, 60, spaces
removed for both (it reads ¥45 as 四元五, 737-800 as a difference, and loses ‰ and $3.5万).
"""

from __future__ import annotations

import re

DIGITS = "零一二三四五六七八九"
SIGNS = str.maketrans("∶−‐‑‒–〜∼✕∗", ":-----~~×*")  # variants of the same sign
SPACED = re.compile(  # 3 / 4, 2: 30, ¥ 200, 5 %, 5% - 10%; "10 -5" are two numbers
    r"(?<=[\d%‰]) ?([/:~×÷=<>≠]) ?(?=\d)|(?<=[\d%‰]) ?([-—]) (?=\d+(?:\.\d+)? ?[%‰])"
    r"|(?<=\d) ([-—.*x]) (?=\d)|(?<=\w) (\+) (?=\w)"
    r"|(?<=\d) (?=[%‰°])|(?<=[$¥€£]) (?=\d)"
)
NUMBER = re.compile(r"(?P<sign>(?<![\w.])-)?(?P<whole>\d+)(?:\.(?P<part>\d+))?(?P<share>[%‰‱])?")
SHARES = {"%": "百分之", "‰": "千分之", "‱": "万分之", None: ""}
CODE = re.compile(  # 010-62345678, 1-2-3, 3·15; 15-12 is a score
    r"(?<![a-z\d.-])(?:0\d+-\d+|\d+-\d{4,}|\d+(?:-\d+){2,})(?![a-z\d-])|\d+·\d+"
    # 拨打120, 138 0013 8000, 400 810 5999, (010)62345678, 90后
    r"|(?<=拨打)\d+|(?<!\d)(?:1[3-9]\d \d{4} \d{4}|[48]00 \d{3} \d{4})(?!\d)"
    r"|\(0\d{2,3}\)\d{7,8}(?!\d)|(?<![\d.])[05-9]0(?=后(?![面来卫期]))"
)
VERSION = re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?!\.?[a-z\d])")  # 1.2.3, 192.168.1.1
MOBILE = re.compile(r"1[3-9]\d{9}")

CLOCK = re.compile(  # the second time of 9:00-10:30 with its hyphen
    r"(?:(?<=:\d\d)[-—~])?(?<![\d:.])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])"
)
MONTH, DAY = "(0?[1-9]|1[0-2])", r"(0?[1-9]|[12]\d|3[01])"
DATE = re.compile(rf"(?<![a-z\d./-])([12]\d{{3}})([-/.]){MONTH}\2{DAY}日?(?![-/.]?\d)")
YEAR_MONTH = re.compile(r"(?<![a-z\d./-])((?:19|20)\d\d)[-/](0[1-9]|1[0-2])月?(?![-/.]?\d)")
YEAR = re.compile(r"(?<![\d.])(?!1000)[12]\d{3}(?=年|[到至]\d{4}年)")  # by digit
FRACTION = re.compile(r"(?<![a-z\d./-])(\d{1,8})([/⁄])(\d{1,8})(?!\.?\d|[a-z/⁄年月日号-])")
RATIO = re.compile(r"(?<![a-z\d:.])\d+(?:\.\d+)?(?::\d+(?:\.\d+)?)+(?!:)")  # after times are read
RANGE = re.compile(  # 3-201室 is a room, 737-800客机 a model
    r"(?<![a-z\d.:/-])(\d{1,8})[-—](\d{1,8})(?![\d:/=-]|\.\d)"
    r"(?=([^\W\da-z_室楼号栋幢弄房客飞机型款路]|号(?!楼|线))?)"
)
MINUS = re.compile(r"(?<=\d)-(?=[\d.]+(?:[-+×÷*/][\d.]+)*=)")  # 7-4=3
SHARE_RANGE = re.compile(r"(?<=\d)[%‰]?[-—~](?=\d+(?:\.\d+)?([%‰]))")  # 5-10%, 5%-10%
AMOUNT = r"\d+(?:\.\d+)?[十百千万亿]*"
MONEY = re.compile(
    rf"(?<![a-z])([$¥€£])({AMOUNT}(?:到{AMOUNT})?)(?:美元|欧元|英镑|元|块)?(?!\.?\d| ?[a-z])"
)
MONEY_BEHIND = re.compile(rf"(?<![a-z$¥€£\d.])({AMOUNT}) ?([$¥€£])(?![\d$¥€£])")  # 5€
# Units after a number; m, g and h are as well a model's name (5g, a4).
UNIT_READINGS = {
    **{"km/h": "公里每小时", "km": "公里", "cm": "厘米", "mm": "毫米", "nm": "纳米"},
    **{"kg": "公斤", "mg": "毫克", "ml": "毫升", "kw": "千瓦", "min": "分钟"},
}
CURRENCIES = {"$": "美元", "¥": "元", "€": "欧元", "£": "英镑"}
# Signs that are read, once fractions, times and ranges are; 张×× and **bold** are none of them.
READINGS = {
    r"(?<=\d)[×*x](?=\d)|×(?=\d)|(?<=\d)×": "乘",
    r"(?<=\d)÷|÷(?=\d)": "除以",
    r"(?<=[\w+])\+|\+(?=\d)": "加",
    r"(?<=[\w%])=(?=[\w-])": "等于",
    r"(?<=\d)>(?=\d)": "大于",
    r"(?<=\d)<(?=\d)": "小于",
    r"(?<=[为是到至于])-(?=\d)|(?<![a-z\d.-])-(?=[\d.]+[°度%‰])": "负",
    r"(?<=\d)\^(\d+)": r"的\1次方",
    r"√(?=\d)": "根号",
    "≠": "不等于",
    "±": "正负",
    "≈": "约等于",
    "≥": "大于等于",
    "≤": "小于等于",
    r"(?<=\d)°c(?![a-z])": "摄氏度",
    r"(?<=\d)°f(?![a-z])": "华氏度",
    r"(?<=\d)°(?![a-z])": "度",
}


def read_numbers(text: str) -> str:
    """Write the numbers of a half-width, lower-case text in characters as they are read."""
    text = SPACED.sub(lambda match: match[0].strip(), text.translate(SIGNS))
    for unit, reading in UNIT_READINGS.items():
        text = re.sub(rf"(?<=\d) ?{unit}(?![a-z\d])", reading, text)
    text = _read_pairs(text)
    text = YEAR.sub(lambda match: _spell(match[0]), text)
    text = CODE.sub(lambda match: _spell(re.sub(r"\D", "", match[0])), text)
    text = VERSION.sub(lambda match: "点".join(map(_spell, match[0].split("."))), text)
    text = MONEY.sub(lambda match: match[2] + CURRENCIES[match[1]], text)
    text = MONEY_BEHIND.sub(lambda match: match[1] + CURRENCIES[match[2]], text)
    for pattern, reading in READINGS.items():
        text = re.sub(pattern, reading, text)
    return NUMBER.sub(_number, text)


def _read_pairs(text: str) -> str:
    """Write signs between numbers (date, time, fraction, score, range) in characters."""
    text = DATE.sub(lambda match: f"{match[1]}年{match[3]}月{match[4]}日", text)
    text = YEAR_MONTH.sub(r"\1年\2月", text)
    text = CLOCK.sub(_clock, re.sub(rf"(?<![a-z\d/.]){MONTH}/{DAY}(?=[日号])", r"\1月\2", text))
    text = re.sub(r"(?<![a-z\d.])0(?=[1-9][月日号点时])", "", text)
    text = MINUS.sub("减", FRACTION.sub(_fraction, text))
    text = RANGE.sub(
        _range, SHARE_RANGE.sub(r"\1到", RATIO.sub(lambda match: match[0].replace(":", "比"), text))
    )
    return re.sub(r"(?<=[\w%])~(?=\d)|(?<=[年月日号点时分秒])[-—](?=\d)", "到", text)


def _clock(match: re.Match) -> str:
    """Return 9:00 as 9点, 9:05 as 9点05 and 9:05:10 as 9点05分10秒."""
    hour, minute, second = match.groups()
    later = f"{minute}分{second}秒" if second else minute.replace("00", "")
    return "到" * (match[0][0] in "-—~") + f"{int(hour)}点{later}"


def _fraction(match: re.Match) -> str:
    """Return 3/4 as 4分之3; 24/7 and 1/02 are no fractions, but ½ (1⁄2) always is one."""
    over, under = match[1], match[3]
    proper = 0 < int(over) < int(under) and over[0] != "0" and under[0] != "0"
    return f"{under}分之{over}" if proper or match[2] == "⁄" else match[0]


def _range(match: re.Match) -> str:
    """Return 100-200 as 100到200 if it ascends and has a unit (3-5天) or is round, unlike 3-201."""
    low, high, counted = match.groups()
    ascends = low[0] != "0" and high[0] != "0" and int(low) < int(high)
    if not ascends or not (counted or low[-1] == high[-1] == "0"):
        return match[0]
    return f"{low}到{high}"


def _number(match: re.Match) -> str:
    """Return a number as it is read; by digit if it has a leading 0, or is long and not round."""
    whole = match["whole"]
    big = len(whole) <= 16 and whole.endswith("0000") and not MOBILE.fullmatch(whole)
    code = (len(whole) > 8 and not big) or (whole[0] == "0" and len(whole) > 1)
    return (
        ("负" if match["sign"] else "")
        + SHARES[match["share"]]
        + (_spell(whole) if code else _read_integer(int(whole)))
        + ("点" + _spell(match["part"]) if match["part"] else "")
    )


def _spell(digits: str) -> str:
    return "".join(DIGITS[int(digit)] for digit in digits)


def _read_integer(number: int) -> str:
    """Return the reading of 0 <= number < 10^16: 10 -> 十, 105 -> 一百零五, 20030 -> 二万零三十."""
    for unit, name in ((10**8, "亿"), (10**4, "万")):
        if number >= unit:
            high, low = divmod(number, unit)
            rest = _read_integer(low) if low else ""
            between = ("零" if 0 < low < unit // 10 else "") + ("一" if rest[:1] == "十" else "")
            return _read_integer(high) + name + between + rest
    read = _read_below_10000(number) or "零"
    return read[1:] if 10 <= number < 20 else read


def _read_below_10000(number: int) -> str:
    read, pending_zero = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, unit)
        if digit:
            read += ("零" if pending_zero else "") + DIGITS[digit] + name
        pending_zero = bool(read) and digit == 0
    return read
