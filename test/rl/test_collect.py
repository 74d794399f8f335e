"""What a step learns from: other prompts for flat groups, shaped rewards, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch
from steps import (
    Recorder,
    learner,
    learning_model,
    more_prompts,
    one_step,
    slow_logps,
    some_reward,
)

from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.rewards import Reward, Sample
from audiorl.rl import collect as collecting
from audiorl.rl.collect import Batch, overlong
from audiorl.rl.phases import Phases

DYNAMIC = {"rl.dynamic_sample": True}
NAN = math.nan


class Prompts:
    """Gives out utterances as training does, and remembers what it was asked."""

    def __init__(self, utterances: list[Utterance]) -> None:
        self.utterances = utterances
        self.calls: list[tuple[int, int, set[str], int]] = []

    def __call__(self, step: int, attempt: int, taken: set[str], count: int) -> list[Utterance]:
        self.calls.append((step, attempt, set(taken), count))
        return more_prompts(self.utterances, 1, step, attempt, taken, count)


def many(utterances: list[Utterance], copies: int = 4) -> list[Utterance]:
    """The same audio under other names."""
    return [
        dataclasses.replace(u, id=f"{u.id}-{copy}") for copy in range(copies) for u in utterances
    ]


def flat_but(*ids: str):
    """A reward that tells hypotheses of these utterances apart, and no others."""

    def reward(samples: list[Sample]) -> list[float]:
        values = some_reward(samples)
        return [v if s.utterance.id in ids else 0.25 for s, v in zip(samples, values, strict=True)]

    return reward


def collect(utterances, reward, keys=None, more=None, step: int = 0) -> Batch:
    model = learning_model({**DYNAMIC, **(keys or {})})
    grpo = learner(model, reward, more=more)
    return grpo.collect(step, utterances, Phases(model.device))


def ids(batch: Batch) -> list[str]:
    return [u.id for u in batch.utterances]


def test_flat_groups_make_room_for_others(utterances) -> None:
    pool = many(utterances)
    chosen = pool[:3]
    lively = {chosen[1].id, *(u.id for u in pool[3:])}
    prompts = Prompts(pool)
    batch = collect(chosen, flat_but(*lively), more=prompts)
    assert len(batch.utterances) == len(set(ids(batch))) == 3
    assert ids(batch)[0] == chosen[1].id  # what was not flat stays
    assert {chosen[0].id, chosen[2].id}.isdisjoint(ids(batch))
    assert batch.resampled == 2
    assert prompts.calls == [(0, 0, {u.id for u in chosen}, 2)]


def test_each_group_is_what_its_prompt_alone_draws(utterances) -> None:
    """Rollout, samples, conditions and rewards move together; shorter rollouts are padded."""
    pool = many(utterances)
    batch = collect(pool[:3], flat_but(*(u.id for u in pool[2:])), more=Prompts(pool))
    assert batch.resampled == 2
    for i, utterance in enumerate(batch.utterances):
        alone = collect([utterance], some_reward, {"rl.dynamic_sample": False})
        group = batch.select([i])
        width = alone.rollout.tokens.size(1)
        assert torch.equal(group.rollout.tokens[:, :width], alone.rollout.tokens)
        assert torch.equal(group.rollout.mask[:, :width], alone.rollout.mask)
        assert not group.rollout.mask[:, width:].any()
        assert group.samples == alone.samples
        assert group.earned == alone.earned
        assert torch.equal(group.conditions[0], alone.conditions[0])


def test_what_stays_flat_after_all_draws_stays(utterances, monkeypatch) -> None:
    monkeypatch.setattr(collecting, "RESAMPLES", 4)
    pool = many(utterances, 6)
    prompts = Prompts(pool)
    batch = collect(pool[:3], flat_but(), {}, prompts)
    assert ids(batch) == [u.id for u in pool[:3]]
    assert batch.resampled == 0
    assert [attempt for _, attempt, _, _ in prompts.calls] == [0, 1, 2, 3]
    asked = [count for *_, count in prompts.calls]
    assert asked == [3] * 4
    # No prompt is sampled twice: what was drawn is taken.
    assert [len(taken) for _, _, taken, _ in prompts.calls] == [3, 6, 9, 12]


def test_a_draw_that_helps_in_part(utterances, monkeypatch) -> None:
    """One of three is found in the first draw; the next asks for the two that are left."""
    pool = many(utterances, 6)
    first = more_prompts(pool, 1, 0, 0, {u.id for u in pool[:3]}, 3)
    prompts = Prompts(pool)
    monkeypatch.setattr(collecting, "RESAMPLES", 2)
    batch = collect(pool[:3], flat_but(first[1].id), {}, prompts)
    assert [count for *_, count in prompts.calls] == [3, 2]
    assert ids(batch) == [pool[1].id, pool[2].id, first[1].id]
    assert batch.resampled == 1


def test_all_groups_may_be_replaced(utterances) -> None:
    pool = many(utterances)
    batch = collect(pool[:2], flat_but(*(u.id for u in pool[2:])), more=Prompts(pool))
    assert batch.resampled == len(batch.utterances) == 2
    assert set(ids(batch)).isdisjoint(u.id for u in pool[:2])


def test_there_may_be_no_others(utterances) -> None:
    prompts = Prompts(utterances)
    batch = collect(utterances, flat_but(), more=prompts)
    assert ids(batch) == [u.id for u in utterances]
    assert len(prompts.calls) == 1


def test_nothing_is_drawn_where_nothing_is_flat(utterances) -> None:
    prompts = Prompts(many(utterances))
    batch = collect(prompts.utterances[:3], some_reward, more=prompts)
    assert prompts.calls == []
    assert batch.resampled == 0


def test_a_step_is_a_function_of_its_number(utterances) -> None:
    """Whatever came before it, and by whom it is run: so a resumed run goes on exactly."""
    pool = many(utterances)
    lively = [u.id for u in pool[::2]]
    more = functools.partial(more_prompts, pool, 1)

    def step(number: int, grpo=None):
        grpo = grpo or learner(learning_model(DYNAMIC), flat_but(*lively), more=more)
        output = grpo.step(number, pool[:4], 1.0)
        return output.completions, output.metrics["frac_resampled"], grpo

    before, share, _ = step(3)
    assert share > 0
    _, _, grpo = step(2)
    after, other, _ = step(3, grpo)
    assert after == before
    assert other == share


def test_what_is_reported(utterances) -> None:
    pool = many(utterances)
    lively = {pool[1].id, *(u.id for u in pool[3:5])}
    prompts = Prompts(pool[:5])
    model = learning_model(DYNAMIC)
    output = learner(model, flat_but(*lively), more=prompts).step(0, pool[:3], 1.0)
    assert output.metrics["frac_resampled"] == pytest.approx(2 / 3)
    assert output.metrics["frac_reward_zero_std"] == 0
    assert len(output.completions) == 3 * 4
    assert {line["id"] for line in output.completions} == lively


def test_the_share_of_unscorable_samples_is_that_of_all_drawn(utterances) -> None:
    """One utterance without a reference among the few that are drawn anew must not end a run."""
    pool = many(utterances)

    def reward(lost: set[str]):
        flat = flat_but(*(u.id for u in pool[3:]))
        return lambda samples: [
            None if s.utterance.id in lost else v
            for s, v in zip(samples, flat(samples), strict=True)
        ]

    first = more_prompts(pool, 1, 0, 0, {u.id for u in pool[:3]}, 3)
    keys = {"rl.max_unscorable": 0.2}
    batch = collect(pool[:3], reward({first[0].id}), keys, Prompts(pool))
    assert first[0].id not in ids(batch)  # an unscorable group teaches nothing, and is replaced
    assert batch.resampled == 3
    with pytest.raises(UserError, match=r"step 1: 33% of the samples could not be rewarded"):
        collect(pool[:3], reward({u.id for u in first[:2]}), keys, Prompts(pool))


@pytest.mark.parametrize("baseline", ["group", "greedy"])
def test_what_no_reward_applies_to_is_left_out_but_no_failure(
    utterances, baseline: str, caplog
) -> None:
    """Recordings where nobody speaks, under a reward of accuracy alone."""
    silent = utterances[2].id
    speech = Reward(some_reward, applies=lambda u: u.id != silent)
    keys = {"rl.baseline": baseline, "rl.scale_rewards": "none", "rl.max_unscorable": 0.0}
    with caplog.at_level("INFO"):
        gradients, metrics, completions = one_step(utterances, keys, {"speech": (speech, 1.0)})
    assert all(g.isfinite().all() for g in gradients.values())
    assert metrics["frac_unscorable"] == 0
    assert metrics["frac_without_reward"] == pytest.approx(1 / 5)
    taught = {line["id"] for line in completions if line["advantage"]}
    assert taught == {u.id for u in utterances} - {silent}
    assert (
        f"step 1: samples without a reward are left out: 4 of 4 of {silent}, no reward applies"
        in caplog.messages
    )


def test_an_unscorable_greedy_hypothesis_makes_its_group_unscorable(utterances, caplog) -> None:
    """It is the baseline: without it nobody knows what the group's rewards are worth."""
    group = 4

    def reward(samples: list[Sample]) -> list[float | None]:
        greedy = len(samples) == len(utterances)
        lost = greedy and utterances[2].id
        return [
            None if s.utterance.id == lost else v
            for s, v in zip(samples, some_reward(samples), strict=True)
        ]

    keys = {"rl.baseline": "greedy", "rl.scale_rewards": "none", "rl.max_unscorable": 0.2}
    with caplog.at_level("INFO"):
        gradients, metrics, completions = one_step(utterances, keys, reward)
    assert all(g.isfinite().all() for g in gradients.values())
    assert metrics["frac_unscorable"] == pytest.approx(1 / 5)
    assert metrics["frac_without_reward"] == 0
    told = f"4 of 4 of {utterances[2].id}, some (it gave no number)"
    assert caplog.messages.count(f"step 1: samples without a reward are left out: {told}") == 1
    taught = [any(line["advantage"] for line in completions[i * group :][:group]) for i in range(5)]
    assert taught == [True, True, False, True, True]
    with pytest.raises(UserError, match=r"20% of the samples could not be rewarded"):
        one_step(utterances, {**keys, "rl.max_unscorable": 0.1}, reward)


