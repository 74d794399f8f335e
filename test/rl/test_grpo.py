"""One GRPO step: equal to slow and obvious code, and to itself however it is cut."""

from __future__ import annotations

import copy
import logging
import math
import threading

import pytest
import torch
from steps import (
    close,
    learner,
    learning_model,
    one_step,
    other_model,
    slow_step,
    some_reward,
)
from tiny import sampler

from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.infer.transcribe import encode_utterances
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import Sample
from audiorl.rl import grpo as grpo_module
from audiorl.rl import passes
from audiorl.rl.groups import Sampler, read_text
from audiorl.runs.optimizer import Optimizers

LOSS_TYPES = ["grpo", "dapo", "dr_grpo"]
NAN = math.nan


def sampled_by(model: AudioLLM, utterances: list[Utterance], step: int = 0):
    """(utterance id, member) -> ids and whether they ended; and the samples in the same order."""
    rollout = sampler(model).groups(utterances, encode_utterances(model, utterances), step)
    samples = read_text(model.tokenizer)(utterances, rollout)
    group = model.recipe.rl.num_generations
    keys = [(u.id, g) for u in utterances for g in range(group)]
    rows = zip(rollout.tokens, rollout.mask, rollout.finished.tolist(), strict=True)
    found = [(tokens[mask].tolist(), finished) for tokens, mask, finished in rows]
    return dict(zip(keys, found, strict=True)), samples


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_step_is_the_slow_one(utterances, loss_type: str, scale: str) -> None:
    keys = {"rl.loss_type": loss_type, "rl.scale_rewards": scale}
    gradients, metrics, _ = one_step(utterances, keys)
    expected, loss = slow_step(utterances, keys)
    close(gradients, expected)
    assert metrics["loss"] == pytest.approx(loss, abs=1e-6)
    assert not any(name.startswith("encoder") for name in gradients)
    assert any(name.startswith("adaptor") for name in gradients)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_step_with_a_reference_is_the_slow_one(utterances, loss_type: str) -> None:
    keys = {"rl.loss_type": loss_type, "rl.beta": 0.3}
    gradients, metrics, _ = one_step(utterances, keys, reference=other_model())
    expected, loss = slow_step(utterances, keys, reference=other_model())
    close(gradients, expected)
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    assert metrics["kl"] > 1e-3


def test_a_step_at_another_temperature_is_the_slow_one(utterances) -> None:
    keys = {"rl.temperature": 1.7}
    close(one_step(utterances, keys)[0], slow_step(utterances, keys)[0])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize(
    "cut",
    [
        {"rl.micro_batch_tokens": 1},
        {"rl.micro_batch_tokens": 120},
        {"rl.share_prefix": "always"},
        {"rl.share_prefix": "never"},
        {"rl.share_prefix": "always", "rl.micro_batch_tokens": 1},
        {"rl.rollout_prompts": 1},
        {"rl.rollout_prompts": 2},
    ],
    ids=str,
)
def test_the_way_a_step_is_cut_does_not_matter(utterances, cut: dict, loss_type: str) -> None:
    keys = {"rl.loss_type": loss_type, "rl.beta": 0.1}
    gradients, metrics, completions = one_step(utterances, keys, reference=other_model())
    others, other_metrics, same = one_step(utterances, {**keys, **cut}, reference=other_model())
    close(others, gradients)
    for name, value in metrics.items():
        if not name.startswith(("timing_s", "perf", "sampling")):
            assert other_metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert same == completions


def test_the_next_prompts_are_drawn_while_rewards_are_awaited(utterances, monkeypatch) -> None:
    """The first rewards come only once the last prompts are drawn."""
    left, all_drawn = [len(utterances)], threading.Event()

    original = Sampler.groups

    def drawing(*arguments):
        rollout = original(*arguments)
        left[0] -= 1
        if not left[0]:
            all_drawn.set()
        return rollout

    def slow_reward(samples: list[Sample]) -> list[float]:
        assert all_drawn.wait(timeout=60), "scoring waits for nothing, and drawing for scoring"
        return some_reward(samples)

    monkeypatch.setattr(Sampler, "groups", drawing)
    keys = {"rl.rollout_prompts": 1}
    gradients, _, _ = one_step(utterances, keys, slow_reward)
    close(gradients, one_step(utterances)[0])


