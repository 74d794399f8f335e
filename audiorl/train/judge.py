"""Training of the judge, which names texts and speakers, on natural recordings alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from audiorl.config.recognisers import JudgeConfig
from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.augment import augment
from audiorl.data.loading import IsOwn, prefetch
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.models.judge import Judge, JudgeSettings
from audiorl.runs.experiment import Experiment
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Loaded
from audiorl.runtime.batching import batch_stream, batches_by_seconds, some
from audiorl.runtime.device import pick_device
from audiorl.score.tts import character_errors
from audiorl.text.align import Counts
from audiorl.train.supervised import train_supervised

log = logging.getLogger(__name__)

SEED = 1000  # of weights and batches; the models that are judged have `seed`
NOISY = 0.5  # share of the recordings that noise is added to


def train_judge(config: Config, dump: Path, out: Path) -> None:
    """Train a judge on dump/<judge.train> into `out`; continue a run that was cut off.

    Writes checkpoints/, metrics.jsonl and, at the end, model/: the mean of the best by character
    error rate on dump/<data.dev>. Does nothing if `out` is complete.
    """
    experiment = Experiment(out, config, ("data.sample_rate", "frontend.", "judge."))
    sets = (config.judge.train or config.data.train, config.data.dev)
    train, dev = (read_utterances(dump / name) for name in sets)
    if not experiment.begin(SEED, train=train, dev=dev):
        return
    _warn_of_shared(train, sets[0], dump / config.data.train)
    settings = JudgeSettings.of(config)
    judge = Judge.of(settings, [u.text for u in train], [u.speaker for u in train])
    if not judge.characters.symbols:
        raise UserError(f"{dump / sets[0] / 'text'} has no words; a judge learns from transcripts.")
    judge.to(pick_device(config.device))
    size = sum(p.numel() for p in judge.parameters()) / 1e6
    known = f"{len(judge.characters.symbols)} characters, {len(judge.speakers)} speakers"
    log.info("judge: %.2f M parameters, %s", size, known)
    dev = some(dev, config.judge.schedule.eval_utterances)
    limits = (config.decode.batch_seconds, config.score.normalizer)
    task = Judging(judge, train, dev, config.judge, *limits)
    train_supervised(experiment, task, config.judge.schedule, "judge", 2, SEED)
    experiment.finish(judge)


def _warn_of_shared(train: Sequence[Utterance], name: str, others: Path) -> None:
    """Warn of recordings that the codec and the reward model learn from, too."""
    learnt = {u.id for u in read_utterances(others)} if (others / "text").exists() else set()
    if shared := sum(u.id in learnt for u in train):
        log.warning(
            "%s of %s utterances of %s are what the codec and the reward model learn from, too "
            "(%s): the judge may share their mistakes; name a set of its own in judge.train",
            shared, len(train), name, others.name,
        )  # fmt: skip


@dataclass
class Judging:
    """Training of texts and speakers (`Supervised`)."""

    model: Judge
    train: list[Utterance]
    dev: list[Utterance]
    keys: JudgeConfig
    dev_seconds: float  # of audio that is evaluated at once
    style: str  # the normalizer of texts
    first_evaluation: ClassVar[int] = 0

    def batches(self, first: int, is_own: IsOwn) -> Iterator[Loaded]:
        """Return utterances and their waves."""
        stream = batch_stream(self.train, self.keys.batch_seconds, SEED, first)
        return prefetch(stream, self.model.sample_rate, is_own)

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of text and voice, which have no weights in common."""
        utterances, waves = batch
        noisy = augment(waves, NOISY)
        texts, speakers = [u.text for u in utterances], [u.speaker for u in utterances]
        ctc, speaker = self.model.losses(noisy, texts, speakers)
        return ctc + speaker, {"loss_ctc": ctc, "loss_speaker": speaker}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        return evaluate(self.model, self.dev, step, reporter, self.dev_seconds, self.style)


def evaluate(
    judge: Judge,
    dev: Sequence[Utterance],
    step: int,
    reporter: Reporter,
    seconds: float,
    style: str,
) -> float:
    """Return the character error rate on `dev`; log the share of known speakers recognised."""
    judge.eval()
    started = time.perf_counter()
    counts, recognised, known = Counts(), 0, 0
    for batch in batches_by_seconds(dev, seconds):
        waves = [torch.from_numpy(read_audio(u, judge.sample_rate)) for u in batch]
        texts, found = [u.text for u in batch], judge.transcribe(waves)
        counts += character_errors(texts, found, style)
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
