"""AdamW, and learning rates as functions of the step."""

from __future__ import annotations

import math

import torch
from torch import nn


def adamw(parts: list[nn.Module], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the parameters of `parts`; vectors (norms, biases) do not decay."""
    parameters = {id(p): p for part in parts for p in part.parameters() if p.requires_grad}.values()
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def warmup_cosine(step: int, peak: float, warmup: int, total: int, floor: float = 0.02) -> float:
    """Linear warm-up to `peak`, then a cosine to `floor * peak` at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def warmup_constant(step: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, constant afterwards (as usual in RL)."""
    return peak * min(1.0, (step + 1) / max(1, warmup))
