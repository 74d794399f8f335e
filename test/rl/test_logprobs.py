"""Log-probabilities and entropies against the LM's own logits, and the gradient they carry."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny import random_prefix, tiny_model
from torch import Tensor

from audiorl.engines.sampling import Sampling
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import Prefix
from audiorl.rl import logprobs
from audiorl.rl.advantages import Rewards, advantages
from audiorl.rl.logprobs import prefix_is_shared, response_logprobs
from audiorl.rl.losses import Clip, Update, constant_length, ppo

LENGTHS, GROUP = [3, 8, 5], 4


@pytest.fixture(scope="module")
def model() -> AudioLLM:
    return tiny_model(spread=2.0)


def some_responses(rows: int = len(LENGTHS) * GROUP, width: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(3, 30, (rows, width), generator=generator)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    return tokens, torch.arange(width) < lengths[:, None]


def score(
    model: AudioLLM,
    prefix: Prefix,
    tokens: Tensor,
    mask: Tensor,
    share: bool = False,
    sampling=None,
):
    scored = response_logprobs(
        model.llm,
        prefix,
        tokens,
        mask,
        sampling=sampling or Sampling(),
        forbidden=model.forbidden,
        share=share,
    )
    return scored.logps, scored.entropy


def gradients(model: AudioLLM, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.llm.parameters() if p.grad is not None]


def close(actual: Tensor, expected: Tensor) -> None:
    limit = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.4, top_k=20)],
    ids=str,
)
def test_they_are_those_of_the_whole_softmax(model, share: bool, sampling: Sampling) -> None:
    prefix, (tokens, mask) = random_prefix(32, LENGTHS), some_responses()
    hidden = model.llm.response_states(prefix, tokens, share=False)
    logits = model.llm.lm_head(hidden)[mask] / sampling.temperature  # [N, V]
    logits = logits.masked_fill(model.forbidden, -torch.inf)
    if sampling.top_k:  # the drawn token is never cut, nor are the likeliest
        kept = logits >= logits.topk(sampling.top_k).values[:, -1:]
        kept = kept.scatter(1, tokens[mask][:, None], True)
        logits = logits.masked_fill(~kept, -torch.inf)
    logp = logits.log_softmax(-1)
    taken = torch.zeros(tokens.shape).masked_scatter(
        mask, logp.gather(1, tokens[mask][:, None]).squeeze(1)
    )
    actual, entropy = score(model, prefix, tokens, mask, share, sampling)
    assert actual.isfinite().all()
    torch.testing.assert_close(actual, taken, rtol=0, atol=1e-5)
    assert (entropy[~mask] == 0).all()
    plain = torch.distributions.Categorical(logits=logp).entropy()
    torch.testing.assert_close(entropy[mask], plain, rtol=0, atol=1e-5)
    weights = torch.randn(actual.shape, generator=torch.Generator().manual_seed(8))
    ours = gradients(model, (actual * weights).sum())
    theirs = gradients(model, (taken * weights).sum())
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_chunks_do_not_matter(model, chunk: int, monkeypatch) -> None:
    prefix, (tokens, mask) = random_prefix(32, LENGTHS), some_responses()
    before, entropy = score(model, prefix, tokens, mask)
    expected = gradients(model, before.square().sum())
    monkeypatch.setattr(logprobs, "CHUNK", chunk)
    after, other_entropy = score(model, prefix, tokens, mask)
    close(after, before)
    close(other_entropy, entropy)
    for one, other in zip(gradients(model, after.square().sum()), expected, strict=True):
        close(one, other)


def test_the_vocabulary_is_touched_for_real_tokens_in_chunks_only(model, monkeypatch) -> None:
    sizes = []
    original = logprobs.warp

    def watching(logits: Tensor, *rest, **named) -> Tensor:
        sizes.append(tuple(logits.shape))
        return original(logits, *rest, **named)

    monkeypatch.setattr(logprobs, "warp", watching)
    monkeypatch.setattr(logprobs, "CHUNK", 10)
    tokens, mask = some_responses()
    with torch.no_grad():
        score(model, random_prefix(32, LENGTHS), tokens, mask)
    vocab = model.tokenizer.vocab_size
    assert all(rows <= 10 and width == vocab for rows, width in sizes)
    assert sum(rows for rows, _ in sizes) == int(mask.sum())


def test_nothing_to_score(model) -> None:
    """All rows masked, as when every sample of a micro-batch is unscorable."""
    prefix, (tokens, mask) = random_prefix(32, LENGTHS), some_responses()
    logps, entropy = score(model, prefix, tokens, torch.zeros_like(mask))
    assert (logps == 0).all()
    assert (entropy == 0).all()
    assert all(not g.any() for g in gradients(model, logps.sum()))


def test_the_gate_of_sharing() -> None:
    """Shared where the plain path reads 1.3 times as many tokens: G(P + R) against P + GR."""
    for length, response, group in [(512, 32, 8), (100, 40, 8), (60, 250, 8), (20, 10, 2)]:
        ratio = group * (length + response) / (length + group * response)
        assert prefix_is_shared("auto", length, group, response) == (ratio >= 1.3)
        assert prefix_is_shared("always", length, group, response)
        assert not prefix_is_shared("never", length, group, response)


def test_the_policy_gradient_of_an_lm_is_that_of_its_expected_reward() -> None:
    """An LM that may say `a` or end, two tokens at most: all groups of 2 can be enumerated.

    The gradient of the loss, averaged over the groups, against the slope of the expected reward by
    finite differences along a random direction of all its weights.
    """
    model = tiny_model(spread=3.0)
    end, a = model.tokenizer.eos_id, 7
    forbidden = torch.ones_like(model.forbidden)
    forbidden[[end, a]] = False
    responses = torch.tensor([[end, end], [a, end], [a, a]])
    mask = torch.tensor([[True, False], [True, True], [True, True]])
    rewards = torch.tensor([0.0, 1.0, 0.3])
    prefix = random_prefix(32, [6])

    def logps() -> Tensor:
        found = response_logprobs(
            model.llm,
            prefix,
            responses,
            mask,
            sampling=Sampling(temperature=1.5),
            forbidden=forbidden,
            share=True,
        ).logps
        return found  # [3, 2]

    def expected_reward() -> float:
        with torch.no_grad():
            return (logps().double().sum(1).exp() * rewards).sum().item()

    now = logps()
    probabilities = now.detach().sum(1).exp()
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert probabilities.min() > 0.03
    total = torch.zeros(())
    for pair in itertools.product(range(3), repeat=2):
        rows = list(pair)
        taught = advantages(Rewards(rewards[None, rows]), "group", "none").view(-1, 1)
        ratio = (now[rows] - now[rows].detach()).exp()
        loss, _ = ppo(ratio, now[rows], taught, Clip())
        weights = constant_length(mask[rows], Update(int(mask[rows].sum()), 2, 2, 2))
        total = total + probabilities[rows].prod() * (loss * weights).sum()
    parameters = list(model.llm.parameters())
    gradient = torch.autograd.grad(total, parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=generator) for p in parameters]
    slope = sum(
        (g * d).sum().item() for g, d in zip(gradient, direction, strict=True) if g is not None
    )
    step = 1e-3

    def shifted(amount: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(amount * d)
        return expected_reward()

    upper, lower = shifted(step), shifted(-2 * step)
    true = (upper - lower) / (2 * step)
    # dr_grpo divides by the length limit, 2; the mean includes the sample itself: (G - 1) / G.
    assert -slope * 2 * 2 == pytest.approx(true, rel=0.02)
    assert abs(true) > 0.05
