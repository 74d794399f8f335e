"""The contract of an engine: each function takes a factory of engines and a case, and asserts.

An engine of yours passes when every function here does, for your policies: see test_contract.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from audiorl.engines.engine import Draws, Engine, Rollout
from audiorl.engines.sampling import Sampling, warp
from audiorl.models.language_model import Prefix
from audiorl.models.policy import Policy
from audiorl.rl.logprobs import response_logprobs

Factory = Callable[[Policy], Engine]
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(temperature=1.2, top_k=7),
    Sampling(top_p=0.8),
    Sampling(temperature=0.9, top_k=9, top_p=0.9),
)
GREEDY = Sampling(greedy=True)
HOT = Sampling(temperature=2.0)  # a trained model, too, draws unlike responses
GROUP = 4
LIMIT = 10
ROUNDING = {"rtol": 0, "atol": 1e-4}


@dataclass
class Case:
    """A policy of random weights and at least three inputs of unlike length."""

    policy: Policy
    inputs: list

    def prefix(self, places: Iterable[int] | None = None) -> Prefix:
        """Return the prefix of some inputs, as the policy has it now."""
        places = range(len(self.inputs)) if places is None else places
        with torch.no_grad():
            return self.policy.prefix(self.policy.encode([self.inputs[i] for i in places]))

    def names(self, places: Iterable[int] | None = None) -> list[str]:
        places = range(len(self.inputs)) if places is None else places
        return [f"utterance-{i}" for i in places]


def sample(
    engine: Engine,
    case: Case,
    sampling: Sampling = SAMPLINGS[0],
    places: Iterable[int] | None = None,
    *,
    step: int = 3,
    group: int = GROUP,
    max_length: int = LIMIT,
    **options: bool,
) -> Rollout:
    draws = None if sampling.greedy else Draws(7, step, case.names(places))
    return engine.generate(
        case.prefix(places),
        group=group,
        max_length=max_length,
        sampling=sampling,
        draws=draws,
        **options,
    )


def responses(rollout: Rollout) -> Iterator[list[int]]:
    for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True):
        yield tokens[mask].tolist()


def update_logps(case: Case, rollout: Rollout, sampling: Sampling) -> Tensor:
    policy = case.policy
    with torch.no_grad():
        return response_logprobs(
            policy.llm,
            case.prefix(),
            rollout.tokens,
            rollout.mask,
            sampling=sampling,
            forbidden=policy.forbidden,
            share=False,
        ).logps


def logps_are_those_of_the_update(make: Factory, case: Case, sampling: Sampling) -> None:
    rollout = sample(make(case.policy), case, sampling)
    assert torch.isfinite(rollout.logps).all()
    torch.testing.assert_close(rollout.logps, update_logps(case, rollout, sampling), **ROUNDING)


def greedy_takes_the_best_token(make: Factory, case: Case) -> None:
    policy, rollout = case.policy, sample(make(case.policy), case, GREEDY, group=1)
    with torch.no_grad():
        hidden = policy.llm.response_states(case.prefix(), rollout.tokens, share=False)
        best = warp(policy.llm.logits(hidden[rollout.mask]), GREEDY, policy.forbidden).amax(-1)
    torch.testing.assert_close(rollout.logps[rollout.mask], best, **ROUNDING)
    torch.testing.assert_close(rollout.logps, update_logps(case, rollout, GREEDY), **ROUNDING)


def responses_end_at_any_stop_id(make: Factory, case: Case) -> None:
    """Also the shape of a rollout: mask, padding, finished, and the longest a response may be."""
    policy, before = case.policy, case.policy.stop_ids
    drawn = responses(sample(make(policy), case, HOT))
    plain = [i for ids in drawn for i in ids if i not in before]
    ranked = sorted(set(plain), key=lambda i: (plain.count(i), i))
    policy.stop_ids = (*before, ranked[len(ranked) // 2], ranked[-2])
    try:
        rollout = sample(make(policy), case, HOT)
    finally:
        stops, policy.stop_ids = policy.stop_ids, before
    rows = len(case.inputs) * GROUP
    assert len(rollout) == rows and rollout.finished.shape == (rows,)
    assert rollout.tokens.shape == rollout.mask.shape == rollout.logps.shape
    assert rollout.tokens.size(1) <= LIMIT and rollout.mask.any(0).all()
    lasts = set()
    for ids, mask, finished in zip(
        responses(rollout), rollout.mask.tolist(), rollout.finished.tolist(), strict=True
    ):
        assert mask == sorted(mask, reverse=True) and any(mask)
        assert not set(stops) & set(ids[:-1])
        assert finished == (ids[-1] in stops)
        assert finished or len(ids) == LIMIT
        lasts.add(ids[-1])
    assert len(lasts & set(stops)) > 1 and len(set(rollout.mask.sum(1).tolist())) > 1
    padding = rollout.tokens[~rollout.mask]
    assert ((padding >= 0) & (padding < policy.llm.vocab_size)).all()
    assert (rollout.logps[~rollout.mask] == 0).all()


def the_longest_response_is_cut(make: Factory, case: Case) -> None:
    whole, stops = sample(make(case.policy), case, HOT), set(case.policy.stop_ids)
    assert whole.mask.sum(1).max() > 3
    for limit in (1, 3):
        rollout = sample(make(case.policy), case, HOT, max_length=limit)
        assert [ids[:limit] for ids in responses(whole)] == list(responses(rollout))
        done = [not stops.isdisjoint(ids) for ids in responses(rollout)]
        assert rollout.finished.tolist() == done


def forbidden_ids_are_never_sampled(make: Factory, case: Case) -> None:
    policy, before = case.policy, case.policy.forbidden.clone()
    allowed = [i for i in (~before).nonzero().flatten().tolist() if i not in policy.stop_ids]
    policy.forbidden[allowed[::2]] = True
    try:
        for sampling in (*SAMPLINGS, GREEDY):
            rollout = sample(make(policy), case, sampling)
            assert not policy.forbidden[rollout.tokens[rollout.mask]].any()
            logps = update_logps(case, rollout, sampling)
            torch.testing.assert_close(rollout.logps, logps, **ROUNDING)
    finally:
        policy.forbidden.copy_(before)


def draws_decide_alone(make: Factory, case: Case) -> None:
    """Equal draws give equal responses, in any batch and order, and after other rollouts."""
    engine, places = make(case.policy), list(range(len(case.inputs)))
    for sampling in SAMPLINGS:
        before = list(responses(sample(engine, case, sampling)))
        torch.rand(1)
        assert list(responses(sample(engine, case, sampling))) == before
        for others in (places[::-1], places[1:2]):
            expected = [ids for i in others for ids in before[i * GROUP : (i + 1) * GROUP]]
            assert list(responses(sample(engine, case, sampling, others))) == expected
    one = list(responses(sample(engine, case, HOT)))
    assert list(responses(sample(engine, case, HOT, step=4))) != one
    assert len({tuple(ids) for ids in one}) > len(case.inputs)  # members draw for themselves


def a_greedy_row_follows_each_group(make: Factory, case: Case) -> None:
    engine = make(case.policy)
    greedy = list(responses(sample(engine, case, GREEDY, group=1)))
    both = sample(engine, case, with_greedy=True)
    rows = list(responses(both))
    assert len(rows) == len(case.inputs) * (GROUP + 1)
    assert rows[GROUP :: GROUP + 1] == greedy
    drawn = [ids for place, ids in enumerate(rows) if place % (GROUP + 1) < GROUP]
    assert drawn == list(responses(sample(engine, case)))
    logps = update_logps(case, both, SAMPLINGS[0])
    torch.testing.assert_close(both.logps, logps, **ROUNDING)


def sync_takes_all_weights(make: Factory, case: Case) -> None:
    """All parameters are perturbed, and each alone (of the layers, the first one's).

    The engine then samples from what the policy has become.
    """
    engine, policy = make(case.policy), case.policy
    saved = {name: p.detach().clone() for name, p in policy.llm.named_parameters()}
    generator = torch.Generator().manual_seed(11)
    before = sample(engine, case)
    try:
        alone = [[name] for name in saved if not re.search(r"\.[1-9]\d*\.", name)]
        for chosen in [*alone, list(saved)]:
            with torch.no_grad():
                for name, parameter in policy.llm.named_parameters():
                    size = 0.3 * saved[name].float().square().mean().sqrt().clamp(min=0.1).cpu()
                    noise = size * torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(saved[name] + noise.to(parameter) * (name in chosen))
            engine.sync()
            rollout = sample(engine, case)
            logps = update_logps(case, rollout, SAMPLINGS[0])
            torch.testing.assert_close(rollout.logps, logps, **ROUNDING)
        assert list(responses(rollout)) != list(responses(before))
    finally:
        with torch.no_grad():
            for name, parameter in policy.llm.named_parameters():
                parameter.copy_(saved[name])


PLAIN = (
    greedy_takes_the_best_token,
    responses_end_at_any_stop_id,
    the_longest_response_is_cut,
    forbidden_ids_are_never_sampled,
    draws_decide_alone,
    a_greedy_row_follows_each_group,
    sync_takes_all_weights,
)
