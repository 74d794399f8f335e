"""Training of the judge: what is said and who says it, on natural recordings alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.augment import augment
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.files import progress
from audiorl.models.judge import Judge
from audiorl.optim import Optimizers, warmup_cosine
from audiorl.rollout.transcribe import batches_by_seconds
from audiorl.score.align import Counts
from audiorl.score.tts import character_errors
from audiorl.train.batches import batch_stream
from audiorl.train.checkpoint import BestWeights, Checkpoints
from audiorl.train.experiment import Experiment
from audiorl.train.reporter import Reporter
from audiorl.train.sft import pick_device, prefetch, setup_torch, some

log = logging.getLogger(__name__)

RELEVANT = ("data.sample_rate", "frontend.", "judge.")
LOGGED = 10  # updates between lines of metrics.jsonl


def train_judge(config: Config, dump: Path, out: Path) -> None:
    """Trains a judge on dump/<judge.train> into `out`; goes on with a run that was cut off.

    Writes checkpoints/, metrics.jsonl and, at the end, model/: the mean of the best by character
    error rate on dump/<data.dev>. Does nothing if `out` is complete.
    """
    experiment = Experiment(out, config, RELEVANT)
    sets = (config.judge.train or config.data.train, config.data.dev)
    train, dev = (read_utterances(dump / name) for name in sets)
    experiment.check_inputs(train=train, dev=dev)
    if experiment.is_complete:
        log.info("%s is complete: nothing to do", out)
        return
    setup_torch(config)
    torch.manual_seed(config.judge.seed)
    judge = Judge.of(config, [u.text for u in train], [u.speaker for u in train])
    if not judge.characters:
        raise UserError(f"{dump / sets[0] / 'text'} has no words; a judge learns from transcripts.")
    judge.to(pick_device(config))
    size = sum(p.numel() for p in judge.parameters()) / 1e6
    known = f"{len(judge.characters)} characters, {len(judge.speakers)} speakers"
    log.info("judge: %.2f M parameters, %s", size, known)
    _train(config, experiment, judge, train, some(dev, config.judge.eval_utterances))
    judge.eval().save(experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)


def _train(
    config: Config,
    experiment: Experiment,
    judge: Judge,
    train: list[Utterance],
    dev: list[Utterance],
) -> None:
    keys = config.judge
    optimizer = Optimizers([judge], keys.learning_rate, keys.weight_decay, keys.muon_learning_rate)
    checkpoints = Checkpoints(experiment.folder / "checkpoints")
    best = BestWeights(checkpoints.folder, keys.average)
    done, state = checkpoints.resume(judge, optimizer)
    if state:
        best.scores = state["best"]
    reporter = Reporter(experiment.folder, done)
    batches = prefetch(batch_stream(train, keys.batch_seconds, keys.seed, done), config)
    with progress(desc="judge", total=keys.max_steps, unit="step") as bar:
        bar.update(done)
        for step in range(done, keys.max_steps):
            # Masks and noise of a step depend on the step alone: a resumed run draws the same.
            torch.manual_seed(keys.seed * 1_000_003 + step)
            rate = warmup_cosine(step, keys.warmup_steps, keys.max_steps)
            metrics = _update(judge.train(), optimizer, *next(batches), rate)
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            last = step + 1 == keys.max_steps
            if (step + 1) % LOGGED == 0 or last:
                reporter.log(step + 1, {**metrics, "learning_rate": rate * keys.learning_rate})
            if (step + 1) % keys.eval_steps == 0 or last:
                best.offer(step + 1, evaluate(judge, dev, step + 1, reporter), judge)
                checkpoints.save(step + 1, judge, optimizer, {"best": best.scores})
                best.clean()
    reporter.close()
    best.load_average(judge)
    log.info("the judge is the mean of steps %s", ", ".join(sorted(best.scores, key=int)))


def _update(
    judge: Judge,
    optimizer: Optimizers,
    utterances: list[Utterance],
    waves: list[torch.Tensor],
    rate: float,
) -> dict[str, float]:
    """One update; text and voice have no weights in common, so their losses are just added."""
    optimizer.zero_grad()
    heard = augment(waves, judge.config.judge.noise)
    texts, speakers = [u.text for u in utterances], [u.speaker for u in utterances]
    ctc, speaker = judge.losses(heard, texts, speakers)
    (ctc + speaker).backward()
    norm = optimizer.step(rate, judge.config.judge.max_grad_norm, utterances)
    losses = {"loss_ctc": ctc.item(), "loss_speaker": speaker.item()}
    return {"loss": sum(losses.values()), **losses, "grad_norm": norm}


def evaluate(judge: Judge, dev: Sequence[Utterance], step: int, reporter: Reporter) -> float:
    """Character error rate on `dev`; also logs how many of its known speakers are recognised."""
    judge.eval()
    started = time.perf_counter()
    counts, recognised, known = Counts(), 0, 0
    for batch in batches_by_seconds(dev, judge.config.decode.batch_seconds):
        waves = [torch.from_numpy(read_audio(u, judge.sample_rate)) for u in batch]
        texts, heard = [u.text for u in batch], judge.transcribe(waves)
        counts += character_errors(texts, heard, judge.config.score.normalizer)
        named = zip(batch, judge.name_speakers(waves), strict=True)
        recognised += sum(u.speaker == speaker for u, speaker in named)
        known += sum(u.speaker in judge.speakers for u in batch)
    accuracy = recognised / known if known else float("nan")
    reporter.log(
        step,
        {
            "eval/cer": counts.rate,
            "eval/speaker_accuracy": accuracy,
            "timing_s/eval": time.perf_counter() - started,
        },
    )
    said = f", {100 * accuracy:.1f} % of {known} speakers named" if known else ""
    log.info("step %d: dev CER %.2f %%%s", step, 100 * counts.rate, said)
    return counts.rate