def test_under_gdpo_equal_sums_of_unlike_rewards_are_a_lesson(utterances) -> None:
    def one(samples: list[Sample]) -> list[float]:
        return [float(len(s.text) % 2) for s in samples]

    def other(samples: list[Sample]) -> list[float]:
        return [1.0 - value for value in one(samples)]

    rewards = {"one": (one, 1.0), "other": (other, 1.0), "watched": (some_reward, 0.0)}
    pool = many(utterances)
    summed, apart = Prompts(pool), Prompts(pool)
    collect(pool[:3], rewards, more=summed)
    assert len(summed.calls) == 3  # always flat
    keys = {"rl.reward_combination": "gdpo"}
    batch = collect(pool[:3], rewards, keys, apart)
    flat = [part.std(1) == 0 for part in (batch.part("one"),)]
    assert not torch.stack(flat).any() or apart.calls  # only what is flat in each is replaced
    assert len(apart.calls) < 3


GIVE = {"rl.give_silence": True, "rl.dynamic_sample": False}


def silence(utterances: list[Utterance], *which: int) -> list[Utterance]:
    """Three of the recordings, some of which are said to be without speech."""
    texts = ["" if i in which else u.text for i, u in enumerate(utterances[:3])]
    return [dataclasses.replace(u, text=t) for u, t in zip(utterances, texts, strict=False)]


