"""Groups of responses to utterances, as RL steps and the difficulty probe draw them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Draws, Engine, Rollout
from audiorl.engines.sampling import Sampling
from audiorl.models.tokenizer import Tokenizer
from audiorl.rewards import Sample
from audiorl.rl.logprobs import response_logprobs
from audiorl.rl.placement import Placement
from audiorl.runtime.memory import Pieces

# Makes samples of the B * G rows of a rollout for B utterances.
Interpret = Callable[[Sequence[Utterance], Rollout], list[Sample]]


def rl_sampling(rl: RLConfig) -> Sampling:
    """Return the distribution that RL samples from and computes log-probabilities of."""
    return Sampling(rl.temperature, rl.top_k, rl.top_p)


def read_text(tokenizer: Tokenizer) -> Interpret:
    """Return the reading of recognition: a response is text."""

    def read(utterances: Sequence[Utterance], rollout: Rollout) -> list[Sample]:
        group = len(rollout) // len(utterances)
        rows = zip(rollout.tokens, rollout.mask, rollout.finished.tolist(), strict=True)
        return [
            Sample(utterances[i // group], tokenizer.decode(tokens[mask].tolist()), finished)
            for i, (tokens, mask, finished) in enumerate(rows)
        ]

    return read


class Sampler:
    """Draws groups of responses to conditions by the settings of RL."""

    def __init__(
        self, engine: Engine, rl: RLConfig, seed: int, placement: Placement | None = None
    ) -> None:
        self.engine = engine
        self.placement = placement
        self.rl = rl
        self.seed = seed
        advice = "lower rl.num_generations or rl.max_completion_length"
        self.pieces = Pieces("rl.rollout_prompts", math.inf, advice)

    @torch.no_grad()
    def groups(
        self,
        utterances: Sequence[Utterance],
        conditions: Sequence[Tensor],
        step: int,
        with_greedy: bool = False,
    ) -> Rollout:
        """Draw `rl.num_generations` responses to each utterance; `step` picks the random numbers.

        Returns B * G rows, the G of an utterance in succession; `with_greedy`, B * (G + 1) rows,
        the greedy response behind each G.
        """

        def draw(places: slice) -> Rollout:
            return self.engine.generate(
                self.engine.policy.prefix(conditions[places]),
                group=self.rl.num_generations,
                max_length=self.rl.max_completion_length,
                sampling=rl_sampling(self.rl),
                draws=Draws(self.seed, step, [u.id for u in utterances[places]]),
                with_greedy=with_greedy,
            )

        return self._in_pieces(len(utterances), draw)

    @torch.no_grad()
    def greedy(self, conditions: Sequence[Tensor]) -> Rollout:
        """Return the greedy response to each condition."""

        def draw(places: slice) -> Rollout:
            return self.engine.generate(
                self.engine.policy.prefix(conditions[places]),
                group=1,
                max_length=self.rl.max_completion_length,
                sampling=Sampling(greedy=True),
            )

        return self._in_pieces(len(conditions), draw)

    def _in_pieces(self, prompts: int, draw: Callable[[slice], Rollout]) -> Rollout:
        """Draw for all prompts at once, or for as many as the memory has room for."""

        def draw_all() -> Rollout:
            size = max(1, int(min(prompts, self.pieces.most)))
            self.pieces.note(size, size)
            drawn = (draw(slice(i, i + size)) for i in range(0, prompts, size))
            return functools.reduce(Rollout.join, drawn)

        return self.pieces.fit(draw_all)

    @torch.no_grad()
    def silence(self, conditions: Sequence[Tensor]) -> Tensor:
        """Return the log-probability of the empty response to each condition, [B]."""
        policy = self.engine.policy
        stop = torch.tensor(policy.stop_ids[:1], device=policy.device).expand(len(conditions), 1)
        return response_logprobs(
            policy.llm,
            policy.prefix(conditions),
            stop,
            torch.ones_like(stop, dtype=torch.bool),
            sampling=rl_sampling(self.rl),
            forbidden=policy.forbidden,
            share=False,
        ).logps[:, 0]