def test_micro_batches_hold_every_prompt_once(utterances, monkeypatch) -> None:
    seen = []
    original = grpo_module.GRPO._loss

    def watching(self, inputs, *others):
        seen.append((len(inputs.batch.utterances), len(inputs.mask)))
        return original(self, inputs, *others)

    monkeypatch.setattr(grpo_module.GRPO, "_loss", watching)
    one_step(utterances, {"rl.micro_batch_tokens": 1, "rl.beta": 0.1}, reference=other_model())
    assert seen == [(1, 4)] * 5
    seen.clear()
    one_step(utterances, {"rl.beta": 0.1}, reference=other_model())
    assert seen == [(5, 20)]


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_the_order_of_prompts_does_not_matter(utterances, order: list[int]) -> None:
    """Distinct audio, several prompts, groups of several: each advantage meets its own audio."""
    gradients, _, completions = one_step(utterances)
    moved, _, other = one_step([utterances[i] for i in order])
    close(moved, gradients)

    def lines(completions: list[dict], name: str) -> list[dict]:
        return [line for line in completions if line["id"] == name]

    for u in utterances:
        assert lines(other, u.id) == lines(completions, u.id)


def test_a_prompt_twice_counts_twice(utterances) -> None:
    """An epoch may end and the next begin with the same utterance, within one step."""
    once, _, _ = one_step(utterances[:1], {"rl.loss_type": "grpo"})
    twice, _, _ = one_step([utterances[0], utterances[0]], {"rl.loss_type": "grpo"})
    close(twice, once)


def flat_for_some(samples: list[Sample]) -> list[float]:
    values = some_reward(samples)
    flat = {"pa", "ba do"}
    return [0.25 if s.utterance.text in flat else v for s, v in zip(samples, values, strict=True)]


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_flat_groups_are_dropped_and_nothing_changes(utterances, loss_type, monkeypatch) -> None:
    keys, rows = {"rl.loss_type": loss_type, "rl.share_prefix": "never"}, []
    original = passes.response_logprobs

    def watching(lm, prefix, tokens, *rest, **settings):
        rows.append(len(tokens))
        return original(lm, prefix, tokens, *rest, **settings)

    monkeypatch.setattr(passes, "response_logprobs", watching)
    dropped, metrics, _ = one_step(utterances, keys, flat_for_some)
    assert rows == [3 * 4]
    assert metrics["frac_reward_zero_std"] == pytest.approx(2 / 5)
    expected, _ = slow_step(utterances, keys, flat_for_some)
    close(dropped, expected)


@pytest.mark.parametrize("reward", [0.5, 66.7, 33.3, -1000.1, 1e-4])
def test_a_step_of_flat_groups_changes_no_weight(utterances, reward: float) -> None:
    model = learning_model({"rl.num_generations": 6})
    before = copy.deepcopy(model.state_dict())
    optimizer = Optimizers([model.adaptor, model.llm], 0.1, weight_decay=0.1)
    output = learner(model, lambda samples: [reward] * len(samples), None, optimizer).step(
        0, utterances, 1.0
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert output.metrics["loss"] == output.metrics["grad_norm"] == 0
    assert output.metrics["frac_reward_zero_std"] == 1
    assert output.metrics["reward"] == pytest.approx(reward)
    assert {line["advantage"] for line in output.completions} == {0.0}


def some_unscorable(samples: list[Sample]) -> list[float | None]:
    """Every third sample, and all of one utterance."""
    return [
        None if i % 3 == 0 or s.utterance.text == "pa" else value
        for i, (s, value) in enumerate(zip(samples, some_reward(samples), strict=True))
    ]


@pytest.mark.parametrize("loss_type", ["dapo", "dr_grpo", "grpo"])
def test_unscorable_samples_are_masked_and_counted(utterances, loss_type: str) -> None:
    keys = {"rl.loss_type": loss_type, "rl.max_unscorable": 1.0}
    gradients, metrics, completions = one_step(utterances, keys, some_unscorable)
    expected, _ = slow_step(utterances, keys, some_unscorable)
    close(gradients, expected)
    missing = [line for line in completions if line["reward"] is None]
    assert len(missing) == 10  # of 20: every third, and the others of `pa`
    assert all(line["advantage"] == 0 and line["rewards"] == {"some": None} for line in missing)
    assert metrics["frac_unscorable"] == pytest.approx(10 / 20)
    assert all(math.isfinite(value) for value in metrics.values())


def test_too_many_unscorable_samples_stop_the_run(utterances) -> None:
    keys = {"rl.max_unscorable": 0.49}
    with pytest.raises(UserError, match=r"step 4: 50% of the samples could not be rewarded, more"):
        one_step(utterances, keys, some_unscorable, step=3)
    one_step(utterances, {"rl.max_unscorable": 0.5}, some_unscorable)


def test_a_reward_that_crashes_makes_samples_unscorable(utterances, caplog) -> None:
    def broken(samples: list[Sample]) -> list[float]:
        raise ConnectionError("the scorer is gone")

    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(UserError, match=r"100% of the samples") as e,
    ):
        one_step(utterances, reward=broken)
    assert "reward some failed on 20 of 20 samples" in caplog.text
    assert "the scorer is gone" in caplog.text
    assert "fix reward some (ConnectionError: the scorer is gone)" in str(e.value)
    gradients, metrics, _ = one_step(utterances, {"rl.max_unscorable": 1.0}, broken)
    assert gradients == {}
    assert metrics["frac_unscorable"] == 1
    assert math.isnan(metrics["reward"])


