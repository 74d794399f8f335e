"""Text normalisation, and the units in which error rates are counted.

| name                | for                                                                   |
| ------------------- | --------------------------------------------------------------------- |
| none                | corpora with normalised transcripts, and literal comparison            |
| english             | WER of English, as Whisper's authors and most later papers count it    |
| mandarin            | CER of Mandarin; mixed error rate of Mandarin with English words in it |
| mandarin_simplified | the same, with traditional characters simplified by OpenCC             |

Reference and hypothesis are normalised alike, in rewards as in scoring.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable

from audiorl.errors import UserError
from audiorl.text.mandarin_numbers import read_numbers

# Written without spaces: kana, Han with its extensions, 々 and 〇.
CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
MIXED_UNIT = re.compile(f"[{CJK}]|[^\\s{CJK}]+")
CACHED_TEXTS = 65536  # rewards normalise the same references again and again

UNITS = ("word", "char", "mixed")


@functools.cache
def normalizer(name: str) -> Callable[[str], str]:
    """Return the function that normalises a text; it caches recent texts.

    none: strips, and makes every run of white space one space.
    english: Whisper's EnglishTextNormalizer with its table of British spellings: lower case,
        `[...]` and `(...)` and um/uh removed, contractions and titles written out, number words
        as digits, punctuation and diacritics removed. Beyond it: apostrophes as typeset are
        apostrophes, signs alone are no words, and written digits in a row are joined (7 11) as
        it joins spoken ones (seven eleven).
    mandarin: full-width to half-width (NFKC), punctuation removed, lower case, numbers, dates,
        times, scores, fractions, ranges, money, degrees, percentages and signs written in
        characters as they are read, readings of one number folded (两 is 二, 九点半 is 九点三十),
        no spaces but around Latin words.
    mandarin_simplified: mandarin, after OpenCC's t2s.
    english_words: english, but number words stay as they are.
    All but none remove marks without width; each leaves its own output as it is. Raises UserError
    for any other name.
    """
    makers = {
        "none": lambda: _collapse,
        "english": lambda: _english(numbers=True),
        "mandarin": lambda: _mandarin,
        "mandarin_simplified": _simplified,
        "english_words": lambda: _english(numbers=False),
    }
    if name not in makers:
        raise UserError(f"normalizer `{name}` is unknown; choose one of {', '.join(makers)}.")
    return functools.lru_cache(maxsize=CACHED_TEXTS)(makers[name]())


@functools.lru_cache(maxsize=CACHED_TEXTS)
def normal_units(text: str, normalizer_name: str, unit: str) -> tuple[str, ...]:
    """Return the units of a text after normalisation; recent texts are cached."""
    return tuple(split_units(normalizer(normalizer_name)(text), unit))


def split_units(text: str, unit: str) -> list[str]:
    """Return the units of a text: `word`, `char` (without spaces) or `mixed`.

    mixed: CJK by character, everything else by word, the convention of Mandarin error rates.
    Raises UserError for any other unit.
    """
    if unit == "word":
        return text.split()
    if unit == "char":
        return [character for character in text if not character.isspace()]
    if unit == "mixed":
        return MIXED_UNIT.findall(text)
    raise UserError(f"unit `{unit}` is unknown; choose one of {', '.join(UNITS)}.")


def spoken(text: str) -> str:
    """Return the audible part of a text: letters, marks, digits and apostrophes, in lower case."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return _collapse("".join(c if _is_audible(c) else " " for c in text))


