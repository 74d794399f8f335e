"""Log-probabilities of given responses under a model, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from audiorl.models.causal_lm import Prefix, response_hidden
from audiorl.rollout.sampling import Sampling, warp

CHUNK = 2048  # tokens whose vocabulary row is in memory at once


def response_logprobs(
    lm: PreTrainedModel,
    prefix: Prefix,
    tokens: Tensor,
    mask: Tensor,
    *,
    sampling: Sampling,
    forbidden: Tensor,
    share: bool,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `tokens` [N, R] where `mask`, and the entropy of each position [N, R].

    Both under the distribution that `sampling` draws from; 0 outside the mask. The vocabulary is
    touched for real tokens only, in chunks that are computed again in the backward pass: no
    [N, R, V] tensor ever exists.
    """
    hidden = response_hidden(lm, prefix, tokens, share)[mask]  # [real tokens, H]
    head = lm.get_output_embeddings()

    def score(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logp = warp(head(rows), sampling, forbidden, kept=targets)  # [chunk, V]
        taken = logp.gather(1, targets[:, None]).squeeze(1)
        with torch.no_grad():
            entropy = -(logp.exp() * logp.masked_fill(logp == -torch.inf, 0.0)).sum(1)
        return taken, entropy

    parts = [
        checkpoint(score, rows, targets, use_reentrant=False)
        if torch.is_grad_enabled()
        else score(rows, targets)
        for rows, targets in zip(hidden.split(CHUNK), tokens[mask].split(CHUNK), strict=True)
    ]
    taken, entropy = (torch.cat(part) for part in zip(*parts, strict=True))
    empty = hidden.new_zeros(tokens.shape, dtype=torch.float32)
    return empty.masked_scatter(mask, taken), empty.masked_scatter(mask, entropy)


def prefix_is_shared(mode: str, prefix: Prefix, tokens: Tensor) -> bool:
    """Whether one forward of each prefix serves its group: when that saves a quarter of the tokens.

    Below that the expanded cache costs more than it saves (Unsloth's gate is at the same ratio).
    """
    if mode != "auto":
        return mode == "always"
    groups, (rows, response) = len(prefix.embeds), tokens.shape
    length = prefix.embeds.size(1)
    return rows * (length + response) >= 1.3 * (groups * length + rows * response)
