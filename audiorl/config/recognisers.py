"""Recognisers that rate what is synthesised: the reward model and the judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from audiorl.config.field import Rule, key, repeated
from audiorl.config.model import EncoderSizes
from audiorl.config.training import Schedule

if TYPE_CHECKING:
    from audiorl.config.schema import Config


@dataclass
class RewardModelShape:
    """Shape of a reward model."""

    encoder: EncoderSizes = key(EncoderSizes, "as wide as the embeddings of tokens")


@dataclass
class RewardModelConfig(RewardModelShape):
    """The token-to-text model that rewards, differentiable in its input (stage 3)."""

    tasks: list[str] = key(
        [],
        "what it tells beside the text: speaker, rate (slow, normal, fast), or, of a file "
        "utt2style say, style",
    )
    batch_seconds: float = key(80.0, "seconds of speech in a batch, padding included", gt=0)
    schedule: Schedule = key(Schedule, "of its training; the best by dev CER")

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        yield from self.encoder.rules_in("reward_model.encoder")
        yield from self.schedule.rules_in("reward_model")
        for task in repeated(self.tasks):
            yield ("reward_model.tasks",), f"names {task} twice; keep one"
        if "text" in self.tasks:
            yield ("reward_model.tasks",), "text is always its task; remove it"


@dataclass
class JudgeSizes(EncoderSizes):
    """Sizes of a judge's encoder."""

    type: ClassVar[str] = "e_branchformer"


@dataclass
class JudgeShape:
    """Shape of a judge."""

    encoder: JudgeSizes = key(
        lambda: JudgeSizes(output_size=96, num_blocks=3, dropout_rate=0.0),
        "as wide as the network of the voice",
    )


@dataclass
class JudgeConfig(JudgeShape):
    """The recogniser that scores what is synthesised, and never rewards (stage 3)."""

    train: str = key("", "set of natural recordings that it learns from; empty: data.train")
    batch_seconds: float = key(30.0, "seconds of audio in a batch, padding included", gt=0)
    schedule: Schedule = key(
        lambda: Schedule(muon_learning_rate=0.015, warmup_steps=50),
        "of its training; the best by dev CER",
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        held_out = (config.data.dev, config.data.rl_dev, *config.data.test)
        yield from self.encoder.rules_in("judge.encoder")
        yield from self.schedule.rules_in("judge")
        if self.train and self.train in held_out:
            keys = ("judge.train", "data.dev", "data.rl_dev", "data.test")
            yield keys, f"{self.train} is held out; name a set to learn from"
