"""Gumbel-Softmax (arXiv 1611.01144): draws of tokens that can be differentiated."""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STREAM = 1  # keeps the noise apart from the rollout's random numbers, which have the same seeds


def gumbel_noise(seed: int, step: int, name: str, member: int, length: int, size: int) -> Tensor:
    """Noise of a standard Gumbel distribution, [length, size] (fp32).

    It depends on seed, step, the utterance's name, the member of its group and the position alone:
    neither on the batch nor on how much longer a response is.
    """
    rng = np.random.default_rng([seed, step, zlib.crc32(name.encode()), member, STREAM])
    times = rng.standard_exponential((length, size), dtype=np.float32)
    return -torch.from_numpy(times).clamp(min=torch.finfo(torch.float32).tiny).log()


def gumbel_softmax(logits: Tensor, noise: Tensor, tau: float, hard: bool) -> Tensor:
    """Mixtures of tokens [..., K] from logits and Gumbel noise [..., K].

    The likeliest token of each is distributed as softmax(logits), whatever `tau` is; as it goes to
    0, the others vanish. `hard` gives that token alone, with the gradient of the mixture
    (straight-through: its expectation is off by what the reward is not linear in the mixture).
    """
    soft = ((logits + noise) / tau).softmax(-1)
    if not hard:
        return soft
    single = F.one_hot(soft.argmax(-1), soft.size(-1)).to(soft.dtype)
    return single + (soft - soft.detach())


def annealed(first: float, last: float, step: int, steps: int) -> float:
    """The temperature of a step of `steps`: linear from the first step's to the last one's."""
    return first + (last - first) * step / max(1, steps - 1)
