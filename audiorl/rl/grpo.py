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

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.policy import Policy
from audiorl.rl.advantages import Rewards, advantages, decoupled, group_std
from audiorl.rl.collect import Batch, Collector, Conditions, MorePrompts, Rewarder
from audiorl.rl.groups import Interpret, Sampler, rl_sampling
from audiorl.rl.logprobs import Logprobs, prefix_is_shared, response_logprobs
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
from audiorl.rl.phases import Phases
from audiorl.runs.optimizer import RL_NORM, Optimizers
from audiorl.runtime import ranks, sharding
from audiorl.runtime.batching import mini_batches

# Log-probabilities that a shared and a repeated prefix may differ by, from rounding alone.
CORRECTION_CAP = 2.0  # of the weights of rl.rollout_correction
SHARED_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}


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
    """A extra loss on a step's rollout (DiffRO's), whose gradient is added in each update."""

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
        self.reference = reference
        self.optimizer = optimizer
        self.conditions = conditions
        self.auxiliary = auxiliary
        self.config: RLConfig = sampler.rl
        self.collect = Collector(sampler, rewards, conditions, interpret, more)
        self.sampling = rl_sampling(self.config)
        rl = self.config
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
        self.limit = MismatchLimit(self.engine, self.sampling)
        self.mismatch = Mismatch()  # of a step
        self._sharing_is_checked = False
        self._longest_prefix = 0  # of a step, where that decides for all of its passes

    def step(self, step: int, utterances: Sequence[Utterance], rate: float) -> StepOutput:
        """One step on B utterances, with G hypotheses each, at `rate` times the inputs rate."""
        phases = Phases(self.device, self.placement and self.placement.enter)
        self.mismatch = Mismatch()
        batch = self.collect(step, utterances, phases)  # encode, rollout, reward
        with phases("old_logps"):
            inputs = self._update_inputs(batch)
        if not self.engine.exact:
            first = batch.select([0])
            self.limit.check(
                step, self.mismatch, lambda: self._prefix(self.model, first), first.rollout
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

    @torch.no_grad()
    def _update_inputs(self, batch: Batch) -> UpdateInputs:
        """Advantages, and what the policy before the update gives to the rollout."""
        batch.rollout = batch.rollout.to(self.model.device)
        rl, rollout = self.config, batch.rollout
        self._agree_on_sharing(batch)
        old_logps, weights = rollout.logps, torch.ones_like(rollout.logps)
        if self.correction != "none" or not self.engine.exact:
            scored = self._piecewise(
                batch, lambda b: self._policy_logprobs(b, b.rollout.mask).logps
            )
            self.mismatch.add(scored, rollout.logps, rollout.mask)
            self.mismatch.is_open = False
        if self.correction != "none":
            old_logps = scored
            weights = off_policy_weights(
                old_logps, rollout.logps, rollout.mask, self.correction, CORRECTION_CAP
            )
        if rl.beta and rl.kl_in_reward:
            reference = self._piecewise(
                batch, lambda b: self._logprobs(self.reference, b, b.rollout.mask).logps
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
        # Without an advantage, and without a term that needs none, a group's gradient is 0.
        idle = not (rl.entropy_coef or (rl.beta and not rl.kl_in_reward))
        learns = inputs.advantages.ne(0).any(1) if idle else torch.ones(len(inputs.advantages))
        if rl.algorithm == "diffro":
            learns = torch.zeros_like(learns)
        for iteration in range(rl.num_iterations):
            for prompts in mini_batches(len(learns), rl.mini_batch_prompts):
                rows = inputs.batch.rows(prompts)
                whole = inputs.mask[rows]
                # It counts the groups that are left out too: leaving them out changes no loss.
                update = Update(
                    max(1, int(whole.sum())),
                    len(whole),
                    rl.num_generations,
                    rl.max_completion_length,
                )
                self.optimizer.zero_grad()
                own = set(inputs.batch.own)
                chosen = [p for p in prompts if learns[p] and p in own]
                self._add_gradient(inputs, chosen, update, sums)
                if self.auxiliary:
                    parts.append(self.auxiliary.backward(step, iteration, rows.tolist()))
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

    def _add_gradient(
        self, inputs: UpdateInputs, prompts: list[int], update: Update, sums: dict[str, Tensor]
    ) -> None:
        """Adds the gradient of some prompts' share in the loss, and to `sums` what was seen."""
        width = inputs.mask.size(1)
        sharding.backward(
            self.model,
            [
                functools.partial(lambda piece: self._loss(inputs.select(piece), update), piece)
                for piece in self._micro_batches(prompts, inputs.batch)
            ],
            lambda: self.model.llm.idle_pass(self._shares(0, width), width),
            sums,
        )

    def _loss(self, inputs: UpdateInputs, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch, and sums over its tokens for the log."""
        rl, mask = self.config, inputs.mask
        current = self._policy_logprobs(inputs.batch, mask)
        difference = (current.logps - inputs.old_logps) * mask
        ratio = RATIOS[rl.importance_sampling_level](difference, mask)
        advantage = inputs.advantages.view(-1, 1).to(ratio.device)  # [N, 1]
        per_token, (low, high) = SURROGATES[rl.policy_loss](
            ratio, current.logps, advantage, self.clip
        )
        per_token = per_token * inputs.weights
        if self.mismatch.is_open:
            self.mismatch.add(current.logps, inputs.batch.rollout.logps, mask)
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
        with torch.no_grad():
            reference = self._logprobs(self.reference, batch, mask)
        return KL[self.config.kl_estimator](current.logps, reference.logps)

    def _policy_logprobs(self, batch: Batch, mask: Tensor) -> Logprobs:
        """Log-probabilities of a batch under the policy; with the exact KL if that is wanted."""
        reference = None
        if self.config.beta and self.config.kl_estimator == "exact":
            with torch.no_grad():
                reference = self.reference.llm, self._prefix(self.reference, batch)
        return self._logprobs(self.model, batch, mask, reference)

    def _logprobs(
        self,
        model: Policy,
        batch: Batch,
        mask: Tensor,
        reference: tuple[LanguageModel, Prefix] | None = None,
    ) -> Logprobs:
        prefix, tokens = self._prefix(model, batch), batch.rollout.tokens
        share = self._shares(prefix.embeds.size(1), tokens.size(1))
        if share and not self._sharing_is_checked:
            self._sharing_is_checked = True
            self._check_sharing(prefix.select([0], prefix.embeds.size(1)), batch.select([0]))
        return response_logprobs(
            model.llm,
            prefix,
            tokens,
            mask,
            sampling=self.sampling,
            forbidden=model.forbidden,
            share=share,
            reference=reference,
            entropy_grad=self.config.entropy_coef != 0,
        )

    def _shares(self, length: int, response: int) -> bool:
        """Return whether one forward of a prefix of that length serves its group."""
        rl = self.config
        length = self._longest_prefix or length
        return prefix_is_shared(rl.share_prefix, length, rl.num_generations, response)

    def _agree_on_sharing(self, batch: Batch) -> None:
        """Share prefixes in all passes of a step or in none, where processes share layers."""
        if sharding.sharing(self.model) != "always":
            return
        lengths = [self.model.prefix_length(batch.conditions[p]) for p in batch.own]
        self._longest_prefix = max(ranks.gather(max(lengths, default=1)))
        if self._shares(0, batch.rollout.tokens.size(1)) and not self._sharing_is_checked:
            self._sharing_is_checked = True
            with sharding.whole(self.model):
                for prompt in batch.own[:1]:
                    first = batch.select([prompt])
                    self._check_sharing(self._prefix(self.model, first), first)

    def _prefix(self, model: Policy, batch: Batch) -> Prefix:
        """Prefix of a batch; the audio is read again where the parts that read it learn."""
        if model.condition_learns(self.config.train):
            return model.prefix(self.conditions.encode(model, batch.utterances))
        return model.prefix(batch.conditions)

    @torch.no_grad()
    def _check_sharing(self, prefix: Prefix, batch: Batch) -> None:
        """Refuses a shared prefix if this LM's cache does not give what a plain forward gives."""
        rollout = batch.rollout
        plain, shared = (
            response_logprobs(
                self.model.llm,
                prefix,
                rollout.tokens,
                rollout.mask,
                sampling=self.sampling,
                forbidden=self.model.forbidden,
                share=share,
            ).logps
            for share in (False, True)
        )
        difference = (shared - plain).abs().max().item()
        tolerance = SHARED_TOLERANCE[prefix.embeds.dtype]
        if plain.isfinite().all() and not difference <= tolerance:  # nor NaN
            raise UserError(
                f"rl.share_prefix: with this LM a shared prefix changes log-probabilities by up to "
                f"{difference:.2g} ({batch.utterances[0].id}); set rl.share_prefix: never."
            )

    def _micro_batches(self, prompts: Sequence[int], batch: Batch) -> Iterator[list[int]]:
        """Prompts whose groups fit into `micro_batch_tokens`, like lengths side by side."""
        rl, response = self.config, batch.rollout.tokens.size(1)
        group, piece, cost = rl.num_generations, [], 0
        for prompt in sorted(prompts, key=lambda p: -len(batch.conditions[p])):
            if piece and cost * (len(piece) + 1) > rl.micro_batch_tokens:
                yield piece
                piece = []
            if not piece:  # the longest of the micro-batch, which the others are padded to
                length = self.model.prefix_length(batch.conditions[prompt])
                shared = self._shares(length, response)
                cost = length * (1 if shared else group) + group * response
            piece.append(prompt)
        if piece:
            yield piece

    def _piecewise(self, batch: Batch, value: Callable[[Batch], Tensor]) -> Tensor:
        """Something of each token that takes a forward pass, [N, R], in micro-batches."""
        found = torch.zeros_like(batch.rollout.logps)
        with sharding.whole(self.model):
            for prompts in self._micro_batches(batch.own, batch):
                found[batch.rows(prompts)] = value(batch.select(prompts))
        return ranks.total(found)
