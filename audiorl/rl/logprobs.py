"""Log-probabilities of given responses under a model, with gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from audiorl.engines.sampling import Sampling, warp
from audiorl.models.language_model import LanguageModel, Prefix

# Logits in memory at once, of as many tokens as that allows. Buffers below 32 MiB would be kept and
# scattered by the C library, and the peak be several times higher.
CHUNK = 10 << 20


@dataclass
class Logprobs:
    """Log-probabilities of responses, [N, R] each, fp32; 0 outside the mask."""

    logps: Tensor
    entropy: Tensor
    kl: Tensor | None = None  # exact, over the vocabulary, to a reference


def response_logprobs(
    lm: LanguageModel,
    prefix: Prefix,
    tokens: Tensor,
    mask: Tensor,
    *,
    sampling: Sampling,
    forbidden: Tensor,
    share: bool,
    reference: tuple[LanguageModel, Prefix] | None = None,
    entropy_grad: bool = False,
) -> Logprobs:
    """Log-probabilities of `tokens` [N, R] where `mask`, and the entropy of each position.

    Both under the distribution that `sampling` draws from. With a `reference` (another LM and what
    it reads), also the exact KL(policy || reference) of each position. The vocabulary is touched
    for real tokens only, in chunks that are computed again in the backward pass: no [N, R, V]
    tensor ever exists.
    """
    hidden = lm.response_states(prefix, tokens, share)[mask]  # [real tokens, H]
    rows = max(1, CHUNK // lm.vocab_size)
    chunks = [hidden.split(rows), tokens[mask].split(rows)]
    if reference is not None:
        with torch.no_grad():
            ref_lm, ref_prefix = reference
            states = ref_lm.response_states(ref_prefix, tokens, share)
            chunks.append(states[mask].split(rows))

    def of_chunk(states: Tensor, targets: Tensor, ref_states: Tensor | None = None) -> tuple:
        logp = warp(lm.logits(states), sampling, forbidden, kept=targets)  # [rows, V]
        found = [logp.gather(1, targets[:, None]).squeeze(1)]
        with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
            found.append(-expected(logp, logp))
        if ref_states is not None:
            with torch.no_grad():
                ref = warp(reference[0].logits(ref_states), sampling, forbidden)
            found.append(expected(logp, logp - ref))
        return tuple(found)

    def recomputed(*chunk: Tensor) -> tuple:
        return checkpoint(of_chunk, *chunk, use_reentrant=False)

    run = recomputed if torch.is_grad_enabled() else of_chunk
    parts = zip(*(run(*chunk) for chunk in zip(*chunks, strict=True)), strict=True)
    empty = hidden.new_zeros(tokens.shape, dtype=torch.float32)
    return Logprobs(*(empty.masked_scatter(mask, torch.cat(part)) for part in parts))


def expected(logp: Tensor, values: Tensor) -> Tensor:
    """The mean of `values` under the probabilities, [rows, V] -> [rows]; 0 * inf is 0."""
    return (logp.exp() * values.masked_fill(logp == -torch.inf, 0.0)).sum(1)


def prefix_is_shared(mode: str, prefix: int, group: int, response: int) -> bool:
    """Whether one forward of a prefix serves its group: when that saves a quarter of the tokens.

    Lengths in tokens. Below that the expanded cache costs more than it saves (Unsloth's gate is at
    the same ratio).
    """
    if mode != "auto":
        return mode == "always"
    return group * (prefix + response) >= 1.3 * (prefix + group * response)
