"""The speech codec: from a wave to tokens, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key
from audiorl.config.model import EncoderSizes
from audiorl.config.training import Schedule

if TYPE_CHECKING:
    from audiorl.config.schema import Config


# The codecs that a program serves in an environment of its own, and those of `tools/` that do.
SERVED = {
    **dict.fromkeys(("cosyvoice2", "cosyvoice3"), "serve_cosyvoice.py"),
    "xcodec2_served": "serve_xcodec2.py",
}
CODEC_SERVER = "AUDIORL_CODEC_SERVER"  # environment variable with the command that serves them


@dataclass
class CodecShape:
    """Shape of a codec's tokens: their encoder and codebook."""

    type: str = key(
        "native",
        "native: trained in stage 3; a pretrained one of transformers, of whose codebooks the "
        "first is used; or one that a program serves in its own environment (cosyvoice2, 3, "
        "xcodec2_served)",
        choices=("native", "xcodec2", "neucodec", "mimi", "dac", *SERVED),
    )
    pretrained: str = key("", "folder or hub name of a pretrained codec; native has none")
    encoder: EncoderSizes = key(lambda: EncoderSizes(num_blocks=3), "of a native codec")
    fsq_dims: int = key(6, "numbers of a code, of 3 levels: there are 3^6 codes", ge=1, le=10)


@dataclass
class CodecConfig(CodecShape):
    """From a wave to speech tokens (stage 3)."""

    batch_seconds: float = key(60.0, "seconds of audio in a batch, padding included", gt=0)
    schedule: Schedule = key(lambda: Schedule(max_steps=2000), "of the tokens; the best by dev CER")

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if (self.type == "native") == bool(self.pretrained):
            keys = ("codec.pretrained", "codec.type")
            if self.pretrained:
                message = (
                    "a native codec is trained here; set codec.type to what it is, or remove it"
                )
                yield keys, message
            else:
                yield keys, f"there is no {self.type} to load; name its folder or hub name"
        if self.type != "native":
            return
        yield from self.encoder.rules_in("codec.encoder")
        yield from self.schedule.rules_in("codec")


@dataclass
class FlowShape:
    """From speech tokens and a speaker vector to a wave: flow matching, and a vocoder."""

    hidden_size: int = key(192, "width", ge=8)
    num_blocks: int = key(6, "layers of the flow, at the same rate", ge=1)
    euler_steps: int = key(10, "evaluations of the network for an utterance", ge=1)
    temperature: float = key(
        0.5, "deviation of the noise that speaking begins with; training has 1", ge=0
    )
    vocoder: str = key(
        "griffin_lim",
        "mel frames to a wave: griffin_lim, or source_filter, by the pitch that the frames show",
        choices=("griffin_lim", "source_filter"),
    )
    griffin_lim_steps: int = key(32, "iterations of griffin_lim", ge=1)


@dataclass
class FlowConfig(FlowShape):
    """From speech tokens and a speaker vector to a wave: flow matching, a vocoder (stage 3)."""

    batch_seconds: float = key(60.0, "seconds of audio in a batch, padding included", gt=0)
    schedule: Schedule = key(
        lambda: Schedule(max_steps=2000, learning_rate=1e-3),
        "of the sound; the best by mel error",
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if config.codec.type != "native":
            return
        yield from self.schedule.rules_in("flow")
