"""The speech codec: from a wave to tokens, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key

if TYPE_CHECKING:
    from audiorl.config.schema import Config

MOST_CODES = 65_536  # of xcodec2; a language model has an embedding for each


@dataclass
class CodecConfig:
    """From a wave to speech tokens (stage 3)."""

    type: str = key(
        "native",
        "native: trained in stage 3; or a pretrained one of transformers, of whose codebooks the "
        "first is used",
        choices=("native", "xcodec2", "mimi", "dac"),
    )
    pretrained: str = key("", "folder or hub name of a pretrained codec; native has none")
    output_size: int = key(144, "width of its Conformer", ge=8)
    attention_heads: int = key(4, "heads", ge=1)
    linear_units: int = key(288, "width of the feed-forward layers", ge=8)
    kernel_size: int = key(15, "kernel of the convolutions; odd", ge=1)
    num_blocks: int = key(3, "layers that make tokens", ge=1)
    dropout_rate: float = key(0.1, "dropout", ge=0, lt=1)
    fsq_dims: int = key(6, "numbers of a code; there are fsq_levels ^ fsq_dims codes", ge=1)
    fsq_levels: int = key(3, "values of each number; odd", ge=3)
    max_steps: int = key(2000, "updates of the tokens", ge=1)
    batch_seconds: float = key(60.0, "seconds of audio in a batch, padding included", gt=0)
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.0, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(100, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    eval_steps: int = key(200, "updates between evaluations, and between checkpoints", ge=1)
    average: int = key(
        1,
        "the tokens are the mean of this many best evaluations by dev CER, the sound by mel error",
        ge=1,
    )
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0, resume=True)

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
        if self.output_size % self.attention_heads or self.output_size % 2:
            keys = ("codec.output_size", "codec.attention_heads")
            heads = f"{self.attention_heads} attention heads"
            yield keys, f"must be even and a multiple of the {heads}; change one"
        if self.kernel_size % 2 == 0:
            yield ("codec.kernel_size",), f"must be odd; set {self.kernel_size + 1}"
        if self.fsq_levels % 2 == 0:
            message = f"must be odd, so that 0 is one of them; set {self.fsq_levels + 1}"
            yield ("codec.fsq_levels",), message
        elif (codes := self.fsq_levels**self.fsq_dims) > MOST_CODES:
            keys = ("codec.fsq_dims", "codec.fsq_levels")
            yield keys, f"make {codes} codes; take at most {MOST_CODES}"


@dataclass
class FlowConfig:
    """From speech tokens and a speaker vector to a wave: flow matching, Griffin-Lim (stage 3)."""

    hidden_size: int = key(192, "width", ge=8)
    num_blocks: int = key(6, "layers of the flow, at the same rate", ge=1)
    speaker_size: int = key(64, "size of a speaker's vector", ge=2)
    max_steps: int = key(2000, "updates; what else a training needs is as in codec", ge=1)
    batch_seconds: float = key(60.0, "seconds of audio in a batch, padding included", gt=0)
    learning_rate: float = key(1e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(0.0, "peak learning rate of Muon; 0: AdamW alone", ge=0)
    euler_steps: int = key(10, "evaluations of the network for an utterance", ge=1)
    temperature: float = key(
        0.5, "deviation of the noise that speaking begins with; training has 1", ge=0
    )
    griffin_lim_steps: int = key(32, "iterations from mel frames to a wave", ge=1)
