"""Tiny speech LMs, and a toy codec whose tokens can be read: words of `tiny` in order.

A word is two tokens of its own, each said once by speaker s0, twice by s1, three times by s2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tiny import WORDS, tiny_config, tiny_tokenizer, write_set

from audiorl.config.schema import Config
from audiorl.data.speech_tokens import CodecInfo, write_tokens
from audiorl.data.utterance import Utterance
from audiorl.models.judge import Judge, JudgeSettings
from audiorl.models.layouts import SpeechFacts
from audiorl.models.speech_lm import SpeechLM, SpeechLMSettings
from audiorl.models.voice import Voice

CODEC = CodecInfo(
    kind="native", fingerprint="toy", codebook_size=2 * len(WORDS) + 4, token_rate=25.0
)
SPEAKERS = ("s0", "s1", "s2")
SPEECH = {
    "task": "tts",
    "llm.prompt": Config().llm.prompt,  # a key of recognition, which is not saved
    "decode.top_k": 0,
    "decode.top_p": 1.0,
    "decode.repetition_window": 0,
    "decode.max_completion_length": 40,
    "rl.max_completion_length": 40,
}


def tiny_speech_config(keys: dict[str, Any] | None = None) -> Config:
    return tiny_config({**SPEECH, **(keys or {})})


def tiny_speech_lm(
    keys: dict[str, Any] | None = None, seed: int = 0, spread: float = 1.0, codec: CodecInfo = CODEC
) -> SpeechLM:
    """A random model in evaluation mode. A larger `spread` makes its predictions less uniform."""
    config = tiny_speech_config(keys)
    prompts = {}
    if config.speech.speakers == "prompt":
        prompts = {name: Voice("ba ki", say("ba ki", name)) for name in SPEAKERS}
    torch.manual_seed(seed)
    settings = SpeechLMSettings.of(config, "speech_lm")
    facts = SpeechFacts(codec, SPEAKERS, prompts, 1.5)
    model = SpeechLM(settings, tiny_tokenizer(), facts).eval()
    model.recipe = config  # for tests alone: models know their own sections only
    with torch.no_grad():
        for parameter in model.llm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(spread)
    return model


def tiny_judge() -> Judge:
    """An untrained one of the words and speakers."""
    sizes = {
        "output_size": 16,
        "linear_units": 32,
        "num_blocks": 1,
    }
    keys = {f"judge.encoder.{name}": size for name, size in sizes.items()}
    settings = JudgeSettings.of(tiny_config({"task": "tts", **keys}))
    return Judge.of(settings, WORDS, SPEAKERS)


def say(text: str, speaker: str) -> list[int]:
    """The tokens of a text."""
    times = 1 + SPEAKERS.index(speaker)
    places = (WORDS.index(word) for word in text.split())
    return [t for place in places for t in (2 * place, 2 * place + 1) for _ in range(times)]


def hear(token_lists: Iterable[Sequence[int]]) -> list[str]:
    """The words of tokens: those whose second token follows the first."""
    texts = []
    for tokens in token_lists:
        distinct = [token for token, _ in itertools.groupby(tokens)]
        pairs = itertools.pairwise(distinct)
        heard = [WORDS[a // 2] for a, b in pairs if a % 2 == 0 and b == a + 1 and a < 20]
        texts.append(" ".join(heard))
    return texts


def write_speech_set(
    dump: Path, codec: Path, name: str, texts: list[str], info: CodecInfo = CODEC
) -> list[Utterance]:
    """A formatted set with its tokens below `codec`."""
    utterances = write_set(dump / name, texts)
    tokens = {u.id: say(u.text, u.speaker) for u in utterances}
    write_tokens(codec / "tokens" / name, tokens, info)
    return utterances
