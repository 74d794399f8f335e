"""The section of Whisper, where `model.pretrained` is one."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.field import key


@dataclass
class WhisperOptions:
    """Window and start tokens of a Whisper."""

    language: str = key("en", "language of the speech, as Whisper names it: en, zh, ...")
    task: str = key(
        "transcribe",
        "what a multilingual one writes: speech in its own language, or in English",
        choices=("transcribe", "translate"),
    )
    window: str = key(
        "full",
        "audio that the encoder reads: full, 30 s with silence behind the utterance, as it was "
        "trained; utterance, the utterance and `margin`, several times cheaper, after RL",
        choices=("full", "utterance"),
    )
    margin: float = key(0.5, "s of silence behind the utterance in its own window", ge=0, le=30)
    suppress: bool = key(
        False, "never sample the signs and words that Whisper's own decoding suppresses"
    )