def test_truncated_completions_can_be_left_out(utterances) -> None:
    keys = {"rl.mask_truncated_completions": True, "rl.max_completion_length": 5}
    model = learning_model(keys)
    sampled, _ = sampled_by(model, utterances)
    ended = sum(finished for _, finished in sampled.values())
    assert 0 < ended < len(sampled)
    gradients, metrics, _ = one_step(utterances, keys)
    close(gradients, slow_step(utterances, keys)[0])
    assert metrics["completions/clipped_ratio"] == pytest.approx(1 - ended / len(sampled))
    with_all, _, _ = one_step(utterances, {**keys, "rl.mask_truncated_completions": False})
    with pytest.raises(AssertionError):
        close(gradients, with_all)


def test_nothing_is_left_where_all_are_truncated(utterances, monkeypatch) -> None:
    model = learning_model({"rl.mask_truncated_completions": True})
    model.forbidden[model.tokenizer.eos_id] = True
    grpo = learner(model)
    output = grpo.step(0, utterances, 1.0)
    assert all(not g.any() for g in grpo.optimizer.gradients[0].values())
    assert output.metrics["completions/clipped_ratio"] == 1
    assert output.metrics["loss"] == 0


def test_what_was_sampled_is_what_is_scored(utterances) -> None:
    """Truncated sampling too: the behaviour's log-probabilities are the update's."""
    for keys in ({}, {"rl.top_p": 0.8}, {"rl.top_k": 6, "rl.temperature": 0.7}):
        _, metrics, _ = one_step(utterances, keys)
        assert 0 <= metrics["sampling/sampling_logp_difference/mean"] < 1e-5
        assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0
    _, narrow, _ = one_step(utterances, {"rl.top_k": 2})
    assert narrow["entropy"] <= math.log(2)


def real_steps(
    model: AudioLLM, utterances, steps: int, reference=None, reward=some_reward, rate=1e-2
):
    parts = [getattr(model, part) for part in model.recipe.rl.train]
    grpo = learner(model, reward, reference, Optimizers(parts, rate, weight_decay=0.0))
    return [grpo.step(step, utterances, 1.0).metrics for step in range(steps)]


def test_the_divergence_from_a_reference_that_stays(utterances) -> None:
    model = learning_model({"rl.beta": 0.01})
    reference = copy.deepcopy(model).requires_grad_(False)
    frozen = copy.deepcopy(reference.state_dict())
    metrics = real_steps(model, utterances, 4, reference)
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert metrics[3]["kl"] > 1e-3
    assert all(torch.equal(frozen[name], value) for name, value in reference.state_dict().items())


def test_a_reference_holds_the_policy_back(utterances) -> None:
    ends = []
    for beta in (1e-6, 3.0):
        model = learning_model({"rl.beta": beta})
        reference = copy.deepcopy(model).requires_grad_(False)
        ends.append(real_steps(model, utterances, 6, reference)[-1]["kl"])
    assert ends[1] < ends[0] / 2


