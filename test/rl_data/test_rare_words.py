"""Keywords that are found: rare words and names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pools import utterance
from tiny import tiny_config, write_set

from audiorl.rl_data.keywords import find_keywords, rare_words
from audiorl.text.normalise import split_units


@pytest.mark.parametrize(
    ("text", "background", "words"),
    [
        ("call zephyra now", "call me now", ("zephyra",)),
        ("call zephyra quill now", "call me now", ("zephyra quill",)),
        ("zephyra or quill or zephyra", "or", ("zephyra", "quill")),
        ("call me now", "call me now", ()),
        ("call 42 b2b", "call", ()),
        ("打电话给晓曦吧", "打电话给妈妈吧", ("晓曦",)),
        ("播放 hello 晓曦", "播放", ("hello 晓曦",)),
        ("", "a", ()),
    ],
)
def test_rare_words(text: str, background: str, words: tuple[str, ...]) -> None:
    counts = Counter(split_units(background, "mixed"))
    assert rare_words(split_units(text, "mixed"), counts) == words


def test_given_keywords_stay(tmp_path: Path, capsys) -> None:
    write_set(tmp_path / "train", ["ba do", "ki lu"])
    asked = [
        utterance("a", "ba so do"),
        utterance("b", "ba so do", keywords=["ba"]),
        utterance("c", "ba do"),
    ]
    config = tiny_config({"rl_data.keywords": "found"})
    assert [u.keywords for u in find_keywords(asked, config, tmp_path)] == [("so",), ("ba",), ()]
    assert capsys.readouterr().out == "2 of 3 utterances have keywords, 1 of them found\n"


def test_words_are_compared_as_they_are_scored(tmp_path: Path) -> None:
    (tmp_path / "common").write_text("Call, me!\nNow\n")
    keys = {"rl_data.background": str(tmp_path / "common"), "score.normalizer": "english"}
    (found,) = find_keywords([utterance("a", "CALL Zephyra now?")], tiny_config(keys), tmp_path)
    assert found.keywords == ("zephyra",)
