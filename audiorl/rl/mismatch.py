"""The gap between what the engine and what the policy gives to a rollout's tokens.

A foreign engine computes with other kernels, so its log-probabilities are never quite the
policy's. It is measured before the policy moves, and the run stops where it is more than rounding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from audiorl.engines.engine import Draws, Engine, Rollout
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.models.language_model import Prefix
from audiorl.rl.logprobs import response_logprobs
from audiorl.runtime import ranks

log = logging.getLogger(__name__)

LIMIT = 1e-3  # nats, mean over tokens, of weights in fp32
# Of narrower ones, whose own rounding is larger: in the first step, and then by that.
FIRST_LIMIT, GROWTH = 0.1, 4.0
TRIED_TOKENS = 16  # of the responses by which a cause is looked for


class Mismatch:
    """Sums absolute differences of log-probabilities over tokens."""

    def __init__(self) -> None:
        self.total = self.tokens = self.largest = 0.0
        self.is_open = True  # until the policy moves

    def add(self, policy: Tensor, rollout: Tensor, mask: Tensor) -> None:
        """Take log-probabilities [N, R] where mask [N, R]."""
        if not mask.any():
            return
        gap = (policy - rollout).detach().abs()[mask]
        self.total += gap.sum().item()
        self.tokens += len(gap)
        self.largest = max(self.largest, gap.max().item())

    @property
    def mean(self) -> float:
        """Of all tokens; 0 if there were none."""
        return self.total / self.tokens if self.tokens else 0.0

    def metrics(self) -> dict[str, float]:
        """Return what the log shows, by TRL's names; nothing if no token was looked at.

        Of the tokens of all processes.
        """
        parts = ranks.gather((self.total, self.tokens, self.largest))
        totals, tokens, largest = zip(*parts, strict=True)
        if not sum(tokens):
            return {}
        name = "sampling/sampling_logp_difference"
        return {f"{name}/mean": sum(totals) / sum(tokens), f"{name}/max": max(largest)}


class MismatchLimit:
    """Stops a run whose engine does not sample from the policy."""

    def __init__(self, engine: Engine, sampling: Sampling) -> None:
        self.engine, self.sampling = engine, sampling
        self.first: float | None = None  # of weights narrower than fp32: the mean of a step

    def check(
        self, step: int, found: Mismatch, prefix: Callable[[], Prefix], drawn: Rollout
    ) -> None:
        """Raise UserError if the gap of a step is beyond the limit, with its likely cause.

        `prefix` returns what the responses `drawn` continue.
        """
        if self.engine.policy.llm.lm_head.weight.dtype == torch.float32:
            limit = LIMIT
        else:
            limit = FIRST_LIMIT if self.first is None else max(LIMIT, GROWTH * self.first)
            self.first = found.mean if self.first is None else self.first
        if math.isfinite(found.mean) and found.mean <= limit:
            return
        raise UserError(
            f"step {step + 1}: log-probabilities of the engine and of the policy differ by "
            f"{found.mean:.2g} on average, {found.largest:.2g} at most, where {limit:.2g} may be "
            f"rounding; {self._cause(prefix(), drawn, limit)}."
        )

    @torch.no_grad()
    def _cause(self, prefix: Prefix, drawn: Rollout, limit: float) -> str:
        """Say what it looks like, by trying what would make each known cause vanish."""
        nothing = torch.zeros_like(self.engine.policy.forbidden)
        if self._gap(prefix, drawn, Sampling(), nothing) <= limit:
            return (
                "it looks as if they were of the raw logits, without temperature, top_k, top_p and "
                "forbidden ids: set the engine's logprobs_mode to processed_logprobs"
            )
        if self._new_gap(_unseen(prefix)) <= limit:
            return (
                "new prefixes have no such gap, so it looks as if the engine kept keys and values "
                "of former weights: its prefix cache has to be dropped in sync"
            )
        self.engine.sync()
        if self._new_gap(_unseen(prefix)) <= limit:
            return (
                "it is gone when the weights are sent again, so it looks as if an update was not "
                "followed by sync"
            )
        lm = self.engine.policy.llm
        if lm.lm_head.weight is lm.model.get_input_embeddings().weight:
            return (
                "sending the weights again does not help, so it looks as if the head, which is "
                "tied to the embeddings, kept former ones, or the engine computes this model "
                "otherwise: run tools/check_engine.py"
            )
        return (
            "sending the weights again does not help, so it looks as if the engine computes this "
            "model otherwise: run tools/check_engine.py"
        )

    def _new_gap(self, prefix: Prefix) -> float:
        names = [str(i) for i in range(len(prefix.embeds))]
        drawn = self.engine.generate(
            prefix,
            group=1,
            max_length=TRIED_TOKENS,
            sampling=self.sampling,
            draws=Draws(0, 0, names),
        )
        return self._gap(prefix, drawn, self.sampling, self.engine.policy.forbidden)

    def _gap(self, prefix: Prefix, drawn: Rollout, sampling: Sampling, forbidden: Tensor) -> float:
        scored = response_logprobs(
            self.engine.policy.llm,
            prefix,
            drawn.tokens,
            drawn.mask,
            sampling=sampling,
            forbidden=forbidden,
            share=False,
        )
        found = Mismatch()
        found.add(scored.logps, drawn.logps, drawn.mask)
        return found.mean


def _unseen(prefix: Prefix) -> Prefix:
    """Return prefixes that no cache knows: each one read backwards."""
    rows = zip(prefix.embeds, prefix.mask, strict=True)
    return Prefix.join([embeds[mask].flip(0) for embeds, mask in rows])
