"""Passes of policy and reference over a batch: log-probabilities, in micro-batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.policy import Policy
from audiorl.rl.collect import Batch, Conditions
from audiorl.rl.logprobs import Logprobs, prefix_is_shared, response_logprobs
from audiorl.runtime import ranks, sharding
from audiorl.runtime.memory import Pieces

# Log-probabilities that a shared and a repeated prefix may differ by, from rounding alone.
SHARED_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
Result = TypeVar("Result")


def micro_batches(rl: RLConfig) -> Pieces:
    """Return the tokens of a micro-batch, which are halved when memory ends in an update."""
    return Pieces(
        "rl.micro_batch_tokens",
        rl.micro_batch_tokens,
        "lower rl.num_generations or rl.max_completion_length, set gradient_checkpointing: true, "
        "or leave out the longest utterances (data.max_duration)",
    )


def fit(policy: Policy, pieces: Pieces, work: Callable[[], Result]) -> Result:
    """Call `work` on micro-batches that fit the memory, again with smaller ones if it ends.

    Not where processes share weights: the others are in the midst of the same passes.
    """
    return work() if sharding.sharing(policy) else pieces.fit(work)


class Passes:
    """Reads the responses of a step's batch under its two models."""

    def __init__(
        self,
        policy: Policy,
        reference: Policy | None,
        conditions: Conditions,
        sampling: Sampling,
        rl: RLConfig,
        pieces: Pieces,
    ) -> None:
        self.policy, self.reference = policy, reference
        self.conditions = conditions
        self.sampling = sampling
        self.rl = rl
        self.pieces = pieces
        self._sharing_is_checked = False
        self._longest_prefix = 0  # of a step, where that decides for all of its passes

    def fit(self, work: Callable[[], Result]) -> Result:
        """Call `work`, again with smaller micro-batches if memory ends."""
        return fit(self.policy, self.pieces, work)

    def policy_logprobs(self, batch: Batch, mask: Tensor) -> Logprobs:
        """Return those of a batch under the policy; with the exact KL if that is wanted."""
        reference = None
        if self.rl.beta and self.rl.kl_estimator == "exact":
            with torch.no_grad():
                reference = self.reference.llm, self.prefix(self.reference, batch)
        return self._logprobs(self.policy, batch, mask, reference)

    @torch.no_grad()
    def reference_logps(self, batch: Batch, mask: Tensor) -> Tensor:
        """Return those of a batch under the reference, [N, R]."""
        return self._logprobs(self.reference, batch, mask).logps

    def _logprobs(
        self,
        model: Policy,
        batch: Batch,
        mask: Tensor,
        reference: tuple[LanguageModel, Prefix] | None = None,
    ) -> Logprobs:
        prefix, tokens = self.prefix(model, batch), batch.rollout.tokens
        share = self.shares(prefix.embeds.size(1), tokens.size(1))
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
            entropy_grad=self.rl.entropy_coef != 0,
        )

    def shares(self, length: int, response: int) -> bool:
        """Return whether one forward of a prefix of that length serves its group."""
        length = self._longest_prefix or length
        return prefix_is_shared(self.rl.share_prefix, length, self.rl.num_generations, response)

    def agree_on_sharing(self, batch: Batch) -> None:
        """Share prefixes in all passes of a step or in none, where processes share layers."""
        if sharding.sharing(self.policy) != "always":
            return
        longest = max((self.prefix_length(batch, p) for p in batch.own), default=1)
        self._longest_prefix = max(ranks.gather(longest))
        if self.shares(0, batch.rollout.tokens.size(1)) and not self._sharing_is_checked:
            self._sharing_is_checked = True
            with sharding.whole(self.policy):
                for prompt in batch.own[:1]:
                    first = batch.select([prompt])
                    self._check_sharing(self.prefix(self.policy, first), first)

    def prefix_length(self, batch: Batch, prompt: int) -> int:
        return self.policy.prefix_length(batch.conditions[prompt])

    def prefix(self, model: Policy, batch: Batch) -> Prefix:
        """Return the prefix of a batch; audio is read again where the parts that read it learn."""
        if model.condition_learns(self.rl.train):
            return model.prefix(self.conditions.encode(model, batch.utterances))
        return model.prefix(batch.conditions)

    @torch.no_grad()
    def _check_sharing(self, prefix: Prefix, batch: Batch) -> None:
        """Refuses a shared prefix if this LM's cache does not give what a plain forward gives."""
        rollout = batch.rollout
        plain, shared = (
            response_logprobs(
                self.policy.llm,
                prefix,
                rollout.tokens,
                rollout.mask,
                sampling=self.sampling,
                forbidden=self.policy.forbidden,
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

    def micro_batches(self, prompts: Sequence[int], batch: Batch) -> Iterator[list[int]]:
        """Yield prompts whose groups fit into `rl.micro_batch_tokens`, like lengths together."""
        response, piece, cost = batch.rollout.tokens.size(1), [], 0
        for prompt in sorted(prompts, key=lambda p: -len(batch.conditions[p])):
            if piece and cost * (len(piece) + 1) > self.pieces.most:
                yield piece
                piece = []
            if not piece:  # the longest of the micro-batch, which the others are padded to
                length, group = self.prefix_length(batch, prompt), self.rl.num_generations
                shared = self.shares(length, response)
                cost = length * (1 if shared else group) + group * response
            piece.append(prompt)
            self.pieces.note(len(piece), cost * len(piece))
        if piece:
            yield piece

    def piecewise(self, batch: Batch, value: Callable[[Batch], Tensor]) -> Tensor:
        """Return something of each token that takes a forward pass, [N, R], in micro-batches."""

        def of_own() -> Tensor:
            found = torch.zeros_like(batch.rollout.logps)
            for prompts in self.micro_batches(batch.own, batch):
                found[batch.rows(prompts)] = value(batch.select(prompts))
            return found

        with sharding.whole(self.policy):
            found = self.fit(of_own)
        return ranks.total(found)
