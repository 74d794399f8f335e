"""Memory that ends in a step: the same step in smaller pieces, or a sentence."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from steps import close, learner, learning_model, one_step, other_model
from tiny import sampler

from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.transcribe import encode_utterances
from audiorl.rl import passes
from audiorl.runtime.memory import Pieces

FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


def room_for(monkeypatch, rows: int, after: int = 0) -> list[int]:
    """Passes over more than some rows end in an error from call number `after` on; lists all."""
    original, seen = passes.response_logprobs, []

    def limited(lm, prefix, tokens, *others, **keys):
        seen.append(len(tokens))
        if len(tokens) > rows and len(seen) > after:
            raise torch.OutOfMemoryError(FULL)
        return original(lm, prefix, tokens, *others, **keys)

    monkeypatch.setattr(passes, "response_logprobs", limited)
    return seen


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"rl.kl_in_reward": True, "rl.beta": 0.1},
        {"rl.kl_in_reward": False, "rl.beta": 0.1, "rl.kl_estimator": "exact"},
        {"rl.num_iterations": 2, "rl.mini_batch_prompts": 3},
    ],
)
def test_a_step_without_room_is_the_same_in_smaller_pieces(
    utterances, monkeypatch, caplog, keys: dict
) -> None:
    reference = other_model() if "rl.beta" in keys else None
    expected, metrics, _ = one_step(utterances, keys, reference=reference)
    seen = room_for(monkeypatch, rows=8)
    with caplog.at_level(logging.WARNING):
        gradients, others, _ = one_step(utterances, keys, reference=reference)
    assert max(seen) > 8
    close(gradients, expected)
    assert {k: v for k, v in others.items() if "timing" not in k and "perf" not in k} == {
        k: pytest.approx(v, abs=1e-5)
        for k, v in metrics.items()
        if k in others and "timing" not in k and "perf" not in k
    }
    assert "Tried to allocate" in caplog.text
    assert "rl.micro_batch_tokens" in caplog.text


def test_what_a_failed_try_has_added_does_not_count(utterances, monkeypatch) -> None:
    """The first micro-batches of the update have left their gradient when the memory ends."""
    keys = {"rl.micro_batch_tokens": 100}
    expected, metrics, _ = one_step(utterances, keys)
    seen = room_for(monkeypatch, rows=4, after=1)
    gradients, others, _ = one_step(utterances, keys)
    assert seen[0] > 4 or len(seen) > 5
    close(gradients, expected)
    assert others["loss"] == pytest.approx(metrics["loss"], abs=1e-6)
    name = "sampling/sampling_logp_difference/mean"
    assert others[name] == pytest.approx(metrics[name], abs=1e-7)


def test_smaller_pieces_stay_for_the_steps_that_follow(utterances, monkeypatch) -> None:
    seen = room_for(monkeypatch, rows=8)
    model = learning_model()
    grpo = learner(model)
    grpo.step(0, utterances, 1.0)
    before = len(seen)
    grpo.step(1, utterances, 1.0)
    assert max(seen[before:]) <= 8


def test_one_group_without_room_is_a_sentence(utterances, monkeypatch) -> None:
    room_for(monkeypatch, rows=3)
    with pytest.raises(UserError, match=r"one item at a time.*lower rl.num_generations"):
        one_step(utterances)


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Pieces("a.key", 8, "advice").fit(work)
    assert calls == [1]


def test_a_rollout_without_room_is_drawn_in_pieces(utterances, monkeypatch) -> None:
    model = learning_model()
    conditions = encode_utterances(model, utterances)
    expected = sampler(model).groups(utterances, conditions, 3)
    greedy = sampler(model).greedy(conditions)
    original, seen = PolicyEngine.generate, []

    def limited(self, prefix, **keys):
        seen.append(len(prefix.embeds))
        if len(prefix.embeds) > 2:
            raise torch.OutOfMemoryError(FULL)
        return original(self, prefix, **keys)

    monkeypatch.setattr(PolicyEngine, "generate", limited)
    own = sampler(model)
    for found, wanted in (
        (own.groups(utterances, conditions, 3), expected),
        (own.greedy(conditions), greedy),
    ):
        assert torch.equal(found.tokens, wanted.tokens)
        assert torch.equal(found.mask, wanted.mask)
        assert torch.allclose(found.logps, wanted.logps, atol=1e-5)
    assert seen == [5, 2, 2, 1, 2, 2, 1]


def test_a_probe_finds_the_limit_and_changes_nothing(utterances, monkeypatch) -> None:
    keys = {"rl.beta": 0.1}
    expected, _, _ = one_step(utterances, keys, reference=other_model())
    seen = room_for(monkeypatch, rows=8)
    model = learning_model(keys)
    grpo = learner(model, reference=other_model())
    grpo.probe(utterances)
    assert max(seen) > 8 and not grpo.optimizer.gradients
    assert grpo.passes.pieces.most < math.inf
    seen.clear()
    grpo.step(0, utterances, 1.0)
    assert max(seen) <= 8
    close(grpo.optimizer.gradients[-1], expected)
