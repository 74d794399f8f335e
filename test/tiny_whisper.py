"""A tiny random Whisper as a hub holds it: weights in fp16, tokenizer, feature extractor, settings.

Its window is 2 s long, and the songs of `tiny` are shorter.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny import SIZES, sentences, set_keys
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from audiorl.config.schema import Config
from audiorl.models.families.whisper import Whisper

SECONDS = 2
SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|zh|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
TIMESTAMPS = 10  # rows of the table that its tokenizer has no token for
SECTIONS = ("device", "num_threads", "rl.", "decode.", "score.")  # that a recipe of Whisper has


def save_whisper(
    folder: Path,
    multilingual: bool = False,
    spread: float = 10.0,
    seconds: int = SECONDS,
    positions: int = 40,
) -> Path:
    """Writes a model to `folder`; a larger `spread` makes its predictions less uniform."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = _save_tokenizer(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=seconds).save_pretrained(folder)
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=ids["<|notimestamps|>"] + 1 + TIMESTAMPS,
        num_mel_bins=16,
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        max_source_positions=seconds * 50,
        max_target_positions=positions,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
    )
    torch.manual_seed(7)
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not name.startswith("model.encoder.embed"):
                parameter.mul_(spread)
    lists = {"suppress_tokens": [5, 6, start], "begin_suppress_tokens": [end]}
    model.generation_config = GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        is_multilingual=multilingual,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        lang_to_id={f"<|{name}|>": ids[f"<|{name}|>"] for name in ("en", "zh")},
        task_to_id={name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")},
        max_length=40,
        **lists,
    )
    model.half().save_pretrained(folder)
    return folder


def tiny_whisper(folder: Path, keys: dict | None = None) -> Whisper:
    """The policy of a folder by `save_whisper`, in evaluation mode."""
    return Whisper.create(whisper_config(folder, keys), [])


def whisper_config(folder: Path, keys: dict | None = None) -> Config:
    """A recipe for the model of a folder, by dotted keys."""
    config = Config()
    sizes = {k: v for k, v in SIZES.items() if k.startswith(SECTIONS)}
    own = {"model.pretrained": str(folder), "rl.train": ["llm"], "sft.schedule.max_steps": 0}
    set_keys(config, {**sizes, **own, **(keys or {})})
    return config


def _save_tokenizer(folder: Path) -> dict[str, int]:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet)
    core.train_from_iterator([f" {text}" for text in sentences(100)], trainer)
    core.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    core.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": WhisperTokenizer.__name__,
        **{f"{role}_token": SPECIAL[0] for role in ("bos", "eos", "pad", "unk")},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return core.get_vocab()
