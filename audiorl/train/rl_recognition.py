"""What recognition brings to the RL loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.models.audio_llm import AudioLLM
from audiorl.optim import Optimizers
from audiorl.rewards import Models
from audiorl.rl.collect import Scorer
from audiorl.rl.frames import FrameArchive, FrameStore
from audiorl.rl.grpo import GRPO
from audiorl.rl.supervised import Supervised
from audiorl.rollout.groups import read_text
from audiorl.train.prompts import Prompts
from audiorl.train.reporter import Reporter
from audiorl.train.sft import evaluate


class Recognition:
    """RL of an audio LLM."""

    relevant: tuple[str, ...] = ()
    should_stop = False
    state: Any = None

    def __init__(self, config: Config) -> None:
        self.config = config
        self.frozen = "encoder" not in config.rl.train
        # Frames of the dev set, from one evaluation to the next.
        self.heard: dict[str, Tensor] | None = {} if self.frozen else None

    def inputs(self) -> dict[str, Path]:
        return {}

    def prepare(
        self, model: AudioLLM, train: Sequence[Utterance], dev: Sequence[Utterance]
    ) -> Models:
        return Models()

    def parts(self, model: AudioLLM) -> list[nn.Module]:
        return [getattr(model, part) for part in self.config.rl.train]

    def learner(
        self,
        model: AudioLLM,
        reference: AudioLLM | None,
        rewards: Scorer,
        optimizer: Optimizers,
        prompts: Prompts,
        folder: Path,
    ) -> GRPO | Supervised:
        disk = None
        if self.config.rl.cache_frames and self.frozen:
            disk = FrameArchive(folder / "frames", next(model.encoder.parameters()).dtype)
        frames = FrameStore(model, self.frozen, disk=disk)
        if self.config.rl.algorithm == "supervised":
            return Supervised(model, optimizer, frames)
        read = read_text(model.tokenizer)
        return GRPO(model, reference, rewards, optimizer, frames, read, prompts.more)

    def evaluate(
        self, model: AudioLLM, dev: Sequence[Utterance], step: int, reporter: Reporter
    ) -> float:
        return evaluate(model, dev, step, reporter, self.heard).rate

    def restore(self, state: None) -> None:
        """Nothing was kept."""
