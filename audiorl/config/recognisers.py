"""Recognisers that rate what is synthesised: the reward model and the judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key, repeated

if TYPE_CHECKING:
    from audiorl.config.schema import Config


@dataclass
class RewardModelConfig:
    """The token-to-text model that rewards, differentiable in its input (stage 3)."""

    type: str = key(
        "conformer", "ESPnet encoder", choices=("conformer", "e_branchformer", "transformer")
    )
    output_size: int = key(144, "width, of the embeddings of tokens too", ge=8)
    attention_heads: int = key(4, "heads", ge=1)
    linear_units: int = key(288, "width of the feed-forward layers", ge=8)
    num_blocks: int = key(4, "layers of the encoder", ge=1)
    kernel_size: int = key(15, "kernel of the convolution (conformer, e_branchformer); odd", ge=1)
    dropout_rate: float = key(0.1, "dropout", ge=0, lt=1)
    frames_per_token: int = key(
        1,
        "of CTC; more where people say more characters than there are tokens, but it then learns "
        "several times slower",
        ge=1,
    )
    ctc_weight: float = key(
        0.5, "of CTC in log P(text); attention has 1 - this; 1: no attention decoder", gt=0, le=1
    )
    tasks: list[str] = key(
        [],
        "what it tells beside the text: speaker, rate (slow, normal, fast), or, of a file "
        "utt2style say, style",
    )
    max_steps: int = key(1000, "updates", ge=1)
    batch_seconds: float = key(80.0, "seconds of speech in a batch, padding included", gt=0)
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.0, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(100, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    eval_steps: int = key(200, "updates between evaluations, and between checkpoints", ge=1)
    average: int = key(3, "the model is the mean of this many best evaluations by dev CER", ge=1)
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0, resume=True)

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if self.output_size % self.attention_heads or self.output_size % 2:
            keys = ("reward_model.output_size", "reward_model.attention_heads")
            heads = f"{self.attention_heads} attention heads"
            yield keys, f"must be even and a multiple of the {heads}; change one"
        if self.type != "transformer" and self.kernel_size % 2 == 0:
            keys = ("reward_model.kernel_size", "reward_model.type")
            yield keys, f"must be odd; set {self.kernel_size + 1}"
        if self.type == "e_branchformer" and self.linear_units % 2:
            keys = ("reward_model.linear_units", "reward_model.type")
            yield keys, f"e_branchformer halves it; set {self.linear_units + 1}"
        for task in repeated(self.tasks):
            yield ("reward_model.tasks",), f"names {task} twice; keep one"
        if "text" in self.tasks:
            yield ("reward_model.tasks",), "text is always its task; remove it"


@dataclass
class JudgeConfig:
    """The recogniser that scores what is synthesised, and never rewards (stage 3)."""

    train: str = key("", "set of natural recordings that it learns from; empty: data.train")
    seed: int = key(1000, "of its weights and batches; other models have `seed`", ge=0)
    output_size: int = key(96, "width of its encoder, an E-Branchformer, and of the voice's", ge=8)
    attention_heads: int = key(4, "heads", ge=1)
    linear_units: int = key(288, "width of the feed-forward and gating layers", ge=8)
    num_blocks: int = key(3, "layers", ge=1)
    kernel_size: int = key(15, "kernel of the convolutions; odd", ge=1)
    dropout_rate: float = key(0.0, "dropout", ge=0, lt=1)
    speaker_size: int = key(64, "size of a speaker's vector", ge=2)
    max_steps: int = key(1000, "updates", ge=1)
    batch_seconds: float = key(30.0, "seconds of audio in a batch, padding included", gt=0)
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.015, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(50, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    eval_steps: int = key(200, "updates between evaluations, and between checkpoints", ge=1)
    average: int = key(2, "the judge is the mean of this many best evaluations by dev CER", ge=1)
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0, resume=True)

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        held_out = (config.data.dev, config.data.rl_dev, *config.data.test)
        if self.output_size % self.attention_heads or self.output_size % 2:
            keys = ("judge.output_size", "judge.attention_heads")
            heads = f"{self.attention_heads} attention heads"
            yield keys, f"must be even and a multiple of the {heads}; change one"
        if self.linear_units % 2:
            reason = "an E-Branchformer halves it"
            yield ("judge.linear_units",), f"{reason}; set {self.linear_units + 1}"
        if self.kernel_size % 2 == 0:
            yield ("judge.kernel_size",), f"must be odd; set {self.kernel_size + 1}"
        if self.train and self.train in held_out:
            keys = ("judge.train", "data.dev", "data.rl_dev", "data.test")
            yield keys, f"{self.train} is held out; name a set to learn from"
