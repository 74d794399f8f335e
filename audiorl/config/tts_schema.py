"""The sections of a recipe that synthesis alone has (`task: tts`)."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.field import key


@dataclass
class CodecConfig:
    """From a wave to speech tokens (stage 3)."""

    type: str = key(
        "native",
        "native: trained in stage 3; or a pretrained one of transformers, of whose codebooks the "
        "first is used",
        choices=("native", "xcodec2", "mimi", "dac"),
    )
    pretrained: str = key("", "folder or hub name of a pretrained codec; native has none")
    output_size: int = key(144, "width of its Conformer", ge=8)
    attention_heads: int = key(4, "heads", ge=1)
    linear_units: int = key(288, "width of the feed-forward layers", ge=8)
    kernel_size: int = key(15, "kernel of the convolutions; odd", ge=1)
    num_blocks: int = key(3, "layers that make tokens", ge=1)
    num_blocks_after: int = key(1, "layers that read tokens, for CTC over characters", ge=1)
    dropout_rate: float = key(0.1, "dropout", ge=0, lt=1)
    echo_weight: float = key(
        0.5,
        "weight of the mel frames that are read from tokens, beside CTC: what text does not say, "
        "length and loudness above all, is kept too",
        ge=0,
    )
    fsq_dims: int = key(6, "numbers of a code; there are fsq_levels ^ fsq_dims codes", ge=1)
    fsq_levels: int = key(3, "values of each number; odd", ge=3)
    max_steps: int = key(2000, "updates of the tokens", ge=1)
    batch_seconds: float = key(60.0, "seconds of audio in a batch, padding included", gt=0)
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.0, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(100, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    weight_decay: float = key(0.01, "weight decay on matrices", ge=0)
    max_grad_norm: float = key(5.0, "gradient norm is clipped to this", gt=0)
    eval_steps: int = key(200, "updates between evaluations, and between checkpoints", ge=1)
    average: int = key(
        1,
        "the tokens are the mean of this many best evaluations by dev CER, the sound by mel error",
        ge=1,
    )
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0)


@dataclass
class FlowConfig:
    """From speech tokens and a speaker vector to a wave: flow matching, Griffin-Lim (stage 3)."""

    hidden_size: int = key(192, "width", ge=8)
    num_token_blocks: int = key(2, "layers at the rate of tokens", ge=0)
    num_draft_blocks: int = key(2, "layers at the rate of mel frames that draft them", ge=0)
    num_blocks: int = key(6, "layers of the flow, at the same rate", ge=1)
    kernel_size: int = key(7, "kernel of the convolutions; odd", ge=1)
    speaker_size: int = key(64, "size of a speaker's vector", ge=2)
    condition_dropout: float = key(
        0.1, "share of the utterances that are learnt without tokens and speaker", ge=0, lt=1
    )
    max_steps: int = key(2000, "updates; what else a training needs is as in codec", ge=1)
    batch_seconds: float = key(60.0, "seconds of audio in a batch, padding included", gt=0)
    learning_rate: float = key(1e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(0.0, "peak learning rate of Muon; 0: AdamW alone", ge=0)
    euler_steps: int = key(10, "evaluations of the network for an utterance", ge=1)
    temperature: float = key(
        0.5, "deviation of the noise that speaking begins with; training has 1", ge=0
    )
    guidance: float = key(
        0.0, "classifier-free guidance: how far to go beyond, away from no condition; 0: off", ge=0
    )
    griffin_lim_steps: int = key(32, "iterations from mel frames to a wave", ge=1)


@dataclass
class RewardModelConfig:
    """The token-to-text model that rewards, differentiable in its input (stage 3)."""

    type: str = key(
        "conformer", "ESPnet encoder", choices=("conformer", "e_branchformer", "transformer")
    )
    output_size: int = key(144, "width, of the embeddings of tokens too", ge=8)
    attention_heads: int = key(4, "heads", ge=1)
    linear_units: int = key(288, "width of the feed-forward layers", ge=8)
    num_blocks: int = key(4, "layers of the encoder", ge=1)
    decoder_blocks: int = key(1, "layers of the attention decoder", ge=1)
    kernel_size: int = key(15, "kernel of the convolution (conformer, e_branchformer); odd", ge=1)
    dropout_rate: float = key(0.1, "dropout", ge=0, lt=1)
    frames_per_token: int = key(
        1,
        "of CTC; more where people say more characters than there are tokens, but it then learns "
        "several times slower",
        ge=1,
    )
    ctc_weight: float = key(
        0.5, "of CTC in log P(text); attention has 1 - this; 1: no attention decoder", gt=0, le=1
    )
    tasks: list[str] = key(
        [],
        "what it tells beside the text: speaker, rate (slow, normal, fast), or, of a file "
        "utt2style say, style",
    )
    task_weight: float = key(0.1, "weight of each of these tasks' losses in training", ge=0)
    label_smoothing: float = key(0.1, "of attention and tasks in training", ge=0, lt=1)
    token_noise: float = key(0.05, "share of the tokens that become random ones", ge=0, lt=1)
    time_masks: int = key(2, "spans of tokens that are hidden; 0: none", ge=0)
    time_mask_width: float = key(0.05, "widest of them, as a share of the utterance", ge=0, le=1)
    mixup: float = key(
        0.3, "share of another utterance's embeddings that is mixed in, at most", ge=0, le=0.5
    )
    embedding_noise: float = key(
        0.1, "deviation of Gaussian noise on embeddings, relative to theirs", ge=0
    )
    adversarial: float = key(
        0.0,
        "size of the worst change of the embeddings, relative to theirs, that half of the loss is "
        "taken at; costs a second forward and backward; 0: none",
        ge=0,
    )
    max_steps: int = key(1000, "updates", ge=1)
    batch_seconds: float = key(80.0, "seconds of speech in a batch, padding included", gt=0)
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.0, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(100, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    weight_decay: float = key(0.01, "of both optimizers, on matrices", ge=0)
    max_grad_norm: float = key(5.0, "gradient norm is clipped to this", gt=0)
    eval_steps: int = key(200, "updates between evaluations, and between checkpoints", ge=1)
    average: int = key(3, "the model is the mean of this many best evaluations by dev CER", ge=1)
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0)


@dataclass
class JudgeConfig:
    """The recogniser that scores what is synthesised, and never rewards (stage 3)."""

    train: str = key("", "set of natural recordings that it learns from; empty: data.train")
    seed: int = key(1000, "of its weights and batches; other models have `seed`", ge=0)
    output_size: int = key(96, "width of its encoder, an E-Branchformer, and of the voice's", ge=8)
    attention_heads: int = key(4, "heads", ge=1)
    linear_units: int = key(288, "width of the feed-forward and gating layers", ge=8)
    num_blocks: int = key(3, "layers", ge=1)
    kernel_size: int = key(15, "kernel of the convolutions; odd", ge=1)
    dropout_rate: float = key(0.0, "dropout", ge=0, lt=1)
    speaker_size: int = key(64, "size of a speaker's vector", ge=2)
    max_steps: int = key(1000, "updates", ge=1)
    batch_seconds: float = key(30.0, "seconds of audio in a batch, padding included", gt=0)
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.015, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(50, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    weight_decay: float = key(0.01, "of both optimizers, on matrices", ge=0)
    max_grad_norm: float = key(5.0, "gradient norm is clipped to this", gt=0)
    noise: float = key(0.5, "share of the recordings that noise is added to", ge=0, le=1)
    eval_steps: int = key(200, "updates between evaluations, and between checkpoints", ge=1)
    average: int = key(2, "the judge is the mean of this many best evaluations by dev CER", ge=1)
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0)


@dataclass
class SpeechConfig:
    """What the language model reads and writes."""

    layout: str = key(
        "native",
        "native: text, then speech tokens; llasa, cosyvoice: as those models were trained",
        choices=("native", "llasa", "cosyvoice"),
    )
    speakers: str = key(
        "mark",
        "what stands for a speaker of the train set: a token (mark; native alone), an utterance of "
        "about 3 s that is gone on with (prompt), or nothing",
        choices=("mark", "prompt", "none"),
    )
    instruction: str = key(
        "", "of cosyvoice: read before each text; ends with <|endofprompt|>, which version 3 needs"
    )


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
    loop_tokens: int = key(
        25, "tokens that repetition of an n-gram fills where it is no pause but a loop", ge=4
    )
    stop_weight: float = key(
        0.1, "weight of -log P(stopping where the history does, and not before)", ge=0
    )

    def actual_history(self, algorithm: str) -> str:
        """`history`, or what is usual for `rl.algorithm`."""
        usual = "rollout" if algorithm == "both" else "fixed"
        return usual if self.history == "auto" else self.history
