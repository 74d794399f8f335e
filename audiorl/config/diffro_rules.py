"""What the reward model and DiffRO must fulfil."""

from __future__ import annotations

from collections.abc import Iterator

from audiorl.config.field import Rule
from audiorl.config.schema import Config

DIFFERENTIATED = ("diffro", "both")  # algorithms with DiffRO's loss


def broken_diffro_rules(config: Config) -> Iterator[Rule]:
    """The rules that a recipe of synthesis breaks in these sections."""
    if config.task == "asr":
        if config.rl.algorithm in DIFFERENTIATED:
            message = "differentiates in speech tokens, and this recipe's task is asr"
            yield ("rl.algorithm", "task"), f"{config.rl.algorithm} {message}; set grpo"
        return
    yield from _reward_model(config)
    yield from _rewards(config)
    yield from _diffro(config)


def _reward_model(config: Config) -> Iterator[Rule]:
    model = config.reward_model
    if model.output_size % model.attention_heads or model.output_size % 2:
        keys = ("reward_model.output_size", "reward_model.attention_heads")
        heads = f"{model.attention_heads} attention heads"
        yield keys, f"must be even and a multiple of the {heads}; change one"
    if model.type != "transformer" and model.kernel_size % 2 == 0:
        keys = ("reward_model.kernel_size", "reward_model.type")
        yield keys, f"must be odd; set {model.kernel_size + 1}"
    if model.type == "e_branchformer" and model.linear_units % 2:
        keys = ("reward_model.linear_units", "reward_model.type")
        yield keys, f"e_branchformer halves it; set {model.linear_units + 1}"
    for task in sorted({task for task in model.tasks if model.tasks.count(task) > 1}):
        yield ("reward_model.tasks",), f"names {task} twice; keep one"
    if "text" in model.tasks:
        yield ("reward_model.tasks",), "text is always its task; remove it"


def _rewards(config: Config) -> Iterator[Rule]:
    named = [reward.task for reward in config.diffro.rewards]
    if not named:
        yield ("diffro.rewards",), "without any, nothing would be learnt; name text"
    for task in sorted({task for task in named if named.count(task) > 1}):
        yield ("diffro.rewards",), f"names {task} twice; keep one and add up the weights"
    for task in named:
        if task != "text" and task not in config.reward_model.tasks:
            message = f"the reward model does not tell {task}"
            yield ("diffro.rewards", "reward_model.tasks"), f"{message}; add it to its tasks"


def _diffro(config: Config) -> Iterator[Rule]:
    rl, diffro = config.rl, config.diffro
    if diffro.tau_end > diffro.tau:
        keys = ("diffro.tau_end", "diffro.tau")
        yield keys, f"rises above diffro.tau, and mixtures would blur; set at most {diffro.tau:g}"
    if rl.algorithm not in DIFFERENTIATED:
        return
    fixed = diffro.actual_history(rl.algorithm) == "fixed"
    if fixed and rl.algorithm == "both":
        keys = ("diffro.history", "rl.algorithm")
        yield keys, "beside GRPO's loss it is taken on GRPO's rollouts; set rollout, or auto"
    if fixed and diffro.sample_filter != "none":
        keys = ("diffro.sample_filter", "diffro.history", "rl.algorithm")
        yield keys, "fixed histories have no advantage, only rollouts do; set none"
    if diffro.loop_tokens > rl.max_completion_length and not fixed:
        keys = ("diffro.loop_tokens", "rl.max_completion_length")
        yield keys, f"no response is that long; set less than {rl.max_completion_length}"
    if rl.top_k or rl.top_p < 1:
        keys = ("rl.top_k" if rl.top_k else "rl.top_p", "rl.algorithm")
        yield keys, "DiffRO draws from the full distribution; set top_k: 0 and top_p: 1"
