"""Scripts of units, and languages of texts in Latin script."""

from __future__ import annotations

import pytest

from audiorl.text.language import languages, script


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("light", "LATIN"),
        ("été", "LATIN"),
        ("Ａ", "LATIN"),
        ("3d", "LATIN"),  # its first letter
        ("开", "CJK"),
        ("々", "CJK"),
        ("カ", "KANA"),
        ("な", "KANA"),
        ("ｶ", "KANA"),
        ("свет", "CYRILLIC"),
        ("빛", "HANGUL"),
        ("ضوء", "ARABIC"),
        ("42", ""),
        ("%", ""),
        ("", ""),
    ],
)
def test_script(unit: str, expected: str) -> None:
    assert script(unit) == expected


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("there is nobody in the house with him", "en"),
        ("es ist niemand mit ihm in dem haus", "de"),
        ("il n y a personne dans la maison avec lui", "fr"),
        ("no hay nadie en la casa con él pero está bien", "es"),
        ("non c è nessuno nella casa con gli altri", "it"),
        ("não há ninguém com ele mas isso também foi bom", "pt"),
        ("er is niet iemand in het huis maar dat is ook goed", "nl"),
    ],
)
def test_languages(text: str, language: str) -> None:
    found = languages(text.split())
    assert max(found, key=found.get) == language


def test_marks_of_letters_do_not_matter() -> None:
    assert languages(["für", "être", "está"]) == languages(["fur", "etre", "esta"])


def test_english_transcripts_are_english(shared_data) -> None:
    """Whatever other languages share with it: English has by far the most."""
    for path in shared_data("LibriSpeech").glob("train-clean-100/*/*/*.trans.txt"):
        for line in path.read_text().lower().splitlines():
            found = languages(line.split()[1:])
            others = max((found[name] for name in found if name != "en"), default=0)
            assert others <= 2 and (found["en"] > others or found["en"] <= 2), line
