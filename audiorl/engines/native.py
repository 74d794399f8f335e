"""The engine inside the training process: it samples from the policy's own tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from audiorl.engines.engine import Draws, Engine, Rollout
from audiorl.engines.sampling import Sampling, draw, repetition_aware, warp
from audiorl.engines.shared_prefix import GroupDecoder, shared_prefix_attention
from audiorl.models.language_model import Prefix


class PolicyEngine(Engine):
    """Reads each prefix once, for its whole group; rows that have ended leave the batch."""

    repetition_aware = True

    @torch.no_grad()
    def generate(
        self,
        prefix: Prefix,
        *,
        group: int,
        max_length: int,
        sampling: Sampling,
        draws: Draws | None = None,
        with_greedy: bool = False,
    ) -> Rollout:
        uniforms = None
        if not sampling.greedy:
            uniforms = draws.uniforms(group, max_length)
        if with_greedy:  # rows of NaN are decoded greedily
            uniforms = F.pad(uniforms.view(-1, group, max_length), (0, 0, 0, 1), value=torch.nan)
            uniforms, group = uniforms.flatten(0, 1), group + 1
        return self._sample(prefix, group, max_length, sampling, uniforms)

    def _sample(
        self,
        prefix: Prefix,
        group: int,
        max_length: int,
        sampling: Sampling,
        uniforms: Tensor | None,
    ) -> Rollout:
        """uniforms [B * group, max_length]; greedy decoding needs none."""
        policy, device = self.policy, prefix.embeds.device
        lm, forbidden = policy.llm, policy.forbidden
        stops = torch.tensor(policy.stop_ids, device=device)
        rows = len(prefix.embeds) * group
        tokens = torch.full((rows, max_length), policy.pad_id, device=device)
        logps = torch.zeros((rows, max_length), device=device)
        finished = torch.zeros(rows, dtype=torch.bool, device=device)

        decoder = GroupDecoder(lm, prefix, group, max_length)
        alive = torch.arange(rows, device=device)  # rows still in the batch
        with shared_prefix_attention(lm):
            for t in range(max_length):
                logits = lm.logits(decoder.hidden)  # [alive, V]
                logp = warp(logits, sampling, forbidden)
                if sampling.repetition_window:
                    full = warp(logits, Sampling(sampling.temperature), forbidden)
                    logp = repetition_aware(logp, full, tokens[alive, :t], sampling)
                chosen = _choose(logp, None if uniforms is None else uniforms[alive.cpu(), t])
                tokens[alive, t] = chosen
                logps[alive, t] = logp.gather(1, chosen[:, None]).squeeze(1)
                finished[alive] = ended = torch.isin(chosen, stops)
                if ended.all() or t == max_length - 1:
                    break
                if ended.any():
                    keep = (~ended).nonzero().squeeze(1)
                    decoder.keep(keep)
                    alive, chosen = alive[keep], chosen[keep]
                decoder.read(chosen)

        tokens, logps = tokens[:, : t + 1], logps[:, : t + 1]
        stopped = torch.isin(tokens, stops).int()
        after_end = stopped.cumsum(1) - stopped > 0
        return Rollout(tokens, ~after_end, logps, finished)


def _choose(logp: Tensor, uniforms: Tensor | None) -> Tensor:
    """Return one token [N] of each row of logp [N, V]; greedily without a number, or for NaN."""
    if uniforms is None:
        return logp.argmax(-1)
    chosen = draw(logp, uniforms.to(logp.device))
    if (greedy := uniforms.isnan()).any():
        chosen = torch.where(greedy.to(logp.device), logp.argmax(-1), chosen)
    return chosen
