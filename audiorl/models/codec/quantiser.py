"""Finite scalar quantisation: a code is a few numbers, each rounded to one of a few levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FiniteScalarQuantiser(nn.Module):
    """Hidden states [B, T, size] to codes [B, T, dims] and their tokens [B, T].

    A projection to `dims` numbers, each bounded to (-K, K) and rounded: levels = 2 K + 1. The token
    is the sum of (h_j + K) levels^j (Mentzer et al., ICLR 2024; CosyVoice 3, arXiv 2505.17589).
    There is no table to learn. Beyond the papers, the numbers are normalised over the batch before
    they are bounded: hidden states have a large mean, and some numbers would be the same always.
    """

    def __init__(self, size: int, dims: int, levels: int) -> None:
        super().__init__()
        self.codebook_size = levels**dims
        self.levels = levels
        self.bound = (levels - 1) // 2  # K
        self.projection = nn.Linear(size, dims)
        self.norm = nn.BatchNorm1d(dims, affine=False)
        self.register_buffer("bases", levels ** torch.arange(dims), persistent=False)  # [dims]

    def forward(self, hidden: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes in -1..1, whose gradient ignores the rounding, and tokens.

        real [B, T]: False on padding, whose codes and tokens mean nothing.
        """
        numbers = torch.zeros(*hidden.shape[:-1], len(self.bases), device=hidden.device)
        numbers[real] = self.norm(self.projection(hidden[real]))
        bounded = self.bound * numbers.tanh()
        rounded = bounded.detach().round()
        codes = (bounded + (rounded - bounded.detach())) / self.bound
        return codes, ((rounded.long() + self.bound) * self.bases).sum(-1)

    def codes(self, tokens: Tensor) -> Tensor:
        """Return the codes in -1..1 of tokens: [...] -> [..., dims]."""
        digits = tokens[..., None] // self.bases % self.levels
        return (digits - self.bound) / self.bound
