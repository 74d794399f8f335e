"""Whether somebody speaks, and what is output where nobody does."""

from __future__ import annotations

import pytest

from audiorl.data.utterance import Utterance
from audiorl.text.silence import is_annotation, is_silent, output_on_silence

ANNOTATIONS = [
    "[BLANK_AUDIO]",
    "(wind blowing)",
    "<noise>",
    "[ Silence ]",
    "*sighs*",
    "♪ ♪",
    "♪",
    "（背景音乐）",
    "【掌声】",
    "((mumble))",
    "[[noise]]",
    "（音乐)",
    "{breath}",
    "〔笑〕",
    "**laughs**",
    "♫",
    "🎵 music 🎵",
    "[MUSIC PLAYING] (applause)",
]
SAID = [
    "um",
    "Mm-hmm.",
    "thank you",
    "(laughs) yes",
    "[unclosed",
    "...",
    "(and do not forget to subscribe to the channel below)",
    "[music] " * 7,
    "3 * 4 * 5",
    "",
    " ",
    "\u200b",
]


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u200b", "\ufeff \u200d", "\x00", "\u3000"])
def test_nobody_speaks_where_nothing_is_written(text: str) -> None:
    assert is_silent(text) and not Utterance("u", "", text, "s").has_speech


@pytest.mark.parametrize(
    "text", ["um", "Mm-hmm.", "[laughter]", "(coughs)", "<noise>", "...", "嗯", "♪", "\u200bum"]
)
def test_whatever_is_written_is_speech(text: str) -> None:
    assert not is_silent(text) and Utterance("u", "", text, "s").has_speech


@pytest.mark.parametrize("text", ANNOTATIONS)
def test_annotations(text: str) -> None:
    assert is_annotation(text)
    assert output_on_silence(text, count_annotations=True) == text
    assert output_on_silence(text, count_annotations=False) == ""


@pytest.mark.parametrize("text", SAID)
def test_what_is_none(text: str) -> None:
    assert not is_annotation(text)
    assert output_on_silence(text, count_annotations=False) == text
