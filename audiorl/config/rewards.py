"""Options that all rewards have, and the rules of `rl.rewards`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from audiorl.config.field import Rule, key
from audiorl.config.variants import Variants

if TYPE_CHECKING:
    from audiorl.config.rl import RLConfig
    from audiorl.config.schema import Config

REWARDS = Variants("audiorl.rewards", "Options", "build")
LABEL = re.compile(r"\w[\w.-]*")
MODELS = frozenset({"speaker", "reward_model", "token_rate"})  # in the training process alone
SYNTHESIS = MODELS | {"tokens"}


@dataclass
class RewardOptions:
    """A reward by name, its weight and its own options.

    Each reward derives its `Options` from this class. `needs` may hold `text`, `wave`, `tokens`,
    `speaker` (vectors of voices), `reward_model` and `token_rate`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("sample",)  # that it may be of; the first is the default
    needs: ClassVar[tuple[str, ...]] = ("text",)
    penalty: ClassVar[bool] = False  # the best value is 0; otherwise it is 1
    bounded: ClassVar[bool] = True  # there is a lowest value: a harmonic mean exists
    files: ClassVar[tuple[Path, ...]] = ()  # of the user, copied into the experiment

    name: str = key("wer", "a module of audiorl/rewards, or one of your own", choices=REWARDS)
    weight: float = key(1.0, "factor in the sum; of a gate: of the value that becomes the total")
    label: str = key("", "its name in the log, if one reward is used twice; empty: its name")
    kind: str = key(
        "auto",
        "sample: a term of the sum; group: likewise, sees the hypotheses of an utterance at once; "
        "gate: its value, where below 0, becomes the total; auto: what is usual for the reward",
        choices=("auto", "sample", "group", "gate"),
    )

    @property
    def actual_kind(self) -> str:
        """`kind`, or the reward's default."""
        return self.kinds[0] if self.kind == "auto" else self.kind

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each rule that the reward's own options break."""
        yield from ()


def reward_options(name: str = "wer", weight: float = 1.0, **options: Any) -> RewardOptions:
    """Return the options of a reward by its name."""
    return REWARDS.module(name).Options(name, weight, **options)


def broken_reward_rules(config: Config) -> Iterator[Rule]:
    """Yield the rules that `rl.rewards` break, each under that key."""
    rl = config.rl
    for reward in rl.rewards:
        for message in (*_common_problems(reward), *reward.problems()):
            yield ("rl.rewards",), message
    labels = [reward.label or reward.name for reward in rl.rewards]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        message = f"names {label} twice; keep one and add up the weights, or give one a label"
        yield ("rl.rewards",), message
    if not any(reward.weight for reward in rl.rewards):
        yield ("rl.rewards",), "no reward has a weight, so nothing would be learnt; set one to 1.0"
    for reward in rl.rewards:
        if config.task == "asr" and SYNTHESIS.intersection(reward.needs):
            message = f"{reward.name} looks at speech tokens, and this recipe's task is asr"
            yield ("rl.rewards", "task"), f"{message}; take another"
        if rl.reward_workers and MODELS.intersection(reward.needs):
            message = f"{reward.name} needs what is loaded in the training process alone"
            yield ("rl.reward_workers", "rl.rewards"), f"{message}; set 0"
    yield from _combination(rl)


def _common_problems(reward: RewardOptions) -> Iterator[str]:
    name = reward.name
    if reward.kind not in ("auto", *reward.kinds):
        yield f"{name} cannot be of kind {reward.kind}; set kind: {' or '.join(reward.kinds)}"
    if reward.actual_kind == "gate" and reward.weight <= 0:
        yield f"{name} is a gate of weight {reward.weight:g} and would reward; set more than 0"
    if reward.label and not LABEL.fullmatch(reward.label):
        yield f'label "{reward.label}" names numbers in logs; use letters, digits and . _ - only'


def _combination(rl: RLConfig) -> Iterator[Rule]:
    keys = ("rl.reward_combination", "rl.rewards")
    for reward in rl.rewards:
        if rl.reward_combination == "gdpo" and reward.actual_kind == "gate":
            message = f"gdpo sums advantages, and the gate {reward.name} would not count"
            yield keys, f"{message}; set its kind: sample"
        if rl.reward_combination != "harmonic":
            continue
        if not reward.bounded:
            yield keys, f"{reward.name} has no lowest value and no harmonic mean; take wer_exp, say"
        elif reward.weight <= 0:
            message = f"a harmonic mean needs weights above 0, and {reward.name} has"
            yield keys, f"{message} {reward.weight:g}; raise or remove it"
