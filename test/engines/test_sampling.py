"""What is drawn is what is scored, and it is the distribution that was asked for."""

from __future__ import annotations

import pytest
import scipy  # its `stats`, slow to import, come when first used
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from audiorl.engines.engine import Draws
from audiorl.engines.sampling import Sampling, draw, repetition_aware, warp

VOCAB = 40


def some_logits(rows: int = 1, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def no_tokens() -> torch.Tensor:
    return torch.zeros(VOCAB, dtype=torch.bool)


def tokens_forbidden(*ids: int) -> torch.Tensor:
    forbidden = no_tokens()
    forbidden[list(ids)] = True
    return forbidden


def slow_probabilities(logits: list[float], sampling: Sampling, forbidden: set[int]) -> list[float]:
    """Probabilities by the definition: temperature, then the k likeliest, then the nucleus."""
    double = torch.tensor(logits, dtype=torch.float64) / sampling.temperature
    weights = {i: double[i].exp().item() for i in range(len(logits)) if i not in forbidden}
    ranked = sorted(weights, key=lambda i: -weights[i])
    if sampling.top_k:
        ranked = ranked[: sampling.top_k]
    total, mass, nucleus = sum(weights[i] for i in ranked), 0.0, []
    for i in ranked:
        nucleus.append(i)
        mass += weights[i] / total
        if mass >= sampling.top_p:
            break
    total = sum(weights[i] for i in nucleus)
    return [weights[i] / total if i in nucleus else 0.0 for i in range(len(logits))]


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(top_k=5),
    Sampling(top_k=1),
    Sampling(top_k=1000),
    Sampling(top_p=0.9),
    Sampling(top_p=0.05),
    Sampling(temperature=1.5, top_k=12, top_p=0.6),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_the_distribution_is_that_of_the_definition(sampling: Sampling) -> None:
    forbidden = tokens_forbidden(0, 17)
    for seed in range(20):
        logits = some_logits(seed=seed)
        expected = slow_probabilities(logits[0].tolist(), sampling, {0, 17})
        actual = warp(logits, sampling, forbidden)[0]
        torch.testing.assert_close(
            actual.exp(), torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-7
        )
        assert actual.dtype == torch.float32


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_the_support_is_that_of_transformers(sampling: Sampling) -> None:
    logits = some_logits(200) / sampling.temperature
    if sampling.top_k:
        logits = TopKLogitsWarper(sampling.top_k)(None, logits)
    if sampling.top_p < 1:
        logits = TopPLogitsWarper(sampling.top_p)(None, logits)
    actual = warp(some_logits(200), sampling, no_tokens())
    assert torch.equal(actual.isfinite(), logits.isfinite())
    torch.testing.assert_close(actual, logits.log_softmax(-1))


def test_bfloat16_logits_are_scored_in_single_precision() -> None:
    logits = some_logits(3).bfloat16()
    actual = warp(logits, Sampling(), no_tokens())
    torch.testing.assert_close(actual, logits.float().log_softmax(-1))


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.3, top_k=20, top_p=0.8)],
    ids=str,
)
def test_50000_draws_match_the_softmax(sampling: Sampling) -> None:
    """Chi-square against probabilities in double precision; all tokens within the support count."""
    logits = some_logits(seed=3, scale=1.0)
    forbidden = tokens_forbidden(0, 5)
    count = 50_000
    uniforms = torch.from_numpy(Draws(1, 2, ["u"]).uniforms(50, 1000).numpy().reshape(-1))
    logp = warp(logits, sampling, forbidden).expand(count, -1)
    seen = torch.bincount(draw(logp, uniforms), minlength=VOCAB).double()
    expected = count * torch.tensor(slow_probabilities(logits[0].tolist(), sampling, {0, 5}))
    inside = expected > 0
    assert seen[~inside].sum() == 0
    assert inside.sum() == (VOCAB - 2 if sampling.top_k == 0 else inside.sum())
    scaled = expected[inside].double() * (count / expected[inside].double().sum())
    assert scipy.stats.chisquare(seen[inside], scaled).pvalue > 0.01


def test_the_test_above_notices_a_wrong_temperature() -> None:
    logits = some_logits(seed=3, scale=1.0)
    uniforms = Draws(1, 2, ["u"]).uniforms(50, 1000).view(-1)
    logp = warp(logits, Sampling(temperature=1.05), no_tokens()).expand(50_000, -1)
    seen = torch.bincount(draw(logp, uniforms), minlength=VOCAB).double()
    expected = logits[0].double().softmax(-1) * 50_000
    assert scipy.stats.chisquare(seen, expected).pvalue < 1e-4


def test_draws_at_the_ends_stay_in_the_support() -> None:
    """Random numbers of 0 and next to 1, where the first and the last tokens are forbidden."""
    forbidden = tokens_forbidden(0, 1, 2, VOCAB - 1, VOCAB - 2)
    logp = warp(some_logits(4), Sampling(), forbidden)
    ends = torch.tensor([0.0, 1 - 2**-53, 1.0, 2**-60], dtype=torch.float64)
    drawn = draw(logp, ends)
    assert not forbidden[drawn].any()
    assert drawn.tolist() == [3, VOCAB - 3, VOCAB - 3, 3]
    only = torch.full((2, VOCAB), -torch.inf)
    only[:, 7] = 0.0
    assert draw(only, torch.tensor([0.0, 0.999999])).tolist() == [7, 7]


