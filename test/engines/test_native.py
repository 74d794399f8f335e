"""The rollout engine against a slow loop, and against the log-probabilities of the update."""

from __future__ import annotations

import functools

import pytest
import scipy  # its `stats`, slow to import, come when first used
import torch
from tiny import generate, plain_lm, random_prefix, tiny_model
from torch import Tensor

from audiorl.engines.engine import Draws, Rollout
from audiorl.engines.sampling import Sampling, draw, warp
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import Prefix
from audiorl.rl.logprobs import response_logprobs

LENGTHS = [4, 13, 9]
NAMES = ["a", "b", "c"]
GROUP = 4
LIMIT = 12
SETTINGS = [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(temperature=1.2, top_k=7),
    Sampling(top_p=0.8),
    Sampling(greedy=True),
]


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def model(request) -> AudioLLM:
    """A random model that ends a response after some tokens, now and then."""
    return tiny_model({"llm.architecture": request.param}, spread=3.0)


def rows_of(prefix: Prefix, places: list[int]) -> Prefix:
    return Prefix(prefix.embeds[places], prefix.mask[places])


def sampled(
    model: AudioLLM,
    prefix: Prefix,
    sampling: Sampling,
    names: list[str] = NAMES,
    group: int = GROUP,
    limit: int = LIMIT,
    step: int = 0,
) -> Rollout:
    return generate(
        model,
        prefix,
        group=group,
        max_length=limit,
        sampling=sampling,
        uniforms=None if sampling.greedy else Draws(7, step, names).uniforms(group, limit),
    )


