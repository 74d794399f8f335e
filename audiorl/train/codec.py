"""Training of a codec (stage 3): its tokens first, then, on finished tokens, the sound of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from audiorl.config.schema import Config
from audiorl.data.loading import prefetch
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.infer.tokenise import read_waves, tokenise
from audiorl.models.codec import NativeCodec, PretrainedCodec, new_codec
from audiorl.runs.experiment import Experiment
from audiorl.runs.reporter import Reporter
from audiorl.runtime.batching import batch_stream, some
from audiorl.runtime.device import pick_device, setup_torch
from audiorl.train.codec_sets import References, sound_report, tokens_report
from audiorl.train.supervised import Loaded, schedule, train_supervised

log = logging.getLogger(__name__)

RELEVANT = ("data.sample_rate", "frontend.", "codec.", "flow.")
MEL_UTTERANCES = 200  # of the train set, that mean and spread of the mel bands are taken from


def train_codec(config: Config, dump: Path, out: Path) -> None:
    """Trains a codec on dump/<data.train> into `out`; goes on with a run that was cut off.

    A pretrained codec is only measured. Writes checkpoints/, metrics.jsonl and, at the end, model/:
    the best tokens by the error rate of their CTC on dump/<data.dev>, and on them the best sound by
    mel error. Does nothing if `out` is complete.
    """
    experiment = Experiment(out, config, RELEVANT)
    train, dev = (read_utterances(dump / name) for name in (config.data.train, config.data.dev))
    experiment.check_inputs(train=train, dev=dev)
    if experiment.is_complete:
        log.info("%s is complete: nothing to do", out)
        return
    setup_torch(config.num_threads)
    torch.manual_seed(config.seed)
    codec = new_codec(config, (u.text for u in train)).to(pick_device(config.device))
    log.info(describe(codec))
    dev = some(dev, config.codec.eval_utterances)
    if isinstance(codec, NativeCodec):
        _train(codec, experiment, train, dev)
    _report(codec.eval(), experiment, dev)
    codec.save(experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)


def _train(
    codec: NativeCodec, experiment: Experiment, train: list[Utterance], dev: list[Utterance]
) -> None:
    if not codec.characters.symbols:
        raise UserError(
            f"the texts of {codec.config.data.train} have no words; tokens are learnt from "
            "transcripts."
        )
    codec.fit_mel(read_waves(codec, some(train, MEL_UTTERANCES)))
    of_tokens, flow = schedule(codec.config.codec), codec.config.flow
    of_sound = replace(
        of_tokens,
        max_steps=flow.max_steps,
        learning_rate=flow.learning_rate,
        muon_learning_rate=flow.muon_learning_rate,
    )
    train_supervised(experiment, Tokens(codec, train, dev), of_tokens, "tokens")
    first = of_tokens.max_steps
    train_supervised(experiment, Sound(codec, train, dev), of_sound, "sound", first=first)


class Tokens:
    """Tokens that say the text, and how it sounds (a `SupervisedTask`)."""

    first_evaluation = 0

    def __init__(self, codec: NativeCodec, train: list[Utterance], dev: list[Utterance]) -> None:
        self.model, self.train, self.dev = codec, train, dev
        self.keys = codec.config.codec

    def batches(self, first: int) -> Iterator[Loaded]:
        """Utterances and their waves."""
        config = self.model.config
        stream = batch_stream(self.train, self.keys.batch_seconds, config.seed, first)
        return prefetch(stream, config.data.sample_rate)

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        utterances, waves = batch
        ctc, echo = self.model.tokens_loss(waves, [u.text for u in utterances])
        return ctc + self.keys.echo_weight * echo, {"loss_ctc": ctc, "loss_echo": echo}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """The error rate of the CTC."""
        report = tokens_report(self.model.eval(), self.dev, self.keys.batch_seconds)
        reporter.log(step, report)
        return report["eval/cer"]


class Sound:
    """Recordings from their tokens and another recording of the voice (a `SupervisedTask`)."""

    first_evaluation = 0

    def __init__(self, codec: NativeCodec, train: list[Utterance], dev: list[Utterance]) -> None:
        self.model, self.train, self.dev = codec, train, dev
        self.references = References(train)
        self.tokens: dict[str, Tensor] = {}

    def batches(self, first: int) -> Iterator[Loaded]:
        """Utterances and as many references after them, and the waves of both."""
        config = self.model.config
        self.tokens = tokenise(self.model.eval(), self.train, config.codec.batch_seconds)
        return prefetch(self._pairs(first), config.data.sample_rate)

    def _pairs(self, first: int) -> Iterator[list[Utterance]]:
        config = self.model.config
        stream = batch_stream(self.train, config.flow.batch_seconds, config.seed, first)
        for step, batch in enumerate(stream, start=first):
            yield [*batch, *self.references.draw(batch, config.seed, step)]

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        utterances, waves = batch
        half = len(utterances) // 2
        tokens = [self.tokens[u.id] for u in utterances[:half]]
        flow, draft = self.model.flow_loss(waves[:half], tokens, waves[half:])
        return flow + draft, {"loss_flow": flow, "loss_draft": draft}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """The mel error."""
        seconds = self.model.config.codec.batch_seconds
        report = sound_report(self.model.eval(), self.dev, seconds)
        reporter.log(step, report)
        return report["eval/mel_db"]


def _report(
    codec: NativeCodec | PretrainedCodec, experiment: Experiment, dev: Sequence[Utterance]
) -> None:
    """Logs what the finished codec does with `dev`, and lets hear the first utterance."""
    config = codec.config
    trained = config.codec.max_steps + config.flow.max_steps
    step, reporter = trained + 1, Reporter(experiment.folder, trained)
    seconds = config.codec.batch_seconds
    report = tokens_report(codec, dev, seconds) | sound_report(codec, dev, seconds)
    reporter.log(step, report)
    wave = read_waves(codec, dev[:1])
    again = codec.decode(codec.encode(wave), codec.speaker(wave))
    for name, sound in (("recorded", wave[0]), ("spoken_again", again[0])):
        reporter.audio(step, f"eval/{name}", sound.numpy(), codec.sample_rate, dev[0].text)
    reporter.close()
    used = f"{100 * report['eval/codes_used']:.1f} % of {codec.codebook_size} codes used"
    heard = f"CTC error rate {100 * report['eval/cer']:.2f} %, " if "eval/cer" in report else ""
    log.info(
        "dev: %s%s (perplexity %.0f), mel error %.2f dB",
        heard,
        used,
        report["eval/perplexity"],
        report["eval/mel_db"],
    )


def describe(codec: NativeCodec | PretrainedCodec) -> str:
    """Parameters in millions, codes and their rate; what is left out of a pretrained codec."""
    size = sum(p.numel() for p in codec.parameters()) / 1e6
    rate = f"{codec.token_rate:g} tokens a second of {codec.codebook_size} codes"
    left = ""
    if isinstance(codec, PretrainedCodec) and codec.codebooks > 1:
        left = f"; the first of its {codec.codebooks} codebooks is used, the others are left out"
    return f"{codec.config.codec.type} codec: {size:.2f} M parameters, {rate}{left}"
