"""Text to token ids and back: a sentencepiece model of our own, or a pretrained LLM's tokenizer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import sentencepiece

from audiorl.config.model import TokenizerConfig
from audiorl.errors import UserError, reason
from audiorl.models import NO_CODE
from audiorl.runtime.files import atomic_write


class Tokenizer(Protocol):
    """Interface of tokenizers."""

    vocab_size: int
    eos_id: int
    pad_id: int
    forbidden_ids: list[int]  # never sampled: padding, unknown, placeholders

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def unknown_characters(self, text: str) -> list[str]: ...

    def save(self, folder: Path) -> None: ...


class SentencePieceTokenizer:
    """Subword units learnt from the train texts."""

    FILE = "tokenizer.model"

    def __init__(self, model: bytes) -> None:
        self._bytes = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.get_piece_size()
        self.eos_id = self._processor.eos_id()
        self.pad_id = self._processor.pad_id()
        self.forbidden_ids = [self.pad_id, self._processor.unk_id()]

    @classmethod
    def train(cls, config: TokenizerConfig, texts: Iterable[str]) -> SentencePieceTokenizer:
        """Return units learnt from `texts`; the same texts give the same units."""
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type=config.type,
                vocab_size=config.vocab_size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                pad_id=0,
                eos_id=1,
                unk_id=2,
                bos_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(
                f"tokenizer.vocab_size {config.vocab_size} does not suit the train texts "
                f"({reason(error)}); change it."
            ) from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, folder: Path) -> SentencePieceTokenizer:
        return cls((folder / cls.FILE).read_bytes())

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([i for i in ids if i not in (self.pad_id, self.eos_id)])

    def unknown_characters(self, text: str) -> list[str]:
        """Return characters that are in none of its units, each once."""
        unknown = self._processor.unk_id()
        return [c for c in dict.fromkeys(text) if unknown in self.encode(c)]

    def save(self, folder: Path) -> None:
        with atomic_write(folder / self.FILE, "wb") as stream:
            stream.write(self._bytes)


class PretrainedTokenizer:
    """The tokenizer of a pretrained LLM (Hugging Face)."""

    def __init__(self, name: str | Path) -> None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **NO_CODE)
        except (OSError, ValueError) as error:
            raise UserError(
                f"llm.pretrained: {name} has no tokenizer that can be loaded ({reason(error)}); "
                "give a folder or a hub name of a causal LM."
            ) from error
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"llm.pretrained: the tokenizer of {name} has no end token; "
                "set eos_token in its tokenizer_config.json."
            )
        self._take(tokenizer, [tokenizer.eos_token_id])

    def _take(self, tokenizer: Any, usable: Sequence[int]) -> None:
        """`usable`: the special tokens that may be sampled, the end token first."""
        self._tokenizer = tokenizer
        known = set(tokenizer.get_vocab().values())
        self.vocab_size, self.eos_id = max(known) + 1, usable[0]  # its length, if no id is left out
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        # Not all_special_ids: that leaves out placeholders which have no role of their own.
        added = tokenizer.added_tokens_decoder.items()
        special = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        unknown = set(range(self.vocab_size)) - known
        self.forbidden_ids = sorted(special - set(usable) | unknown)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def unknown_characters(self, text: str) -> list[str]:
        """Return characters that become the unknown token; byte-level tokenizers have none."""
        unknown = self._tokenizer.unk_token_id
        if unknown is None:
            return []
        return [c for c in dict.fromkeys(text) if unknown in self.encode(c)]

    def vocabulary(self) -> dict[str, int]:
        """Return the ids of its tokens by name."""
        return self._tokenizer.get_vocab()

    def chat(self, messages: list[dict[str, str]]) -> str:
        """Return a chat in the LLM's template, up to the end of the last message's text.

        The date is the one that Llama's templates fall back on: ids must not depend on the day.
        """
        return self._tokenizer.apply_chat_template(
            messages, tokenize=False, continue_final_message=True, date_string="26 Jul 2024"
        )

    def save(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(folder)


class FamilyTokenizer(PretrainedTokenizer):
    """The tokenizer of a pretrained recogniser; it finds the transcript in a response."""

    def __init__(
        self,
        tokenizer: Any,
        family: str,
        placeholder: str,
        stops: Sequence[str],
        allowed: Sequence[str],
        ends: int | list[int] | None,
        clean: Callable[[str], str],
    ) -> None:
        """`stops`, and `ends` of the model's own `generate`, end a response; `clean` reads it.

        `allowed`: special tokens that belong in responses. Raises UserError unless the tokenizer
        has these, the placeholder of audio, and the first of `stops`, which training writes.
        """
        known = tokenizer.get_vocab()
        for token in (placeholder, *stops[:1], *allowed):
            if token not in known:
                raise UserError(
                    f"model.pretrained: its tokenizer has no {token}, which a {family} has; give "
                    "the folder that it was published as."
                )
        ids = [known[token] for token in stops if token in known]
        ids += ends if isinstance(ends, list) else [ends] * (ends is not None)
        self.stop_ids = tuple(dict.fromkeys(ids))
        self._take(tokenizer, (*ids, *(known[token] for token in allowed)))
        self._clean = clean

    def decode(self, ids: Iterable[int]) -> str:
        ids = [i for i in ids if i not in self.stop_ids and i != self.pad_id]
        return self._clean(self._tokenizer.decode(ids, skip_special_tokens=False)).strip()


def load_tokenizer(config: TokenizerConfig, folder: Path) -> Tokenizer:
    """Return the tokenizer that was saved in the folder of a model."""
    pretrained = config.type == "pretrained"
    return PretrainedTokenizer(folder) if pretrained else SentencePieceTokenizer.load(folder)


def make_tokenizer(config: TokenizerConfig, pretrained: str, texts: Iterable[str]) -> Tokenizer:
    """Return the tokenizer of the pretrained LLM, or one whose units are learnt from `texts`."""
    if config.type == "pretrained":
        return PretrainedTokenizer(pretrained)
    return SentencePieceTokenizer.train(config, texts)
