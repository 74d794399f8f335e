"""The control of an RL run: the same data, batches and number of updates, with cross entropy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from audiorl.config.rl import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.models.recogniser import Recogniser
from audiorl.rl.frames import FrameStore
from audiorl.rl.grpo import StepOutput
from audiorl.rl.phases import Phases
from audiorl.runs.optimizer import RL_NORM, Optimizers
from audiorl.runtime.batching import mini_batches


class Continued:
    """Supervised training continued on the utterances that RL sees."""

    def __init__(
        self, model: Recogniser, optimizer: Optimizers, frames: FrameStore, rl: RLConfig
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.frames = frames
        self.rl = rl

    def step(self, step: int, utterances: Sequence[Utterance], rate: float) -> StepOutput:
        """As many updates as GRPO makes, on the transcripts of B utterances.

        `rate` is the share of the peak learning rate.
        """
        phases = Phases(self.model.device)
        norms, losses, rl = [], [], self.rl
        pieces = rl.num_iterations * mini_batches(len(utterances), rl.mini_batch_prompts)
        for prompts in pieces:
            part = [utterances[p] for p in prompts]
            with phases("encode"):
                again = self.model.condition_learns(rl.train)
                frames = self.frames.encode(self.model, part) if again else self.frames.get(part)
            with phases("update"):
                self.optimizer.zero_grad()
                loss = self.model.supervised_loss(frames, [u.text for u in part])
                loss.total.backward()
                norms.append(self.optimizer.step(rate, RL_NORM, part))
                losses.append(loss.total.item())
        metrics = {
            "loss": fmean(losses),
            "grad_norm": fmean(norms),
            **phases.metrics(sum(u.duration for u in utterances)),
        }
        return StepOutput(metrics, [], {})
