"""Noise that makes a reward model robust: a policy exploits whatever its reward has never seen.

After RRPO (arXiv 2512.04552): noise on tokens and embeddings, and mixing. DiffRO reads mixtures
of tokens, so mixing trains the space between the embeddings. Unlike in RRPO, another utterance is
mixed in as a disturbance, its text is not a label. All is drawn from torch's generator, so that a
step draws the same when it is done again.
"""

from __future__ import annotations

import torch
from torch import Tensor

SWAPPED = 0.05  # share of the tokens that become random ones
MIXED = 0.3  # most of another utterance's embeddings that is mixed in, as a share
EMBEDDING_NOISE = 0.1  # deviation of noise on embeddings, relative to theirs
SPANS, SPAN_WIDTH = 2, 0.05  # spans of tokens that are hidden; the widest, as a share of the row


def disturbed(tokens: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
    """Return embeddings [B, T, D] of tokens [B, T] with noise."""
    random = torch.randint_like(tokens, len(table))
    swapped = torch.rand(tokens.shape, device=tokens.device) < SWAPPED
    embedded = table[torch.where(swapped, random, tokens)]
    embedded = mixed(embedded, lengths, MIXED)
    embedded = embedded + EMBEDDING_NOISE * table.detach().std() * torch.randn_like(embedded)
    hidden = spans(lengths, tokens.size(1), SPANS, SPAN_WIDTH)
    return embedded.masked_fill(hidden[:, :, None], 0.0)


def mixed(embedded: Tensor, lengths: Tensor, most: float) -> Tensor:
    """Return each row [T, D] with a share, up to `most`, of the next row, while that lasts."""
    share = most * torch.rand(len(embedded), 1, 1, device=embedded.device)
    others, ends = embedded.roll(1, 0), lengths.roll(1, 0)
    lasts = torch.arange(embedded.size(1), device=embedded.device) < ends[:, None]  # [B, T]
    return torch.where(lasts[:, :, None], (1 - share) * embedded + share * others, embedded)


def spans(lengths: Tensor, time: int, count: int, width: float) -> Tensor:
    """Return a mask [B, T] of `count` spans of each row, each up to `width` of its length."""
    shape, device = (len(lengths), count, 1), lengths.device
    long = lengths[:, None, None]
    spread = (torch.rand(shape, device=device) * ((width * long).floor() + 1)).floor()
    start = (torch.rand(shape, device=device) * (long - spread + 1)).floor()
    places = torch.arange(time, device=device)  # [T]
    return ((places >= start) & (places < start + spread)).any(1)
