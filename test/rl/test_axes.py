"""Each choice on each axis through whole steps: equal to slow code, off-policy and on."""

from __future__ import annotations

import math

import pytest
import torch
from steps import (
    TWO,
    close,
    foreign_engine,
    learner,
    learning_model,
    one_step,
    other_model,
    several_updates,
    slow_updates,
    some_reward,
)

from audiorl.rewards import Sample
from audiorl.rl import grpo

AXES = {
    "mean of responses": {"rl.loss_type": "grpo"},
    "mean of groups": {"rl.loss_type": "bnpo"},
    "mean of sums": {"rl.loss_type": "seq-mean-token-sum", "rl.scale_rewards": "batch"},
    "constant length": {"rl.loss_type": "dr_grpo", "rl.scale_rewards": "none"},
    "clip-higher": {"rl.epsilon": 0.1, "rl.epsilon_high": 0.4},
    "dual clip": {"rl.delta": 1.25},
    "dual clip of sequences": {"rl.delta": 1.25, "rl.importance_sampling_level": "sequence"},
    "sequences, mean of tokens": {"rl.importance_sampling_level": "sequence"},
    "cispo by sequence": {
        "rl.policy_loss": "cispo",
        "rl.epsilon_high": 1.1,
        "rl.importance_sampling_level": "sequence",
    },
    "sapo, mean of tokens": {"rl.policy_loss": "sapo", "rl.sapo_temperature_neg": 2.0},
    "greedy, whitened": {"rl.baseline": "greedy", "rl.scale_rewards": "whiten"},
    "leave one out, by group": {"rl.baseline": "leave_one_out"},
    "by step, by its deviation": {"rl.baseline": "batch", "rl.scale_rewards": "batch"},
    "k2": {"rl.beta": 0.3, "rl.kl_estimator": "k2"},
    "k3": {"rl.beta": 0.3, "rl.kl_estimator": "k3", "rl.loss_type": "grpo"},
    "exact": {"rl.beta": 0.3, "rl.kl_estimator": "exact"},
    "k1 in the reward": {"rl.beta": 0.3, "rl.kl_estimator": "k1", "rl.kl_in_reward": True},
    "entropy": {"rl.entropy_coef": 0.2, "rl.loss_type": "dr_grpo"},
    "entropy is a burden": {"rl.entropy_coef": -0.2, "rl.temperature": 1.4},
    "correction of tokens": {"rl.rollout_correction": "token"},
    "correction of sequences": {
        "rl.rollout_correction": "sequence",
    },
    "correction and k1 in the reward": {
        "rl.rollout_correction": "token",
        "rl.beta": 0.3,
        "rl.kl_estimator": "k1",
        "rl.kl_in_reward": True,
    },
    "finished ones by sequence": {
        "rl.mask_truncated_completions": True,
        "rl.max_completion_length": 12,
        "rl.importance_sampling_level": "sequence",
        "rl.loss_type": "grpo",
        "rl.mini_batch_prompts": 0,
    },
    "overlong": {"rl.overlong_buffer": 5},
}


def mostly_scorable(samples: list[Sample]) -> list[float | None]:
    """Without the third sample and its like; greedy hypotheses, one a prompt, all have theirs."""
    values, greedy = some_reward(samples), len(samples) == 3
    return [None if i % 5 == 2 and not greedy else value for i, value in enumerate(values)]


