"""Speech tokens on disk, and what is said about files that are broken or of another codec."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from audiorl.data.speech_tokens import (
    CodecInfo,
    check_codec,
    codebook_use,
    read_tokens,
    write_tokens,
)
from audiorl.errors import UserError

INFO = CodecInfo(kind="native", fingerprint="abc", codebook_size=9, token_rate=25.0)


def test_round_trip(tmp_path: Path) -> None:
    tokens = {"b-2": [8, 0, 3], "a-1": [5], "c": []}
    write_tokens(tmp_path / "set", tokens, INFO)
    assert (tmp_path / "set" / "tokens").read_text() == "a-1 5\nb-2 8 0 3\nc\n"
    assert read_tokens(tmp_path / "set") == (tokens, INFO)


@pytest.mark.parametrize("line", ["b 1 9", "b -1", "b 1 x", "b 1.0", "b 1,2"])
def test_a_line_that_holds_no_tokens_is_named(line: str, tmp_path: Path) -> None:
    write_tokens(tmp_path, {"a": [1]}, INFO)
    (tmp_path / "tokens").write_text(f"a 1\n{line}\n")
    expected = r"tokens:2: b has tokens that are not whole numbers from 0 to 8 .*; run .* again\.$"
    with pytest.raises(UserError, match=expected) as raised:
        read_tokens(tmp_path)
    assert "\n" not in str(raised.value)


def test_an_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    write_tokens(tmp_path, {"a": [1]}, INFO)
    (tmp_path / "tokens").write_text("a 1\na 2\n")
    with pytest.raises(UserError, match=r"tokens:2: a: the id stands on line 1 already"):
        read_tokens(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"codec\.json cannot be read .*; run audiorl\.bin\.speech"):
        read_tokens(tmp_path)
    write_tokens(tmp_path, {"a": [1]}, INFO)
    (tmp_path / "tokens").unlink()
    with pytest.raises(UserError, match=r"tokens cannot be read"):
        read_tokens(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"fingerprint": "a", "codebook_size": "x"}'])
def test_an_info_that_is_none(text: str, tmp_path: Path) -> None:
    write_tokens(tmp_path, {"a": [1]}, INFO)
    (tmp_path / "codec.json").write_text(text)
    with pytest.raises(UserError, match=r"codec\.json (is not whole|lacks kind, fingerprint)"):
        read_tokens(tmp_path)


def test_without_its_info_a_set_is_not_whole(tmp_path: Path, monkeypatch) -> None:
    """A run that dies while it writes tokens leaves no old info beside them."""
    write_tokens(tmp_path, {"a": [1]}, INFO)

    def die(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("audiorl.data.speech_tokens.write_json", die)
    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path, {"a": [2]}, {**INFO, "fingerprint": "other"})
    with pytest.raises(UserError, match=r"codec\.json cannot be read"):
        read_tokens(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"token_rate": 50.0},
            "exp/tokens has 50 tokens a second of 9 native codes, and exp/sft has 25 tokens a "
            "second of 9 native codes; run audiorl.bin.speech_tokens again with the same codec, or "
            "train what reads",
        ),
        (
            {"codebook_size": 81},
            "has 25 tokens a second of 81 native codes, and exp/sft has 25 tokens",
        ),
        ({"fingerprint": "x"}, "exp/tokens and exp/sft are of two trainings of the codec; run"),
    ],
)
def test_another_codec_is_refused(change: dict, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        check_codec({**INFO, **change}, INFO, "exp/tokens", "exp/sft")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_each_asker_names_its_own_remedy() -> None:
    with pytest.raises(UserError) as raised:
        check_codec({**INFO, "token_rate": 12.5}, INFO, "exp/slow", "exp/sft", "name exp/codec")
    assert str(raised.value) == (
        "exp/slow has 12.5 tokens a second of 9 native codes, and exp/sft has 25 tokens a second "
        "of 9 native codes; name exp/codec."
    )


def test_the_same_codec_is_accepted(tmp_path: Path) -> None:
    write_tokens(tmp_path, {"a": [1]}, INFO)
    check_codec(read_tokens(tmp_path)[1], INFO, "exp/tokens", "the language model")
    assert json.loads((tmp_path / "codec.json").read_text()) == INFO


def test_codebook_use() -> None:
    share, perplexity = codebook_use([[0, 0, 3], [3, 5, 5], []], 12)
    assert share == 3 / 12
    assert perplexity == pytest.approx(3)
    assert codebook_use([[1, 1, 1, 2]], 4).perplexity == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    assert codebook_use([[]], 4).share == 0
