"""Noise that makes a reward model robust: a policy exploits whatever its reward has never seen.

After RRPO (arXiv 2512.04552; paper.md 2.8): noise on tokens and embeddings, mixing, and the worst
small change of the embeddings. DiffRO reads mixtures of tokens, so mixing trains the
space between the embeddings. Unlike in RRPO, another utterance is mixed in as a disturbance, its
text is not a label; the changes are those of embeddings of tokens, not of pooled vectors. All is
drawn from torch's generator, so that a step draws the same when it is done again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiorl.config.recognisers import RewardModelConfig


def disturbed(tokens: Tensor, lengths: Tensor, table: Tensor, keys: RewardModelConfig) -> Tensor:
    """Return embeddings [B, T, D] of tokens [B, T] with all noise but the adversarial."""
    random = torch.randint_like(tokens, len(table))
    swapped = torch.rand(tokens.shape, device=tokens.device) < keys.token_noise
    embedded = table[torch.where(swapped, random, tokens)]
    embedded = mixed(embedded, lengths, keys.mixup)
    embedded = embedded + keys.embedding_noise * size_of(table) * torch.randn_like(embedded)
    hidden = spans(lengths, tokens.size(1), keys.time_masks, keys.time_mask_width)
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


def worst_change(gradient: Tensor, lengths: Tensor, size: float) -> Tensor:
    """Return the change [B, T, D] of mean `size` per token that raises the loss most."""
    norms = gradient.flatten(1).norm(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)  # [B]
    return gradient * (size * lengths.sqrt() / norms)[:, None, None]


def size_of(table: Tensor) -> Tensor:
    """Return the deviation of a table's entries, [K, D] -> []."""
    return table.detach().std()
