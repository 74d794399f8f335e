"""The differentiable reward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key, repeated
from audiorl.config.rl import DIFFERENTIATED

if TYPE_CHECKING:
    from audiorl.config.schema import Config


@dataclass
class DiffRORewardConfig:
    """One of the tasks of the reward model, as a reward."""

    task: str = key("text", "text, or one of reward_model.tasks")
    weight: float = key(1.0, "factor in the sum", gt=0)


@dataclass
class DiffROConfig:
    """The differentiable reward (arXiv 2507.05911), stage 5."""

    weight: float = key(1.0, "of algorithm both: factor of its loss beside GRPO's (lambda)", gt=0)
    rewards: list[DiffRORewardConfig] = key(
        lambda: [DiffRORewardConfig()],
        "log-probabilities that are raised: of the text, per character, and of the classes of "
        "other tasks (the utterance's speaker or tag; of rate: normal)",
    )
    tau: float = key(1.0, "temperature of Gumbel-Softmax in the first step", gt=0)
    tau_end: float = key(1.0, "in the last; it falls linearly", gt=0)
    hard: bool = key(
        False, "the reward model reads single tokens (straight-through), no mixtures of them"
    )
    history: str = key(
        "auto",
        "what the LM has spoken before each position: what the start model spoke in stage 4 "
        "(fixed) or its own rollout; auto: fixed for algorithm diffro, rollout for both",
        choices=("auto", "fixed", "rollout"),
    )
    sample_filter: str = key(
        "none",
        "rollouts that it learns from: all that end and do not loop, or those of them whose "
        "advantage is above 0",
        choices=("none", "positive_advantage"),
    )
    stop_weight: float = key(
        0.1, "weight of -log P(stopping where the history does, and not before)", ge=0
    )

    def actual_history(self, algorithm: str) -> str:
        """`history`, or what is usual for `rl.algorithm`."""
        usual = "rollout" if algorithm == "both" else "fixed"
        return usual if self.history == "auto" else self.history

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        named = [reward.task for reward in self.rewards]
        if not named:
            yield ("diffro.rewards",), "without any, nothing would be learnt; name text"
        for task in repeated(named):
            yield ("diffro.rewards",), f"names {task} twice; keep one and add up the weights"
        for task in named:
            if task != "text" and task not in config.reward_model.tasks:
                message = f"the reward model does not tell {task}"
                yield ("diffro.rewards", "reward_model.tasks"), f"{message}; add it to its tasks"
        rl = config.rl
        if self.tau_end > self.tau:
            keys = ("diffro.tau_end", "diffro.tau")
            yield keys, f"rises above diffro.tau, and mixtures would blur; set at most {self.tau:g}"
        if rl.algorithm not in DIFFERENTIATED:
            return
        fixed = self.actual_history(rl.algorithm) == "fixed"
        if fixed and rl.algorithm == "both":
            keys = ("diffro.history", "rl.algorithm")
            yield keys, "beside GRPO's loss it is taken on GRPO's rollouts; set rollout, or auto"
        if fixed and self.sample_filter != "none":
            keys = ("diffro.sample_filter", "diffro.history", "rl.algorithm")
            yield keys, "fixed histories have no advantage, only rollouts do; set none"
        if rl.top_k or rl.top_p < 1:
            keys = ("rl.top_k" if rl.top_k else "rl.top_p", "rl.algorithm")
            yield keys, "DiffRO draws from the full distribution; set top_k: 0 and top_p: 1"