@pytest.mark.parametrize("axis", AXES)
def test_updates_are_the_slow_ones(axis: str, utterances, monkeypatch) -> None:
    """Two passes in two mini-batches, on what an engine that is off has sampled."""
    foreign_engine(monkeypatch)
    monkeypatch.setattr(grpo, "CORRECTION_CAP", 1.1)  # so low that some weights are cut
    keys = {
        "rl.num_iterations": 2,
        "rl.mini_batch_prompts": 2,
        "rl.max_unscorable": 1.0,
        **AXES[axis],
    }
    arguments = utterances[1:4], keys, mostly_scorable, other_model()
    gradients, output = several_updates(*arguments, rate=0.05)
    expected, losses = slow_updates(*arguments, rate=0.05)
    assert len(gradients) == len(expected) >= 2
    for one, other in zip(gradients, expected, strict=True):
        close(one, other, 3e-5)
    assert output.metrics["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4, abs=1e-5)
    assert output.metrics["sampling/sampling_logp_difference/mean"] > 0.1


def test_old_logps_are_those_of_the_rollout_or_of_the_policy(utterances, monkeypatch) -> None:
    """A correction tells the policy before the step from the engine that sampled."""
    foreign_engine(monkeypatch)
    _, off, _ = one_step(utterances, {"rl.epsilon": 0.1, "rl.epsilon_high": 0.1})
    assert off["clip_ratio/region_mean"] > 0.05
    keys = {"rl.epsilon": 0.1, "rl.epsilon_high": 0.1, "rl.rollout_correction": "token"}
    _, corrected, _ = one_step(utterances, keys)
    assert corrected["clip_ratio/region_mean"] == 0
    assert 0.8 < corrected["sampling/importance_sampling_ratio/mean"] < 1.2
    assert corrected["sampling/importance_sampling_ratio/mean"] != 1


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_correction_of_the_policys_own_engine_changes_nothing(utterances, level: str) -> None:
    plain, _, _ = one_step(utterances)
    corrected, metrics, _ = one_step(utterances, {"rl.rollout_correction": level})
    close(corrected, plain, 3e-5)
    assert metrics["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-4)


def test_a_rollout_is_sampled_and_rewarded_once(utterances) -> None:
    calls = []

    def reward(samples: list[Sample]) -> list[float]:
        calls.append(len(samples))
        return some_reward(samples)

    keys = {"rl.num_iterations": 3, "rl.mini_batch_prompts": 2}
    gradients, _ = several_updates(utterances, keys, reward)
    assert len(gradients) == 9  # 2 + 2 + 1 prompts, three times
    assert calls == [20]


def test_kl_in_the_reward_is_reported_and_no_term_of_the_loss(utterances) -> None:
    keys = {"rl.beta": 0.3, "rl.kl_estimator": "k1", "rl.kl_in_reward": True}
    _, metrics, completions = one_step(utterances, keys, reference=other_model())
    assert "kl" not in metrics
    assert metrics["rewards/kl/mean"] != 0
    for line in completions:
        parts = line["rewards"]
        assert line["reward"] == pytest.approx(parts["some"] - 0.3 * parts["kl"], abs=2e-4)


def test_gdpo_sees_each_reward(utterances) -> None:
    """Against the sum: another gradient, of the same samples."""
    keys = {"rl.reward_combination": "gdpo"}
    gradients, _, completions = one_step(utterances, keys, TWO)
    of_sum, _, others = one_step(utterances, {}, TWO)
    assert [line["rewards"] for line in completions] == [line["rewards"] for line in others]
    with pytest.raises(AssertionError):
        close(gradients, of_sum, 1e-2)


@pytest.mark.parametrize("scale", ["group", "batch", "whiten", "none"])
@pytest.mark.parametrize("baseline", ["group", "leave_one_out", "batch", "greedy", "posterior"])
def test_unscorable_samples_leave_everything_finite(utterances, baseline: str, scale: str) -> None:
    """A whole group of them, single ones, and a group with one that is scorable."""

    def reward(samples: list[Sample]) -> list[float | None]:
        seen: dict[str, int] = {}
        values = []
        for sample, value in zip(samples, some_reward(samples), strict=True):
            place = seen.setdefault(sample.utterance.text, 0)
            seen[sample.utterance.text] += 1
            lost = {"pa": True, "ba do": place == 1, "lu lu lu": place != 2}
            values.append(None if lost.get(sample.utterance.text) else value)
        return values

    keys = {"rl.baseline": baseline, "rl.scale_rewards": scale, "rl.max_unscorable": 1.0}
    gradients, metrics, completions = one_step(utterances, keys, reward)
    assert all(g.isfinite().all() for g in gradients.values())
    assert any(g.any() for g in gradients.values())
    assert all(math.isfinite(value) for value in metrics.values())
    for line in completions:
        assert line["reward"] is not None or line["advantage"] == 0


def test_tokens_that_do_not_count_may_be_as_unlikely_as_they_like(utterances) -> None:
    """Their ratio would overflow, and 0 times infinity is no number."""
    keys = {"rl.mask_truncated_completions": True, "rl.max_completion_length": 3}
    model = learning_model(keys)
    grpo = learner(model)
    batch = grpo.collect(0, utterances, grpo_phases(model))
    rollout = batch.rollout
    assert 0 < rollout.finished.sum() < len(rollout)
    rollout.logps[~rollout.finished] -= 200.0
    inputs = grpo._update_inputs(batch)
    assert math.isfinite(grpo._update(0, 1.0, inputs)["loss"])
    (gradients,) = grpo.optimizer.gradients
    expected, _, _ = one_step(utterances, keys)
    close(gradients, expected)


def grpo_phases(model):
    from audiorl.rl.phases import Phases

    return Phases(model.device)


def test_flat_groups_cost_nothing_whatever_the_scale(utterances, monkeypatch) -> None:
    """They are left out before the forward pass, where whitening and GDPO move the mean too."""
    from audiorl.rl import passes

    def reward(samples: list[Sample]) -> list[float]:
        values = some_reward(samples)
        flat = {"pa", "ba do"}
        return [
            1 / 3 if s.utterance.text in flat else v for s, v in zip(samples, values, strict=True)
        ]

    rows = []
    original = passes.response_logprobs

    def watching(lm, prefix, tokens, *rest, **settings):
        rows.append(len(tokens))
        return original(lm, prefix, tokens, *rest, **settings)

    monkeypatch.setattr(passes, "response_logprobs", watching)
    for keys in (
        {"rl.scale_rewards": "whiten"},
        {"rl.scale_rewards": "batch", "rl.baseline": "leave_one_out"},
        {"rl.reward_combination": "gdpo"},
    ):
        rows.clear()
        one_step(utterances, {**keys, "rl.num_generations": 6, "rl.share_prefix": "never"}, reward)
        assert rows == [3 * 6]


def test_the_policy_does_not_drift_without_a_lesson(utterances) -> None:
    """All samples earn the same: no preset of advantages makes a gradient of rounding."""
    keys = {"rl.num_generations": 7}
    for choice in (
        {"rl.scale_rewards": "whiten"},
        {"rl.reward_combination": "gdpo"},
        {"rl.baseline": "batch", "rl.scale_rewards": "whiten"},
        {"rl.baseline": "posterior", "rl.scale_rewards": "none"},
        {"rl.baseline": "best", "rl.scale_rewards": "none"},
    ):
        gradients, metrics, _ = one_step(
            utterances, keys | choice, lambda samples: [0.1] * len(samples)
        )
        assert gradients == {}
        assert metrics["loss"] == 0


def test_mwer_pays_the_likely_more(utterances) -> None:
    """The advantages are n P (R - mean): their signs are the rewards', their sizes the weights."""
    keys = {"rl.baseline": "posterior", "rl.scale_rewards": "none"}
    keys["rl.loss_type"] = "seq-mean-token-sum"
    model = learning_model(keys)
    grpo = learner(model)
    batch = grpo.collect(0, utterances, grpo_phases(model))
    found = grpo._update_inputs(batch).advantages.double()
    logps = batch.rollout.logps.sum(1).view(found.shape)
    weights = logps.softmax(1)
    mean = (weights * batch.rewards).sum(1, keepdim=True)
    torch.testing.assert_close(found, 4 * weights * (batch.rewards - mean), rtol=1e-4, atol=2e-6)
    assert found.sum(1).abs().max() < 1e-5
