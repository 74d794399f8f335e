"""The distribution of sampling and of log-probabilities: one function for both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Settings of the distribution that responses are drawn from."""

    temperature: float = 1.0
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0  # 1: all tokens
    greedy: bool = False
    # Repetition-aware sampling, which speech tokens need; the update does not score it.
    repetition_window: int = 0  # tokens looked back at; 0: off
    repetition_share: float = 0.1  # a token that fills as much of the window is drawn again


def warp(
    logits: Tensor, sampling: Sampling, forbidden: Tensor, kept: Tensor | None = None
) -> Tensor:
    """Return the log-probabilities [N, V] (fp32) that `sampling` draws from, of logits [N, V].

    Forbidden tokens [V] and tokens outside top-k and top-p get -inf. Rollout and update share it:
    log-probabilities of the untruncated softmax would bias every importance ratio. `kept` [N], one
    token a row, is never cut: it was drawn, though rounding or a later policy may now put it just
    outside.
    """
    logits = whole = logits.float().masked_fill(forbidden, -torch.inf) / sampling.temperature
    if sampling.top_k > 0:
        kth = logits.topk(min(sampling.top_k, logits.size(-1))).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # mass ahead of each token
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(
            -1, order, before >= sampling.top_p
        )
        logits = logits.masked_fill(dropped, -torch.inf)
    if kept is not None:
        logits = logits.scatter(-1, kept[:, None], whole.gather(-1, kept[:, None]))
    return logits.log_softmax(-1)


def repetition_aware(logp: Tensor, full: Tensor, written: Tensor, sampling: Sampling) -> Tensor:
    """Return the log-probabilities [N, V] of VALL-E 2's repetition-aware sampling.

    It draws from `logp` [N, V] and, when the token fills `repetition_share` of the last
    `repetition_window` tokens or more, draws again from `full` [N, V], which top-k and top-p did
    not cut: the probability of all such tokens is spread as `full` has it. written [N, T] is what
    each row has so far. (arXiv 2406.05370, which draws again above the share; CosyVoice also at
    it, so that of 10 tokens one is enough.)
    """
    recent = written[:, -sampling.repetition_window :]
    counts = torch.zeros_like(logp).scatter_add_(1, recent, torch.ones_like(recent).to(logp))
    repeated = counts >= sampling.repetition_share * sampling.repetition_window
    probabilities = logp.exp()
    again = (probabilities * repeated).sum(1, keepdim=True)
    return (probabilities.masked_fill(repeated, 0.0) + again * full.exp()).log()


def draw(logp: Tensor, uniforms: Tensor) -> Tensor:
    """Return a token [N] of each row of log-probabilities [N, V], by inverting the distribution."""
    cumulative = logp.exp().cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # Rounding may carry a draw next to 1 up to the total, beyond the last token.
    below = total.nextafter(torch.zeros_like(total))
    threshold = torch.minimum(uniforms[:, None] * total, below)
    tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
    return tokens.clamp(max=logp.size(-1) - 1)  # NaN finds no place
