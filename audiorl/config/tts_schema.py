"""The sections of a recipe that synthesis alone has (`task: tts`)."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.field import key


@dataclass
class CodecConfig:
    """Speech tokens: from a wave to them, and from them to a wave (stage 3)."""

    type: str = key(
        "native",
        "native: trained in stage 3; or a pretrained one of transformers",
        choices=("native", "xcodec2", "mimi", "dac"),
    )
    pretrained: str = key("", "folder or hub name of a pretrained codec; native has none")


@dataclass
class RewardModelConfig:
    """The token-to-text model that rewards, differentiable in its input (stage 3)."""

    output_size: int = key(144, "width", ge=8)


@dataclass
class JudgeConfig:
    """The recogniser that scores what is synthesised, and never rewards (stage 3)."""

    train: str = key("", "set of natural recordings that it learns from; empty: data.train")
    seed: int = key(1000, "of its weights; the codec and the reward model have `seed`", ge=0)


@dataclass
class SpeechConfig:
    """What the language model reads and writes."""

    layout: str = key(
        "native",
        "native: text, then speech tokens; llasa, cosyvoice: as those models were trained",
        choices=("native", "llasa", "cosyvoice"),
    )


@dataclass
class DiffROConfig:
    """The differentiable reward (arXiv 2507.05911), stage 5."""

    weight: float = key(1.0, "lambda: factor of its loss beside GRPO's", gt=0)