def test_several_updates_on_one_rollout(utterances) -> None:
    """The second sees a ratio other than 1; the first is that of a single iteration."""
    model = learning_model({"rl.num_iterations": 3})
    recorded, rollouts = [], []
    optimizer = Optimizers([model.adaptor, model.llm], 2e-2, weight_decay=0.0)
    step = optimizer.step

    def recording(*arguments) -> float:
        recorded.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
        return step(*arguments)

    optimizer.step = recording

    def reward(samples: list[Sample]) -> list[float]:
        rollouts.append([s.text for s in samples])
        return some_reward(samples)

    metrics = learner(model, reward, None, optimizer).step(0, utterances, 1.0).metrics
    assert len(recorded) == 3
    assert len(rollouts) == 1
    close(recorded[0], one_step(utterances)[0])
    # It is measured before the policy moves.
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5
    assert metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"] > 0


def test_truncated_sampling_survives_several_updates(utterances) -> None:
    """Tokens may leave the support of top-k between updates: their ratio is 0, not NaN."""
    for keys in ({"rl.top_k": 2}, {"rl.top_p": 0.5}):
        model = learning_model({"rl.num_iterations": 4, **keys})
        real_steps(model, utterances, 3, rate=5e-2)
        assert all(p.isfinite().all() for p in model.parameters())


def test_the_encoder_learns_when_it_is_to(utterances) -> None:
    keys = {"rl.train": ["adaptor", "llm", "encoder"]}
    gradients, metrics, _ = one_step(utterances, keys)
    expected, _ = slow_step(utterances, keys)
    close(gradients, expected)
    assert any(g.any() for name, g in gradients.items() if name.startswith("encoder"))
    assert metrics["sampling/sampling_logp_difference/mean"] < 1e-5
    cut, _, _ = one_step(utterances, {**keys, "rl.micro_batch_tokens": 1})
    close(cut, gradients)


def test_a_reference_hears_with_its_own_encoder(utterances) -> None:
    keys = {"rl.train": ["encoder"], "rl.beta": 0.5}
    reference = learning_model(seed=3).requires_grad_(False)
    gradients, metrics, _ = one_step(utterances, keys, reference=reference)
    expected, loss = slow_step(utterances, keys, reference=reference)
    close(gradients, expected)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)


def test_only_the_named_parts_learn(utterances) -> None:
    for parts in (["adaptor"], ["llm"], ["encoder", "adaptor"]):
        gradients, _, _ = one_step(utterances, {"rl.train": parts})
        assert {name.split(".")[0] for name in gradients} == set(parts)


def count_waves(monkeypatch) -> list[str]:
    """Ids of the utterances whose audio is encoded, from here on."""
    from audiorl.rl import frames

    encoded: list[str] = []
    original = frames.read_audio

    def counting(utterance: Utterance, rate: int):
        encoded.append(utterance.id)
        return original(utterance, rate)

    monkeypatch.setattr(frames, "read_audio", counting)
    return encoded


def test_a_frozen_encoder_hears_each_utterance_once(utterances, monkeypatch) -> None:
    encoded = count_waves(monkeypatch)
    model = learning_model({"rl.num_iterations": 2, "rl.micro_batch_tokens": 1})
    grpo = learner(model)
    for step, chosen in enumerate([[0, 1, 2], [2, 3, 0], [4, 4, 1]]):
        grpo.step(step, [utterances[i] for i in chosen], 1.0)
    assert sorted(encoded) == sorted(u.id for u in utterances)


def test_a_learning_encoder_hears_anew_in_each_update(utterances, monkeypatch) -> None:
    encoded = count_waves(monkeypatch)
    model = learning_model({"rl.train": ["encoder"]})
    before = {}
    metrics = []
    grpo = learner(model, optimizer=Optimizers([model.encoder], 1e-2, 0.0))
    for step in range(2):
        before[step] = grpo.conditions.get(utterances[:1])[0]
        encoded.clear()
        metrics.append(grpo.step(step, utterances[:3], 1.0).metrics)
        assert len(encoded) == 6  # for the rollout, and with gradients for the update
    assert not torch.equal(before[0], before[1])
    assert metrics[1]["sampling/sampling_logp_difference/mean"] < 1e-5


