"""Training of a codec (stage 3): its tokens first, then, on finished tokens, the sound of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audiorl.config.schema import Config
from audiorl.config.tts_schema import CodecConfig, FlowConfig
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.files import progress
from audiorl.models.codec import NativeCodec, PretrainedCodec, new_codec
from audiorl.optim import Optimizers, warmup_cosine
from audiorl.train.batches import batch_stream
from audiorl.train.checkpoint import Checkpoints
from audiorl.train.codec_sets import (
    References,
    read_waves,
    sound_report,
    tokenise,
    tokens_report,
)
from audiorl.train.experiment import Experiment
from audiorl.train.reporter import Reporter
from audiorl.train.sft import pick_device, prefetch, setup_torch, some

log = logging.getLogger(__name__)

RELEVANT = ("data.sample_rate", "frontend.", "codec.", "flow.")
MEL_UTTERANCES = 200  # of the train set, that mean and spread of the mel bands are taken from


@dataclass(frozen=True)
class Training:
    """One of the two: what learns, how long, from which batches, by which loss."""

    name: str
    parts: list[nn.Module]
    keys: CodecConfig | FlowConfig
    first: int  # its step 0 in metrics.jsonl
    batches: Callable[[int], Iterator[list[Utterance]]]  # from a step on
    losses: Callable[[list[Utterance], list[Tensor]], dict[str, Tensor]]  # of waves; they add up
    evaluate: Callable[[], dict[str, float]]


def train_codec(config: Config, dump: Path, out: Path) -> None:
    """Trains a codec on dump/<data.train> into `out`; goes on with a run that was cut off.

    A pretrained codec is only measured. Writes checkpoints/, metrics.jsonl and, at the end, model/.
    Does nothing if `out` is complete.
    """
    experiment = Experiment(out, config, RELEVANT)
    train, dev = (read_utterances(dump / name) for name in (config.data.train, config.data.dev))
    experiment.check_inputs(train=train, dev=dev)
    if experiment.is_complete:
        log.info("%s is complete: nothing to do", out)
        return
    setup_torch(config)
    torch.manual_seed(config.seed)
    codec = new_codec(config, (u.text for u in train)).to(pick_device(config))
    log.info(describe(codec))
    dev = some(dev, config.codec.eval_utterances)
    if isinstance(codec, NativeCodec):
        codec.fit_mel(read_waves(codec, some(train, MEL_UTTERANCES)))
        _train(codec, experiment, _tokens_training(codec, train, dev))
        _train(codec, experiment, _sound_training(codec, train, dev))
    _report(codec, experiment, dev)
    codec.eval().save(experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)


def _tokens_training(codec: NativeCodec, train: list[Utterance], dev: list[Utterance]) -> Training:
    config, keys = codec.config, codec.config.codec
    if not codec.characters.symbols:
        raise UserError(
            f"the texts of {config.data.train} have no words; tokens are learnt from transcripts."
        )

    def losses(batch: list[Utterance], waves: list[Tensor]) -> dict[str, Tensor]:
        text, echo = codec.tokens_loss(waves, [u.text for u in batch])
        return {"ctc": text, "echo": keys.echo_weight * echo}

    return Training(
        name="tokens",
        parts=codec.tokens_part,
        keys=keys,
        first=0,
        batches=lambda step: batch_stream(train, keys.batch_seconds, config.seed, step),
        losses=losses,
        evaluate=lambda: tokens_report(codec, dev, keys.batch_seconds),
    )


def _sound_training(codec: NativeCodec, train: list[Utterance], dev: list[Utterance]) -> Training:
    config, keys = codec.config, codec.config.flow
    references = References(train)
    tokens: dict[str, Tensor] = {}

    def batches(step: int) -> Iterator[list[Utterance]]:
        tokens.update(tokenise(codec.eval(), train, config.codec.batch_seconds))
        stream = batch_stream(train, keys.batch_seconds, config.seed, step)
        for number, batch in enumerate(stream, start=step):
            yield [*batch, *references.draw(batch, config.seed, number)]

    def losses(both: list[Utterance], waves: list[Tensor]) -> dict[str, Tensor]:
        half = len(both) // 2  # the references come after what is to be spoken
        known = [tokens[u.id] for u in both[:half]]
        return {"flow": codec.flow_loss(waves[:half], known, waves[half:])}

    return Training(
        name="sound",
        parts=codec.sound_part,
        keys=keys,
        first=config.codec.max_steps,
        batches=batches,
        losses=losses,
        evaluate=lambda: sound_report(codec, dev, config.codec.batch_seconds),
    )


def _train(codec: NativeCodec, experiment: Experiment, training: Training) -> None:
    config, keys = codec.config.codec, training.keys
    optimizer = Optimizers(
        training.parts, keys.learning_rate, config.weight_decay, keys.muon_learning_rate
    )
    checkpoints = Checkpoints(experiment.folder / "checkpoints" / training.name)
    done, _ = checkpoints.resume(codec, optimizer)
    if done == keys.max_steps:
        return
    reporter = Reporter(experiment.folder, training.first + done)
    batches = prefetch(training.batches(done), codec.config)
    with progress(desc=f"codec: {training.name}", total=keys.max_steps, unit="step") as bar:
        bar.update(done)
        for step in range(done, keys.max_steps):
            # What is random in a step depends on the step alone: a resumed run draws the same.
            torch.manual_seed(codec.config.seed * 1_000_003 + training.first + step)
            utterances, waves = next(batches)
            started = time.perf_counter()
            rate = warmup_cosine(step, config.warmup_steps, keys.max_steps)
            codec.train()
            optimizer.zero_grad()
            losses = training.losses(utterances, waves)
            sum(losses.values()).backward()
            norm = optimizer.step(rate, config.max_grad_norm, utterances)
            bar.update()
            bar.set_postfix({name: f"{loss.item():.3f}" for name, loss in losses.items()})
            number, last = training.first + step + 1, step + 1 == keys.max_steps
            if (step + 1) % config.logging_steps == 0 or last:
                metrics = {
                    **{f"loss_{name}": loss.item() for name, loss in losses.items()},
                    "grad_norm": norm,
                    "learning_rate": rate * keys.learning_rate,
                    "timing_s/step": time.perf_counter() - started,
                }
                reporter.log(number, metrics)
            if (step + 1) % config.eval_steps == 0 and not last:
                codec.eval()
                reporter.log(number, training.evaluate())
            if (step + 1) % config.save_steps == 0 or last:
                checkpoints.save(step + 1, codec, optimizer, {})
    reporter.close()


def _report(
    codec: NativeCodec | PretrainedCodec, experiment: Experiment, dev: Sequence[Utterance]
) -> None:
    """Logs what the finished codec does with `dev`, and lets hear the first utterance."""
    config = codec.config
    trained = config.codec.max_steps + config.flow.max_steps
    step, reporter = trained + 1, Reporter(experiment.folder, trained)
    codec.eval()
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
