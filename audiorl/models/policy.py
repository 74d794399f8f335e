"""What learns, seen by rollout and RL: a language model that continues the prefixes of its task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from audiorl.config.schema import Config
from audiorl.models.language_model import Prefix


class Policy(Protocol):
    """An audio LLM, which reads audio and writes text, or a speech LM, which does the reverse.

    A condition is what a response depends on, kept on the host from rollout to update: encoder
    frames [T, D] in recognition, the token ids [T] of a text in synthesis.
    """

    config: Config
    llm: PreTrainedModel
    forbidden: Tensor  # [V] bool, tokens that are never sampled
    eos_id: int
    pad_id: int

    @property
    def device(self) -> torch.device: ...

    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        """What the LM reads before it responds."""

    def prefix_length(self, condition: Tensor) -> int:
        """Positions of one prefix, to a few tokens."""
