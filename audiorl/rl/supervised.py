"""The control of an RL run: the same data, batches and number of updates, with cross entropy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean

from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.models.recogniser import Recogniser
from audiorl.rl.frames import FrameStore
from audiorl.rl.grpo import StepOutput
from audiorl.rl.phases import Phases
from audiorl.runs.optimizer import RL_NORM, Optimizers
from audiorl.runtime import ranks, sharding
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
            own = ranks.share(part)
            with phases("encode"):
                again = self.model.condition_learns(rl.train)
                frames = None if again else self.frames.get(own)
            with phases("update"):
                self.optimizer.zero_grad()
                losses.append(self._add_gradient(part, own, frames))
                norms.append(self.optimizer.step(rate, RL_NORM, part))
        metrics = {
            "loss": fmean(losses),
            "grad_norm": fmean(norms),
            **phases.metrics(sum(u.duration for u in utterances)),
        }
        return StepOutput(metrics, [], {})

    def probe(self, utterances: Sequence[Utterance]) -> None:
        """Try an update; it changes nothing."""
        part = list(utterances)[: self.rl.mini_batch_prompts or None]
        own = ranks.share(part)
        again = self.model.condition_learns(self.rl.train)
        self._add_gradient(part, own, None if again else self.frames.get(own))
        self.optimizer.zero_grad()

    def _add_gradient(
        self, part: list[Utterance], own: list[Utterance], frames: list[Tensor] | None
    ) -> float:
        """Add the gradient of the mean over the tokens of `part`, some of which are `own`."""
        share = 1.0
        if len(own) < len(part):
            counts = [len(self.model.tokenizer.encode(u.text)) + 1 for u in part]
            mine = ranks.share(counts)
            share = sum(mine) / sum(counts)

        def loss() -> tuple[Tensor, dict[str, Tensor]]:
            read = self.frames.encode(self.model, own) if frames is None else frames
            found = share * self.model.supervised_loss(read, [u.text for u in own]).total
            return found, {"loss": found.detach()}

        sums: dict[str, Tensor] = {}
        idle = partial(self.model.llm.idle_pass, share=False)
        sharding.backward(self.model, [loss] if own else [], idle, sums)
        return ranks.added(sums)["loss"].item()
