"""Transcripts of other toolkits: the content tells the format, or one sentence says why not."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiorl.data.transcripts import FORMATS, read_keyword_lists, read_transcripts
from audiorl.errors import UserError

AB = {"utt_1": "a b", "utt_2": ""}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "f"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("kaldi", "utt_1 a b\nutt_2\n"),
        ("kaldi", "\ufeffutt_1  a b \r\nutt_2 \r\n\r\n"),
        ("trn", "a b (utt_1)\n(utt_2)\n"),
        ("trn", "a b\t(utt_1)\n (utt_2)\n\n"),
        ("jsonl", '{"id": "utt_1", "text": "a b"}\n{"id": "utt_2", "text": ""}\n'),
        ("jsonl", '{"audio_filepath": "utt_1", "text": "a b"}\n{"key": "utt_2", "sentence": ""}'),
        ("trn", ";; a comment\na b (utt_1)\n(utt_2)\n"),
        ("jsonl", '\ufeff{"id": "utt_1", "text": "a b"}\r\n\r\n{"id": "utt_2", "text": ""}\r\n\n'),
        ("tsv", "utt_1\ta b\nutt_2\t\n"),
        ("tsv", "Speaker\tID\tText\ns\tutt_1\ta b\ns\tutt_2\t\n"),
        ("tsv", 'utt_1\ta b\t[]\t["x"]\nutt_2\t\t["c"]\t[]\n'),
    ],
)
def test_formats(tmp_path: Path, form: str, text: str) -> None:
    found = read_transcripts(write(tmp_path, text), "ref")
    assert (found.form, found.texts) == (form, AB)


@pytest.mark.parametrize(
    "text",
    [
        "a b\n\nc\n",
        "7 11\n5\n7\n",  # digits are no ids
        "1995 was\n2001\nthe\n",
        "(laughs) yes\nno\n",
        "你好\n世界\n",
        "well-known a\nthe b\na c\n",
    ],
)
def test_texts_alone_are_numbered(tmp_path: Path, text: str) -> None:
    found = read_transcripts(write(tmp_path, text), "ref")
    assert found.form == "lines"
    assert list(found.texts) == [f"line {n}" for n in range(1, text.count("\n") + 1)]
    assert list(found.texts.values()) == text.splitlines()


def test_the_ids_of_public_corpora_are_ids(tmp_path: Path) -> None:
    names = "1272-128104-0000 BAC009S0724W0121 LJ001-0001 common_voice_en_1 000123 a/b.wav S1W2"
    text = "".join(f"{name} one two\n" for name in names.split())
    assert list(read_transcripts(write(tmp_path, text), "ref").texts) == names.split()


def test_ids_of_trn_may_hold_spaces(tmp_path: Path) -> None:
    found = read_transcripts(write(tmp_path, "a b (call 1)\n(call 2)\n"), "ref")
    assert (found.form, found.texts) == ("trn", {"call 1": "a b", "call 2": ""})
    found = read_transcripts(write(tmp_path, "a (loud laughter)\nb (loud laughter)\n"), "ref")
    assert found.form == "lines"


def test_a_manifest_with_both_gives_each_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": 1, "text": "said", "pred_text": "heard"}\n')
    assert read_transcripts(path, "ref").texts == {"1": "said"}
    assert read_transcripts(path, "hyp").texts == {"1": "heard"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no utterances"),
        ("utt_1 a\nutt_2 b\nutt_1 c\n", ":3: utt_1 stands on line 1 already"),
        ("a (x_1)\nb (x_1)\n", ":2: x_1 stands on line 1 already"),
        ("utt_1 a\nutt_2 b\nwell c\n", "line 3 does not.*--format lines or --format kaldi"),
        ("{ a / b } (x_1)\n", "alternatives"),
        ('{"id": "a", "text": "b"}\n{"id": "a"\n', ":2 is not a JSON object"),
        ('{"id": "a", "text": "b"}\n[1]\n', ":2 is not a JSON object"),
        ('{"id": "a"}\n', ":1: has no text; name it text, ref"),
        ('{"id": "a", "text": null}\n', ":1: has no text"),
        ('{"id": "a", "text": true}\n', ":1: has no text"),
        ('{"id": "a", "text": "b", "text": "c"}\n', ":1 .*the key text twice"),
        ('{"id": "a", "text": "\\ud800"}\n', ":1 is not a JSON object"),
        ('{"id": "\\udfff", "text": "b"}\n', ":1 is not a JSON object"),
        ('{"text": "b"}\n', ":1: has no id; name it id"),
        ('{"id": "a", "text": "b", "keywords": [1]}\n', ":1: its keywords"),
        ("a\tb\tc\n", "has 3 columns; name them"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_transcripts(write(tmp_path, text), "ref")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    for name, told in (("latin", "not UTF-8"), ("absent", "No such file"), (".", "directory")):
        with pytest.raises(UserError, match=told):
            read_transcripts(tmp_path / name, "ref")


def test_a_format_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path, "anna a\nbob b\n")
    assert read_transcripts(path, "ref").form == "lines"
    assert read_transcripts(path, "ref", "kaldi").texts == {"anna": "a", "bob": "b"}
    with pytest.raises(UserError, match=":1: the line does not end in"):
        read_transcripts(path, "ref", "trn")


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("New York\n\n oslo \n", {"a_1": ("New York", "oslo"), "a_2": ("New York", "oslo")}),
        ("a_1 New York; oslo\n", {"a_1": ("New York", "oslo"), "a_2": ()}),
        ("a_1\tNew York; oslo\na_2\n", {"a_1": ("New York", "oslo"), "a_2": ()}),
        ("a_1 New York; oslo\na_3 x\n", {"a_1": ("New York", "oslo"), "a_2": ()}),
        ('{"id": "a_2", "keywords": ["oslo"]}\n', {"a_1": (), "a_2": ("oslo",)}),
        ("id\tkeywords\na_1\tNew York; oslo\na_2\t\n", {"a_1": ("New York", "oslo"), "a_2": ()}),
        ('a_2\tsaid\t["oslo"]\t["x"]\n', {"a_1": (), "a_2": ("oslo",)}),
    ],
)
def test_keyword_lists(tmp_path: Path, text: str, keywords: dict) -> None:
    assert read_keyword_lists(write(tmp_path, text), ["a_1", "a_2"]) == keywords


def test_keywords_of_other_utterances_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no keywords of these utterances"):
        read_keyword_lists(write(tmp_path, '{"id": "b", "keywords": ["oslo"]}\n'), ["a_1"])


ROWS = st.sampled_from(
    ["a_1 b", "a_1", "b (a_1)", "a_1\tb", "id\ttext", '{"id": "a"}', "{", "[1]", "1 2", "\t", "()"]
)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.lists(ROWS | st.text(max_size=12), max_size=5), st.sampled_from(["", *FORMATS]))
def test_any_file_is_read_or_refused(tmp_path_factory, lines: list[str], form: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    for read in (lambda: read_transcripts(path, "hyp", form), lambda: read_keyword_lists(path, [])):
        with contextlib.suppress(UserError):
            read()
