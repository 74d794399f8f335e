"""Groups of samples: the hypotheses of an utterance are those of its own audio."""

from __future__ import annotations

import pytest
import torch
from tiny import sampler, sentences, tiny_model, write_set

from audiorl.infer.transcribe import encode_utterances
from audiorl.rl.groups import read_text, rl_sampling


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "rl", sentences(4, seed=11))


def test_samples_follow_the_rows_of_the_rollout(utterances) -> None:
    model = tiny_model({"rl.num_generations": 3}, spread=3.0)
    frames = encode_utterances(model, utterances)
    rollout = sampler(model).groups(utterances, frames, step=2)
    samples = read_text(model.tokenizer)(utterances, rollout)
    assert len(rollout) == len(samples) == 12
    assert [s.utterance for s in samples] == [u for u in utterances for _ in range(3)]
    for sample, tokens, mask, finished in zip(
        samples, rollout.tokens, rollout.mask, rollout.finished, strict=True
    ):
        assert sample.text == model.tokenizer.decode(tokens[mask].tolist())
        assert sample.finished == bool(finished)
    assert len({s.text for s in samples}) > 4


def test_permuted_utterances_permute_the_samples_and_nothing_else(utterances) -> None:
    model = tiny_model({"rl.num_generations": 3}, spread=3.0)

    def sampled(order: list[int], step: int = 2) -> dict[str, list[str]]:
        chosen = [utterances[i] for i in order]
        rollout = sampler(model).groups(chosen, encode_utterances(model, chosen), step)
        found: dict[str, list[str]] = {}
        for s in read_text(model.tokenizer)(chosen, rollout):
            found.setdefault(s.utterance.id, []).append(s.text)
        return found

    before = sampled([0, 1, 2, 3])
    for order in ([3, 1, 0, 2], [2], [1, 3]):
        after = sampled(order)
        assert after == {utterances[i].id: before[utterances[i].id] for i in order}
    assert sampled([0, 1, 2, 3], step=3) != before


def test_what_is_heard_matters(utterances) -> None:
    """With the frames of another utterance, an utterance draws other hypotheses."""
    model = tiny_model({"rl.num_generations": 4}, spread=3.0)
    frames = encode_utterances(model, utterances)
    own = sampler(model).groups(utterances, frames, step=0)
    others = sampler(model).groups(utterances, frames[::-1], step=0)
    assert own.tokens.tolist() != others.tokens.tolist()


@pytest.mark.parametrize("keys", [{}, {"rl.temperature": 2.0}, {"rl.top_k": 3, "rl.top_p": 0.8}])
def test_a_greedy_response_behind_each_group(utterances, keys: dict) -> None:
    model = tiny_model(keys, spread=3.0)
    group = model.recipe.rl.num_generations
    frames = encode_utterances(model, utterances)
    read = read_text(model.tokenizer)
    both = read(utterances, sampler(model).groups(utterances, frames, 3, with_greedy=True))
    assert both[group :: group + 1] == read(utterances, sampler(model).greedy(frames))
    assert [sample for i, sample in enumerate(both) if (i + 1) % (group + 1)] == read(
        utterances, sampler(model).groups(utterances, frames, 3)
    )


def test_the_distribution_is_that_of_the_config() -> None:
    model = tiny_model({"rl.temperature": 0.5, "rl.top_k": 4, "rl.top_p": 0.7})
    sampling = rl_sampling(model.recipe.rl)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 4, 0.7)
    assert not sampling.greedy
    assert isinstance(model.forbidden, torch.Tensor)
