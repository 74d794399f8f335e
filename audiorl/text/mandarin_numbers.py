"""Numbers in Mandarin text, written in characters as they are read.

Ambiguous forms are rewritten only where it is safe: 10:30 is a time and 1:0 a score, 3/4 a fraction
and 2024/5/1 none, 100-200 a range and 737-800 none. By hand, because cn2an reads 10:30 as 十:三十,
leaves $5, takes 010-62345678 for a negative number, and WeTextProcessing needs compiled grammars.
"""

from __future__ import annotations

import re

DIGITS = "零一二三四五六七八九"
NUMBER = re.compile(r"(?P<sign>(?<![\w.])-)?(?P<whole>\d+)(?:\.(?P<part>\d+))?(?P<percent> ?%)?")
CODE = re.compile(r"(?<![\w.-])\d+(?:-\d+)+(?![\w-])")  # 010-62345678
MOBILE = re.compile(r"1[3-9]\d{9}")
MEASURES = "个只次天位件种条张块台辆家倍遍岁"  # before these, 2 is read 两

FRACTION = re.compile(r"(?<![a-z\d./-])(\d{1,8})([/⁄])(\d{1,8})(?!\.?\d|[a-z/⁄年月日号-])")
RATIO = re.compile(r"(?<![a-z\d:.])(\d+):(?=\d+(?![\d:]))")  # after times are read
RANGE = re.compile(
    r"(?<![a-z\d.:/-])(\d{1,8})[-–](\d{1,8})(?![\d:/-]|\.\d)"
    f"(?=([{MEASURES}元人年月日号秒米]|分钟|小时|%)?)"
)
PERCENTS = re.compile(r"(?<=\d%)[-–](?=\d+(?:\.\d+)?%)")  # 5%-10%
AMOUNT = r"\d+(?:\.\d+)?[十百千万亿]*"
MONEY = re.compile(
    rf"(?<![a-z])([$¥€£]) ?({AMOUNT}(?:到{AMOUNT})?)(?:美元|欧元|英镑|元|块)?(?!\.?\d| ?[a-z])"
)
CURRENCIES = {"$": "美元", "¥": "元", "€": "欧元", "£": "英镑"}
DEGREES = {r"°c(?![a-z])": "摄氏度", r"°f(?![a-z])": "华氏度", r"°(?![a-z])": "度"}


def read_numbers(text: str) -> str:
    """Write the numbers of a half-width, lower-case text in characters as they are read."""
    text = _read_pairs(text)
    text = re.sub(r"\d{4}(?=年|到\d{4}年)", lambda match: _spell(match[0]), text)  # by digit
    text = CODE.sub(lambda match: _spell(match[0].replace("-", "")), text)
    text = MONEY.sub(lambda match: match[2] + CURRENCIES[match[1]], text)
    for pattern, name in DEGREES.items():
        text = re.sub(rf"(?<=\d) ?{pattern}", name, text)
    text = re.sub(f"(?<![\\d.,第])2(?=[{MEASURES}])", "两", text)
    return NUMBER.sub(_number, text)


def _read_pairs(text: str) -> str:
    """Write signs between two numbers (fraction, time, score, range) in characters."""
    text = FRACTION.sub(_fraction, text)
    text = re.sub(r"(?<![\d:])(\d{1,2}):([0-5]\d)(?![\d:])", r"\1点\2", text)  # of the clock
    text = RATIO.sub(r"\1比", text)
    text = RANGE.sub(_range, PERCENTS.sub("到", text))
    return re.sub(r"(\d)~(?=\d)", r"\1到", text)


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
    return f"{low}%到{high}" if counted == "%" else f"{low}到{high}"


def _number(match: re.Match) -> str:
    """Return a number as it is read; by digit if it has a leading 0, or is long and not round."""
    whole = match["whole"]
    big = len(whole) <= 16 and whole.endswith("0000") and not MOBILE.fullmatch(whole)
    code = (len(whole) > 8 and not big) or (whole[0] == "0" and len(whole) > 1)
    return (
        ("负" if match["sign"] else "")
        + ("百分之" if match["percent"] else "")
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
