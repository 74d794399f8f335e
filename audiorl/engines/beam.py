"""Beam search: the n best responses to each prefix, from one copy of the prefix's cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from audiorl.engines.sampling import Sampling, warp
from audiorl.engines.shared_prefix import GroupDecoder, shared_prefix_attention
from audiorl.models.language_model import Prefix
from audiorl.models.policy import Policy


@dataclass(frozen=True)
class Response:
    """A response and what the model gives to it."""

    ids: list[int]  # the end token included
    logp: float  # of all tokens, natural logarithm
    finished: bool  # False if max_length cut it

    @property
    def mean(self) -> float:
        """Log-probability per token, which hypotheses of unlike length are ranked by."""
        return self.logp / len(self.ids)


@torch.no_grad()
def beam_search(
    policy: Policy, prefix: Prefix, *, beams: int, max_length: int
) -> list[list[Response]]:
    """Return the `beams` best responses to each prefix, by mean log-probability.

    A prefix is done when no beam, as it stands, is better per token than the worst response found
    (transformers' rule). Beams that the length limit cuts count as responses, too.
    """
    searches = [_Search(beams) for _ in prefix.embeds]
    active = list(range(len(searches)))
    lm, stops = policy.llm, frozenset(policy.stop_ids)
    candidates = (1 + len(stops)) * beams  # of so many, as many as there are beams continue
    decoder = GroupDecoder(lm, prefix, beams, max_length)
    with shared_prefix_attention(lm):
        for t in range(max_length):
            logp = warp(lm.logits(decoder.hidden), Sampling(), policy.forbidden)  # [A * beams, V]
            so_far = logp.new_tensor([b.logp for s in active for b in searches[s].alive])
            total = (so_far[:, None] + logp).view(len(active), -1)  # [A, beams * V]
            best = total.topk(min(candidates, total.size(1)))
            ranked = torch.stack([best.indices // logp.size(1), best.indices % logp.size(1)], -1)
            parents = [
                searches[s].advance(scores, places, stops)
                for s, scores, places in zip(
                    active, best.values.tolist(), ranked.tolist(), strict=True
                )
            ]
            going = [place for place, s in enumerate(active) if not searches[s].is_done()]
            active = [active[place] for place in going]
            if not active or t == max_length - 1:
                break
            rows = [place * beams + parent for place in going for parent in parents[place]]
            decoder.keep(torch.tensor(rows, device=logp.device))
            last = [beam.ids[-1] for s in active for beam in searches[s].alive]
            decoder.read(torch.tensor(last, device=logp.device))
    for s in active:
        searches[s].add(searches[s].alive)
    return [search.found for search in searches]


class _Search:
    """The beams of one prefix, and the responses that they have found, best first."""

    def __init__(self, beams: int) -> None:
        self.beams = beams
        # All begin alike: only the first counts.
        self.alive = [Response([], -torch.inf if i else 0.0, False) for i in range(beams)]
        self.found: list[Response] = []

    def advance(
        self, logps: list[float], places: list[list[int]], stops: frozenset[int]
    ) -> list[int]:
        """Append one token, the best of `places` (beam, token); return the beams' parents."""
        ended: list[Response] = []
        going: list[Response] = []
        parents: list[int] = []
        for rank, (logp, (parent, token)) in enumerate(zip(logps, places, strict=True)):
            response = Response([*self.alive[parent].ids, token], logp, token in stops)
            if response.finished:
                ended += [response] * (rank < self.beams)
            elif len(going) < self.beams:
                going.append(response)
                parents.append(parent)
        self.add(ended)
        self.alive = going
        return parents

    def add(self, responses: list[Response]) -> None:
        """Keep the best of these and of those found before."""
        possible = [r for r in responses if r.logp > -torch.inf]
        self.found = sorted([*self.found, *possible], key=lambda r: -r.mean)[: self.beams]

    def is_done(self) -> bool:
        return len(self.found) == self.beams and self.alive[0].mean <= self.found[-1].mean