def test_forbidden_tokens_are_never_drawn() -> None:
    forbidden = tokens_forbidden(*range(0, VOCAB, 2))
    logits = some_logits(2000)
    logits[:, ::2] += 50
    drawn = draw(warp(logits, Sampling(), forbidden), Draws(0, 0, ["a"]).uniforms(2000, 1)[:, 0])
    assert not forbidden[drawn].any()


def test_a_draw_inverts_the_distribution() -> None:
    logp = torch.tensor([0.2, 0.0, 0.5, 0.3]).log().expand(5, -1)
    uniforms = torch.tensor([0.1, 0.21, 0.69, 0.71, 0.99], dtype=torch.float64)
    assert draw(logp, uniforms).tolist() == [0, 2, 2, 3, 3]


def test_random_numbers_belong_to_the_utterance() -> None:
    """Neither its company nor its place, nor the length of the table, changes what it draws."""
    table = Draws(3, 5, ["a", "b", "c"]).uniforms(4, 10)
    assert table.shape == (12, 10)
    assert table.dtype == torch.float64
    assert 0 <= table.min() < table.max() < 1
    moved = Draws(3, 5, ["c", "x", "a"]).uniforms(4, 10)
    assert torch.equal(moved[:4], table[8:])
    assert torch.equal(moved[8:], table[:4])
    assert torch.equal(Draws(3, 5, ["b"]).uniforms(2, 6), table[4:6, :6])
    torch.manual_seed(0)
    assert torch.equal(Draws(3, 5, ["a", "b", "c"]).uniforms(4, 10), table)


def test_random_numbers_differ_by_everything_else() -> None:
    table = Draws(3, 5, ["a"]).uniforms(2, 10)
    rows = [
        table[0],
        table[1],
        Draws(3, 5, ["b"]).uniforms(1, 10)[0],
        Draws(3, 6, ["a"]).uniforms(1, 10)[0],
        Draws(4, 5, ["a"]).uniforms(1, 10)[0],
        Draws(5, 3, ["a"]).uniforms(1, 10)[0],
    ]
    for i, row in enumerate(rows):
        assert not any(torch.equal(row, other) for other in rows[i + 1 :])


def test_random_numbers_are_uniform_and_independent() -> None:
    table = Draws(0, 0, [f"utt{i}" for i in range(100)]).uniforms(4, 25)  # 10,000 numbers
    counts = torch.histc(table.float().view(-1), 20, 0, 1)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 0.001
    neighbours = torch.corrcoef(torch.stack([table[:-1, 0], table[1:, 0]]))[0, 1]
    assert abs(neighbours) < 0.2


@pytest.mark.parametrize("written", [[], [3, 3, 5], [9, 3, 5, 5, 1], [5] * 4, [3, 3, 5, 5]])
def test_repetition_aware_sampling_draws_as_it_is_defined(written: list[int]) -> None:
    """Draw from the nucleus; draw again, from everything, what fills half of the last 4."""
    sampling = Sampling(top_p=0.7, repetition_window=4, repetition_share=0.5)
    logits, count = torch.zeros(1, VOCAB), 50_000
    logits[0, [3, 5, 1, 8]] = torch.tensor([5.0, 4.5, 3.0, 3.0])
    cut, full = (warp(logits, s, tokens_forbidden(2)) for s in (sampling, Sampling()))
    generator = torch.Generator().manual_seed(0)
    first = torch.multinomial(cut[0].exp(), count, replacement=True, generator=generator)
    second = torch.multinomial(full[0].exp(), count, replacement=True, generator=generator)
    again = torch.tensor([written[-4:].count(i) / 4 >= 0.5 for i in range(VOCAB)])[first]
    drawn = torch.where(again, second, first).bincount(minlength=VOCAB)
    row = torch.tensor([written], dtype=torch.long)
    logp = repetition_aware(cut, full, row, sampling)[0]
    assert logp.exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert logp[2] == -torch.inf
    expected = logp.exp().double() * count
    assert (drawn[expected == 0] == 0).all()
    likely = expected > 5
    observed = [*drawn[likely].tolist(), drawn[~likely].sum().item()]
    wanted = [*expected[likely].tolist(), expected[~likely].sum().item()]
    pairs = [(o, w) for o, w in zip(observed, wanted, strict=True) if w > 0]
    scale = count / sum(w for _, w in pairs)
    assert scipy.stats.chisquare([o for o, _ in pairs], [w * scale for _, w in pairs]).pvalue > 1e-3
    if not any(written[-4:].count(i) > 1 for i in (3, 5)):
        torch.testing.assert_close(logp.exp(), cut[0].exp())
