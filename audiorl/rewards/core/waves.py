"""The wave of a sample, for rewards of the user."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions


@dataclass
class WaveOptions(RewardOptions):
    """Whether a reward of the user gets waves, in recognition and in synthesis."""

    kinds = ("sample", "group", "gate")

    waves: bool = key(
        False, "samples come with their wave: of asr the recording, of tts the speech, made for it"
    )

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text", "wave") if self.waves else ("text",)
