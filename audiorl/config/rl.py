"""Reinforcement learning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key, repeated
from audiorl.config.rewards import RewardOptions, broken_reward_rules, reward_options

if TYPE_CHECKING:
    from audiorl.config.schema import Config

ENVIRONMENTS = Path(__file__).resolve().parents[2] / "tools" / "engines"
RL_PARTS = ("adaptor", "llm", "encoder", "embeddings")
SUMMED = ("seq-mean-token-sum", "dr_grpo", "seq-mean-token-sum-norm")  # loss types over tokens
# Baselines that lie outside of a group: all its members may be above them.
OUTSIDE = {"batch": "the mean of the step", "greedy": "the greedy hypothesis"}
DIFFERENTIATED = ("diffro", "both")  # algorithms with DiffRO's loss


def _reason_against_other_length(config: Config) -> str:
    """Return what the steps so far owe to `rl.max_steps`; "" if nothing."""
    rl = config.rl
    if rl.lr_scheduler_type == "linear":
        return "the learning rate falls to 0 at rl.max_steps"
    if rl.prompt_order == "curriculum":
        return "the curriculum draws from all utterances at half of rl.max_steps"
    if rl.algorithm in DIFFERENTIATED and config.diffro.tau != config.diffro.tau_end:
        return "diffro.tau falls to diffro.tau_end at rl.max_steps"
    return ""


@dataclass
class RLConfig:
    """Reinforcement learning (stage 5)."""

    algorithm: str = key(
        "grpo",
        "grpo; of asr also supervised, the same data and updates with cross entropy (the control); "
        "of tts also diffro, a reward that is differentiated, and both, the sum of the two losses",
        choices=("grpo", "supervised", "diffro", "both"),
    )
    engine: str = key(
        "native",
        "samples responses: native, the policy itself; vllm or sglang, in environments of their "
        "own (tools/install_engine.sh); or one of yours in engines/",
    )
    engine_python: str = key(
        "", "Python of the engine's environment; empty: tools/engines/<engine>", resume=True
    )
    engine_url: str = key(
        "",
        "URL of an engine that runs elsewhere; empty: a process of its own",
        resume=True,
    )
    placement: str = key(
        "resident",
        "what is in the GPU's memory: all at once, or, in turn, what a phase of the step needs",
        choices=("resident", "alternate"),
        resume=True,
    )
    train: list[str] = key(
        ["adaptor", "llm"],
        "parts that learn; `encoder` may be added (then it is run in each update), and, of a "
        "Whisper, which has no adaptor, `embeddings`",
        task="asr",
    )
    max_steps: int = key(
        100, "updates (steps of rollout and update)", ge=1, resume=_reason_against_other_length
    )
    num_prompts: int = key(16, "prompts (utterances) per step [train_batch_size]", ge=1)
    prompt_order: str = key(
        "shuffle",
        "inside each subset: shuffled epochs; curriculum: random among the easiest, by the reward "
        "that stage 4 measured, and among ever more; reweight: the likelier, the more the rewards "
        "of its hypotheses lately differed",
        choices=("shuffle", "curriculum", "reweight"),
        task="asr",
    )
    num_generations: int = key(8, "group size G: hypotheses per prompt [rollout.n]", ge=2)
    max_completion_length: int = key(
        64, "tokens of a hypothesis at most [max_response_length]", ge=1
    )
    temperature: float = key(1.0, "of sampling; the update scores the same distribution", ge=1e-6)
    top_k: int = key(0, "sample from the k likeliest tokens; 0: all", ge=0)
    top_p: float = key(
        1.0, "sample from the smallest set with this probability; 1: all", gt=0, le=1
    )
    rewards: list[RewardOptions] = key(lambda: [reward_options()], "rewards, one list item each")
    reward_combination: str = key(
        "sum",
        "weighted sum; harmonic: the weighted harmonic mean, in which bad in one is bad in all; "
        "gdpo: each reward normalised in its group, then summed and whitened over the step, in "
        "place of baseline and scale_rewards [multi_objective_aggregation]",
        choices=("sum", "harmonic", "gdpo"),
    )
    max_unscorable: float = key(
        0.1, "share of samples on which a reward fails, above which a run stops", ge=0, le=1
    )
    baseline: str = key(
        "group",
        "what a reward is compared with: mean of its group (GRPO), of the others in it "
        "(leave_one_out, RLOO), of the step (batch, REINFORCE++), reward of the greedy hypothesis "
        "(greedy, ReMax), mean by the group's probabilities, which weigh the samples too "
        "(posterior, MWER); best: none, the best of the group is imitated (RAFT) [adv_estimator]",
        choices=("group", "leave_one_out", "batch", "greedy", "posterior", "best"),
    )
    scale_rewards: str = key(
        "group",
        "divide advantages by the standard deviation (n - 1) of the group's or step's rewards "
        "+ 1e-4; whiten: the step's advantages to mean 0 and deviation 1 (REINFORCE++); or not",
        choices=("group", "batch", "whiten", "none"),
    )
    importance_sampling_level: str = key(
        "token", "ratio of each token, or of the sequence (GSPO)", choices=("token", "sequence")
    )
    policy_loss: str = key(
        "ppo",
        "surrogate: clipped (ppo), cispo (its cap is epsilon_high itself) or sapo [loss_mode]",
        choices=("ppo", "cispo", "sapo"),
    )
    epsilon: float = key(0.2, "lower clip of the ratio [clip_ratio_low]", ge=0)
    epsilon_high: float = key(
        0.2, "upper clip of the ratio; DAPO 0.28, cispo 5 [clip_ratio_high]", ge=0
    )
    delta: float = key(
        0.0, "dual clip: no ratio counts as more than this; 0: off [clip_ratio_c]", ge=0
    )
    sapo_temperature_pos: float = key(1.0, "sapo's temperature where the advantage is > 0", gt=0)
    sapo_temperature_neg: float = key(1.05, "sapo's temperature elsewhere", gt=0)
    loss_type: str = key(
        "dapo",
        "mean of the tokens of an update (dapo, token-mean), of the responses' means (grpo, "
        "seq-mean-token-mean), of the groups' token means (bnpo), of the responses' sums "
        "(seq-mean-token-sum), the same over max_completion_length (dr_grpo, "
        "seq-mean-token-sum-norm) [loss_agg_mode]",
        choices=(
            "dapo",
            "token-mean",
            "grpo",
            "seq-mean-token-mean",
            "bnpo",
            "seq-mean-token-sum",
            "dr_grpo",
            "seq-mean-token-sum-norm",
        ),
    )
    beta: float = key(
        0.0, "weight of KL to the start model; 0: no reference model [kl_loss_coef]", ge=0
    )
    kl_estimator: str = key(
        "k3",
        "of each sampled token (k1, k2, k3), or exact over the vocabulary [kl_loss_type]",
        choices=("k1", "k2", "k3", "exact"),
    )
    kl_in_reward: bool = key(
        False, "take k1 off each response's reward; no KL in the loss [use_kl_in_reward]"
    )
    entropy_coef: float = key(0.0, "weight of the mean entropy that is rewarded [entropy_coeff]")
    num_iterations: int = key(1, "passes over a rollout [ppo_epochs]", ge=1)
    mini_batch_prompts: int = key(
        0, "prompts of one update; 0: all of the step's [ppo_mini_batch_size]", ge=0
    )
    rollout_correction: str = key(
        "auto",
        "weigh by min(policy / rollout, cap) of the token or sequence: for a rollout engine whose "
        "probabilities differ from the policy's; costs one more forward; auto: none of native, "
        "token of other engines [rollout_is]",
        choices=("auto", "none", "token", "sequence"),
    )
    dynamic_sample: bool = key(
        False, "draw other prompts in place of groups whose rewards are all equal [filter_groups]"
    )
    give_silence: bool = key(
        False,
        "put the right answer, nothing, into the group of a recording without speech that never "
        "draws it, with its own log-probability: what is not drawn is not learnt",
        task="asr",
    )
    overlong_buffer: int = key(
        0,
        "a response's reward falls by up to 1 over the last tokens, this many, before "
        "max_completion_length; 0: off [overlong_buffer_cfg.len]",
        ge=0,
    )
    mask_truncated_completions: bool = key(False, "leave hypotheses without an end out of the loss")
    share_prefix: str = key(
        "auto",
        "one forward of the prefix for its whole group; auto: when it saves tokens",
        choices=("auto", "always", "never"),
        resume=True,
    )
    rollout_prompts: int = key(
        0,
        "prompts whose groups are sampled at once; 0: all of the step's. Fewer need less memory, "
        "and their rewards are computed while the next are sampled",
        ge=0,
        resume=True,
    )
    reward_workers: int = key(
        0, "processes for rewards that take long; 0: in the training process", ge=0, resume=True
    )
    cache_frames: bool = key(
        False,
        "keep what a frozen encoder makes of the audio on disk too, in the experiment's frames/: "
        "for corpora whose frames need more than 4 GB, and for resuming",
        task="asr",
        resume=True,
    )
    micro_batch_tokens: int = key(
        16384, "tokens of prefixes and responses in one forward", ge=1, resume=True
    )
    learning_rate: float = key(1e-4, "peak learning rate (AdamW)", gt=0)
    warmup_steps: int = key(5, "steps of linear warm-up", ge=0)
    lr_scheduler_type: str = key(
        "constant",
        "learning rate after the warm-up: constant, or linear to 0 at max_steps",
        choices=("constant", "linear"),
    )
    eval_steps: int = key(20, "steps between evaluations on rl_dev", ge=1)
    early_stop: str = key(
        "flag",
        "when the reward rises from evaluation to evaluation and the judge's score falls, beyond "
        "noise, reward hacking by the look of it: say so in the log (flag), end the run with the "
        "best model from before (stop), or never look",
        choices=("never", "flag", "stop"),
        task="tts",
    )
    early_stop_window: int = key(
        4, "evaluations, the latest, that early_stop looks at", ge=3, task="tts"
    )
    save_steps: int = key(20, "steps between checkpoints for resuming", ge=1, resume=True)
    average: int = key(1, "the model is the mean of this many best checkpoints by rl_dev", ge=1)
    eval_utterances: int = key(200, "rl_dev utterances per evaluation; 0: all", ge=0, resume=True)

    def python_of(self, engine: str) -> str:
        """Return the path of the Python that an engine runs in, which may not be there."""
        return self.engine_python or str(ENVIRONMENTS / engine / "bin" / "python")

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        parts = ", ".join(RL_PARTS)
        if not self.train:
            yield ("rl.train",), f"nothing would learn; name some of {parts}"
        for part in self.train:
            if part not in RL_PARTS:
                yield ("rl.train",), f"{part} is not a part of the model; name some of {parts}"
        for part in repeated(self.train):
            yield ("rl.train",), f"names {part} twice; keep one"

        # A pretrained recogniser's frames are read behind its adaptor.
        changing = ("encoder", "adaptor") if config.model.pretrained else ("encoder",)
        for part in changing:
            if self.cache_frames and part in self.train:
                keys = ("rl.cache_frames", "rl.train")
                yield keys, f"an {part} that learns changes them; set false"
        yield from _advantages(self)
        yield from _policy_loss(self)
        yield from _kl(self)
        if self.overlong_buffer >= self.max_completion_length:
            keys = ("rl.overlong_buffer", "rl.max_completion_length")
            yield keys, f"every response would lose; set less than {self.max_completion_length}"
        if self.mini_batch_prompts > self.num_prompts:
            keys = ("rl.mini_batch_prompts", "rl.num_prompts")
            yield keys, f"a step has {self.num_prompts} prompts; set at most as many, or 0 for all"
        if config.task == "asr" and self.algorithm in DIFFERENTIATED:
            message = "differentiates in speech tokens, and this recipe's task is asr"
            yield ("rl.algorithm", "task"), f"{self.algorithm} {message}; set grpo"
        if config.task == "tts" and self.algorithm == "supervised":
            keys = ("rl.algorithm", "task")
            message = (
                "texts alone have nothing to copy; train the speech LM for longer, or set grpo"
            )
            yield keys, message
        yield from broken_reward_rules(config)


def _advantages(rl: RLConfig) -> Iterator[Rule]:
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
    if rl.baseline == "best" and rl.scale_rewards != "none":
        keys = ("rl.scale_rewards", "rl.baseline")
        yield keys, "the best of a group is imitated, however much better it is; set none"
    if rl.baseline == "posterior":
        if rl.num_iterations > 1 or rl.mini_batch_prompts:
            keys = ("rl.num_iterations" if rl.num_iterations > 1 else "rl.mini_batch_prompts",)
            reason = "the weights of baseline posterior are the sampling policy's"
            yield (*keys, "rl.baseline"), f"{reason}, good for one update; set 1 and 0"
        if rl.loss_type not in SUMMED:
            keys = ("rl.loss_type", "rl.baseline")
            yield keys, f"MWER sums over the tokens of a response; set one of {', '.join(SUMMED)}"


def _policy_loss(rl: RLConfig) -> Iterator[Rule]:
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


def _kl(rl: RLConfig) -> Iterator[Rule]:
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
