"""What the keys of the judge must fulfil together."""

from __future__ import annotations

from collections.abc import Iterator

from audiorl.config.field import Rule
from audiorl.config.schema import Config


def broken_judge_rules(config: Config) -> Iterator[Rule]:
    """The rules about the judge that a config of valid keys breaks."""
    judge, held_out = config.judge, (config.data.dev, config.data.rl_dev, *config.data.test)
    if judge.output_size % judge.attention_heads or judge.output_size % 2:
        keys = ("judge.output_size", "judge.attention_heads")
        heads = f"{judge.attention_heads} attention heads"
        yield keys, f"must be even and a multiple of the {heads}; change one"
    if judge.linear_units % 2:
        reason = "an E-Branchformer halves it"
        yield ("judge.linear_units",), f"{reason}; set {judge.linear_units + 1}"
    if judge.kernel_size % 2 == 0:
        yield ("judge.kernel_size",), f"must be odd; set {judge.kernel_size + 1}"
    if judge.train and judge.train in held_out:
        keys = ("judge.train", "data.dev", "data.rl_dev", "data.test")
        yield keys, f"{judge.train} is held out; name a set to learn from"
