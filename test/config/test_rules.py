"""What keys must fulfil together: where it is said, the reason and the fix."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from audiorl.config import Config, load_config

K1 = ["rl.beta=0.1", "rl.kl_estimator=k1"]
SHARED = ["parallelism.data_parallel_shard_degree=-1"]
MWER = ["rl.baseline=posterior", "rl.scale_rewards=none", "rl.loss_type=seq-mean-token-sum"]


def test_the_defaults_break_no_rule() -> None:
    assert list(Config().broken_rules()) == []


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        (["data.train=a/b"], "data.train", 'names a folder (got "a/b"); use letters, digits'),
        (["data.train="], "data.train", 'names a folder (got "")'),
        (["data.rl_dev=.."], "data.rl_dev", 'names a folder (got "..")'),
        (["data.test=[a, ../b]"], "data.test", 'names a folder (got "../b")'),
        (["data.test=[a, b, a]"], "data.test", "names a twice; keep one"),
        (["data.test=[a]", "data.no_speech=[b]"], "data.no_speech", "b is not one of data.test"),
        (["data.min_duration=9", "data.max_duration=9"], "data.max_duration", "above data.min_dur"),
        (
            ["frontend.n_mels=16"],
            "frontend.freq_mask_width",
            "wider than all mel bands; set at most 16",
        ),
        (
            ["frontend.n_mels=10", "frontend.freq_masks=0", "encoder.input_layer=conv2d6"],
            "frontend.n_mels",
            "conv2d6 needs at least 11 mel bands",
        ),
        (
            ["encoder.attention_heads=5"],
            "encoder.output_size",
            "a multiple of the 5 attention heads",
        ),
        (
            ["encoder.output_size=15", "encoder.attention_heads=3"],
            "encoder.output_size",
            "must be even",
        ),
        (["encoder.kernel_size=16"], "encoder.kernel_size", "must be odd; set 17"),
        (
            ["encoder.type=e_branchformer", "encoder.linear_units=99"],
            "encoder.linear_units",
            "e_branchformer halves it; set 100",
        ),
        (["tokenizer.type=pretrained"], "tokenizer.type", "a new LM has no tokenizer; set llm.pre"),
        (["llm.pretrained=org/lm"], "tokenizer.type", "set tokenizer.type: pretrained"),
        (
            ["llm.num_attention_heads=5", "llm.num_key_value_heads=5"],
            "llm.hidden_size",
            "must be a multiple of 2 x 5 attention heads",
        ),
        (["llm.num_key_value_heads=3"], "llm.num_key_value_heads", "must divide the 4 attention"),
        (["llm.num_key_value_heads=8"], "llm.num_key_value_heads", "must divide the 4 attention"),
        (["llm.prompt=transcribe"], "llm.prompt", "once (got 0)"),
        (["llm.prompt='{audio} {audio}'"], "llm.prompt", "once (got 2)"),
        (["rl_data.subsets=[{}, {size: 3}]"], "rl_data.subsets", "names random twice; give one"),
        (["rl_data.subsets=[{name: a b}]"], "rl_data.subsets", "a b: a name may hold letters"),
        (["rl_data.subsets=[{source: ../x}]"], "rl_data.subsets", 'source names a folder (got "..'),
        (
            ["data.test=[t]", "rl_data.subsets=[{kind: long, source: t}]"],
            "rl_data.subsets",
            "long is taken from t, which is held out",
        ),
        (
            ["rl_data.subsets=[{min_duration: 9, max_duration: 9}]"],
            "rl_data.subsets",
            "random: max_duration must be above 9 s",
        ),
        (
            ["rl_data.subsets=[{kind: ordinary, min_error: 0.2}]"],
            "rl_data.subsets",
            "ordinary: max_error is 0.1, below min_error",
        ),
        (["rl_data.hypotheses=[x]"], "rl_data.hypotheses", "only subsets of kind hard compare"),
        (["rl_data.background=x"], "rl_data.background", "serves to find keywords, and they are"),
        (["rl.train=[]"], "rl.train", "nothing would learn; name some of adaptor, llm, encoder"),
        (["rl.train=[llm, decoder]"], "rl.train", "decoder is not a part of the model"),
        (["rl.train=[llm, llm]"], "rl.train", "names llm twice"),
        (
            ["lora.rank=8", "lora.targets=[llm, encoder]"],
            "lora.targets",
            "encoder does not learn in RL, so its adapters would not; name parts among",
        ),
        (["lora.rank=8", "lora.targets=[]"], "lora.targets", "nothing would get adapters"),
        (["lora.rank=8", "lora.targets=[llm, llm]"], "lora.targets", "names llm twice"),
        (["lora.rank=8", "lora.targets=[llm, llm.q_proj]"], "lora.targets", "take out llm.*"),
        (["rl.epsilon=2"], "rl.epsilon", "so it would never clip; set less than 1"),
        (
            ["rl.epsilon=0.3"],
            "rl.epsilon_high",
            "must not be tighter than the lower clip; set at least 0.3",
        ),
        (["rl.beta=0.1", "rl.top_k=5"], "rl.beta", "is infinitely far from the policy; set top_k"),
        (["rl.beta=0.1", "rl.top_p=0.9"], "rl.beta", "is infinitely far from the policy"),
        (
            ["rl.reward_combination=gdpo", "rl.baseline=leave_one_out"],
            "rl.baseline",
            "gdpo has its own; remove it",
        ),
        (
            ["rl.reward_combination=gdpo", "rl.scale_rewards=none"],
            "rl.scale_rewards",
            "gdpo has its own; remove it",
        ),
        (
            ["rl.reward_combination=gdpo", "rl.kl_in_reward=true", *K1],
            "rl.kl_in_reward",
            "gdpo gives each reward the same spread, however small the KL; set kl_in_reward: false",
        ),
        (
            ["rl.baseline=batch"],
            "rl.scale_rewards",
            "a group's deviation says nothing about its distance from the mean of the step; set",
        ),
        (
            ["rl.baseline=greedy"],
            "rl.scale_rewards",
            "a group's deviation says nothing about its distance from the greedy hypothesis; set",
        ),
        (
            ["rl.baseline=best"],
            "rl.scale_rewards",
            "the best of a group is imitated, however much better it is; set none",
        ),
        (
            ["rl.baseline=batch", "rl.scale_rewards=whiten", "rl.dynamic_sample=true"],
            "rl.dynamic_sample",
            "a flat group learns too when it is compared with the mean of the step; set dynamic_s",
        ),
        (
            ["rl.baseline=greedy", "rl.scale_rewards=none", "rl.dynamic_sample=true"],
            "rl.dynamic_sample",
            "a flat group learns too when it is compared with the greedy hypothesis; set dynamic_",
        ),
        (
            ["rl.baseline=greedy", "rl.scale_rewards=none", "rl.rewards=[{name: group_length}]"],
            "rl.baseline",
            "group_length compares the hypotheses of a group, the greedy one has none; take",
        ),
        (
            [*MWER, "rl.num_iterations=2"],
            "rl.num_iterations",
            "the sampling policy's, good for one",
        ),
        (
            [*MWER, "rl.mini_batch_prompts=4"],
            "rl.mini_batch_prompts",
            "the sampling policy's, good for one update; set 1 and 0",
        ),
        (
            [*MWER, "rl.loss_type=dapo"],
            "rl.loss_type",
            "MWER sums over the tokens of a response; set one of seq-mean-token-sum, dr_grpo",
        ),
        (
            ["rl.policy_loss=cispo"],
            "rl.epsilon_high",
            "caps the ratio itself, which is 1 before an",
        ),
        (
            ["rl.policy_loss=cispo", "rl.epsilon_high=5", "rl.delta=3"],
            "rl.delta",
            "cispo has no dual clip; remove it",
        ),
        (["rl.policy_loss=sapo", "rl.delta=3"], "rl.delta", "sapo has no dual clip; remove it"),
        (["rl.delta=1.1"], "rl.delta", "must leave the clip room; set more than 1.2, 3 say"),
        (
            ["rl.kl_estimator=k1", "rl.beta=0.1"],
            "rl.kl_estimator",
            "the gradient of k1 is 0 on average, so it holds nothing back as a loss; set k2, k3 or",
        ),
        *(
            (
                ["rl.beta=0.1", "rl.kl_in_reward=true", f"rl.kl_estimator={estimator}"],
                "rl.kl_estimator",
                f"as a reward, {estimator} does not have the gradient of the KL; set k1",
            )
            for estimator in ("k2", "k3", "exact")
        ),
        (
            ["rl.kl_in_reward=true", "rl.kl_estimator=k1"],
            "rl.kl_in_reward",
            "has no weight; set rl.beta above 0",
        ),
        (
            ["rl.overlong_buffer=64"],
            "rl.overlong_buffer",
            "every response would lose; set less than 64",
        ),
        (
            ["rl.mini_batch_prompts=17"],
            "rl.mini_batch_prompts",
            "a step has 16 prompts; set at most as many, or 0 for all",
        ),
        (["decode.name=a/b"], "decode.name", 'names a folder (got "a/b")'),
        (["score.normalizer=mandarin"], "score.unit", "Mandarin has no spaces between words; set"),
        (
            ["parallelism.data_parallel_shard_degree=0"],
            "parallelism.data_parallel_shard_degree",
            "no process would have the weights; set 1 or -1",
        ),
        ([*SHARED, "lora.rank=4"], "lora.rank", "adapters are not shared, and their base is whole"),
        (
            [*SHARED, "llm.dtype=bfloat16"],
            "llm.dtype",
            "weights that processes share are kept in fp",
        ),
        ([*SHARED, "rl.placement=alternate"], "rl.placement", "set together, or 1"),
        (
            [*SHARED, "sft.schedule.muon_learning_rate=0.01"],
            "sft.schedule.muon_learning_rate",
            "Muon moves whole matrices",
        ),
    ],
)
def test_broken_rule(problems: Callable, options: list[str], key: str, reason: str) -> None:
    (problem,) = problems("seed: 1", *options)
    assert problem.startswith("--set ") and reason in problem
    assert key in problem.split(reason)[0]


@pytest.mark.parametrize(
    "options",
    [
        ["encoder.type=transformer", "encoder.kernel_size=16"],
        ["frontend.freq_masks=0", "frontend.n_mels=16"],
        ["llm.pretrained=org/lm", "tokenizer.type=pretrained", "llm.num_key_value_heads=3"],
        ["score.normalizer=mandarin", "score.unit=mixed"],
        ["rl.epsilon=0.2", "rl.epsilon_high=0.28"],
        ["rl.top_k=5", "rl.top_p=0.9"],
        ["rl.beta=0.1", "rl.temperature=0.8"],
        ["rl.train=[encoder]"],
        ["rl_data.subsets=[{kind: hard}, {kind: hard, name: h}]", "rl_data.hypotheses=[x]"],
        ["rl_data.keywords=found", "rl_data.background=x"],
        ["rl_data.subsets=[{kind: long, min_duration: 9}, {min_error: 0.5}]"],
        [*K1, "rl.kl_in_reward=true", "rl.baseline=leave_one_out"],
        ["rl.beta=0.1", "rl.kl_estimator=exact", "rl.entropy_coef=-0.01"],
        [*MWER, "rl.loss_type=dr_grpo"],
        ["rl.baseline=greedy", "rl.scale_rewards=whiten", "rl.num_iterations=4"],
        ["rl.policy_loss=sapo", "rl.importance_sampling_level=sequence", "rl.epsilon=3"],
        ["rl.reward_combination=gdpo", "rl.dynamic_sample=true", "rl.overlong_buffer=63"],
        ["rl.delta=3", "rl.rollout_correction=sequence", "rl.mini_batch_prompts=16"],
        ["data.test=[test-clean, 中文_1.2]", "data.no_speech=[test-clean]"],
    ],
)
def test_kept_rule(write: Callable, options: list[str]) -> None:
    load_config(write("seed: 1"), options)


def test_the_place_is_what_was_set_last(write: Callable, problems: Callable) -> None:
    write("rl:\n  epsilon: 0.2\n  epsilon_high: 0.2\n", "base.yaml")
    text = "extends: base.yaml\nrl:\n  epsilon: 0.3\n"
    (problem,) = problems(text)
    assert problem.startswith("c.yaml:3: rl.epsilon_high: ")
    (problem,) = problems(text, "rl.epsilon_high=0.25")
    assert problem.startswith("--set rl.epsilon_high=0.25: must not be tighter")


def test_no_rule_speaks_about_refused_values(problems: Callable) -> None:
    assert len(problems("rl: {epsilon: 0.9, epsilon_high: x}")) == 1
    assert len(problems("rl: {train: [!x llm, decoder]}")) == 1
    assert len(problems("data: &a {no_speech: [q]}")) == 1
    assert len(problems("data: {test: [[q]], no_speech: [q]}")) == 1
    assert len(problems("rl: {epsilon: 0.9}\nextends: gone.yaml")) == 1
