"""Text to tokens and back, for tokenizers learnt here and those of pretrained LLMs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretrained_llm import save_pretrained_llm
from tiny import WORDS, sentences, tiny_config, tiny_tokenizer

from audiorl.config.model import TokenizerConfig
from audiorl.errors import UserError
from audiorl.models.tokenizer import PretrainedTokenizer, SentencePieceTokenizer


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> PretrainedTokenizer:
    folder = tmp_path_factory.mktemp("llm")
    save_pretrained_llm(folder, "qwen2")
    return PretrainedTokenizer(str(folder))


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_what_was_learnt_comes_back(kind: str) -> None:
    texts = [*sentences(50), "naïve café", "打开 空调", "l'été"]
    tokenizer = SentencePieceTokenizer.train(TokenizerConfig(type=kind, vocab_size=60), texts)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        assert not {tokenizer.eos_id, *tokenizer.forbidden_ids} & set(ids)
        end = [tokenizer.eos_id, tokenizer.pad_id, tokenizer.pad_id]
        assert tokenizer.decode([*ids, *end]) == text
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_same_texts_same_units() -> None:
    config = tiny_config().tokenizer
    first = SentencePieceTokenizer.train(config, sentences(100))
    again = SentencePieceTokenizer.train(config, iter(sentences(100)))
    other = SentencePieceTokenizer.train(config, ["some other words", "and more of them"])
    text = " ".join(WORDS)
    assert first.encode(text) == again.encode(text)
    assert first.vocab_size == again.vocab_size
    assert first.encode(text) != other.encode(text)


def test_padding_and_unknown_are_never_to_be_sampled() -> None:
    tokenizer = tiny_tokenizer()
    unknown = tokenizer.encode("§")[-1]
    assert sorted(tokenizer.forbidden_ids) == sorted({tokenizer.pad_id, unknown})
    assert tokenizer.eos_id not in tokenizer.forbidden_ids


def test_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save(tmp_path)
    loaded = SentencePieceTokenizer.load(tmp_path)
    assert loaded.encode("ba do ki") == tokenizer.encode("ba do ki")
    assert loaded.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_texts_that_give_no_units(texts: list[str]) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size 50 does not suit") as raised:
        SentencePieceTokenizer.train(TokenizerConfig(vocab_size=50), texts)
    assert "\n" not in str(raised.value)


def test_too_few_units_for_the_characters() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size 8 "):
        SentencePieceTokenizer.train(TokenizerConfig(vocab_size=8), sentences(100))


def test_pretrained_round_trip(pretrained: PretrainedTokenizer, tmp_path: Path) -> None:
    for text in [*sentences(20), "Ünïcode und 漢字"]:
        assert pretrained.decode(pretrained.encode(text)) == text
        assert pretrained.decode([*pretrained.encode(text), pretrained.eos_id]) == text
        assert pretrained.eos_id not in pretrained.encode(text)
    pretrained.save(tmp_path)
    loaded = PretrainedTokenizer(str(tmp_path))
    assert loaded.encode("ba do") == pretrained.encode("ba do")
    assert loaded.forbidden_ids == pretrained.forbidden_ids


def test_placeholders_of_a_pretrained_tokenizer_are_never_to_be_sampled(pretrained) -> None:
    """Every special token but the end: also those that have no role of their own, as <|audio|>."""
    special = {pretrained.encode(token)[0] for token in ("<|endoftext|>", "<|audio|>")}
    assert all(len(pretrained.encode(token)) == 1 for token in ("<|endoftext|>", "<|audio|>"))
    assert set(pretrained.forbidden_ids) == special
    assert pretrained.eos_id not in special


def test_a_pretrained_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    save_pretrained_llm(tmp_path, "llama", pad_token=None)
    tokenizer = PretrainedTokenizer(str(tmp_path))
    assert tokenizer.pad_id == tokenizer.eos_id


def test_pretrained_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"llm\.pretrained: .*tokenizer") as raised:
            PretrainedTokenizer(str(folder))
        assert "\n" not in str(raised.value)


def test_pretrained_without_an_end_token(tmp_path: Path) -> None:
    save_pretrained_llm(tmp_path, "llama", eos_token=None)
    with pytest.raises(UserError, match="no end token"):
        PretrainedTokenizer(str(tmp_path))