def _is_audible(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _english(numbers: bool) -> Callable[[str], str]:
    from importlib.resources import files

    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    try:
        # The table that Whisper's own package ships; transformers has the code without it.
        table = files("whisper_normalizer").joinpath("normalizers", "english.json")
        marked = json.loads(table.read_text(encoding="utf-8"))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(
            "the english normalizer needs Whisper's table of spellings; "
            "run `pip install --no-deps whisper-normalizer`."
        ) from error
    spellings = {word: re.sub("<.*", "", us) for word, us in marked.items()}  # archeology</span>
    normalize = EnglishTextNormalizer(spellings)
    of_numbers = normalize.standardize_numbers.words - {"and"} if numbers else set()
    if not numbers:
        normalize.standardize_numbers = lambda text: text

    @functools.lru_cache(maxsize=CACHED_TEXTS)
    def alone(word: str) -> str | None:
        """Return a word's spelling, or None if Whisper's normaliser may change more than that."""
        spelling = spellings.get(word, word)
        plain = word not in of_numbers and normalize(word).strip() == spelling
        return spelling if plain else None

    def whole(text: str) -> str:
        text = text.translate(APOSTROPHES | MINUSES)
        for written, said in SAID.items():
            text = re.sub(written, said, text)
        if not text.isascii():
            text = unicodedata.normalize("NFKD", text.translate(INVISIBLE)).translate(APOSTROPHES)
            text = "".join(c for c in text if unicodedata.category(c) != "Mn")
        text = SIGNED.sub(_sign, DOTS.sub(" ", text.lower()))
        if numbers:
            text = ZEROS.sub(_apart, LONG.sub(r"\1 ", text))
        text = " ".join(word for word in normalize(text).split() if any(map(str.isalnum, word)))
        text = NOON.sub(r"\1m", text)
        return ROW.sub(_joined, SUFFIX.sub("", text)) if numbers else text

    def settled(word: str) -> bool:
        if word.isdecimal() and numbers:
            return word[0] != "0"
        return word == "one" or (PLAIN.fullmatch(word) and alone(word) == word)

    def english(text: str) -> str:
        # Whisper's normaliser takes 0.1 ms a text, too long for rewards; numbers aside it changes
        # words one by one, and most texts have no word that it changes.
        if PLAIN.fullmatch(lower := text.lower()):
            words = [alone(word) for word in lower.split()]
            if None not in words:
                return " ".join(words)
        # Of what it writes it would change a part again: "7 % dollars", "7 dollars", "$7".
        for _ in range(PASSES):
            before, text = text, whole(text)
            if text == before or all(map(settled, text.split())):
                break
        return text

    return english


def _sign(match: re.Match) -> str:
    return {"-": "minus ", "+": "plus "}[match[0]]


def _apart(match: re.Match) -> str:
    return " ".join(match[0]) + " "


def _joined(match: re.Match) -> str:
    return match[0].replace("one", "1").replace(" ", "")


PASSES = 5  # three sufficed for a million random texts
PLAIN = re.compile(r"[a-z ]*")
DOTS = re.compile(r"\.{2,}|_")
SIGNED = re.compile(r"(?<!\S)[-+](?=\d)")  # -5, which becomes of "minus five"
SAID = {  # what Whisper's normaliser takes for other numbers, or leaves out
    r"\((\d{3})\)\s*(\d{3})(?=\W?\d{4})": r"\1 \2",  # a telephone's number
    r"(?<=\d)\s+%": "%",
    r"(\d+)\s*¢": r"¢\1",
    r"(?<![\d:])(\d{1,2}):00(?=\s*[ap]\.?\s?m\b)": r"\1",
    r"(?<![\d:])(\d{1,2}):00(?![\d:])": r"\1 o'clock",
    r"(?<=\d)(?:\s*½|\s+1/2(?![\d/]))": ".5",
    r"½|(?<![\d/])1/2(?![\d/])": " one half ",
    **{"¼": " one quarter ", "¾": " three quarters ", "⅓": " one third ", "⅔": " two thirds "},
}
NOON = re.compile(r"(?<=\d )([ap]) m(?!\S)")  # 10 a.m. and 10 am
LONG = re.compile(r"(\d{1000})(?=\d)")  # Python makes no number of 4,301 digits
ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")  # 007, of which it makes 7, but 007 of "oh oh seven"
SUFFIX = re.compile(r"(?<=\d) (?=(?:nd|rd|th|s)(?!\S))|(?<=\d)\.0+(?!\d)")  # 5 s, 2.0
# Numbers in a row, of which Whisper's normaliser joins only those in words: 7 11, four oh 2, 1.5 2.
IN_ROW = r"(?:\d[\d.]*|one(?:\.[\d.]+)?)"
ROW = re.compile(rf"(?<!\S)(?:{IN_ROW}(?: {IN_ROW})+s?|one\.[\d.]+)(?!\S)")

# Apostrophes as they are typed and typeset.
APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻʹ′´`＇՚", "'"))
MINUSES = str.maketrans(dict.fromkeys("−‐‑‒–﹣－", "-"))

# Of Mandarin: what NFKC would make a digit of, and readings of one written number, folded to one.
RAISED = {
    "km²": "平方公里",
    "m²": "平方米",
    "㎡": "平方米",
    "m³": "立方米",
    "²": "平方",
    "³": "立方",
}
ZERO = str.maketrans("〇○◯", "零零零")  # the numeral, and the circles that stand for it
READ = "零一二三四五六七八九十"
ALIKE = {
    "[两兩]": "二",  # 2个, 2年, 2000
    f"幺(?=[{READ}幺])|(?<=[{READ}幺])幺": "一",
    f"百分之一百(?![{READ}])": "百分之百",
    f"(?<=[{READ}百千万亿年月日号点分时])至(?=[{READ}负]|百分之)": "到",  # 3-5天, 1月1日-3月5日
    "(?<=[二三四五六七八九])零年代": "十年代",
    # 9:30 is 九点半 and 九点三十分
    f"(?<=[{READ}]点)半": "三十",
    f"(?<=[{READ}]点)一刻": "十五",
    f"(?<=[{READ}]点)三刻": "四十五",
    f"(?<=[{READ}]点)([二三四五]?十[{READ[1:10]}]?|零[{READ[1:10]}])分(?![之分])": r"\1",
}
MIXED_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")  # 3½, of which NFKC makes 31⁄2


class _Invisible(dict):
    """Table of str.translate that removes zero-width marks (category Cf)."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code)) == "Cf" else code
        return self[code]


class _Separators(dict):
    """Table of str.translate that makes spaces of punctuation, symbols and control characters."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = " " if unicodedata.category(character)[0] in "PSZC" else character
        return self[code]


INVISIBLE = _Invisible()
SEPARATORS = _Separators()


def _simplified() -> Callable[[str], str]:
    try:
        from opencc import OpenCC
    except ModuleNotFoundError as error:
        raise UserError(
            "the mandarin_simplified normalizer needs OpenCC's tables; run `pip install opencc`."
        ) from error
    simplify = OpenCC("t2s").convert
    return lambda text: _mandarin(simplify(text))


def _mandarin(text: str) -> str:
    text = MIXED_FRACTION.sub("又", text.translate(INVISIBLE).translate(APOSTROPHES))
    for sign, reading in RAISED.items():
        text = text.replace(sign, reading)
    text = unicodedata.normalize("NFKC", text).translate(APOSTROPHES).lower()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)  # 12,000 -> 12000
    text = re.sub(r"(?<=[a-z])'(?=[a-z])", "", text)  # don't -> dont, one word
    text = re.sub(f"(?<=[{CJK}])\\s+|\\s+(?=[{CJK}])", "", text)  # 2024 年
    if re.search(r"[\d+±≈≥≤]", text):
        text = read_numbers(text)
    pieces = re.findall(f"[{CJK}]+|[^\\s{CJK}]+", text.translate(ZERO).translate(SEPARATORS))
    text = re.sub(f"(?<=[{CJK}]) (?=[{CJK}])", "", " ".join(pieces))
    for pattern, reading in ALIKE.items():
        text = re.sub(pattern, reading, text)
    return text
