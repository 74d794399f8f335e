"""One step of group-based policy gradients: encode, rollout, reward, advantage, update.

The algorithms of the field are choices on a few axes (`conf/algorithms/` has the named ones):

    advantage    rl.baseline, rl.scale_rewards, rl.reward_combination     rl/advantages.py
    ratio        rl.importance_sampling_level                             rl/losses.py
    surrogate    rl.policy_loss, rl.epsilon, rl.epsilon_high, rl.delta    rl/losses.py
    aggregation  rl.loss_type                                             rl/losses.py
    KL           rl.beta, rl.kl_estimator, rl.kl_in_reward                rl/losses.py, logprobs.py
    prompts      rl.dynamic_sample, rl.overlong_buffer                    rl/collect.py

What differs from DeepSeekMath's GRPO (the paper's 1.1, 1.3) by default: tokens are averaged over
the update (`dapo`), there is no KL term (`beta: 0`), and 1e-4 is added to the group's deviation.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Rollout
from audiorl.models.policy import Policy
from audiorl.rewards import BatchRewards, Sample
from audiorl.rl.advantages import Rewards, advantages, decoupled, group_std
from audiorl.rl.collect import Batch, Collector, Conditions, MorePrompts, Rewarder
from audiorl.rl.groups import Interpret, Sampler, rl_sampling
from audiorl.rl.logprobs import Logprobs
from audiorl.rl.losses import (
    AGGREGATIONS,
    KL,
    RATIOS,
    SURROGATES,
    Clip,
    Update,
    off_policy_weights,
)
from audiorl.rl.metrics import (
    completion_lines,
    completion_metrics,
    learning_metrics,
    reward_metrics,
)
from audiorl.rl.mismatch import Mismatch, MismatchLimit
from audiorl.rl.passes import Passes, micro_batches
from audiorl.rl.phases import Phases
from audiorl.runs.optimizer import RL_NORM, Optimizers
from audiorl.runtime import ranks, sharding
from audiorl.runtime.batching import mini_batches
from audiorl.runtime.memory import Pieces

CORRECTION_CAP = 2.0  # of the weights of rl.rollout_correction


@dataclass
class StepOutput:
    """Results of a step."""

    metrics: dict[str, float]  # for the log
    completions: list[dict]  # lines of completions.jsonl
    spreads: dict[str, float]  # utterance id -> standard deviation of its group's rewards


@dataclass
class UpdateInputs:
    """A batch with what the update needs of it."""

    batch: Batch
    mask: Tensor  # [B * G, R] tokens that count
    advantages: Tensor  # [B, G]
    old_logps: Tensor  # [B * G, R] under the policy before the first update
    weights: Tensor  # [B * G, R] importance weights of a foreign engine's rollout; else 1

    def select(self, prompts: Sequence[int]) -> UpdateInputs:
        """Some of the prompts, with their groups."""
        rows = self.batch.rows(prompts)
        return UpdateInputs(
            self.batch.select(prompts),
            self.mask[rows],
            self.advantages[prompts],
            self.old_logps[rows],
            self.weights[rows],
        )


class Auxiliary(Protocol):
    """An extra loss on a step's rollout (DiffRO's), whose gradient is added in each update."""

    pieces: Pieces  # tokens of a micro-batch, of GRPO's passes, too

    def begin(self, step: int, batch: Batch, advantages: Tensor) -> dict[str, float]:
        """Is shown the samples and their advantages [B, G]; returns metrics."""

    def backward(self, step: int, iteration: int, rows: list[int]) -> dict[str, Tensor]:
        """Adds the gradient on the rows of an update; returns metrics, `loss` among them."""


class GRPO:
    """Holds what the steps share; `step` is the algorithm.

    With an `auxiliary` loss the update follows the sum of both or, if the algorithm is `diffro`,
    that loss alone.
    """

    def __init__(
        self,
        sampler: Sampler,
        reference: Policy | None,
        rewards: Rewarder,
        optimizer: Optimizers,
        conditions: Conditions,
        interpret: Interpret,
        more: MorePrompts | None = None,
        auxiliary: Auxiliary | None = None,
    ) -> None:
        self.engine, self.placement = sampler.engine, sampler.placement
        self.model = sampler.engine.policy
        self.device = self.model.device  # between steps it may be elsewhere
        self.optimizer = optimizer
        self.conditions = conditions
        self.auxiliary = auxiliary
        self.config: RLConfig = sampler.rl
        self.collect = Collector(sampler, rewards, conditions, interpret, more)
        rl, sampling = self.config, rl_sampling(self.config)
        pieces = auxiliary.pieces if auxiliary else micro_batches(rl)
        self.passes = Passes(self.model, reference, conditions, sampling, rl, pieces)
        self.clip = Clip(
            rl.epsilon,
            rl.epsilon_high,
            rl.delta,
            rl.sapo_temperature_pos,
            rl.sapo_temperature_neg,
        )
        self.correction = rl.rollout_correction
        if self.correction == "auto":
            self.correction = "none" if self.engine.exact else "token"
        self.limit = MismatchLimit(self.engine, sampling)
        self.mismatch = Mismatch()  # of a step

    def step(self, step: int, utterances: Sequence[Utterance], rate: float) -> StepOutput:
        """One step on B utterances, with G hypotheses each, at `rate` times the learning rate."""
        phases = Phases(self.device, self.placement and self.placement.enter)
        self.mismatch = Mismatch()
        batch = self.collect(step, utterances, phases)  # encode, rollout, reward
        with phases("old_logps"):
            inputs = self._update_inputs(batch)
        if not self.engine.exact:
            first = batch.select([0])
            self.limit.check(
                step, self.mismatch, lambda: self.passes.prefix(self.model, first), first.rollout
            )
        with phases("update"):
            update_metrics = self._update(step, rate, inputs)
        with phases("sync"):
            self.engine.sync()
        metrics = {
            **reward_metrics(batch),
            **completion_metrics(batch.rollout),
            **update_metrics,
            **self.mismatch.metrics(),
            **phases.metrics(sum(u.duration or 0.0 for u in utterances)),
        }
        # Of the prompts that others replaced, the rewards were all equal.
        stds = group_std(batch.rewards).tolist()
        spreads = dict.fromkeys((u.id for u in utterances), 0.0)
        spreads |= {u.id: std for u, std in zip(batch.utterances, stds, strict=True)}
        return StepOutput(metrics, completion_lines(batch, inputs.advantages), spreads)

    def probe(self, utterances: Sequence[Utterance]) -> None:
        """Try an update on responses of `rl.max_completion_length` tokens; it changes nothing.

        Memory that ends in it would else end hours later, at the first step with such prompts.
        """
        if self.placement:
            self.placement.enter("update")
        rl, model = self.config, self.model
        rows, length = len(utterances) * rl.num_generations, rl.max_completion_length
        spoken = [i for i in (~model.forbidden).nonzero()[:, 0].tolist() if i not in model.stop_ids]
        ids = torch.tensor(spoken, device=model.device)
        tokens = ids[torch.arange(rows * length, device=model.device) % len(ids)].view(rows, length)
        tokens[:, -1] = model.stop_ids[0]
        mask, logps = torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens).float()
        samples = [Sample(u, "", True) for u in utterances for _ in range(rl.num_generations)]
        batch = Batch(
            list(utterances),
            self.conditions.get(utterances),
            Rollout(tokens, mask, logps, mask[:, 0]),
            samples,
            BatchRewards([0.0] * rows, {}, {}, [""] * rows),
        )
        advantages = torch.ones(len(utterances), rl.num_generations)
        inputs = UpdateInputs(batch, mask, advantages, logps, torch.ones_like(logps))
        if self.auxiliary:
            self.auxiliary.begin(0, batch, advantages)
        prompts = mini_batches(len(utterances), rl.mini_batch_prompts)[0]
        self.passes.fit(functools.partial(self._add_gradients, 0, 0, inputs, prompts, {}))
        self.optimizer.zero_grad()

    @torch.no_grad()
    def _update_inputs(self, batch: Batch) -> UpdateInputs:
        """Advantages, and what the policy before the update gives to the rollout."""
        batch.rollout = batch.rollout.to(self.model.device)
        rl, rollout = self.config, batch.rollout
        self.passes.agree_on_sharing(batch)
        old_logps, weights = rollout.logps, torch.ones_like(rollout.logps)
        if self.correction != "none" or not self.engine.exact:
            scored = self.passes.piecewise(
                batch, lambda b: self.passes.policy_logprobs(b, b.rollout.mask).logps
            )
            self.mismatch.add(scored, rollout.logps, rollout.mask)
            self.mismatch.is_open = False
        if self.correction != "none":
            old_logps = scored
            weights = off_policy_weights(
                old_logps, rollout.logps, rollout.mask, self.correction, CORRECTION_CAP
            )
        if rl.beta and rl.kl_in_reward:
            reference = self.passes.piecewise(
                batch, lambda b: self.passes.reference_logps(b, b.rollout.mask)
            )
            kl = KL[rl.kl_estimator](old_logps, reference)  # 0 on padding, as both are
            batch.earned.add("kl", kl.sum(1).tolist(), weight=-rl.beta)
        mask = rollout.mask & ~batch.rewards.isnan().view(-1, 1).to(rollout.mask.device)
        if rl.mask_truncated_completions:
            mask = mask & rollout.finished[:, None]
        return UpdateInputs(batch, mask, self._advantages(batch), old_logps, weights)

    def _advantages(self, batch: Batch) -> Tensor:
        """[B, G] fp32"""
        rl = self.config
        if rl.reward_combination == "gdpo":
            weights = batch.earned.weights
            parts = [batch.part(name) for name in weights]
            return decoupled(batch.rewards, parts, list(weights.values())).float()
        logps = batch.rollout.logps.sum(1).view(len(batch.utterances), -1).cpu()
        rewards = Rewards(batch.rewards, batch.greedy, logps)
        return advantages(rewards, rl.baseline, rl.scale_rewards).float()

    def _update(self, step: int, rate: float, inputs: UpdateInputs) -> dict[str, float]:
        """`num_iterations` passes over one rollout; returns the means of what was seen."""
        rl, updates, grad_norm = self.config, 0, 0.0
        sums: dict[str, Tensor] = {}
        extra, parts = {}, []  # what the auxiliary loss tells of the step, and of each update
        if self.auxiliary:
            extra = self.auxiliary.begin(step, inputs.batch, inputs.advantages)
        for iteration in range(rl.num_iterations):
            for prompts in mini_batches(len(inputs.advantages), rl.mini_batch_prompts):
                add = functools.partial(self._add_gradients, step, iteration, inputs, prompts, sums)
                sums, part, self.mismatch = self.passes.fit(add)
                parts.append(part)
                utterances = [inputs.batch.utterances[p] for p in prompts]
                grad_norm += self.optimizer.step(rate, RL_NORM, utterances)
                self.mismatch.is_open = False
                updates += 1
        sums = ranks.added(sums)
        for name in {name for part in parts for name in part}:
            extra[name] = fmean(part[name].item() for part in parts if name in part)
        metrics = {"grad_norm": grad_norm / updates, **learning_metrics(sums, updates)}
        extra["loss"] = metrics["loss"] + extra.get("loss", 0.0)
        return metrics | extra

    def _add_gradients(
        self,
        step: int,
        iteration: int,
        inputs: UpdateInputs,
        prompts: list[int],
        sums: dict[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Mismatch]:
        """Leave the gradient of an update on some prompts, whatever was there before.

        Returns what was seen with `sums` before it, the parts of the auxiliary loss, and the
        mismatch so far; what it is given stays, so that it may be called again.
        """
        sums, mismatch = dict(sums), copy.copy(self.mismatch)
        rows, own = inputs.batch.rows(prompts), set(inputs.batch.own)
        whole, width = inputs.mask[rows], inputs.mask.size(1)
        # It counts the groups that are left out too: leaving them out changes no loss.
        rl = self.config
        tokens = max(1, int(whole.sum()))
        update = Update(tokens, len(whole), rl.num_generations, rl.max_completion_length)
        self.optimizer.zero_grad()
        chosen = [p for p in prompts if p in own and self._learns(inputs.advantages[p])]
        sharding.backward(
            self.model,
            [
                functools.partial(self._loss, inputs.select(piece), update, mismatch)
                for piece in self.passes.micro_batches(chosen, inputs.batch)
            ],
            lambda: self.model.llm.idle_pass(self.passes.shares(0, width), width),
            sums,
        )
        part = {}
        if self.auxiliary:
            part = self.auxiliary.backward(step, iteration, rows.tolist())
        return sums, part, mismatch

    def _learns(self, advantages: Tensor) -> bool:
        """Return whether a group of advantages [G] has a gradient of GRPO's loss."""
        rl = self.config
        if rl.algorithm == "diffro":
            return False
        # Without an advantage there is none, but from a term that needs none.
        return bool(rl.entropy_coef or (rl.beta and not rl.kl_in_reward) or advantages.any())

    def _loss(
        self, inputs: UpdateInputs, update: Update, mismatch: Mismatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch, and sums over its tokens for the log."""
        rl, mask = self.config, inputs.mask
        current = self.passes.policy_logprobs(inputs.batch, mask)
        difference = (current.logps - inputs.old_logps) * mask
        ratio = RATIOS[rl.importance_sampling_level](difference, mask)
        advantage = inputs.advantages.view(-1, 1).to(ratio.device)  # [N, 1]
        per_token, (low, high) = SURROGATES[rl.policy_loss](
            ratio, current.logps, advantage, self.clip
        )
        per_token = per_token * inputs.weights
        if mismatch.is_open:
            mismatch.add(current.logps, inputs.batch.rollout.logps, mask)
        seen = {
            "tokens": mask.sum(),
            "entropy": current.entropy.sum(),
            "clip_ratio/low_mean": (low & mask).sum(),
            "clip_ratio/high_mean": (high & mask).sum(),
            "clip_ratio/region_mean": ((low | high) & mask).sum(),
        }
        if self.correction != "none":
            seen["sampling/importance_sampling_ratio/mean"] = (inputs.weights * mask).sum()
        if rl.beta and not rl.kl_in_reward:
            kl = self._kl(inputs.batch, mask, current)
            per_token = per_token + rl.beta * kl
            seen["kl"] = (kl * mask).sum()
        loss = (per_token * AGGREGATIONS[rl.loss_type](mask.float(), update)).sum()
        if rl.entropy_coef:
            loss = loss - rl.entropy_coef * current.entropy.sum() / update.tokens
        seen["loss"] = loss
        return loss, {name: value.detach() for name, value in seen.items()}

    def _kl(self, batch: Batch, mask: Tensor, current: Logprobs) -> Tensor:
        """KL(policy || reference) of each token, as `rl.kl_estimator` has it, [N, R]."""
        if self.config.kl_estimator == "exact":
            return current.kl
        reference = self.passes.reference_logps(batch, mask)
        return KL[self.config.kl_estimator](current.logps, reference)
