"""One GRPO step, top to bottom: encode, rollout, reward, advantage, update (the paper's 1.1, 1.3).

What differs from DeepSeekMath's GRPO, by default: tokens are averaged over the step (`dapo`), there
is no KL term (`beta: 0`), and rewards are divided by the group's standard deviation plus 1e-4, as
in TRL. All three are keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiorl.config.schema import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.models.audio_llm import AudioLLM
from audiorl.optim import Optimizers
from audiorl.rewards import Sample, Scores, WeightedSum
from audiorl.rl.advantages import flat_groups, group_advantages, group_std
from audiorl.rl.logprobs import prefix_is_shared, response_logprobs
from audiorl.rl.losses import clipped_surrogate, kl_k3, loss_weights
from audiorl.rl.phases import FrameStore, Phases
from audiorl.rollout.groups import rl_sampling, sample_groups
from audiorl.rollout.native import Rollout


@dataclass
class StepOutput:
    """What a step leaves behind: numbers for the log, and lines for completions.jsonl."""

    metrics: dict[str, float]
    completions: list[dict]


class GRPO:
    """Holds what the steps share; `step` is the algorithm."""

    def __init__(
        self,
        model: AudioLLM,
        reference: AudioLLM | None,
        rewards: WeightedSum,
        optimizer: Optimizers,
        frames: FrameStore,
    ) -> None:
        self.model = model
        self.reference = reference
        self.rewards = rewards
        self.optimizer = optimizer
        self.frames = frames
        self.config: RLConfig = model.config.rl
        self.sampling = rl_sampling(self.config)

    def step(self, step: int, utterances: Sequence[Utterance], rate: float) -> StepOutput:
        """One step on B utterances, with G hypotheses each, at `rate` times the learning rate."""
        phases = Phases(self.model.device)
        with phases("encode"):
            frames = self.frames.get(utterances)  # B x [T_i, D], on the host
        with phases("rollout"):
            rollout, samples = sample_groups(self.model, utterances, frames, step)  # B * G rows
            self._refuse_broken_policy(step, rollout)
        with phases("reward"):
            scores = self.rewards(samples)
            rewards = torch.tensor(scores.total).view(len(utterances), -1)  # [B, G]
            self._refuse_broken_rewards(step, rewards)
        advantages = group_advantages(rewards, self.config.scale_rewards)  # [B, G]
        with phases("update"):
            learning = self._update(rate, utterances, frames, rollout, rewards, advantages)
        metrics = {
            **_reward_metrics(rewards, scores),
            **_completion_metrics(rollout),
            **learning,
            **phases.metrics(sum(u.duration for u in utterances)),
        }
        return StepOutput(metrics, _completions(samples, scores, advantages))

    def _refuse_broken_policy(self, step: int, rollout: Rollout) -> None:
        # Broken weights sample one token for ever: all groups are flat, and no gradient would tell.
        if not rollout.logps.isfinite().all():
            raise UserError(
                f"step {step + 1}: what the policy gives a token is no number; lower "
                "rl.learning_rate and train again."
            )

    def _refuse_broken_rewards(self, step: int, rewards: Tensor) -> None:
        share = rewards.isnan().float().mean().item()
        if share > self.config.max_unscorable:
            raise UserError(
                f"step {step + 1}: {share:.0%} of the samples could not be rewarded, more than "
                f"rl.max_unscorable ({self.config.max_unscorable:.0%}); train.log has the reasons."
            )

    def _update(
        self,
        rate: float,
        utterances: Sequence[Utterance],
        frames: list[Tensor],
        rollout: Rollout,
        rewards: Tensor,
        advantages: Tensor,
    ) -> dict[str, float]:
        """`num_iterations` updates on one rollout; returns the means of what was seen."""
        rl, group = self.config, self.config.num_generations
        mask = rollout.mask & ~rewards.isnan().view(-1, 1).to(rollout.mask.device)
        if rl.mask_truncated_completions:
            mask = mask & rollout.finished[:, None]
        # Without variance the advantages are 0, and without KL nothing else pulls: no forward then.
        teaching = (
            ~flat_groups(rewards) if rl.beta == 0 else torch.ones(len(rewards), dtype=torch.bool)
        )
        chosen = teaching.nonzero().squeeze(1).tolist()
        # The denominators count all groups, so that dropping flat ones does not change the loss.
        total = {"step_tokens": max(1, int(mask.sum())), "step_rows": len(mask)}
        sums: dict[str, Tensor] = {}
        grad_norm = 0.0
        for _ in range(rl.num_iterations):
            self.optimizer.zero_grad()
            for prompts in self._micro_batches(chosen, frames, rollout):
                rows = torch.tensor([p * group + g for p in prompts for g in range(group)])
                loss, seen = self._loss(
                    [utterances[p] for p in prompts],
                    [frames[p] for p in prompts],
                    rollout.tokens[rows],
                    mask[rows],
                    rollout.logps[rows],
                    advantages.view(-1)[rows],
                    total,
                )
                loss.backward()
                for name, value in seen.items():
                    sums[name] = sums.get(name, 0) + value
            grad_norm = self.optimizer.step(rate, rl.max_grad_norm, utterances)
        means = {name: value.item() / rl.num_iterations for name, value in sums.items()}
        return {"grad_norm": grad_norm, **_learning_metrics(means)}

    def _micro_batches(
        self, prompts: list[int], frames: list[Tensor], rollout: Rollout
    ) -> Iterator[list[int]]:
        """Prompts whose groups fit into `micro_batch_tokens`, like lengths side by side."""
        response = rollout.tokens.size(1) * self.config.num_generations
        batch: list[int] = []
        for prompt in sorted(prompts, key=lambda p: -len(frames[p])):
            longest = len(frames[(batch or [prompt])[0]]) // self.model.adaptor.stack
            if batch and (longest + response) * (len(batch) + 1) > self.config.micro_batch_tokens:
                yield batch
                batch = []
            batch.append(prompt)
        if batch:
            yield batch

    def _loss(
        self,
        utterances: Sequence[Utterance],
        frames: list[Tensor],
        tokens: Tensor,
        mask: Tensor,
        old_logps: Tensor,
        advantages: Tensor,
        total: dict[str, int],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch, and sums over its tokens for the log. tokens [N, R]."""
        rl = self.config
        if "encoder" in rl.train:
            frames = self.frames.encode(self.model, utterances)  # again, with gradients
        logps, entropy = self._logprobs(self.model, frames, tokens, mask)
        per_token, low, high = clipped_surrogate(
            logps, old_logps, advantages.to(logps.device), rl.epsilon, rl.epsilon_high
        )
        seen = {
            "tokens": mask.sum(),
            "entropy": entropy.sum(),
            "clip_ratio/low_mean": (low & mask).sum(),
            "clip_ratio/high_mean": (high & mask).sum(),
            "sampling/sampling_logp_difference/mean": ((logps - old_logps).abs() * mask).sum(),
        }
        if self.reference is not None:
            with torch.no_grad():
                if "encoder" in rl.train:
                    frames = self.frames.encode(self.reference, utterances)
                ref_logps, _ = self._logprobs(self.reference, frames, tokens, mask)
            kl = kl_k3(logps, ref_logps)
            per_token = per_token + rl.beta * kl
            seen["kl"] = (kl * mask).sum()
        weights = loss_weights(mask, rl.loss_type, rl.max_completion_length, **total)
        loss = (per_token * weights).sum()
        seen["loss"] = loss
        return loss, {name: value.detach() for name, value in seen.items()}

    def _logprobs(
        self, model: AudioLLM, frames: list[Tensor], tokens: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        prefix = model.prefix(frames)
        return response_logprobs(
            model.llm,
            prefix,
            tokens,
            mask,
            sampling=self.sampling,
            forbidden=model.forbidden,
            share=prefix_is_shared(self.config.share_prefix, prefix, tokens),
        )


def _reward_metrics(rewards: Tensor, scores: Scores) -> dict[str, float]:
    """TRL's names; NaN-aware. `reward/best` is the mean of each group's best."""
    best = rewards.nan_to_num(-math.inf).max(1).values  # [B]
    metrics = {
        "reward": rewards.nanmean().item(),
        "reward_std": group_std(rewards).mean().item(),
        "reward/best": best[best > -math.inf].mean().item(),
        "frac_reward_zero_std": flat_groups(rewards).float().mean().item(),
        "frac_unscorable": rewards.isnan().float().mean().item(),
    }
    for name, values in scores.parts.items():
        part = torch.tensor(values)
        metrics[f"rewards/{name}/mean"] = part.nanmean().item()
        metrics[f"rewards/{name}/std"] = group_std(part[None]).item()
    return metrics


def _completion_metrics(rollout: Rollout) -> dict[str, float]:
    lengths = rollout.mask.sum(1).float()
    return {
        "completions/mean_length": lengths.mean().item(),
        "completions/min_length": lengths.min().item(),
        "completions/max_length": lengths.max().item(),
        "completions/clipped_ratio": (~rollout.finished).float().mean().item(),
        "completions/empty_ratio": (lengths <= 1).float().mean().item(),
    }


def _learning_metrics(sums: dict[str, float]) -> dict[str, float]:
    """Sums over the tokens of a step to means per token; the loss is a sum already weighted."""
    tokens = max(1.0, sums.pop("tokens", 0.0))
    loss = sums.pop("loss", 0.0)
    return {"loss": loss, **{name: value / tokens for name, value in sums.items()}}


def _completions(samples: list[Sample], scores: Scores, advantages: Tensor) -> list[dict]:
    return [
        {
            "id": sample.utterance.id,
            "reference": sample.utterance.text,
            "completion": sample.text,
            "finished": sample.finished,
            "reward": None if math.isnan(total) else round(total, 4),
            "rewards": {
                name: None if math.isnan(values[i]) else round(values[i], 4)
                for name, values in scores.parts.items()
            },
            "advantage": round(advantage, 4),
        }
        for i, (sample, total, advantage) in enumerate(
            zip(samples, scores.total, advantages.view(-1).tolist(), strict=True)
        )
    ]
