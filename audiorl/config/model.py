"""Sections of the models: text units, features, audio encoder, adaptor, language model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from audiorl.config.field import Rule, key
from audiorl.config.pretrained import MODEL_TYPES

if TYPE_CHECKING:
    from audiorl.config.schema import Config

# Keys of the parts of a model that a pretrained recogniser obeys too.
OF_PRETRAINED = ("llm.dtype", "llm.prompt")
# Fewer mel bands than this leave nothing behind ESPnet's subsampling convolutions.
LEAST_MELS = {"conv2d": 7, "conv2d6": 11, "conv2d8": 15}


@dataclass
class TokenizerConfig:
    """Text units of the language model."""

    type: str = key(
        "unigram",
        "sentencepiece model trained on the train texts, or `pretrained`: the LLM's own",
        choices=("unigram", "bpe", "char", "pretrained"),
    )
    vocab_size: int = key(300, "units of a trained model (at most; short texts yield fewer)", ge=8)

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if (self.type == "pretrained") != bool(config.llm.pretrained):
            keys = ("tokenizer.type", "llm.pretrained")
            if config.llm.pretrained:
                message = f"{config.llm.pretrained} knows its own units only"
                yield keys, f"{message}; set tokenizer.type: pretrained"
            else:
                message = "a new LM has no tokenizer"
                yield keys, f"{message}; set llm.pretrained, or another tokenizer.type"


@dataclass
class FrontendConfig:
    """From the wave to features [T, n_mels]."""

    n_mels: int = key(80, "mel bands", ge=8)
    time_masks: int = key(2, "SpecAugment time masks in supervised training; 0: none", ge=0)
    freq_masks: int = key(2, "SpecAugment frequency masks; 0: none", ge=0)
    freq_mask_width: int = key(20, "widest frequency mask, in mel bands", ge=0)

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if self.freq_masks and self.freq_mask_width > self.n_mels:
            keys = ("frontend.freq_mask_width", "frontend.n_mels")
            yield keys, f"wider than all mel bands; set at most {self.n_mels}"
        if self.n_mels < (least := LEAST_MELS[config.encoder.input_layer]):
            keys = ("frontend.n_mels", "encoder.input_layer")
            yield keys, f"{config.encoder.input_layer} needs at least {least} mel bands; raise it"


@dataclass
class EncoderSizes:
    """Sizes of an encoder (ESPnet)."""

    type: ClassVar[str] = "conformer"
    attention_heads: ClassVar[int] = 4
    kernel_size: ClassVar[int] = 15

    output_size: int = key(144, "width", ge=8)
    linear_units: int = key(288, "width of the feed-forward layers", ge=8)
    num_blocks: int = key(4, "layers", ge=1)
    dropout_rate: float = key(0.1, "dropout", ge=0, lt=1)

    def rules_in(self, section: str) -> Iterator[Rule]:
        """Yield the rules that the sizes break where they stand, in `section`."""
        if self.output_size % self.attention_heads or self.output_size % 2:
            keys = (f"{section}.output_size", f"{section}.attention_heads")
            heads = f"{self.attention_heads} attention heads"
            yield keys, f"must be even and a multiple of the {heads}; change one"
        if self.type == "e_branchformer" and self.linear_units % 2:
            keys = (f"{section}.linear_units", f"{section}.type")
            yield keys, f"e_branchformer halves it; set {self.linear_units + 1}"


@dataclass
class EncoderConfig(EncoderSizes):
    """The audio encoder (ESPnet)."""

    type: str = key(
        "conformer", "ESPnet encoder", choices=("conformer", "e_branchformer", "transformer")
    )
    attention_heads: int = key(4, "heads", ge=1)
    kernel_size: int = key(15, "kernel of the convolution (conformer, e_branchformer); odd", ge=1)
    input_layer: str = key(
        "conv2d",
        "subsampling of frames: conv2d 4x, conv2d6 6x, conv2d8 8x",
        choices=("conv2d", "conv2d6", "conv2d8"),
    )
    init: str = key(
        "", "ESPnet ASR checkpoint (.pth) whose `encoder.*` weights are the start; empty: random"
    )

    pretrained: str = key(
        "",
        "folder or hub name of a speech encoder of transformers (Whisper's, wav2vec 2.0, HuBERT, "
        "WavLM, ...) with its own features, in place of ESPnet's",
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        yield from self.rules_in("encoder")
        for section in ("encoder", "frontend") if self.pretrained else ():
            for field in fields(values := getattr(config, section)):
                path = f"{section}.{field.name}"
                if getattr(values, field.name) != field.default and path != "encoder.pretrained":
                    yield (path, "encoder.pretrained"), "a pretrained one brings its own; remove it"
        if self.type != "transformer" and self.kernel_size % 2 == 0:
            keys = ("encoder.kernel_size", "encoder.type")
            yield keys, f"must be odd; set {self.kernel_size + 1}"


@dataclass
class AdaptorConfig:
    """From encoder frames to embeddings of the language model."""

    stack: int = key(2, "encoder frames joined into one audio embedding", ge=1)
    hidden_size: int = key(256, "width of the hidden layer", ge=1)


@dataclass
class ModelConfig:
    """The policy."""

    family: str = key(
        "",
        "its class: audio_llm, speech_lm or one of yours in families/; empty: the task's own, or "
        "that of `pretrained`",
    )
    pretrained: str = key(
        "",
        "folder or hub name of a pretrained recogniser (Qwen3-ASR, ...), which brings its own "
        "units, features, encoder, adaptor and LM; empty: built of the sections below",
        task="asr",
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if self.family in MODEL_TYPES.values():
            keys = ("model.family", "model.pretrained")
            yield keys, "is found by the config.json of model.pretrained; remove it, and set that"
        if not self.pretrained:
            return
        if self.family == "audio_llm":
            keys = ("model.family", "model.pretrained")
            yield keys, "is built anew, and a pretrained recogniser is not; remove one"
        for name in ("tokenizer", "frontend", "encoder", "adaptor", "llm"):
            section = getattr(config, name)
            for field in fields(section):
                path, value = f"{name}.{field.name}", getattr(section, field.name)
                if value != field.default and path not in OF_PRETRAINED:
                    message = "a pretrained recogniser brings its own; remove it"
                    yield (path, "model.pretrained"), message


@dataclass
class LLMConfig:
    """The language model (Hugging Face)."""

    pretrained: str = key(
        "", "folder or hub name of a causal LM; empty: a new one of the sizes below"
    )
    architecture: str = key("qwen3", "a new LM's kind", choices=("qwen3", "qwen2", "llama"))
    hidden_size: int = key(192, "width", ge=8)
    intermediate_size: int = key(512, "width of the feed-forward layers", ge=8)
    num_hidden_layers: int = key(3, "layers", ge=1)
    num_attention_heads: int = key(4, "heads", ge=1)
    num_key_value_heads: int = key(4, "heads of keys and values", ge=1)
    dropout: float = key(0.0, "attention dropout in supervised training", ge=0, lt=1)
    dtype: str = key("float32", "weights and activations", choices=("float32", "bfloat16"))
    prompt: str = key(
        "",
        "the prefix that the LM continues; {audio} stands for the audio embeddings and, of a "
        "pretrained recogniser, for the tokens around them; empty: `transcribe {audio}`, or the "
        "pretrained one's own, in English. Of synthesis: that of pretrained ones that listen",
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if not self.pretrained and self.hidden_size % (2 * self.num_attention_heads):
            keys = ("llm.hidden_size", "llm.num_attention_heads")
            heads = f"2 x {self.num_attention_heads} attention heads"
            yield keys, f"must be a multiple of {heads} (rotary positions are pairs); change one"
        if not self.pretrained and self.num_attention_heads % self.num_key_value_heads:
            keys = ("llm.num_key_value_heads", "llm.num_attention_heads")
            yield keys, f"must divide the {self.num_attention_heads} attention heads; change one"
        if self.prompt and (count := self.prompt.count("{audio}")) != 1:
            message = f"must hold {{audio}}, where the audio goes, once (got {count}); fix it"
            yield ("llm.prompt",), message
