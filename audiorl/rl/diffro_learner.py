"""Learners of DiffRO's loss: alone on fixed histories, or beside GRPO on its rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.models.policy import Policy
from audiorl.models.token_recogniser import TEXT, TokenRecogniser
from audiorl.rl.collect import Batch, Conditions
from audiorl.rl.diffro import DiffROLoss, Histories
from audiorl.rl.grpo import StepOutput
from audiorl.rl.passes import fit
from audiorl.rl.phases import Phases
from audiorl.runs.optimizer import RL_NORM, Optimizers
from audiorl.runtime import ranks
from audiorl.runtime.batching import mini_batches


class OnRollouts:
    """`weight` times the loss of the rollouts that the filter leaves: what GRPO adds to its own."""

    def __init__(self, loss: DiffROLoss, weight: float) -> None:
        self.loss, self.pieces = loss, loss.pieces
        self.weight = weight

    def begin(self, step: int, batch: Batch, advantages: Tensor) -> dict[str, float]:
        """Looks at the samples of a step, advantages [B, G]; returns metrics."""
        self.histories = Histories.of_rollout(batch.utterances, batch.conditions, batch.rollout)
        chosen = self.loss.select(self.histories, batch.rollout.finished, advantages)
        self.kept = chosen.kept
        return {"diffro/tau": self.loss.tau(step), **chosen.metrics()}

    def backward(self, step: int, iteration: int, rows: list[int]) -> dict[str, Tensor]:
        """Adds the gradient of those of an update's rows; returns the parts of their mean loss."""
        rows = [row for row in rows if self.kept[row]]
        means = self.loss.backward(self.histories, rows, step, iteration, self.weight)
        return means | {"loss": self.weight * means["diffro/loss"]} if means else {}


class DiffRO:
    """Steps on fixed histories, the codec's tokens by utterance id: no rollout, no rewards."""

    def __init__(
        self,
        policy: Policy,
        recogniser: TokenRecogniser,
        reference: Policy | None,
        optimizer: Optimizers,
        conditions: Conditions,
        histories: Mapping[str, Sequence[int]],
        config: Config,
    ) -> None:
        self.policy = policy
        self.rl = config.rl
        self.loss = DiffROLoss(policy, recogniser, config, reference)
        self.optimizer = optimizer
        self.conditions = conditions
        self.histories = histories

    def refuse_unfit(self, utterances: Sequence[Utterance]) -> None:
        """Raises UserError for the first utterance without a history, or that has no reward."""
        for u in utterances:
            if not self.histories.get(u.id):
                raise UserError(
                    f"{u.id} has no speech tokens, and DiffRO on fixed histories needs them; run "
                    "stage 4 again, or set diffro.history: rollout."
                )
        tasks = [task for task in self.loss.weights if task != TEXT]
        self.loss.recogniser.refuse_unknown(utterances, tasks)

    def step(self, step: int, utterances: Sequence[Utterance], rate: float) -> StepOutput:
        """As many updates as GRPO makes, at `rate` times the learning rate."""
        phases = Phases(self.policy.device)
        rl = self.rl
        norms, seen = [], []
        with phases("encode"):
            histories = self._fixed(utterances)
        chosen = self.loss.select(histories)
        pieces = mini_batches(len(utterances), rl.mini_batch_prompts)
        with phases("update"):
            for iteration in range(rl.num_iterations):
                for piece in pieces:
                    rows = [row for row in piece if chosen.kept[row]]
                    seen.append(self._add_gradients(histories, rows, step, iteration))
                    chosen_from = [utterances[row] for row in piece]
                    norms.append(self.optimizer.step(rate, RL_NORM, chosen_from))
        names = sorted(set().union(*seen))
        metrics = {name: fmean(float(m[name]) for m in seen if name in m) for name in names}
        metrics = {
            "loss": metrics.get("diffro/loss", 0.0),
            "grad_norm": fmean(norms),
            "diffro/tau": self.loss.tau(step),
            **metrics,
            **chosen.metrics(),
            **phases.metrics(sum(u.duration or 0.0 for u in utterances)),
        }
        return StepOutput(metrics, [], {})

    def probe(self, utterances: Sequence[Utterance]) -> None:
        """Try an update; it changes nothing."""
        histories = self._fixed(utterances)
        rows = mini_batches(len(utterances), self.rl.mini_batch_prompts)[0]
        kept = self.loss.select(histories).kept
        self._add_gradients(histories, [row for row in rows if kept[row]], 0, 0)
        self.optimizer.zero_grad()

    def _add_gradients(
        self, histories: Histories, rows: list[int], step: int, iteration: int
    ) -> dict[str, Tensor]:
        """Leave the gradient of an update on some rows; returns the parts of their mean loss."""

        def add() -> dict[str, Tensor]:
            self.optimizer.zero_grad()
            return self.loss.backward(histories, rows, step, iteration)

        return fit(self.policy, self.loss.pieces, add)

    def _fixed(self, utterances: Sequence[Utterance]) -> Histories:
        """Return the speech that stage 4 sampled, each with the stop token."""
        stop, ids = torch.tensor(self.policy.stop_ids[:1]), self.loss.speech.cpu()
        spoken = [torch.tensor(self.histories[u.id], dtype=torch.long) for u in utterances]
        rows = [torch.cat([ids[tokens], stop]) for tokens in spoken]
        lengths = torch.tensor([len(row) for row in rows])
        padded = pad_sequence(rows, batch_first=True, padding_value=self.policy.pad_id)
        mask = torch.arange(padded.size(1)) < lengths[:, None]
        device = self.policy.device
        conditions, own = self.conditions.get(utterances), ranks.share(range(len(utterances)))
        return Histories(
            list(utterances),
            [c if place in own else None for place, c in enumerate(conditions)],
            [0] * len(utterances),
            padded.to(device),
            mask.to(device),
        )
