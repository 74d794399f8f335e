"""The control of an RL run: the same data, batches and number of updates, with cross entropy."""

from __future__ import annotations

from collections.abc import Sequence

from audiorl.data.utterance import Utterance
from audiorl.models.audio_llm import AudioLLM
from audiorl.optim import Optimizers
from audiorl.rl.grpo import StepOutput
from audiorl.rl.phases import FrameStore, Phases


class Supervised:
    """What continued supervised training gains on the utterances that RL sees."""

    def __init__(self, model: AudioLLM, optimizer: Optimizers, frames: FrameStore) -> None:
        self.model = model
        self.optimizer = optimizer
        self.frames = frames

    def step(self, step: int, utterances: Sequence[Utterance], rate: float) -> StepOutput:
        """One update on the transcripts of B utterances, at `rate` times the learning rate."""
        phases = Phases(self.model.device)
        with phases("encode"):
            if "encoder" in self.model.config.rl.train:
                frames = self.frames.encode(self.model, utterances)
            else:
                frames = self.frames.get(utterances)
        with phases("update"):
            self.optimizer.zero_grad()
            loss = self.model.supervised_loss(frames, [u.text for u in utterances], ctc_weight=0)
            loss.total.backward()
            norm = self.optimizer.step(rate, self.model.config.rl.max_grad_norm, utterances)
        metrics = {
            "loss": loss.total.item(),
            "loss_lm": loss.lm.item(),
            "grad_norm": norm,
            **phases.metrics(sum(u.duration for u in utterances)),
        }
        return StepOutput(metrics, [])
