"""What keys must fulfil together: each rule with its reason and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audiorl.config.codec_rules import broken_codec_rules
from audiorl.config.diffro_rules import broken_diffro_rules
from audiorl.config.field import Rule
from audiorl.config.judge_rules import broken_judge_rules
from audiorl.config.rewards import broken_reward_rules
from audiorl.config.schema import Config, SubsetConfig
from audiorl.config.tts_rules import broken_tts_rules

RL_PARTS = ("adaptor", "llm", "encoder")
SUMS = ("seq-mean-token-sum", "dr_grpo", "seq-mean-token-sum-norm")  # loss types over tokens
# Baselines that lie outside of a group: all its members may be above them.
OUTSIDE = {"batch": "the mean of the step", "greedy": "the greedy hypothesis"}
FOLDER = re.compile(r"\w[\w.+-]*")
# Fewer mel bands than this leave nothing behind ESPnet's subsampling convolutions.
LEAST_MELS = {"conv2d": 7, "conv2d6": 11, "conv2d8": 15}


def broken_rules(config: Config) -> Iterator[Rule]:
    """The rules that a config of valid keys breaks."""
    yield from _data(config)
    yield from _model(config)
    yield from _rl_data(config)
    yield from _rl(config)
    yield from broken_reward_rules(config)
    yield from broken_diffro_rules(config)
    yield from broken_tts_rules(config)
    if config.task == "tts":
        yield from broken_judge_rules(config)
        yield from broken_codec_rules(config)
    if not FOLDER.fullmatch(config.decode.name):
        yield ("decode.name",), _not_a_folder(config.decode.name)
    if config.score.unit == "word" and config.score.normalizer == "mandarin":
        keys = ("score.unit", "score.normalizer")
        yield keys, "Mandarin has no spaces between words; set score.unit: mixed (or char)"


def _data(config: Config) -> Iterator[Rule]:
    data = config.data
    for name in ("train", "dev", "rl", "rl_dev"):
        value = getattr(data, name)
        optional = name.startswith("rl") and not value
        if not optional and not FOLDER.fullmatch(value):
            yield (f"data.{name}",), _not_a_folder(value)
    for name in ("extra", "test", "no_speech"):
        values = getattr(data, name)
        for value in values:
            if not FOLDER.fullmatch(value):
                yield (f"data.{name}",), _not_a_folder(value)
        for value in _repeated(values):
            yield (f"data.{name}",), f"names {value} twice; keep one"
    for value in data.no_speech:
        if value not in (*data.test, *data.extra):
            keys = ("data.no_speech", "data.test")
            yield keys, f"{value} is not one of data.test or data.extra; add it there"
    if data.min_duration >= data.max_duration:
        keys = ("data.max_duration", "data.min_duration")
        yield keys, f"must be above data.min_duration, {data.min_duration:g} s; raise it"


def _model(config: Config) -> Iterator[Rule]:
    frontend, encoder, llm = config.frontend, config.encoder, config.llm
    if frontend.freq_masks and frontend.freq_mask_width > frontend.n_mels:
        keys = ("frontend.freq_mask_width", "frontend.n_mels")
        yield keys, f"wider than all mel bands; set at most {frontend.n_mels}"
    if frontend.frame_shift > frontend.frame_length:
        keys = ("frontend.frame_shift", "frontend.frame_length")
        yield keys, f"skips audio between frames of {frontend.frame_length:g} ms; lower it"
    if frontend.n_mels < (least := LEAST_MELS[encoder.input_layer]):
        keys = ("frontend.n_mels", "encoder.input_layer")
        yield keys, f"{encoder.input_layer} needs at least {least} mel bands; raise it"

    if encoder.output_size % encoder.attention_heads or encoder.output_size % 2:
        keys = ("encoder.output_size", "encoder.attention_heads")
        heads = f"{encoder.attention_heads} attention heads"
        yield keys, f"must be even and a multiple of the {heads}; change one"
    if encoder.type != "transformer" and encoder.kernel_size % 2 == 0:
        yield ("encoder.kernel_size", "encoder.type"), f"must be odd; set {encoder.kernel_size + 1}"
    if encoder.type == "e_branchformer" and encoder.linear_units % 2:
        keys = ("encoder.linear_units", "encoder.type")
        yield keys, f"e_branchformer halves it; set {encoder.linear_units + 1}"

    if (config.tokenizer.type == "pretrained") != bool(llm.pretrained):
        keys = ("tokenizer.type", "llm.pretrained")
        if llm.pretrained:
            yield keys, f"{llm.pretrained} knows its own units only; set tokenizer.type: pretrained"
        else:
            yield keys, "a new LM has no tokenizer; set llm.pretrained, or another tokenizer.type"
    if not llm.pretrained and llm.hidden_size % (2 * llm.num_attention_heads):
        keys = ("llm.hidden_size", "llm.num_attention_heads")
        heads = f"2 x {llm.num_attention_heads} attention heads"
        yield keys, f"must be a multiple of {heads} (rotary positions are pairs); change one"
    if not llm.pretrained and llm.num_attention_heads % llm.num_key_value_heads:
        keys = ("llm.num_key_value_heads", "llm.num_attention_heads")
        yield keys, f"must divide the {llm.num_attention_heads} attention heads; change one"
    if (count := llm.prompt.count("{audio}")) != 1:
        message = f"must hold {{audio}}, where the audio goes, once (got {count}); mend it"
        yield ("llm.prompt",), message


def _rl_data(config: Config) -> Iterator[Rule]:
    subsets = config.rl_data.subsets
    held_out = {config.data.dev, config.data.rl_dev, *config.data.test}
    for label in _repeated([subset.label for subset in subsets]):
        yield ("rl_data.subsets",), f"names {label} twice; give one of them another name"
    for subset in subsets:
        for message in _subset(subset):
            yield ("rl_data.subsets",), f"{subset.label}: {message}"
        if (source := subset.source_in(config.data)) in held_out:
            keys = ("rl_data.subsets", "data.dev", "data.rl_dev", "data.test")
            yield keys, f"{subset.label} is taken from {source}, which is held out; name another"
    if config.rl_data.hypotheses and not any(s.kind == "hard" for s in subsets):
        reason = "only subsets of kind hard compare systems, and there is none"
        yield ("rl_data.hypotheses", "rl_data.subsets"), f"{reason}; add one or remove the key"
    for name in ("background", "background_count"):
        if getattr(config.rl_data, name) and config.rl_data.keywords != "found":
            keys = (f"rl_data.{name}", "rl_data.keywords")
            yield keys, "serves to find keywords, and they are given; set keywords: found"


def _subset(subset: SubsetConfig) -> Iterator[str]:
    if not FOLDER.fullmatch(subset.label):
        yield "a name may hold letters, digits and . _ + - only; mend it"
    if subset.source and not FOLDER.fullmatch(subset.source):
        yield f"source {_not_a_folder(subset.source)}"
    if subset.min_duration >= subset.longest:
        yield f"max_duration must be above {subset.min_duration:g} s; raise it"
    if subset.min_error > subset.highest_error:
        yield f"max_error is {subset.highest_error:g}, below min_error; raise it"


def _rl(config: Config) -> Iterator[Rule]:
    rl = config.rl
    parts = ", ".join(RL_PARTS)
    if not rl.train:
        yield ("rl.train",), f"nothing would learn; name some of {parts}"
    for part in rl.train:
        if part not in RL_PARTS:
            yield ("rl.train",), f"{part} is not a part of the model; name some of {parts}"
    for part in _repeated(rl.train):
        yield ("rl.train",), f"names {part} twice; keep one"

    if rl.curriculum_steps > rl.max_steps:
        keys = ("rl.curriculum_steps", "rl.max_steps")
        yield keys, f"the run ends before the hardest are drawn; set at most {rl.max_steps}"
    if rl.cache_frames and "encoder" in rl.train:
        yield ("rl.cache_frames", "rl.train"), "an encoder that learns changes them; set false"
    yield from _advantages(config)
    yield from _policy_loss(config)
    yield from _kl(config)
    if rl.overlong_buffer >= rl.max_completion_length:
        keys = ("rl.overlong_buffer", "rl.max_completion_length")
        yield keys, f"every response would lose; set less than {rl.max_completion_length}"
    if rl.mini_batch_prompts > rl.num_prompts:
        keys = ("rl.mini_batch_prompts", "rl.num_prompts")
        yield keys, f"a step has {rl.num_prompts} prompts; set at most as many, or 0 for all"


def _advantages(config: Config) -> Iterator[Rule]:
    rl = config.rl
    if rl.reward_combination == "gdpo":
        for name in ("baseline", "scale_rewards"):
            if getattr(rl, name) != "group":
                yield (f"rl.{name}", "rl.reward_combination"), "gdpo has its own; remove it"
        if rl.kl_in_reward:
            keys = ("rl.kl_in_reward", "rl.reward_combination")
            reason = "gdpo gives each reward the same spread, however small the KL"
            yield keys, f"{reason}; set kl_in_reward: false"
    if rl.baseline in OUTSIDE:
        outside = OUTSIDE[rl.baseline]
        if rl.scale_rewards == "group":
            keys = ("rl.scale_rewards", "rl.baseline")
            reason = f"a group's deviation says nothing about its distance from {outside}"
            yield keys, f"{reason}; set whiten, batch or none"
        if rl.dynamic_sample:
            keys = ("rl.dynamic_sample", "rl.baseline")
            reason = f"a flat group learns too when it is compared with {outside}"
            yield keys, f"{reason}; set dynamic_sample: false"
    if rl.baseline == "greedy":
        for reward in rl.rewards:
            if reward.actual_kind == "group":
                message = (
                    f"{reward.name} compares the hypotheses of a group, the greedy one has none"
                )
                yield ("rl.baseline", "rl.rewards"), f"{message}; take another baseline"
    if rl.baseline == "posterior":
        if rl.num_iterations > 1 or rl.mini_batch_prompts:
            keys = ("rl.num_iterations" if rl.num_iterations > 1 else "rl.mini_batch_prompts",)
            reason = "the weights of baseline posterior are the sampling policy's"
            yield (*keys, "rl.baseline"), f"{reason}, good for one update; set 1 and 0"
        if rl.loss_type not in SUMS:
            keys = ("rl.loss_type", "rl.baseline")
            yield keys, f"MWER sums over the tokens of a response; set one of {', '.join(SUMS)}"


def _policy_loss(config: Config) -> Iterator[Rule]:
    rl = config.rl
    if rl.policy_loss == "cispo" and rl.epsilon_high < 1:
        keys = ("rl.epsilon_high", "rl.policy_loss")
        reason = "cispo caps the ratio itself, which is 1 before an update"
        yield keys, f"{reason}; set at least 1, 5 say"
    if rl.policy_loss != "ppo":
        if rl.delta:
            yield ("rl.delta", "rl.policy_loss"), f"{rl.policy_loss} has no dual clip; remove it"
        return
    if rl.epsilon >= 1:
        yield ("rl.epsilon",), "a ratio is never below 0, so it would never clip; set less than 1"
    elif rl.epsilon_high < rl.epsilon:
        keys = ("rl.epsilon_high", "rl.epsilon")
        yield keys, f"must not be tighter than the lower clip; set at least {rl.epsilon:g}"
    if rl.delta and rl.delta <= 1 + rl.epsilon_high:
        keys = ("rl.delta", "rl.epsilon_high")
        yield keys, f"must leave the clip room; set more than {1 + rl.epsilon_high:g}, 3 say"


def _kl(config: Config) -> Iterator[Rule]:
    rl = config.rl
    if rl.beta and (rl.top_k or rl.top_p < 1):
        keys = ("rl.beta", "rl.top_k" if rl.top_k else "rl.top_p")
        reason = "a reference cut to its own likeliest tokens is infinitely far from the policy"
        yield keys, f"{reason}; set top_k: 0 and top_p: 1, or beta: 0"
    if rl.kl_estimator == "k1" and rl.beta and not rl.kl_in_reward:
        keys = ("rl.kl_estimator", "rl.kl_in_reward")
        reason = "the gradient of k1 is 0 on average, so it holds nothing back as a loss"
        yield keys, f"{reason}; set k2, k3 or exact, or kl_in_reward: true"
    if rl.kl_in_reward and rl.kl_estimator != "k1":
        keys = ("rl.kl_estimator", "rl.kl_in_reward")
        reason = f"as a reward, {rl.kl_estimator} does not have the gradient of the KL"
        yield keys, f"{reason}; set k1"
    if rl.kl_in_reward and not rl.beta:
        yield ("rl.kl_in_reward", "rl.beta"), "has no weight; set rl.beta above 0"


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _not_a_folder(name: str) -> str:
    return f'names a folder (got "{name}"); use letters, digits and . _ + - only'