@torch.no_grad()
def slow_row(
    model: AudioLLM, prefix: Prefix, row: int, sampling: Sampling, uniforms: Tensor
) -> tuple[list[int], list[float], bool]:
    """One response without cache, batch or padding."""
    embed = model.llm.model.get_input_embeddings()
    context = prefix.embeds[row][prefix.mask[row]]
    ids, logps = [], []
    for t in range(len(uniforms)):
        logits = model.llm(context[None])[:, -1]
        logp = warp(logits, sampling, model.forbidden)
        chosen = logp.argmax(-1) if sampling.greedy else draw(logp, uniforms[None, t])
        ids.append(chosen.item())
        logps.append(logp[0, chosen].item())
        if ids[-1] == model.tokenizer.eos_id:
            return ids, logps, True
        context = torch.cat([context, embed(chosen)])
    return ids, logps, False


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_it_equals_a_slow_loop(model: AudioLLM, sampling: Sampling) -> None:
    prefix = random_prefix(32, LENGTHS)
    rollout = sampled(model, prefix, sampling)
    uniforms = Draws(7, 0, NAMES).uniforms(GROUP, LIMIT)
    ended = []
    for i in range(len(LENGTHS) * GROUP):
        ids, logps, finished = slow_row(model, prefix, i // GROUP, sampling, uniforms[i])
        assert rollout.tokens[i][rollout.mask[i]].tolist() == ids
        torch.testing.assert_close(
            rollout.logps[i][rollout.mask[i]], torch.tensor(logps), rtol=0, atol=1e-4
        )
        assert bool(rollout.finished[i]) == finished
        ended.append(len(ids))
    assert sampling != Sampling() or len(set(ended)) > 2  # rows left the batch at different times


def test_repetitions_are_drawn_again(model: AudioLLM) -> None:
    """A model that sticks to a token is made to go on, and the log-probabilities say how."""
    prefix, sampling = random_prefix(32, LENGTHS), Sampling(top_k=2)
    aware = Sampling(top_k=2, repetition_window=3, repetition_share=0.4)
    plain, rollout = (sampled(model, prefix, s) for s in (sampling, aware))
    assert torch.equal(rollout.tokens[:, :2], plain.tokens[:, :2])  # no token is there twice yet
    full_count = 0
    for i, (tokens, mask) in enumerate(zip(rollout.tokens, rollout.mask, strict=True)):
        ids = tokens[mask].tolist()
        context = prefix.embeds[i // GROUP][prefix.mask[i // GROUP]]
        embeds = torch.cat([context, model.llm.embed(torch.tensor(ids))])
        with torch.no_grad():
            logits = model.llm(embeds[None])[0, len(context) - 1 : -1]
        cut, full = (warp(logits, s, model.forbidden).exp() for s in (sampling, Sampling()))
        for t, token in enumerate(ids):
            recent = ids[max(0, t - 3) : t]
            repeated = [y for y in set(recent) if recent.count(y) >= 2]
            again = sum(cut[t, y].item() for y in repeated)
            kept = 0.0 if token in repeated else cut[t, token].item()
            expected = kept + again * full[t, token].item()
            assert rollout.logps[i, t].exp().item() == pytest.approx(expected, abs=1e-4)
            full_count += again > 0
    assert full_count > 5


def test_padding_and_masks(model: AudioLLM) -> None:
    rollout = sampled(model, random_prefix(32, LENGTHS), Sampling())
    eos, pad = model.tokenizer.eos_id, model.tokenizer.pad_id
    assert len(rollout) == len(LENGTHS) * GROUP
    assert rollout.tokens.shape == rollout.mask.shape == rollout.logps.shape
    assert rollout.mask.any(0).all()  # no column of padding alone
    assert 0 < rollout.finished.sum() < len(rollout)
    for tokens, mask, logps, finished in zip(
        rollout.tokens, rollout.mask, rollout.logps, rollout.finished, strict=True
    ):
        real = tokens[mask].tolist()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
        assert eos not in real[:-1]
        assert (real[-1] == eos) == bool(finished)
        assert finished or len(real) == LIMIT
        assert (tokens[~mask] == pad).all()
        assert (logps[~mask] == 0).all()
        assert not model.forbidden[real].any()


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_permuted_prompts_permute_the_results(model: AudioLLM, sampling: Sampling) -> None:
    prefix = random_prefix(32, LENGTHS)
    before = sampled(model, prefix, sampling)
    order = [2, 0, 1]
    after = sampled(model, rows_of(prefix, order), sampling, [NAMES[i] for i in order])
    rows = [i * GROUP + g for i in order for g in range(GROUP)]
    assert torch.equal(after.tokens, before.tokens[rows])
    assert torch.equal(after.mask, before.mask[rows])
    assert torch.equal(after.finished, before.finished[rows])
    torch.testing.assert_close(after.logps, before.logps[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_alone_as_in_a_batch(model: AudioLLM, sampling: Sampling) -> None:
    prefix = random_prefix(32, LENGTHS)
    together = sampled(model, prefix, sampling)
    for i, name in enumerate(NAMES):
        alone = sampled(model, rows_of(prefix, [i]), sampling, [name])
        width = alone.tokens.size(1)
        rows = slice(i * GROUP, (i + 1) * GROUP)
        assert torch.equal(alone.tokens, together.tokens[rows, :width])
        assert torch.equal(alone.mask, together.mask[rows, :width])
        assert not together.mask[rows, width:].any()


def test_a_larger_group_holds_the_smaller(model: AudioLLM) -> None:
    prefix = random_prefix(32, LENGTHS)
    large, small = (sampled(model, prefix, Sampling(), group=group) for group in (5, 2))
    for i in range(len(LENGTHS)):
        for g in range(2):
            one, other = large.tokens[i * 5 + g], small.tokens[i * 2 + g]
            assert one[large.mask[i * 5 + g]].tolist() == other[small.mask[i * 2 + g]].tolist()


def test_members_of_a_group_and_steps_differ(model: AudioLLM) -> None:
    prefix = random_prefix(32, LENGTHS)
    first, second = (sampled(model, prefix, Sampling(), step=step) for step in (0, 1))
    assert len({tuple(row.tolist()) for row in first.tokens}) > GROUP
    assert first.tokens.tolist() != second.tokens.tolist()
    assert torch.equal(first.tokens, sampled(model, prefix, Sampling(), step=0).tokens)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("sampling", SETTINGS[:-1], ids=str)
def test_logps_are_those_of_the_update(model: AudioLLM, sampling: Sampling, share: bool) -> None:
    prefix = random_prefix(32, LENGTHS)
    rollout = sampled(model, prefix, sampling)
    settings = {"sampling": sampling, "forbidden": model.forbidden, "share": share}
    logps = response_logprobs(model.llm, prefix, rollout.tokens, rollout.mask, **settings).logps
    torch.testing.assert_close(logps.detach(), rollout.logps, rtol=0, atol=1e-4)
    assert logps[rollout.mask].isfinite().all()


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_length_limit_cuts(model: AudioLLM, limit: int) -> None:
    prefix = random_prefix(32, LENGTHS)
    whole, cut = sampled(model, prefix, Sampling()), sampled(model, prefix, Sampling(), limit=limit)
    assert cut.tokens.size(1) == limit
    assert torch.equal(cut.tokens, whole.tokens[:, :limit])
    assert torch.equal(cut.finished, whole.finished & (whole.mask.sum(1) <= limit))


def test_it_stops_when_all_rows_have_ended(model: AudioLLM) -> None:
    """With every token but the end forbidden, one step suffices."""
    prefix = random_prefix(32, LENGTHS)
    forbidden = torch.ones_like(model.forbidden)
    forbidden[model.tokenizer.eos_id] = False
    rollout = generate(
        model,
        prefix,
        group=2,
        max_length=50,
        forbidden=forbidden,
        sampling=Sampling(),
        uniforms=Draws(0, 0, NAMES).uniforms(2, 50),
    )
    assert rollout.tokens.tolist() == [[model.tokenizer.eos_id]] * 6
    assert rollout.finished.all()
    assert (rollout.logps == 0).all()


def test_rows_that_ended_cost_nothing(model: AudioLLM, monkeypatch) -> None:
    """The LM reads as many tokens as were sampled and continued, and each prefix once, without
    much padding."""
    read = []
    forward = type(model.llm.model).forward

    def counting(self, *args, inputs_embeds: Tensor, **kwargs):
        read.append(tuple(inputs_embeds.shape[:2]))
        return forward(self, *args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(type(model.llm.model), "forward", counting)
    rollout = sampled(model, random_prefix(32, LENGTHS), Sampling())
    assert read[:3] == [(1, 13), (1, 9), (1, 4)]
    continued = rollout.mask.sum(1) - 1
    assert sum(rows for rows, _ in read[3:]) == continued.sum()
    assert all(width == 1 for _, width in read[3:])


def test_padding_may_be_the_end_token(model: AudioLLM) -> None:
    """As with pretrained tokenizers that have no padding of their own."""
    prefix, eos = random_prefix(32, LENGTHS), model.tokenizer.eos_id
    usual = sampled(model, prefix, Sampling())
    rollout = generate(
        model,
        prefix,
        group=GROUP,
        max_length=LIMIT,
        sampling=Sampling(),
        pad_id=eos,
        uniforms=Draws(7, 0, NAMES).uniforms(GROUP, LIMIT),
    )
    assert torch.equal(rollout.mask, usual.mask)
    assert torch.equal(rollout.tokens[usual.mask], usual.tokens[usual.mask])


def test_greedy_is_transformers(model: AudioLLM) -> None:
    prefix = random_prefix(32, LENGTHS)
    ours = sampled(model, prefix, Sampling(greedy=True), group=1)
    theirs = plain_lm(model.llm).generate(
        inputs_embeds=prefix.embeds,
        attention_mask=prefix.mask.long(),
        do_sample=False,
        max_new_tokens=LIMIT,
        eos_token_id=model.tokenizer.eos_id,
        pad_token_id=model.tokenizer.pad_id,
        suppress_tokens=model.forbidden.nonzero().squeeze(1).tolist(),
    )
    assert ours.tokens.tolist() == theirs[:, : ours.tokens.size(1)].tolist()


def test_sampling_leaves_the_global_generator_alone(model: AudioLLM) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    sampled(model, random_prefix(32, LENGTHS), Sampling())
    assert torch.equal(torch.rand(3), expected)


def probabilities_of_two(
    model: AudioLLM, prefix: Prefix, sampling: Sampling, forbidden: Tensor
) -> dict[tuple[int, ...], float]:
    """All responses of two tokens at most and their probabilities, by full forwards."""
    eos, embed = model.tokenizer.eos_id, model.llm.model.get_input_embeddings()

    def following(context: Tensor) -> Tensor:
        logits = model.llm(context[None])[0, -1:].double()
        logits = logits.masked_fill(forbidden, -torch.inf) / sampling.temperature
        chances, order = logits.softmax(-1).sort(descending=True)
        kept = torch.ones_like(chances, dtype=torch.bool)
        if sampling.top_k:
            kept[:, sampling.top_k :] = False
            chances = (chances * kept) / (chances * kept).sum()
        kept &= chances.cumsum(-1) - chances < sampling.top_p
        chances = chances * kept
        return torch.zeros_like(chances).scatter(-1, order, chances / chances.sum())[0]

    found = {}
    with torch.no_grad():
        first = following(prefix.embeds[0])
        for a in first.nonzero().flatten().tolist():
            if a == eos:
                found[(a,)] = first[a].item()
                continue
            second = following(torch.cat([prefix.embeds[0], embed(torch.tensor([a]))]))
            for b in second.nonzero().flatten().tolist():
                found[a, b] = (first[a] * second[b]).item()
    return found


@functools.cache
def fifty_thousand() -> Tensor:
    return Draws(3, 0, ["a"]).uniforms(50_000, 2)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(top_p=0.85), Sampling(temperature=1.3, top_k=4)],
    ids=str,
)
def test_50000_responses_match_the_lm(model: AudioLLM, sampling: Sampling) -> None:
    """Chi-square of whole responses, and the update scores the distribution that was drawn from."""
    count, words = len(fifty_thousand()), [3, 5, 7, 9, 11, 12]
    forbidden = torch.ones_like(model.forbidden)
    forbidden[[model.tokenizer.eos_id, *words]] = False
    prefix = random_prefix(32, [5])
    rollout = generate(
        model,
        prefix,
        group=count,
        max_length=2,
        forbidden=forbidden,
        sampling=sampling,
        uniforms=fifty_thousand(),
    )
    expected = probabilities_of_two(model, prefix, sampling, forbidden)
    assert sum(expected.values()) == pytest.approx(1)
    tokens, counts = rollout.tokens.where(rollout.mask, -1).unique(dim=0, return_counts=True)
    mask, drawn = tokens >= 0, [tuple(t for t in row if t >= 0) for row in tokens.tolist()]
    assert set(drawn) <= expected.keys()  # nothing outside of the support
    seen = dict.fromkeys(expected, 0) | dict(zip(drawn, counts.tolist(), strict=True))
    frequent = [r for r, p in expected.items() if p * count >= 5]
    observed = [seen[r] for r in frequent]
    wanted = [expected[r] * count for r in frequent]
    observed.append(count - sum(observed))
    wanted.append(count - sum(wanted))
    if wanted[-1] < 5:
        observed[-2:], wanted[-2:] = [sum(observed[-2:])], [sum(wanted[-2:])]
    assert len(frequent) > 5
    assert scipy.stats.chisquare(observed, wanted).pvalue > 0.01
    scored = response_logprobs(
        model.llm,
        prefix,
        tokens.clamp(min=0),
        mask,
        sampling=sampling,
        forbidden=forbidden,
        share=True,
    ).logps
    probabilities = torch.tensor([expected[r] for r in drawn], dtype=torch.float32)
    torch.testing.assert_close(scored.sum(1).exp().detach(), probabilities, rtol=1e-3, atol=1e-6)
