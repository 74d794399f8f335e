"""The supervised warm start of recognition."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from audiorl.config.schema import Config
from audiorl.data.loading import prefetch
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.models.audio_llm import AudioLLM
from audiorl.runs.experiment import Experiment
from audiorl.runs.reporter import Reporter
from audiorl.runtime.batching import batch_stream, some
from audiorl.runtime.device import pick_device, setup_torch
from audiorl.tasks.recognition import evaluate
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
    setup_torch(config.num_threads)
    torch.manual_seed(config.seed)
    model = AudioLLM.create(config, (u.text for u in train)).to(pick_device(config.device))
    log.info(describe(model))
    task = Recognition(config, model, train, some(dev, config.sft.eval_utterances))
    train_supervised(experiment, task)
    model.eval().save(experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)


class Recognition:
    """Transcripts by cross entropy, with CTC on the encoder (a `SupervisedTask`)."""

    def __init__(
        self, config: Config, model: AudioLLM, train: list[Utterance], dev: list[Utterance]
    ) -> None:
        self.config, self.model = config, model
        self.engine = PolicyEngine(model)
        self.train, self.dev = train, dev
        self.first_evaluation = config.sft.ctc_steps

    def batches(self, first: int) -> Iterator[Loaded]:
        """Utterances and their waves."""
        sft = self.config.sft
        return prefetch(
            batch_stream(self.train, sft.batch_seconds, self.config.seed, first),
            self.config.data.sample_rate,
        )

    def loss(self, batch: Loaded, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        utterances, waves = batch
        sft = self.config.sft
        weight = 1.0 if step < sft.ctc_steps else sft.ctc_weight
        texts = [u.text for u in utterances]
        loss = self.model.supervised_loss(
            self.model.encode(waves),
            texts,
            ctc_weight=weight,
            token_noise=sft.token_noise,
            label_smoothing=sft.label_smoothing,
        )
        return loss.total, {"loss_lm": loss.lm, "loss_ctc": loss.ctc}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """Greedy error rate on the dev set."""
        return evaluate(self.engine, self.dev, self.config, step, reporter).rate


def describe(model: AudioLLM) -> str:
    """Parameters of each part, in millions."""
    parts = {"encoder": model.encoder, "adaptor": model.adaptor, "LM": model.llm}
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    listed = ", ".join(f"{name} {size:.2f} M" for name, size in sizes.items())
    return f"{sum(sizes.values()):.2f} M parameters ({listed}), {model.tokenizer.vocab_size} tokens"
