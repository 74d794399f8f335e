"""The supervised warm start of recognition."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.text import normalizer, split_units
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.models import save_model
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.tokenizer import PretrainedTokenizer, SentencePieceTokenizer, Tokenizer
from audiorl.rollout.transcribe import transcribe
from audiorl.score.align import Counts, count_errors
from audiorl.train.batches import batch_stream
from audiorl.train.experiment import Experiment
from audiorl.train.reporter import Reporter
from audiorl.train.supervised import Loaded, train_supervised

log = logging.getLogger(__name__)

# What a warm start depends on, beside its data.
MODEL = ("data.sample_rate", "tokenizer.", "frontend.", "encoder.", "adaptor.", "llm.")


def train_sft(config: Config, dump: Path, out: Path) -> None:
    """Trains a new model on dump/<data.train> into `out`; goes on with a run that was cut off.

    Writes checkpoints/, metrics.jsonl and, at the end, model/: the mean of the best checkpoints by
    greedy error rate on dump/<data.dev>. Does nothing if `out` is complete.
    """
    experiment = Experiment(out, config, (*MODEL, "sft."))
    train, dev = (read_utterances(dump / name) for name in (config.data.train, config.data.dev))
    experiment.check_inputs(train=train, dev=dev)
    if experiment.is_complete:
        log.info("%s is complete: nothing to do", out)
        return
    setup_torch(config)
    torch.manual_seed(config.seed)
    texts = [*(u.text for u in train), config.llm.prompt.replace("{audio}", " ")]
    model = AudioLLM(config, make_tokenizer(config, texts)).to(pick_device(config))
    log.info(describe(model))
    task = Recognition(config, model, train, some(dev, config.sft.eval_utterances))
    train_supervised(experiment, task)
    save_model(model.eval(), experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)


class Recognition:
    """Transcripts by cross entropy, with CTC on the encoder (a `SupervisedTask`)."""

    def __init__(
        self, config: Config, model: AudioLLM, train: list[Utterance], dev: list[Utterance]
    ) -> None:
        self.config, self.model = config, model
        self.train, self.dev = train, dev
        self.first_evaluation = config.sft.ctc_steps

    def batches(self, first: int) -> Iterator[Loaded]:
        """Utterances and their waves."""
        sft = self.config.sft
        return prefetch(
            batch_stream(self.train, sft.batch_seconds, self.config.seed, first), self.config
        )

    def loss(self, batch: Loaded, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        utterances, waves = batch
        sft = self.config.sft
        weight = 1.0 if step < sft.ctc_steps else sft.ctc_weight
        texts = [u.text for u in utterances]
        loss = self.model.supervised_loss(self.model.encode(waves), texts, weight)
        return loss.total, {"loss_lm": loss.lm, "loss_ctc": loss.ctc}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """Greedy error rate on the dev set."""
        return evaluate(self.model, self.dev, step, reporter).rate


def evaluate(
    model: AudioLLM,
    utterances: Sequence[Utterance],
    step: int,
    reporter: Reporter,
    heard: dict[str, torch.Tensor] | None = None,
) -> Counts:
    """Greedy error rate on `utterances`; logs it, the first utterance and what was heard in it.

    `heard`: see `transcribe`.
    """
    score, started = model.config.score, time.perf_counter()
    clean = normalizer(score.normalizer)
    found = transcribe(
        model,
        utterances,
        max_length=model.config.decode.max_completion_length,
        desc="evaluation",
        heard=heard,
    )
    counts = Counts()
    for u in utterances:
        reference = split_units(clean(u.text), score.unit)
        counts += count_errors(reference, split_units(clean(found[u.id][0].text), score.unit))
    unfinished = sum(not h[0].finished for h in found.values()) / len(found)
    reporter.log(
        step,
        {
            "eval/wer": counts.rate,
            "eval/unfinished_ratio": unfinished,
            "timing_s/eval": time.perf_counter() - started,
        },
    )
    rate = model.config.data.sample_rate
    first = utterances[0]
    text = f"reference: {first.text}\n\nhypothesis: {found[first.id][0].text}"
    reporter.audio(step, "eval/sample", read_audio(first, rate), rate, text)
    log.info("step %d: dev error rate %.2f %%", step, 100 * counts.rate)
    return counts


def make_tokenizer(config: Config, texts: Iterable[str]) -> Tokenizer:
    """The pretrained LLM's tokenizer, or one learnt from `texts`."""
    if config.tokenizer.type == "pretrained":
        return PretrainedTokenizer(config.llm.pretrained)
    return SentencePieceTokenizer.train(config.tokenizer, texts)


def prefetch(batches: Iterator[list[Utterance]], config: Config) -> Iterator[Loaded]:
    """Reads the audio of the next batch in a thread while the current one trains."""

    def load(batch: list[Utterance]) -> Loaded:
        return batch, [torch.from_numpy(read_audio(u, config.data.sample_rate)) for u in batch]

    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(load, next(batches))
        for batch in batches:
            ready, coming = coming, reader.submit(load, batch)
            yield ready.result()


def some(utterances: list[Utterance], count: int) -> list[Utterance]:
    """`count` of the utterances, always the same and from all over; all of them if count is 0."""
    if count == 0 or count >= len(utterances):
        return utterances
    chosen = np.random.default_rng(0).choice(len(utterances), count, replace=False)
    return [utterances[i] for i in sorted(chosen)]


def setup_torch(config: Config) -> None:
    if config.num_threads:
        torch.set_num_threads(config.num_threads)


def pick_device(config: Config) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: cuda was asked for but torch sees no GPU; set device: auto or cpu."
        )
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted if config.device == "auto" else config.device)


def describe(model: AudioLLM) -> str:
    """Parameters of each part, in millions."""
    parts = {"encoder": model.encoder, "adaptor": model.adaptor, "LM": model.llm}
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    listed = ", ".join(f"{name} {size:.2f} M" for name, size in sizes.items())
    return f"{sum(sizes.values()):.2f} M parameters ({listed}), {model.tokenizer.vocab_size} tokens"
