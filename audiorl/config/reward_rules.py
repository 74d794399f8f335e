"""What rewards must fulfil, each by itself and together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import PurePath

from audiorl.config.keys import default_of
from audiorl.config.schema import REWARDS, SPEECH_REWARDS, Config, RewardConfig, RLConfig

Rule = tuple[tuple[str, ...], str]  # the keys it is about (the one to name first), the sentence

COMMON = ("name", "weight", "label", "kind")
LABEL = re.compile(r"\w[\w.-]*")


def broken_reward_rules(config: Config) -> Iterator[Rule]:
    """The rules that `rl.rewards` break, each under that key."""
    rl = config.rl
    for reward in rl.rewards:
        for message in _of_one(reward):
            yield ("rl.rewards",), message
    labels = [reward.label or reward.name for reward in rl.rewards]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        message = f"names {label} twice; keep one and add up the weights, or give one a label"
        yield ("rl.rewards",), message
    if not any(reward.weight for reward in rl.rewards):
        yield ("rl.rewards",), "no reward has a weight, so nothing would be learnt; set one to 1.0"
    if config.task == "asr":
        yield from _speech(rl)
    yield from _in_workers(rl)
    if rl.reward_combination == "harmonic":
        yield from _harmonic(rl)
    if rl.reward_combination == "gdpo":
        for reward in rl.rewards:
            if reward.actual_kind == "gate":
                message = f"gdpo sums advantages, and the gate {reward.name} would not count"
                yield ("rl.reward_combination", "rl.rewards"), f"{message}; set its kind: sample"


def _of_one(reward: RewardConfig) -> Iterator[str]:
    name = reward.name
    kinds, options = REWARDS[name]
    for field in fields(RewardConfig):
        if field.name not in (*COMMON, *options):
            if getattr(reward, field.name) != default_of(field):
                known = f"knows {', '.join(options)}" if options else "has no options"
                yield f"{name} has no use for {field.name} (it {known}); remove it"
    if reward.kind not in ("auto", *kinds):
        yield f"{name} cannot be of kind {reward.kind}; set kind: {' or '.join(kinds)}"
    if reward.actual_kind == "gate" and reward.weight <= 0:
        yield f"{name} is a gate of weight {reward.weight:g} and would reward; set more than 0"
    if reward.label and not LABEL.fullmatch(reward.label):
        yield f'label "{reward.label}" names numbers in logs; use letters, digits and . _ - only'
    if name == "file" and not reward.reward_file:
        yield "file needs reward_file, your Python file with reward(samples); name it"
    path = PurePath(reward.reward_file)
    if reward.reward_file and path.suffix != ".py":
        yield f"reward_file is {path}, which is no Python file; name one that ends in .py"
    if path.is_absolute() or ".." in path.parts:
        yield (
            f"reward_file is {path}, outside the recipe's folder, and would not be packed with the "
            "result; copy it there"
        )
    if name == "http" and not reward.url.startswith(("http://", "https://")):
        yield "http needs url, which begins with http:// or https://; name your server"
    try:
        re.compile(reward.pattern)
    except re.error as error:
        yield f"pattern is no regular expression ({error}); mend it"


def _speech(rl: RLConfig) -> Iterator[Rule]:
    for reward in rl.rewards:
        if reward.name in SPEECH_REWARDS:
            message = f"{reward.name} looks at speech tokens, and this recipe's task is asr"
            yield ("rl.rewards", "task"), f"{message}; take another"
        elif reward.waves:
            message = "waves are made where speech is, and this recipe's task is asr"
            yield ("rl.rewards", "task"), f"{message}; remove waves"


def _in_workers(rl: RLConfig) -> Iterator[Rule]:
    for reward in rl.rewards:
        asks = reward.name in ("tempo", "likelihood", "speaker_similarity") or reward.pitch > 0
        if rl.reward_workers and asks:
            message = f"{reward.name} needs what is loaded in the training process alone"
            yield ("rl.reward_workers", "rl.rewards"), f"{message}; set 0"


def _harmonic(rl: RLConfig) -> Iterator[Rule]:
    keys = ("rl.reward_combination", "rl.rewards")
    for reward in rl.rewards:
        if reward.name == "edit_distance":
            yield keys, "edit_distance has no lowest value and no harmonic mean; take wer_exp, say"
        elif reward.weight <= 0:
            message = f"a harmonic mean needs weights above 0, and {reward.name} has"
            yield keys, f"{message} {reward.weight:g}; raise or remove it"
