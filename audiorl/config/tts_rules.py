"""What the keys of synthesis must fulfil together."""

from __future__ import annotations

from collections.abc import Iterator

from audiorl.config.field import Rule
from audiorl.config.schema import Config


def broken_tts_rules(config: Config) -> Iterator[Rule]:
    """The rules about speech that a config of valid keys breaks."""
    speech = config.speech
    if speech.layout != "native" and not config.llm.pretrained:
        keys = ("speech.layout", "llm.pretrained")
        yield keys, f"{speech.layout} is how a pretrained LM reads; set llm.pretrained, or native"
    if speech.layout != "native" and speech.speakers == "mark":
        keys = ("speech.speakers", "speech.layout")
        yield keys, f"{speech.layout} has no marks of speakers; set prompt or none"
    if speech.instruction and speech.layout != "cosyvoice":
        keys = ("speech.instruction", "speech.layout")
        yield keys, f"{speech.layout} reads no instruction; remove it"
    if config.sft.max_steps == 0 and speech.layout == "native":
        keys = ("sft.max_steps", "speech.layout")
        yield keys, "only a pretrained speech LM can be taken as it is; set at least 1"
    if config.task == "tts" and config.rl.algorithm == "supervised":
        keys = ("rl.algorithm", "task")
        yield keys, "texts alone have nothing to copy; train the speech LM for longer, or set grpo"
