"""The supervised warm start: cross entropy of the transcripts, with CTC on the encoder."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.text import normalizer, split_units
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.files import progress
from audiorl.models import save_model
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.tokenizer import PretrainedTokenizer, SentencePieceTokenizer, Tokenizer
from audiorl.optim import Optimizers, warmup_cosine
from audiorl.rollout.transcribe import transcribe
from audiorl.score.align import Counts, count_errors
from audiorl.train.batches import batch_stream
from audiorl.train.checkpoint import BestWeights, Checkpoints
from audiorl.train.experiment import Experiment
from audiorl.train.reporter import Reporter

log = logging.getLogger(__name__)

# What a warm start depends on, beside its data.
MODEL = ("data.sample_rate", "tokenizer.", "frontend.", "encoder.", "adaptor.", "llm.")

Loaded = tuple[list[Utterance], list[torch.Tensor]]


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
    model = AudioLLM(config, make_tokenizer(config, train)).to(pick_device(config))
    log.info(describe(model))
    _train(config, experiment, model, train, some(dev, config.sft.eval_utterances))
    save_model(model.eval(), experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)


def _train(
    config: Config,
    experiment: Experiment,
    model: AudioLLM,
    train: list[Utterance],
    dev: list[Utterance],
) -> None:
    sft = config.sft
    optimizer = Optimizers([model], sft.learning_rate, sft.weight_decay, sft.muon_learning_rate)
    checkpoints = Checkpoints(experiment.folder / "checkpoints")
    best = BestWeights(checkpoints.folder, sft.average)
    done, state = checkpoints.resume(model, optimizer)
    stale = 0  # evaluations since the best
    if state:
        best.scores, stale = state["best"], state["stale"]
    reporter = Reporter(experiment.folder, done)
    accumulation = sft.gradient_accumulation_steps
    batches = prefetch(
        batch_stream(train, sft.batch_seconds, config.seed, done * accumulation), config
    )
    started, audio_seconds = time.perf_counter(), 0.0
    with progress(desc="supervised training", total=sft.max_steps, unit="step") as bar:
        bar.update(done)
        stopped = 0 < sft.patience <= stale  # by a run that was then cut off
        for step in range(done, done if stopped else sft.max_steps):
            model.train()
            # Dropout and masks of a step depend on the step alone: a resumed run draws the same.
            torch.manual_seed(config.seed * 1_000_003 + step)
            rate = warmup_cosine(step, sft.warmup_steps, sft.max_steps)
            batch = [next(batches) for _ in range(accumulation)]
            ctc_weight = 1.0 if step < sft.ctc_steps else sft.ctc_weight
            metrics = _update(model, optimizer, batch, rate, ctc_weight)
            audio_seconds += sum(u.duration for utterances, _ in batch for u in utterances)
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.3f}", dev=_percent(best.scores))
            last = step + 1 == sft.max_steps
            if (step + 1) % sft.logging_steps == 0 or last:
                seconds = time.perf_counter() - started
                speed = {"perf/audio_seconds_per_second": audio_seconds / seconds}
                reporter.log(
                    step + 1, {**metrics, "learning_rate": rate * sft.learning_rate, **speed}
                )
            if ((step + 1) % sft.eval_steps == 0 and step >= sft.ctc_steps) or last:
                error = evaluate(model, dev, step + 1, reporter).rate
                stale = 0 if best.offer(step + 1, error, model) else stale + 1
            stop = last or (0 < sft.patience <= stale)
            if (step + 1) % sft.save_steps == 0 or stop:
                checkpoints.save(step + 1, model, optimizer, {"best": best.scores, "stale": stale})
                best.clean()
            if stop:
                break
    reporter.close()
    best.load_average(model)
    log.info("the model is the mean of steps %s", ", ".join(sorted(best.scores, key=int)))


def _update(
    model: AudioLLM, optimizer: Optimizers, batches: list[Loaded], rate: float, ctc_weight: float
) -> dict[str, float]:
    """One update on the sum of `batches`, each weighted by its share of the utterances."""
    optimizer.zero_grad()
    total = sum(len(utterances) for utterances, _ in batches)
    sums = {"loss": 0.0, "loss_lm": 0.0, "loss_ctc": 0.0}
    for utterances, waves in batches:
        share = len(utterances) / total
        texts = [u.text for u in utterances]
        loss = model.supervised_loss(model.encode(waves), texts, ctc_weight)
        (share * loss.total).backward()
        for name, value in (("loss", loss.total), ("loss_lm", loss.lm), ("loss_ctc", loss.ctc)):
            sums[name] += share * value.item()
    seen = [u for utterances, _ in batches for u in utterances]
    norm = optimizer.step(rate, model.config.sft.max_grad_norm, seen)
    return {**sums, "grad_norm": norm}


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


def make_tokenizer(config: Config, train: Sequence[Utterance]) -> Tokenizer:
    """The pretrained LLM's tokenizer, or one learnt from the train texts and the instruction."""
    if config.tokenizer.type == "pretrained":
        return PretrainedTokenizer(config.llm.pretrained)
    instruction = config.llm.prompt.replace("{audio}", " ")
    return SentencePieceTokenizer.train(config.tokenizer, [*(u.text for u in train), instruction])


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


def _percent(scores: dict[str, float]) -> str:
    return f"{100 * min(scores.values()):.1f}%" if scores else "-"
