"""Script of a text, by its letters, and language in Latin script, by function words.

By hand, because rewards need evidence: langdetect takes "mister quilter is" for German.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Sequence

# First words of Unicode's names of letters, where they are not the script's own name.
SCRIPTS = {
    "HIRAGANA": "KANA",
    "KATAKANA": "KANA",
    "KATAKANA-HIRAGANA": "KANA",
    "HALFWIDTH": "KANA",
    "IDEOGRAPHIC": "CJK",
    "FULLWIDTH": "LATIN",
    "FEMININE": "LATIN",
    "MASCULINE": "LATIN",
    "MICRO": "GREEK",
    "MODIFIER": "",
}
# Frequent words of English, and frequent words of other languages that English lacks or rarely has:
# three of a language are evidence of it. Without diacritics, as the normaliser leaves them.
FUNCTION_WORDS = {
    "en": "the and of to is that it with for you this are not have from they what there would "
    "which when your their were been our could should about how he she my his her him by or if who "
    "we had has did does into then now some out",
    "de": "der die das und ist nicht ein eine ich sie wir mit auf dem von zu wird auch aber wenn "
    "sind habe haben wurde im bei nach uber einen einer kann mich dir uns heute bitte noch nie "
    "wie ihr mein meine sein den",
    "fr": "le la les des de un une et est dans pour sur vous nous pas avec qui je ce cette cet "
    "mais du ne sont etait etre il ils elle aux fait tres ou leur mon ma son au qu",
    "es": "el la los las de un una y por para con es como pero esta muy del al su mas cuando que "
    "donde porque sus tambien fue era mi",
    "it": "il la di un una che con sono gli della nel ma anche questo piu alla degli delle "
    "perche quando molto essere questa dal",
    "pt": "os uma nao com para da mas ao dos das de mais isso voce ele ela seu sua foi muito "
    "quando tambem sao esta",
    "nl": "het een de van ik niet dat voor zijn maar ook wij jij deze naar dit worden heeft waar "
    "wordt bij nog kan",
}
WORD_LANGUAGES: dict[str, list[str]] = {}
for _name, _words in FUNCTION_WORDS.items():
    for _word in set(_words.split()):
        WORD_LANGUAGES.setdefault(_word, []).append(_name)


@functools.lru_cache(maxsize=65536)
def script(unit: str) -> str:
    """Return the script of a unit's first letter by its Unicode name (LATIN, CJK, CYRILLIC, …).

    Hiragana and Katakana are KANA; the script of digits and punctuation is empty.
    """
    letter = next(filter(str.isalpha, unit), "")
    name = unicodedata.name(letter, "").partition(" ")[0] if letter else ""
    return SCRIPTS.get(name, name)


def languages(words: Sequence[str]) -> Counter[str]:
    """Count the function words of each language in Latin script among lower-case words."""
    return Counter(name for word in words for name in WORD_LANGUAGES.get(_unmarked(word), ()))


@functools.lru_cache(maxsize=65536)
def _unmarked(word: str) -> str:
    if word.isascii():
        return word
    letters = unicodedata.normalize("NFD", word)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
