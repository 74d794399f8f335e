"""The rollout engine inside the training process: the policy's own tensors, no weight sync."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from audiorl.engines.sampling import Sampling, draw, repetition_aware, warp
from audiorl.engines.shared_prefix import GroupDecoder, shared_prefix_attention
from audiorl.models.language_model import Prefix, lm_logits


@dataclass
class Rollout:
    """Sampled responses, the G of a prompt in consecutive rows."""

    tokens: Tensor  # [B * G, R], padded on the right
    mask: Tensor  # [B * G, R] bool, True on sampled tokens, the end token included
    logps: Tensor  # [B * G, R], log-probability of each token when it was sampled; 0 on padding
    finished: Tensor  # [B * G] bool, False if max_length cut the response

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: list[int]) -> Rollout:
        """Some of the rows."""
        return Rollout(*(value[rows] for value in vars(self).values()))

    def join(self, other: Rollout) -> Rollout:
        """The rows of both, padded to the longer."""
        width = max(self.tokens.size(1), other.tokens.size(1))
        mine, others = self._widened(width), other._widened(width)
        return Rollout(*map(torch.cat, zip(mine, others, strict=True)))

    def _widened(self, width: int) -> list[Tensor]:
        # Padding is never read: the mask is False there.
        more = (0, width - self.tokens.size(1))
        return [F.pad(value, more) if value.dim() == 2 else value for value in vars(self).values()]


@torch.no_grad()
def generate(
    lm: PreTrainedModel,
    prefix: Prefix,
    *,
    group: int,
    max_length: int,
    eos_id: int,
    pad_id: int,
    forbidden: Tensor,
    sampling: Sampling,
    uniforms: Tensor | None = None,
) -> Rollout:
    """Continues each prefix `group` times.

    Each prefix is read once and its cache serves the whole group; rows that have ended leave the
    batch. `uniforms` [B * G, max_length] are the random numbers (see `uniform_table`); a row of NaN
    is decoded greedily among the sampled ones, and greedy decoding needs none at all. Returns a
    Rollout of B * group rows.
    """
    rows = len(prefix.embeds) * group
    device = prefix.embeds.device
    tokens = torch.full((rows, max_length), pad_id, device=device)
    logps = torch.zeros((rows, max_length), device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)

    decoder = GroupDecoder(lm, prefix, group, max_length)
    alive = torch.arange(rows, device=device)  # rows still in the batch
    head = lm.get_output_embeddings()

    with shared_prefix_attention(lm):
        for t in range(max_length):
            logits = lm_logits(head, decoder.hidden)  # [alive, V]
            logp = warp(logits, sampling, forbidden)
            if sampling.repetition_window:
                full = warp(logits, Sampling(sampling.temperature), forbidden)
                logp = repetition_aware(logp, full, tokens[alive, :t], sampling)
            if sampling.greedy:
                chosen = logp.argmax(-1)
            else:
                numbers = uniforms[alive.cpu(), t]
                chosen = draw(logp, numbers.to(device))
                if (likeliest := numbers.isnan()).any():
                    chosen = torch.where(likeliest.to(device), logp.argmax(-1), chosen)
            tokens[alive, t] = chosen
            logps[alive, t] = logp.gather(1, chosen[:, None]).squeeze(1)
            finished[alive] = ended = chosen == eos_id
            if ended.all() or t == max_length - 1:
                break
            if ended.any():
                keep = (~ended).nonzero().squeeze(1)
                decoder.keep(keep)
                alive, chosen = alive[keep], chosen[keep]
            decoder.read(chosen)

    tokens, logps = tokens[:, : t + 1], logps[:, : t + 1]
    after_end = (tokens == eos_id).int().cumsum(1) - (tokens == eos_id).int() > 0
    return Rollout(tokens, ~after_end, logps, finished)
