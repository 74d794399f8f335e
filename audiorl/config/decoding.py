"""Decoding, synthesis and scoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import FOLDER, Rule, key, not_a_folder, repeated
from audiorl.config.instruments import parse_instrument

if TYPE_CHECKING:
    from audiorl.config.schema import Config


def rewarding(config: Config) -> list[str]:
    """Return the instruments that reward, as `rl.rewards` names them."""
    named = (getattr(reward, "by", "codec") for reward in config.rl.rewards)
    return [text for text in named if text != "codec"]


@dataclass
class DecodeConfig:
    """Decoding, or synthesis (stage 6)."""

    name: str = key("greedy", "names the folder decode_<name>")
    engine: str = key("native", "samples or decodes, as rl.engine does")
    method: str = key(
        "greedy",
        "greedy, n-best by beam search, or Whisper's fallback: what loops or is unsure is drawn "
        "again at rising temperatures",
        choices=("greedy", "nbest", "fallback"),
        task="asr",
    )
    num_beams: int = key(4, "beams of nbest; as many hypotheses are written", ge=1, task="asr")
    temperature: float = key(1.0, "of sampling speech tokens", gt=0, task="tts")
    top_k: int = key(25, "sample from the k likeliest tokens; 0: all, 1: greedy", ge=0, task="tts")
    top_p: float = key(
        0.8, "sample from the smallest set with this probability; 1: all", gt=0, le=1, task="tts"
    )
    repetition_window: int = key(
        10, "repetition-aware sampling looks back at so many tokens; 0: off", ge=0, task="tts"
    )
    repetition_share: float = key(
        0.1,
        "a token that fills as much of the window, or more, is drawn again, from all; 0.1: once in "
        "10 is enough, as in CosyVoice",
        gt=0,
        le=1,
        task="tts",
    )
    window_seconds: float = key(
        0.0,
        "s; longer recordings are decoded in windows that end at pauses; 0: whole",
        ge=0,
        task="asr",
    )
    batch_size: int = key(64, "utterances that are sampled at once", ge=1, task="tts")
    batch_seconds: float = key(200.0, "seconds of audio in a batch, padding included", gt=0)
    max_completion_length: int = key(128, "tokens of a hypothesis at most", ge=1)

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if not FOLDER.fullmatch(self.name):
            yield ("decode.name",), not_a_folder(self.name)
        if self.engine != "native" and config.task == "asr" and self.method == "nbest":
            keys = ("decode.engine", "decode.method")
            yield keys, "beam search is the native engine's; set native, or method: greedy"
        if 0 < self.window_seconds < 1:
            yield ("decode.window_seconds",), "must be 0 (whole recordings) or at least 1; raise it"


@dataclass
class ScoreConfig:
    """Scoring (stage 7); the same normalisation serves the rewards."""

    normalizer: str = key(
        "english",
        "text normalisation before words are compared",
        choices=("none", "english", "mandarin", "mandarin_simplified"),
    )
    unit: str = key(
        "word",
        "unit of the main error rate: word (WER), char (CER), mixed (CJK by character)",
        choices=("word", "char", "mixed"),
    )
    count_annotations: bool = key(
        True, "where nobody speaks, [BLANK_AUDIO] or (wind blowing) is output as any other"
    )
    instruments: list[str] = key(
        [],
        "whisper=FOLDER, resemblyzer, xvector=FOLDER, dnsmos=FILE, utmos=FILE: what measures "
        "synthesised speech beside the judge",
        task="tts",
    )
    bootstrap_samples: int = key(2000, "resamples behind each interval", ge=100)
    seed: int = key(1, "of the resampling")

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if self.unit == "word" and self.normalizer.startswith("mandarin"):
            keys = ("score.unit", "score.normalizer")
            yield keys, "Mandarin has no spaces between words; set score.unit: mixed (or char)"
        names = [parse_instrument(text)[0] for text in self.instruments]
        for name in repeated(names):
            yield ("score.instruments",), f"names {name} twice; keep one"
        for name in sorted({parse_instrument(text)[0] for text in rewarding(config)} & set(names)):
            keys = ("score.instruments", "rl.rewards")
            yield keys, f"{name} rewards, and would judge its own work; name another"
