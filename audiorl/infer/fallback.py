"""Whisper's remedy against loops: what looks wrong is drawn again at a higher temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiorl.engines.engine import Draws, Engine
from audiorl.engines.sampling import Sampling, warp
from audiorl.infer.hypothesis import Hypothesis
from audiorl.models.language_model import Prefix
from audiorl.text.detectors import COMPRESSION_RATIO, compression_ratio

# Those of Whisper's transcribe(): arXiv 2212.04356, section 4.5.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # 0: greedy
BEST_OF = 5  # drawn at each of the others; the likeliest a token is taken
LOGPROB = -1.0  # mean a token; what is below is drawn again
ROWS = 64  # tokens whose logits are in memory at once


def with_fallback(
    engine: Engine, prefix: Prefix, ids: Sequence[str], max_length: int, seed: int
) -> list[Hypothesis]:
    """Return a hypothesis of each prefix: greedy, unless it compresses like a loop or is unsure.

    Such an utterance is drawn at rising temperatures, until one is neither; the last one stays.
    What is drawn depends on `seed`, id and temperature alone.
    """
    found: dict[int, Hypothesis] = {}
    left = list(range(len(ids)))
    for step, temperature in enumerate(TEMPERATURES):
        part = prefix.select(left, prefix.embeds.size(1))
        draws = Draws(seed, step, [ids[i] for i in left])
        best = _best(engine, part, max_length, temperature, draws)
        found |= {i: hypothesis for i, (hypothesis, _) in zip(left, best, strict=True)}
        left = [
            i
            for i, (hypothesis, mean) in zip(left, best, strict=True)
            if mean < LOGPROB or compression_ratio(hypothesis.text) > COMPRESSION_RATIO
        ]
        if not left:
            break
    return [found[i] for i in range(len(ids))]


def _best(
    engine: Engine, prefix: Prefix, max_length: int, temperature: float, draws: Draws
) -> list[tuple[Hypothesis, float]]:
    """Return the likeliest of each prefix's hypotheses, and its log-probability a token."""
    sampling, group = Sampling(greedy=True), 1
    if temperature:
        sampling, group = Sampling(temperature), BEST_OF
    rollout = engine.generate(
        prefix, group=group, max_length=max_length, sampling=sampling, draws=draws
    )
    logps = rollout.logps.sum(1)
    if temperature:  # drawn from another distribution than the model's own
        logps = _logps(engine, prefix, rollout.tokens, rollout.mask)
    means = logps / rollout.mask.sum(1).to(logps)
    tokenizer, best = engine.policy.tokenizer, []
    for first in range(0, len(means), group):
        row = first + int(means[first : first + group].argmax())
        text = tokenizer.decode(rollout.tokens[row][rollout.mask[row]].tolist())
        one = Hypothesis(text, float(logps[row]), bool(rollout.finished[row]))
        best.append((one, float(means[row])))
    return best


def _logps(engine: Engine, prefix: Prefix, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability [B * G] of responses [B * G, R] at temperature 1."""
    policy = engine.policy
    hidden = policy.llm.response_states(prefix, tokens, share=False)[mask]
    parts = [
        warp(policy.llm.logits(states), Sampling(), policy.forbidden).gather(1, chosen[:, None])
        for states, chosen in zip(hidden.split(ROWS), tokens[mask].split(ROWS), strict=True)
    ]
    found = torch.cat(parts).squeeze(1)
    return torch.zeros(tokens.shape, device=found.device).masked_scatter(mask, found).sum(1)