def test_the_empty_answer_is_given_where_nobody_speaks(utterances, caplog) -> None:
    """In place of the last of its group, with the log-probability that the policy gives it."""
    caplog.set_level("INFO")
    prompts = silence(utterances, 0, 2)
    model = learning_model(GIVE, spread=1.0)
    batch = learner(model, some_reward).collect(0, prompts, Phases(model.device))
    other = learning_model({"rl.dynamic_sample": False}, spread=1.0)
    plain = learner(other, some_reward).collect(0, prompts, Phases(other.device))
    group = len(batch.samples) // len(prompts)
    assert batch.given == [True, False, True] and plain.given == [False] * 3
    for row, sample in enumerate(batch.samples):
        if row not in (group - 1, 3 * group - 1):
            assert sample.text == plain.samples[row].text
            continue
        assert sample.text == "" and sample.finished and batch.rollout.mask[row].sum() == 1
        (expected,) = slow_logps(model, sample.utterance, [model.stop_ids[0]])
        assert batch.rollout.logps[row, 0].item() == pytest.approx(expected.item(), abs=1e-5)
        assert batch.rollout.logps[row, 1:].eq(0).all()
    assert "was given to 2 of 2 groups without speech" in caplog.text
    assert batch.select([1, 2]).given == [False, True]
    assert batch.join(batch.select([1])).given == [True, False, True, False]


