"""Numbers of a step for the log, under TRL's names, and the lines of completions.jsonl."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audiorl.engines.engine import Rollout
from audiorl.rl.advantages import flat_groups, group_std
from audiorl.rl.collect import Batch


def reward_metrics(batch: Batch) -> dict[str, float]:
    """NaN-aware. `reward/best` is the mean of each group's best."""
    rewards = batch.rewards
    best = rewards.nan_to_num(-math.inf).max(1).values  # [B]
    metrics = {
        "reward": rewards.nanmean().item(),
        "reward_std": group_std(rewards).mean().item(),
        "reward/best": best[best > -math.inf].mean().item(),
        "frac_reward_zero_std": flat_groups(rewards).float().mean().item(),
        "frac_unscorable": batch.failed.float().mean().item(),
        "frac_without_reward": (rewards.isnan() & ~batch.failed).float().mean().item(),
        "frac_resampled": batch.resampled / len(rewards),
        "frac_given_silence": sum(batch.given or []) / len(rewards),
    }
    for name, values in batch.earned.parts.items():
        part = torch.tensor(values, dtype=torch.float64)
        metrics[f"rewards/{name}/mean"] = part.nanmean().item()
        metrics[f"rewards/{name}/std"] = group_std(part[None]).item()
    return metrics


def completion_metrics(rollout: Rollout) -> dict[str, float]:
    """Lengths in tokens, the end token included."""
    lengths = rollout.mask.sum(1).float()
    return {
        "completions/mean_length": lengths.mean().item(),
        "completions/min_length": lengths.min().item(),
        "completions/max_length": lengths.max().item(),
        "completions/clipped_ratio": (~rollout.finished).float().mean().item(),
        "completions/empty_ratio": (lengths <= 1).float().mean().item(),
    }


def learning_metrics(sums: dict[str, Tensor], updates: int) -> dict[str, float]:
    """Sums over the tokens of all updates to means per token; the loss is a sum already weighted.

    Groups without a gradient were not looked at, and are in none of these.
    """
    values = {name: value.item() for name, value in sums.items()}
    tokens = max(1.0, values.pop("tokens", 0.0))
    loss = values.pop("loss", 0.0) / max(1, updates)
    return {"loss": loss, **{name: value / tokens for name, value in values.items()}}


def completion_lines(batch: Batch, advantages: Tensor) -> list[dict]:
    """One line for each sample; advantages [B, G]."""
    return [
        {
            "id": sample.utterance.id,
            "reference": sample.utterance.text,
            "completion": sample.text,
            "finished": sample.finished,
            "reward": _rounded(total),
            "rewards": {name: _rounded(v[i]) for name, v in batch.earned.parts.items()},
            "advantage": round(advantage, 4),
        }
        for i, (sample, total, advantage) in enumerate(
            zip(batch.samples, batch.earned.total, advantages.flatten().tolist(), strict=True)
        )
    ]


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
