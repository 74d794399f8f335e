"""Every key of a recipe: its type, default, range and meaning, declared once.

A config is one `Config`. The loader (`audiorl.config.loader`) fills it from YAML and refuses what
does not fit; `check_config --print` shows it with the comments below. Leaf names are TRL's where
TRL has one; the verl equivalent stands in brackets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from audiorl.config.codec import CodecConfig, FlowConfig
from audiorl.config.data import DataConfig
from audiorl.config.decoding import DecodeConfig, ScoreConfig
from audiorl.config.diffro import DiffROConfig
from audiorl.config.field import Rule, key
from audiorl.config.lora import LoRAConfig
from audiorl.config.model import (
    AdaptorConfig,
    EncoderConfig,
    FrontendConfig,
    LLMConfig,
    ModelConfig,
    TokenizerConfig,
)
from audiorl.config.parallelism import ParallelismConfig
from audiorl.config.recognisers import JudgeConfig, RewardModelConfig
from audiorl.config.rl import RLConfig
from audiorl.config.rl_data import RLDataConfig
from audiorl.config.speech import SpeechConfig
from audiorl.config.training import SFTConfig
from audiorl.config.whisper import WhisperOptions


@dataclass
class Config:
    """A recipe."""

    task: str = key("asr", "what is learnt: recognition or synthesis", choices=("asr", "tts"))
    seed: int = key(1, "of everything random in training", ge=0)
    device: str = key(
        "auto", "auto: the GPU if there is one", choices=("auto", "cpu", "cuda"), resume=True
    )
    num_threads: int = key(0, "CPU threads of torch; 0: one per core", ge=0, resume=True)
    gradient_checkpointing: bool = key(
        False,
        "compute the LM's layers again in the backward pass of stages 3 and 5, to keep less",
        resume=True,
    )
    report_to: str = key(
        "tensorboard",
        "where training reports; TensorBoard's files are always written",
        choices=("tensorboard", "wandb", "trackio"),
        resume=True,
    )
    parallelism: ParallelismConfig = key(ParallelismConfig, "several processes, stages 3 to 7")
    data: DataConfig = key(DataConfig, "corpus")
    model: ModelConfig = key(ModelConfig, "stage 3")
    whisper: WhisperOptions = key(WhisperOptions, "the policy, judge or ear, where it is a Whisper")
    tokenizer: TokenizerConfig = key(TokenizerConfig, "text units")
    frontend: FrontendConfig = key(FrontendConfig, "features")
    encoder: EncoderConfig = key(EncoderConfig, "audio encoder", task="asr")
    adaptor: AdaptorConfig = key(AdaptorConfig, "encoder to LM", task="asr")
    codec: CodecConfig = key(CodecConfig, "stage 3", task="tts")
    flow: FlowConfig = key(FlowConfig, "stage 3", task="tts")
    reward_model: RewardModelConfig = key(RewardModelConfig, "stage 3", task="tts")
    judge: JudgeConfig = key(JudgeConfig, "stage 3", task="tts")
    llm: LLMConfig = key(LLMConfig, "language model")
    lora: LoRAConfig = key(LoRAConfig, "adapters, stages 3 and 5")
    speech: SpeechConfig = key(SpeechConfig, "text and speech tokens", task="tts")
    sft: SFTConfig = key(SFTConfig, "stage 3")
    rl_data: RLDataConfig = key(RLDataConfig, "stage 4", task="asr")
    rl: RLConfig = key(RLConfig, "stage 5")
    diffro: DiffROConfig = key(DiffROConfig, "stage 5", task="tts")
    decode: DecodeConfig = key(DecodeConfig, "stage 6")
    score: ScoreConfig = key(ScoreConfig, "stages 7 and 8")

    @property
    def speaks(self) -> bool:
        """Whether responses are speech: its RL and test sets may then be texts alone."""
        return self.task == "tts"

    def broken_rules(self) -> Iterator[Rule]:
        """Yield the rules that a config of valid keys breaks, section by section."""
        for field in fields(self):
            section = getattr(self, field.name)
            if hasattr(section, "rules") and field.metadata["task"] in (None, self.task):
                yield from section.rules(self)
