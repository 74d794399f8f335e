"""DiffRO (arXiv 2507.05911): the reward is differentiated, through relaxed tokens, into the LM.

    U~_t = GumbelSoftmax(P(. | U_1..t-1, text)) over speech tokens, on a given history U
    R    = sum_i w_i log P_i(label_i | U~) of a frozen token-to-text model     (8), (9)
    loss = -R + beta KL(policy || reference) + stop_weight * -log P(stop where U stops)

One forward pass on the whole history: nothing is sampled, and no wave is made. Beside GRPO it is
taken on the rollouts that the filter leaves: L = L_GRPO + diffro.weight * L_DiffRO.

What differs from the paper, which leaves these open: the text's log-probability is divided by its
characters and the exact KL by the positions, so that a long utterance weighs as much as a short
one. The stop token is no speech token: the relaxed draw is among speech tokens, given that the
speech goes on, and the history's length is the reward's input length. Nothing in R would then tell
the LM when to stop, and each token made likelier takes probability from stopping; the third term
holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Rollout
from audiorl.engines.sampling import Sampling, warp
from audiorl.errors import UserError
from audiorl.models.policy import Policy
from audiorl.models.token_recogniser import TEXT, TokenRecogniser
from audiorl.rl.logprobs import CHUNK, expected
from audiorl.rl.passes import micro_batches
from audiorl.rl.relaxation import annealed, gumbel_noise, gumbel_softmax
from audiorl.rl.sample_filter import Filtered, filter_samples
from audiorl.runtime import ranks, sharding
from audiorl.runtime.batching import padded_batches


@dataclass
class Histories:
    """N responses that the LM is forced along, of the start model or of a rollout."""

    utterances: list[Utterance]  # N
    conditions: list[Tensor | None]  # N, what the LM reads before each; None: another process's
    members: list[int]  # N, place in the utterance's group
    tokens: Tensor  # [N, R] ids of the LM, the stop token included, padded on the right
    mask: Tensor  # [N, R] bool

    @classmethod
    def of_rollout(
        cls, utterances: Sequence[Utterance], conditions: Sequence[Tensor], rollout: Rollout
    ) -> Histories:
        """The B * G responses to B utterances."""
        group = len(rollout) // len(utterances)
        return cls(
            [u for u in utterances for _ in range(group)],
            [c for c in conditions for _ in range(group)],
            list(range(group)) * len(utterances),
            rollout.tokens,
            rollout.mask,
        )

    def select(self, rows: list[int]) -> Histories:
        """Some of the rows, without the columns that only the others fill."""
        width = int(self.mask[rows].sum(1).max())
        return Histories(
            [self.utterances[row] for row in rows],
            [self.conditions[row] for row in rows],
            [self.members[row] for row in rows],
            self.tokens[rows, :width],
            self.mask[rows, :width],
        )


@dataclass
class Relaxed:
    """Relaxed tokens and log-probabilities of histories; 0 on padding."""

    embedded: Tensor  # [N, R, D], the relaxed token of each position, as the reward model reads it
    stops: Tensor  # [N, R], log P(stop) on the stop token, log P(going on) before it
    kl: Tensor  # [N, R], exact, to the reference; 0 without one


class DiffROLoss:
    """The loss of histories, with gradients; it does not depend on how an update is cut.

    A `reference` brings the KL term (`rl.beta`) with it; beside GRPO, whose loss has one of its
    own, there is none. Raises UserError for a reward model of other tokens than the policy's.
    """

    def __init__(
        self,
        policy: Policy,
        recogniser: TokenRecogniser,
        config: Config,
        reference: Policy | None = None,
    ) -> None:
        self.policy = policy
        self.recogniser = recogniser
        self.reference = reference
        self.config = config
        self.sampling = Sampling(self.config.rl.temperature)
        allowed = (~policy.forbidden).nonzero().squeeze(1)
        self.stops = torch.tensor(policy.stop_ids, device=allowed.device)
        # [K], the LM's id of each speech token
        self.speech = allowed[~torch.isin(allowed, self.stops)]
        known = recogniser.facts.codec["codebook_size"]
        if len(self.speech) != known:
            raise UserError(
                f"the speech LM speaks {len(self.speech)} tokens and the reward model reads "
                f"{known}; train one of them again on the codec of the other (stage 3)."
            )
        self.weights = {reward.task: reward.weight for reward in self.config.diffro.rewards}
        self.pieces = micro_batches(config.rl)

    def select(
        self, histories: Histories, finished: Tensor | None = None, advantages: Tensor | None = None
    ) -> Filtered:
        """The rows that it may be taken on; of a rollout, finished [N] and advantages [N]."""
        lengths = histories.mask.sum(1).tolist()
        ended = [True] * len(lengths) if finished is None else finished.tolist()
        counts = [n - end for n, end in zip(lengths, ended, strict=True)]  # of speech tokens
        rows = zip(histories.tokens.tolist(), counts, strict=True)
        texts = zip(histories.utterances, counts, strict=True)
        wants_positive = self.config.diffro.sample_filter == "positive_advantage"
        return filter_samples(
            [row[:n] for row, n in rows],
            ended,
            [self.recogniser.has_room(u.text, n) for u, n in texts],
            advantages.flatten().tolist() if wants_positive else None,
        )

    def __call__(
        self, histories: Histories, step: int, rows: int, iteration: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The share of some histories in the mean over the `rows` that an update has.

        All of them end with the stop token. Also parts of the update's means, for the log: those of
        its micro-batches add up. `step` and `iteration` (of `rl.num_iterations`) pick the noise,
        the step also the temperature.
        """
        diffro, beta = self.config.diffro, self.config.rl.beta
        relaxed = self._relax(histories, step, iteration)
        rewards = self._rewards(relaxed.embedded, histories)
        lengths = histories.mask.sum(1)
        means = {
            **{f"diffro/{task}": values.sum() / rows for task, values in rewards.items()},
            "diffro/stop_loss": -relaxed.stops.sum() / rows,
        }
        loss = diffro.stop_weight * means["diffro/stop_loss"]
        for task, weight in self.weights.items():
            loss = loss - weight * means[f"diffro/{task}"]
        if self.reference is not None:
            means["kl"] = (relaxed.kl.sum(1) / lengths).sum() / rows
            loss = loss + beta * means["kl"]
        means["diffro/loss"] = loss
        return loss, {name: value.detach() for name, value in means.items()}

    def backward(
        self, histories: Histories, rows: list[int], step: int, iteration: int, weight: float = 1.0
    ) -> dict[str, Tensor]:
        """Adds `weight` times the gradient of the mean over some rows; returns its parts.

        Of several processes each takes its own rows.
        """
        sums: dict[str, Tensor] = {}

        def loss(piece: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            value, means = self(histories.select(piece), step, len(rows), iteration)
            return weight * value, means

        own = [row for row in rows if histories.conditions[row] is not None]
        losses = [partial(loss, piece) for piece in self._micro_batches(histories, own)]
        idle = partial(self.policy.llm.idle_pass, share=False)
        sharding.backward(self.policy, losses, idle, sums)
        return ranks.added(sums)

    def tau(self, step: int) -> float:
        """The temperature of a step."""
        diffro = self.config.diffro
        return annealed(diffro.tau, diffro.tau_end, step, self.config.rl.max_steps)

    def _micro_batches(self, histories: Histories, rows: list[int]) -> list[list[int]]:
        """Rows that fit into `rl.micro_batch_tokens` together, like lengths side by side."""
        lengths = histories.mask.sum(1).tolist()
        sizes = [lengths[r] + self.policy.prefix_length(histories.conditions[r]) for r in rows]
        pieces = list(padded_batches(sizes, self.pieces.most))
        for piece in pieces:
            self.pieces.note(len(piece), sizes[piece[0]] * len(piece))
        return [[rows[place] for place in piece] for piece in pieces]

    def _rewards(self, embedded: Tensor, histories: Histories) -> dict[str, Tensor]:
        """By task [N]: log P(text) per character, and log P(class)."""
        texts = [u.text for u in histories.utterances]
        classes = {
            task: [self.recogniser.class_of(task, u) for u in histories.utterances]
            for task in self.weights
            if task != TEXT
        }
        spoken = histories.mask.sum(1) - 1
        found = self.recogniser.log_likelihoods(embedded, spoken, texts, classes)
        units = [self.recogniser.units(text) for text in texts]
        found[TEXT] = found[TEXT] / torch.tensor(units, device=embedded.device)
        return found

    def _relax(self, histories: Histories, step: int, iteration: int) -> Relaxed:
        """One forward of the LM; its vocabulary in chunks that the backward computes again."""
        tokens, mask = histories.tokens, histories.mask
        hidden = self._hidden(self.policy, histories)[mask]  # [positions, H]
        size = max(1, CHUNK // self.policy.forbidden.numel())
        noise = self._noise(histories, step * self.config.rl.num_iterations + iteration)
        chunks = [part.split(size) for part in (hidden, noise, tokens[mask])]
        if self.reference is not None:
            with torch.no_grad():
                chunks.append(self._hidden(self.reference, histories)[mask].split(size))
        tau = self.tau(step)
        parts = [
            checkpoint(self._relax_chunk, tau, *chunk, use_reentrant=False)
            for chunk in zip(*chunks, strict=True)
        ]
        embedded, stops, kl = (torch.cat(part) for part in zip(*parts, strict=True))
        empty = hidden.new_zeros(mask.shape, dtype=torch.float32)
        wide = empty[:, :, None].expand(*mask.shape, embedded.size(1))
        return Relaxed(
            wide.masked_scatter(mask[:, :, None], embedded),
            empty.masked_scatter(mask, stops),
            empty.masked_scatter(mask, kl),
        )

    def _relax_chunk(
        self,
        tau: float,
        states: Tensor,
        noise: Tensor,
        targets: Tensor,
        ref_states: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of some positions: embedding [n, D], log P of stopping or going on [n], KL [n]."""
        logp = self._distribution(self.policy, states)  # [n, V]
        speech = logp[:, self.speech]  # [n, K]
        weights = gumbel_softmax(speech, noise.to(speech.device), tau, self.config.diffro.hard)
        stop = logp[:, self.stops].logsumexp(1)
        stops = torch.where(torch.isin(targets, self.stops), stop, speech.logsumexp(1))
        kl = torch.zeros_like(stop)
        if ref_states is not None:
            with torch.no_grad():
                ref = self._distribution(self.reference, ref_states)
            kl = expected(logp, logp - ref)
        return self.recogniser.embed_soft(weights), stops, kl

    def _distribution(self, policy: Policy, states: Tensor) -> Tensor:
        return warp(policy.llm.logits(states), self.sampling, policy.forbidden)

    def _noise(self, histories: Histories, draw: int) -> Tensor:
        """Gumbel noise of all positions, [positions, K], on the host."""
        rows = zip(
            histories.utterances, histories.members, histories.mask.sum(1).tolist(), strict=True
        )
        seed, size = self.config.seed, len(self.speech)
        return torch.cat([gumbel_noise(seed, draw, u.id, m, n, size) for u, m, n in rows])

    @staticmethod
    def _hidden(policy: Policy, histories: Histories) -> Tensor:
        """[N, R, H]; position t predicts tokens[:, t]."""
        prefix = policy.prefix(histories.conditions)
        return policy.llm.response_states(prefix, histories.tokens, share=False)
