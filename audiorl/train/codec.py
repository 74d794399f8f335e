"""Training of a codec (stage 3): its tokens first, then, on finished tokens, the sound of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from audiorl.config.codec import CodecConfig, FlowConfig
from audiorl.config.schema import Config
from audiorl.data.loading import IsOwn, prefetch
from audiorl.data.same_speaker import References
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.infer.tokenise import read_waves, tokenise
from audiorl.models.codec import AnyCodec, CodecSettings, NativeCodec, new_codec
from audiorl.models.codec.base import in_voices
from audiorl.runs.experiment import Experiment
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Loaded
from audiorl.runtime.batching import batch_stream, some
from audiorl.runtime.device import pick_device
from audiorl.train.codec_sets import sound_report, tokens_report
from audiorl.train.supervised import train_supervised

log = logging.getLogger(__name__)

ECHO_WEIGHT = 0.5  # of the mel frames read from tokens, beside CTC: length and loudness are kept
MEL_UTTERANCES = 200  # of the train set, that mean and spread of the mel bands are taken from


def train_codec(config: Config, dump: Path, out: Path) -> None:
    """Train a codec on dump/<data.train> into `out`; continue a run that was cut off.

    A pretrained codec is only measured. Writes checkpoints/, metrics.jsonl and, at the end, model/:
    the best tokens by the error rate of their CTC on dump/<data.dev>, and on them the best sound by
    mel error. Does nothing if `out` is complete.
    """
    experiment = Experiment(out, config, ("data.sample_rate", "frontend.", "codec.", "flow."))
    train, dev = (read_utterances(dump / name) for name in (config.data.train, config.data.dev))
    if not experiment.begin(config.seed, train=train, dev=dev):
        return
    codec = new_codec(CodecSettings.of(config), (u.text for u in train)).to(
        pick_device(config.device)
    )
    log.info(describe(codec))
    if isinstance(codec, NativeCodec):
        _train(codec, experiment, train, dev)
    _report(codec.eval(), experiment, some(dev, config.codec.schedule.eval_utterances))
    experiment.finish(codec)


def _train(
    codec: NativeCodec, experiment: Experiment, train: list[Utterance], dev: list[Utterance]
) -> None:
    config = experiment.config
    if not codec.characters.symbols:
        raise UserError(
            f"the texts of {config.data.train} have no words; tokens are learnt from transcripts."
        )
    codec.fit_mel(read_waves(codec, some(train, MEL_UTTERANCES)))
    keys, flow = config.codec, config.flow
    tokens = Tokens(codec, train, some(dev, keys.schedule.eval_utterances), keys, config.seed)
    train_supervised(experiment, tokens, keys.schedule, "tokens")
    held_out = some(dev, flow.schedule.eval_utterances)
    sound = FlowTraining(codec, train, held_out, flow, keys.batch_seconds, config.seed)
    train_supervised(experiment, sound, flow.schedule, "sound", first=keys.schedule.max_steps)


@dataclass
class Tokens:
    """Training of the tokens: they carry the text, and its sound (`Supervised`)."""

    model: NativeCodec
    train: list[Utterance]
    dev: list[Utterance]
    keys: CodecConfig
    seed: int
    first_evaluation: ClassVar[int] = 0

    def batches(self, first: int, is_own: IsOwn) -> Iterator[Loaded]:
        """Return utterances and their waves."""
        stream = batch_stream(self.train, self.keys.batch_seconds, self.seed, first)
        return prefetch(stream, self.model.sample_rate, is_own)

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        utterances, waves = batch
        ctc, echo = self.model.tokens_loss(waves, [u.text for u in utterances])
        return ctc + ECHO_WEIGHT * echo, {"loss_ctc": ctc, "loss_echo": echo}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """Return the error rate of the CTC."""
        report = tokens_report(self.model.eval(), self.dev, self.keys.batch_seconds)
        reporter.log(step, report)
        return report["eval/cer"]


@dataclass
class FlowTraining:
    """Training of the sound: from tokens and another recording (`Supervised`)."""

    model: NativeCodec
    train: list[Utterance]
    dev: list[Utterance]
    keys: FlowConfig
    codec_seconds: float  # of audio that is encoded, or evaluated, at once
    seed: int
    first_evaluation: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self.references = References(self.train)
        self.tokens: dict[str, Tensor] = {}

    def batches(self, first: int, is_own: IsOwn) -> Iterator[Loaded]:
        """Return utterances and as many references after them, and the waves of both."""
        self.tokens = tokenise(self.model.eval(), self.train, self.codec_seconds)
        return prefetch(self._pairs(first), self.model.sample_rate, is_own)

    def _pairs(self, first: int) -> Iterator[list[Utterance]]:
        stream = batch_stream(self.train, self.keys.batch_seconds, self.seed, first)
        for step, batch in enumerate(stream, start=first):
            yield [*batch, *self.references.draw(batch, self.seed, step)]

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        utterances, waves = batch
        half = len(utterances) // 2
        tokens = [self.tokens[u.id] for u in utterances[:half]]
        flow, draft = self.model.flow_loss(waves[:half], tokens, waves[half:])
        return flow + draft, {"loss_flow": flow, "loss_draft": draft}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """Return the mel error."""
        report = sound_report(self.model.eval(), self.dev, self.codec_seconds)
        reporter.log(step, report)
        return report["eval/mel_db"]


def _report(codec: AnyCodec, experiment: Experiment, dev: Sequence[Utterance]) -> None:
    """Log the quality of the finished codec on `dev`, and the sound of its first utterance."""
    config = experiment.config
    trained = config.codec.schedule.max_steps + config.flow.schedule.max_steps
    step, reporter = trained + 1, Reporter(experiment.folder, trained, experiment.config)
    seconds = config.codec.batch_seconds
    report = tokens_report(codec, dev, seconds) | sound_report(codec, dev, seconds)
    reporter.log(step, report)
    wave = read_waves(codec, dev[:1])
    again = codec.decode(codec.encode(wave), in_voices(codec.speaker(wave)))
    rates = codec.sample_rate, codec.output_rate
    for name, sound, rate in zip(("recorded", "spoken_again"), (*wave, *again), rates, strict=True):
        reporter.audio(step, f"eval/{name}", sound.numpy(), rate, dev[0].text)
    reporter.close()
    used = f"{100 * report['eval/codes_used']:.1f} % of {codec.codebook_size} codes used"
    ctc = f"CTC error rate {100 * report['eval/cer']:.2f} %, " if "eval/cer" in report else ""
    log.info(
        "dev: %s%s (perplexity %.0f), mel error %.2f dB",
        ctc,
        used,
        report["eval/perplexity"],
        report["eval/mel_db"],
    )


def describe(codec: AnyCodec) -> str:
    """Return millions of parameters, codes, their rate, and codebooks that are left out."""
    size = sum(p.numel() for p in codec.parameters()) / 1e6
    rate = f"{codec.token_rate:g} tokens a second of {codec.codebook_size} codes"
    left = ""
    if getattr(codec, "codebooks", 1) > 1:
        left = f"; the first of its {codec.codebooks} codebooks is used, the others are left out"
    return f"{codec.settings.codec.type} codec: {size:.2f} M parameters, {rate}{left}"