def test_the_answer_given_is_learnt(utterances) -> None:
    """Its probability rises, which a group that never draws it cannot bring about."""
    prompts = silence(utterances, 0, 1, 2)[::2]

    def quiet(samples: list[Sample]) -> list[float]:
        return [0.0 if sample.text == "" and sample.finished else -1.0 for sample in samples]

    found = {}
    for given in (False, True):
        model = learning_model({**GIVE, "rl.give_silence": given}, spread=1.0)
        grpo = learner(model, quiet, optimizer=Recorder(model, rate=0.05))
        stop = [model.stop_ids[0]]
        before = [slow_logps(model, u, stop).item() for u in prompts]
        metrics = grpo.step(0, prompts, 1.0).metrics
        after = [slow_logps(model, u, stop).item() for u in prompts]
        found[given] = min(now - then for then, now in zip(before, after, strict=True))
        assert metrics["frac_given_silence"] == given
        assert metrics["frac_reward_zero_std"] == (not given)
    assert found[False] == 0 and found[True] > 0.01


def test_no_answer_is_given_to_speech_or_where_it_was_drawn(utterances) -> None:
    assert not any(collect(utterances, some_reward, GIVE).given)
    fillers = [dataclasses.replace(u, text="[laughter]") for u in utterances]
    assert not any(collect(fillers, some_reward, GIVE).given)


def test_overlong_responses_lose() -> None:
    rl = learning_model({"rl.max_completion_length": 20, "rl.overlong_buffer": 5}).recipe.rl
    found = {length: overlong(length, rl) for length in (1, 15, 16, 18, 20)}
    assert found == {1: 0, 15: 0, 16: -0.2, 18: -0.6, 20: -1}


def test_length_is_shaped_in_the_reward(utterances) -> None:
    keys = {"rl.overlong_buffer": 4}
    batch = collect(utterances, some_reward, {**keys, "rl.dynamic_sample": False})
    lengths = batch.rollout.mask.sum(1)
    expected = -(lengths - 4).clamp(min=0) / 4  # of 8 tokens at most
    torch.testing.assert_close(torch.tensor(batch.earned.parts["overlong"]), expected)
    assert expected.min() == -1
    raw = torch.tensor(batch.earned.parts["some"], dtype=torch.float64)
    torch.testing.assert_close(batch.rewards.flatten(), raw + expected)
    _, metrics, _ = one_step(utterances, keys)
    assert metrics["rewards/overlong/mean"] == pytest.approx(expected.mean().item())
