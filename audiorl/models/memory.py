"""Rows that continue the same prefix, and what they read through cross attention.

An encoder-decoder (Whisper, arXiv 2212.04356) hears an utterance once: the keys and values of its
encoder states are made once for a group of responses, and never copied to its members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]  # of B prefixes and a layer's K heads, [B, K, P, D] each


class Groups:
    """N rows by the prefix that they continue; those of a prefix are in succession.

    Each has a place among the rows of its prefix: as few places as the most need.
    """

    def __init__(self, owners: Tensor, prefixes: int, width: int | None = None) -> None:
        """`owners`: the prefix [N] of each row; `width`: its rows, if all have as many."""
        self.owners, self.prefixes = owners, prefixes
        if width is not None:
            self.width, self.places = width, torch.arange(len(owners), device=owners.device)
            return
        counts = owners.bincount(minlength=prefixes)
        self.width = int(counts.max())
        first = counts.cumsum(0) - counts
        rank = torch.arange(len(owners), device=owners.device) - first[owners]
        self.places = owners * self.width + rank  # [N], among B * width

    @classmethod
    def even(cls, rows: int, prefixes: int, device: torch.device) -> Groups:
        """Return groups of equal size."""
        owners = torch.arange(prefixes, device=device).repeat_interleave(rows // prefixes)
        return cls(owners, prefixes, rows // prefixes)

    def by_prefix(self, rows: Tensor) -> Tensor:
        """Return [N, K, Q, X] as [B, K, width * Q, X], zeros at places that no row has."""
        _, heads, queries, size = rows.shape
        places = rows.new_zeros(self.prefixes * self.width, heads, queries, size)
        places[self.places] = rows
        places = places.view(self.prefixes, self.width, heads, queries, size).transpose(1, 2)
        return places.reshape(self.prefixes, heads, self.width * queries, size)

    def by_row(self, prefixes: Tensor, queries: int) -> Tensor:
        """Return [B, K, width * Q, X] as [N, K, Q, X]."""
        count, heads, _, size = prefixes.shape
        places = prefixes.view(count, heads, self.width, queries, size).transpose(1, 2)
        return places.reshape(count * self.width, heads, queries, size)[self.places]


@dataclass
class Memory:
    """Keys and values of B encoder outputs, layer by layer, for all rows that read them."""

    layers: Sequence[KeysValues]
    mask: Tensor  # [B, P] bool
    groups: Groups | None = None  # None: groups of equal size

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return the attention [N, K, Q, D] of queries [N, K, Q, D], already scaled."""
        keys, values = self.layers[layer]
        groups = self.groups or Groups.even(len(query), len(keys), query.device)
        mixed = F.scaled_dot_product_attention(
            groups.by_prefix(query), keys, values, attn_mask=self.mask[:, None, None], scale=1.0
        )
        return groups.by_row(mixed, query.size(2))

    def keep(self, prefixes: Tensor) -> None:
        """Keep only these."""
        self.layers = [(keys[prefixes], values[prefixes]) for keys, values in self.layers]
        self.mask = self.mask[prefixes]