def test_a_gradient_that_is_no_number_stops_the_run(utterances) -> None:
    model = learning_model()
    before = copy.deepcopy(model.llm.state_dict())
    grpo = learner(model, optimizer=Optimizers([model.adaptor, model.llm], 1e-2, 0.0))
    hook = model.adaptor.register_forward_hook(
        lambda module, inputs, output: output * torch.nan if output.requires_grad else output
    )
    with pytest.raises(UserError, match=rf"gradient is nan .*{utterances[0].id}"):
        grpo.step(0, utterances, 1.0)
    hook.remove()
    assert all(torch.equal(before[n], v) for n, v in model.llm.state_dict().items())


def test_the_line_of_a_completion(utterances) -> None:
    _, metrics, completions = one_step(utterances, step=5)
    model = learning_model()
    sampled, samples = sampled_by(model, utterances, step=5)
    values = some_reward(samples)
    assert len(completions) == len(samples) == 20
    for line, sample, value in zip(completions, samples, values, strict=True):
        assert line["id"] == sample.utterance.id
        assert line["reference"] == sample.utterance.text
        assert line["completion"] == sample.text
        assert line["finished"] == sample.finished
        assert line["reward"] == line["rewards"]["some"] == pytest.approx(value, abs=1e-4)
    advantages = torch.tensor([line["advantage"] for line in completions]).view(5, 4)
    assert advantages.sum(1).abs().max() < 1e-3
    assert metrics["reward"] == pytest.approx(sum(values) / 20)
    best = torch.tensor(values).view(5, 4).max(1).values.mean().item()
    assert metrics["reward/best"] == pytest.approx(best)
    lengths = [len(ids) for ids, _ in sampled.values()]
    assert metrics["completions/mean_length"] == pytest.approx(sum(lengths) / 20)
    assert metrics["completions/max_length"] == max(lengths)
    assert metrics["completions/min_length"] == min(lengths)


def test_what_a_step_reports(utterances) -> None:
    _, metrics, _ = one_step(utterances, {"rl.beta": 0.1}, reference=other_model())
    phases = ("encode", "rollout", "reward", "update", "step")
    expected = {
        "loss",
        "grad_norm",
        "reward",
        "reward_std",
        "frac_reward_zero_std",
        "rewards/some/mean",
        "rewards/some/std",
        "completions/mean_length",
        "completions/clipped_ratio",
        "kl",
        "entropy",
        "clip_ratio/low_mean",
        "clip_ratio/high_mean",
        *(f"timing_s/{phase}" for phase in phases),
    }
    assert expected <= metrics.keys()
    assert all(isinstance(value, float) for value in metrics.values())
    parts = sum(metrics[f"timing_s/{phase}"] for phase in phases[:-1])
    assert parts <= metrics["timing_s/step"]


def test_it_learns_a_preference(utterances) -> None:
    """Reward for saying `ba`: a near-uniform policy says it in the end, almost always."""

    def reward(samples: list[Sample]) -> list[float]:
        return [s.text.split().count("ba") / 4 for s in samples]

    keys = {"rl.max_completion_length": 4, "rl.num_generations": 8}
    metrics = real_steps(learning_model(keys), utterances, 30, reward=reward)
    start = sum(m["reward"] for m in metrics[:3]) / 3
    end = sum(m["reward"] for m in metrics[-3:]) / 3
    assert start < 0.2
    assert end > 0.8


def test_it_learns_what_depends_on_the_audio(utterances) -> None:
    """One word for short utterances, another for long ones: only listening tells them apart."""

    def reward(samples: list[Sample]) -> list[float]:
        wanted = ["ba" if s.utterance.duration < 0.4 else "tu" for s in samples]
        return [s.text.split().count(w) / 3 for s, w in zip(samples, wanted, strict=True)]

    keys = {"rl.max_completion_length": 3, "rl.num_generations": 16}
    metrics = real_steps(learning_model(keys), utterances, 40, reward=reward)
    assert metrics[0]["reward"] < 0.1
    assert sum(m["reward"] for m in metrics[-3:]) / 3 > 0.9  # deaf, 0.6 at most
