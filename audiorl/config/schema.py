"""Every key of a recipe: its type, default, range and meaning, declared once.

A config is one `Config`. The loader (`audiorl.config.loader`) fills it from YAML and refuses what
does not fit; `check_config --print` shows it with the comments below. Leaf names are TRL's where
TRL has one; the verl equivalent stands in brackets.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions, reward_options
from audiorl.config.tts_schema import (
    CodecConfig,
    DiffROConfig,
    FlowConfig,
    JudgeConfig,
    RewardModelConfig,
    SpeechConfig,
)


@dataclass
class DataConfig:
    """The sets of a corpus (folders below data/ and dump/) and what is kept of them."""

    train: str = key("train", "set for the supervised warm start")
    dev: str = key("dev", "set that chooses the checkpoint of the warm start")
    rl: str = key("", "set that RL prompts are taken from; empty: the train set")
    rl_dev: str = key("", "set that chooses the checkpoint of RL; empty: the dev set")
    extra: list[str] = key(
        [], "further sets that stage 2 validates and formats: sources of rl_data.subsets, say"
    )
    test: list[str] = key([], "sets that are decoded and scored; never filtered")
    no_speech: list[str] = key(
        [], "sets without speech, of `test` and `extra`: any output there is a hallucination"
    )
    text_tag: str = key(
        "",
        "tag of utterances (file utt2<tag>) that is read in the place of text: pinyin, say",
        task="tts",
    )
    sample_rate: int = key(16000, "Hz; audio at another rate is resampled when read", ge=4000)
    min_duration: float = key(0.1, "s; shorter utterances are dropped from train and rl sets", ge=0)
    max_duration: float = key(30.0, "s; longer utterances are dropped from train and rl sets", gt=0)
    max_text_length: int = key(
        0, "characters; longer texts are dropped likewise; 0: no limit", ge=0
    )


@dataclass
class TokenizerConfig:
    """Text units of the language model."""

    type: str = key(
        "unigram",
        "sentencepiece model trained on the train texts, or `pretrained`: the LLM's own",
        choices=("unigram", "bpe", "char", "pretrained"),
    )
    vocab_size: int = key(300, "units of a trained model (at most; short texts yield fewer)", ge=8)


@dataclass
class FrontendConfig:
    """From the wave to features [T, n_mels]."""

    type: str = key(
        "log_mel",
        "torchaudio's log-mel spectrogram, or its Kaldi-compatible fbank",
        choices=("log_mel", "kaldi_fbank"),
    )
    n_mels: int = key(80, "mel bands", ge=8)
    frame_length: float = key(25.0, "ms", gt=0)
    frame_shift: float = key(10.0, "ms", gt=0)
    time_masks: int = key(2, "SpecAugment time masks in supervised training; 0: none", ge=0)
    time_mask_width: float = key(0.05, "widest time mask, as a share of the utterance", ge=0, le=1)
    freq_masks: int = key(2, "SpecAugment frequency masks; 0: none", ge=0)
    freq_mask_width: int = key(20, "widest frequency mask, in mel bands", ge=0)


@dataclass
class EncoderConfig:
    """The audio encoder (ESPnet)."""

    type: str = key(
        "conformer", "ESPnet encoder", choices=("conformer", "e_branchformer", "transformer")
    )
    input_layer: str = key(
        "conv2d",
        "subsampling of frames: conv2d 4x, conv2d6 6x, conv2d8 8x",
        choices=("conv2d", "conv2d6", "conv2d8"),
    )
    output_size: int = key(144, "width", ge=8)
    attention_heads: int = key(4, "heads", ge=1)
    linear_units: int = key(288, "width of the feed-forward layers", ge=8)
    num_blocks: int = key(4, "layers", ge=1)
    kernel_size: int = key(15, "kernel of the convolution (conformer, e_branchformer); odd", ge=1)
    dropout_rate: float = key(0.1, "dropout", ge=0, lt=1)
    init: str = key(
        "", "ESPnet ASR checkpoint (.pth) whose `encoder.*` weights are the start; empty: random"
    )


@dataclass
class AdaptorConfig:
    """From encoder frames to embeddings of the language model."""

    stack: int = key(2, "encoder frames joined into one audio embedding", ge=1)
    hidden_size: int = key(256, "width of the hidden layer", ge=1)


@dataclass
class LLMConfig:
    """The language model (Hugging Face)."""

    pretrained: str = key(
        "", "folder or hub name of a causal LM; empty: a new one of the sizes below"
    )
    architecture: str = key("qwen3", "a new LM's kind", choices=("qwen3", "qwen2", "llama"))
    hidden_size: int = key(192, "width", ge=8)
    intermediate_size: int = key(512, "width of the feed-forward layers", ge=8)
    num_hidden_layers: int = key(3, "layers", ge=1)
    num_attention_heads: int = key(4, "heads", ge=1)
    num_key_value_heads: int = key(4, "heads of keys and values", ge=1)
    dropout: float = key(0.0, "attention dropout in supervised training", ge=0, lt=1)
    dtype: str = key("float32", "weights and activations", choices=("float32", "bfloat16"))
    prompt: str = key(
        "transcribe {audio}",
        "the prefix that the LM continues; {audio} stands for the audio embeddings",
        task="asr",
    )


@dataclass
class SFTConfig:
    """Supervised warm start (stage 3)."""

    max_steps: int = key(
        1000, "updates at most; 0: take a pretrained speech LM (llasa, cosyvoice) as it is", ge=0
    )
    batch_seconds: float = key(
        80.0, "seconds of audio in a batch, padding included", gt=0, task="asr"
    )
    batch_tokens: int = key(
        4000, "text and speech tokens in a batch, padding included", ge=1, task="tts"
    )
    gradient_accumulation_steps: int = key(1, "batches summed into one update", ge=1)
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.0, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(100, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    weight_decay: float = key(0.01, "AdamW weight decay on matrices", ge=0)
    max_grad_norm: float = key(5.0, "gradient norm is clipped to this", gt=0)
    ctc_weight: float = key(
        0.3, "weight of the CTC loss on the encoder; the LM's has 1 - this", ge=0, le=1, task="asr"
    )
    token_noise: float = key(
        0.1,
        "share of the response that the LM reads which is random: it must attend to the prefix",
        ge=0,
        lt=1,
    )
    ctc_steps: int = key(
        0,
        "updates at the start on CTC alone: the encoder hears before the LM listens",
        ge=0,
        task="asr",
    )
    ctc_unit: str = key(
        "byte",
        "labels of CTC: UTF-8 bytes (letters, in English: they align soonest), or the LM's tokens",
        choices=("byte", "token"),
        task="asr",
    )
    label_smoothing: float = key(0.0, "of the LM's cross entropy", ge=0, lt=1)
    eval_steps: int = key(
        200, "updates between evaluations on dev (ASR: greedy WER; TTS: cross entropy)", ge=1
    )
    save_steps: int = key(100, "updates between checkpoints for resuming", ge=1)
    logging_steps: int = key(10, "updates between lines of metrics.jsonl", ge=1)
    patience: int = key(0, "evaluations without a better one before stopping; 0: never stop", ge=0)
    average: int = key(3, "the model is the mean of this many best checkpoints on dev", ge=1)
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0)


@dataclass
class SubsetConfig:
    """A part of the RL set: what is in it, how much, and how often it is drawn."""

    kind: str = key(
        "random",
        "random (the paper's D0); hard (D1): systems disagree, or repeat themselves; long, short "
        "(D2): by duration; keyword (D3): most keywords; hallucination: output that is not in the "
        "audio, or audio without speech; ordinary: low error, against forgetting",
        choices=("random", "hard", "long", "short", "keyword", "hallucination", "ordinary"),
    )
    name: str = key("", "in tables and in each item; empty: its kind")
    size: int = key(0, "utterances, those with the most of its kind; 0: all that qualify", ge=0)
    weight: float = key(1.0, "share of the prompts, relative to the other subsets'", gt=0)
    source: str = key("", "set that it is taken from; empty: data.rl (ordinary: data.train)")
    min_duration: float = key(0.0, "s; shorter ones do not qualify", ge=0)
    max_duration: float = key(0.0, "s; longer ones do not qualify; 0: no limit", ge=0)
    min_error: float = key(0.0, "error rate of the greedy hypothesis; less does not qualify", ge=0)
    max_error: float = key(0.0, "more does not qualify; 0: no limit (ordinary: 0.1)", ge=0)

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or self.kind

    @property
    def highest_error(self) -> float:
        """`max_error`, as its kind reads it."""
        return self.max_error or (0.1 if self.kind == "ordinary" else float("inf"))

    @property
    def longest(self) -> float:
        """`max_duration` in s."""
        return self.max_duration or float("inf")

    def source_in(self, data: DataConfig) -> str:
        """The set that it is taken from."""
        return self.source or (data.train if self.kind == "ordinary" else data.rl or data.train)


@dataclass
class RLDataConfig:
    """The RL set (stage 4)."""

    subsets: list[SubsetConfig] = key(
        [], "what it is made of, with the keys that egs/README.md lists; empty: all of data.rl"
    )
    disjoint: bool = key(
        False, "an utterance is in the first subset that takes it, so that sizes add up"
    )
    drop_flat: bool = key(
        False,
        "leave out utterances whose sampled hypotheses all earn the same: they teach nothing "
        "(ordinary subsets keep them)",
    )
    probe_utterances: int = key(
        0, "utterances of each set that are probed, drawn at random; 0: all", ge=0
    )
    pass_error: float = key(0.0, "error rate up to which a sampled hypothesis passes", ge=0)
    hypotheses: list[str] = key(
        [],
        "Kaldi `text` files by further systems, which hard compares; empty: it compares the "
        "policy's greedy hypothesis with its samples",
    )
    keywords: str = key(
        "given",
        "those of utt2keywords; or found: an utterance without any gets the words that are rare in "
        "the background, neighbours joined",
        choices=("given", "found"),
    )
    background: str = key(
        "", "of found: text file, a list of common words say; empty: data.train's transcripts"
    )
    background_count: int = key(0, "of found: times that it may have a rare word", ge=0)


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
        "native", "who samples: native, the policy itself, or another module of audiorl/engines"
    )
    train: list[str] = key(
        ["adaptor", "llm"],
        "parts that learn; `encoder` may be added (then it is run in each update)",
        task="asr",
    )
    max_steps: int = key(100, "updates (steps of rollout and update)", ge=1)
    num_prompts: int = key(16, "prompts (utterances) per step [train_batch_size]", ge=1)
    prompt_order: str = key(
        "shuffle",
        "inside each subset: shuffled epochs; curriculum: random among the easiest, by the reward "
        "that stage 4 measured, and among ever more; reweight: the likelier, the more the rewards "
        "of its hypotheses lately differed",
        choices=("shuffle", "curriculum", "reweight"),
        task="asr",
    )
    curriculum_start: float = key(
        0.25,
        "share of the utterances, the easiest, that curriculum begins with",
        gt=0,
        le=1,
        task="asr",
    )
    curriculum_steps: int = key(
        0, "steps until curriculum draws from all; 0: half of max_steps", ge=0, task="asr"
    )
    reweight_uniform: float = key(
        0.2,
        "share of the draws that reweight leaves to chance, so that nobody is lost",
        gt=0,
        le=1,
        task="asr",
    )
    num_generations: int = key(8, "group size G: hypotheses per prompt [rollout.n]", ge=2)
    max_completion_length: int = key(
        64, "tokens of a hypothesis at most [max_response_length]", ge=1
    )
    temperature: float = key(1.0, "of sampling; the update scores the same distribution", gt=0)
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
        "(posterior, MWER) [adv_estimator]",
        choices=("group", "leave_one_out", "batch", "greedy", "posterior"),
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
        "none",
        "weigh by min(policy / rollout, cap) of the token or sequence: for a rollout engine whose "
        "probabilities differ from the policy's; costs one more forward [rollout_is]",
        choices=("none", "token", "sequence"),
    )
    rollout_correction_cap: float = key(2.0, "that cap [rollout_is_threshold]", gt=0)
    dynamic_sample: bool = key(
        False, "draw other prompts in place of groups whose rewards are all equal [filter_groups]"
    )
    max_resample_times: int = key(
        3, "draws at most; what is flat then stays [max_num_gen_batches]", ge=1
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
    )
    rollout_prompts: int = key(
        0,
        "prompts whose groups are sampled at once; 0: all of the step's. Fewer need less memory, "
        "and their rewards are computed while the next are sampled",
        ge=0,
    )
    reward_workers: int = key(
        0, "processes for rewards that take long; 0: in the training process", ge=0
    )
    cache_frames: bool = key(
        False,
        "keep what a frozen encoder makes of the audio on disk too, in the experiment's frames/: "
        "for corpora whose frames need more than 4 GB, and for resuming",
        task="asr",
    )
    micro_batch_tokens: int = key(16384, "tokens of prefixes and responses in one forward", ge=1)
    learning_rate: float = key(1e-4, "peak learning rate (AdamW)", gt=0)
    warmup_steps: int = key(5, "steps of linear warm-up", ge=0)
    lr_scheduler_type: str = key(
        "constant",
        "learning rate after the warm-up: constant, or linear to 0 at max_steps",
        choices=("constant", "linear"),
    )
    weight_decay: float = key(0.0, "AdamW weight decay", ge=0)
    max_grad_norm: float = key(1.0, "gradient norm is clipped to this", gt=0)
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
    save_steps: int = key(20, "steps between checkpoints for resuming", ge=1)
    average: int = key(1, "the model is the mean of this many best checkpoints by rl_dev", ge=1)
    eval_utterances: int = key(200, "rl_dev utterances per evaluation; 0: all", ge=0)


@dataclass
class DecodeConfig:
    """Decoding, or synthesis (stage 6)."""

    name: str = key("greedy", "names the folder decode_<name>")
    method: str = key(
        "greedy", "greedy, or n-best by beam search", choices=("greedy", "nbest"), task="asr"
    )
    num_beams: int = key(4, "beams of nbest; as many hypotheses are written", ge=1, task="asr")
    temperature: float = key(1.0, "of sampling speech tokens", gt=0, task="tts")
    top_k: int = key(25, "sample from the k likeliest tokens; 0: all, 1: greedy", ge=0, task="tts")
    top_p: float = key(
        0.8, "sample from the smallest set with this probability; 1: all", gt=0, le=1, task="tts"
    )
    repetition_window: int = key(
        10, "repetition-aware sampling looks back at so many tokens; 0: off", ge=0, task="tts"
    )
    repetition_share: float = key(
        0.1,
        "a token that fills as much of the window, or more, is drawn again, from all; 0.1: once in "
        "10 is enough, as in CosyVoice",
        gt=0,
        le=1,
        task="tts",
    )
    batch_size: int = key(64, "utterances that are sampled at once", ge=1, task="tts")
    batch_seconds: float = key(200.0, "seconds of audio in a batch, padding included", gt=0)
    max_completion_length: int = key(128, "tokens of a hypothesis at most", ge=1)


@dataclass
class ScoreConfig:
    """Scoring (stage 7); the same normalisation serves the rewards."""

    normalizer: str = key(
        "english",
        "text normalisation before words are compared",
        choices=("none", "english", "mandarin"),
    )
    unit: str = key(
        "word",
        "unit of the main error rate: word (WER), char (CER), mixed (CJK by character)",
        choices=("word", "char", "mixed"),
    )
    bootstrap_samples: int = key(2000, "resamples behind each interval", ge=100)
    seed: int = key(1, "of the resampling")


@dataclass
class Config:
    """A recipe."""

    task: str = key("asr", "what is learnt: recognition or synthesis", choices=("asr", "tts"))
    seed: int = key(1, "of everything random in training", ge=0)
    device: str = key("auto", "auto: the GPU if there is one", choices=("auto", "cpu", "cuda"))
    num_threads: int = key(0, "CPU threads of torch; 0: one per core", ge=0)
    data: DataConfig = key(DataConfig, "corpus")
    tokenizer: TokenizerConfig = key(TokenizerConfig, "text units")
    frontend: FrontendConfig = key(FrontendConfig, "features")
    encoder: EncoderConfig = key(EncoderConfig, "audio encoder", task="asr")
    adaptor: AdaptorConfig = key(AdaptorConfig, "encoder to LM", task="asr")
    codec: CodecConfig = key(CodecConfig, "stage 3", task="tts")
    flow: FlowConfig = key(FlowConfig, "stage 3", task="tts")
    reward_model: RewardModelConfig = key(RewardModelConfig, "stage 3", task="tts")
    judge: JudgeConfig = key(JudgeConfig, "stage 3", task="tts")
    llm: LLMConfig = key(LLMConfig, "language model")
    speech: SpeechConfig = key(SpeechConfig, "text and speech tokens", task="tts")
    sft: SFTConfig = key(SFTConfig, "stage 3")
    rl_data: RLDataConfig = key(RLDataConfig, "stage 4", task="asr")
    rl: RLConfig = key(RLConfig, "stage 5")
    diffro: DiffROConfig = key(DiffROConfig, "stage 5", task="tts")
    decode: DecodeConfig = key(DecodeConfig, "stage 6")
    score: ScoreConfig = key(ScoreConfig, "stages 7 and 8")

    @property
    def speaks(self) -> bool:
        """Whether responses are speech: its RL and test sets may then be texts alone."""
        return self.task == "tts"


def field_docs(section: type) -> dict[str, str]:
    """Field name to its meaning, for help and printed configs."""
    return {f.name: f.metadata["doc"] for f in fields(section)}
