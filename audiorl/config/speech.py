"""Section of the speech language model's text and speech tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key

if TYPE_CHECKING:
    from audiorl.config.schema import Config


# The codecs that pretrained speech LMs were trained with, by layout: other tokens mean nothing.
CODECS = {"llasa": ("xcodec2", "xcodec2_served"), "cosyvoice": ("cosyvoice2", "cosyvoice3")}


@dataclass
class SpeechConfig:
    """Text and speech tokens of the language model."""

    layout: str = key(
        "native",
        "native: text, then speech tokens; llasa, cosyvoice: as those models were trained",
        choices=("native", "llasa", "cosyvoice"),
    )
    speakers: str = key(
        "mark",
        "what stands for a speaker of the train set: a token (mark; native alone), an utterance of "
        "about 3 s that is gone on with (prompt), or nothing",
        choices=("mark", "prompt", "none"),
    )
    instruction: str = key(
        "", "of cosyvoice: read before each text; ends with <|endofprompt|>, which version 3 needs"
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if self.layout != "native" and not config.llm.pretrained:
            keys = ("speech.layout", "llm.pretrained")
            yield keys, f"{self.layout} is how a pretrained LM reads; set llm.pretrained, or native"
        if self.layout != "native" and self.speakers == "mark":
            keys = ("speech.speakers", "speech.layout")
            yield keys, f"{self.layout} has no marks of speakers; set prompt or none"
        kinds = CODECS.get(self.layout, (config.codec.type,))
        if config.codec.type not in kinds:
            keys, named = ("codec.type", "speech.layout"), " or ".join(kinds)
            yield keys, f"{self.layout} speaks the tokens of {named}; set codec.type: {kinds[0]}"
        if self.instruction and self.layout != "cosyvoice":
            keys = ("speech.instruction", "speech.layout")
            yield keys, f"{self.layout} reads no instruction; remove it"
