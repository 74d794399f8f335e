"""Training of the reward model, which reads texts in speech tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from audiorl.config.recognisers import RewardModelConfig
from audiorl.config.schema import Config
from audiorl.data.loading import IsOwn
from audiorl.data.speech_tokens import TOKENS, CodecInfo, check_codec, read_tokens_of
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.models.token_recogniser import (
    PACES,
    TEXT,
    RecogniserFacts,
    RewardModelSettings,
    TokenRecogniser,
)
from audiorl.runs.experiment import Experiment
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Loaded
from audiorl.runtime.batching import batch_stream, some
from audiorl.runtime.device import pick_device
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import split_units, spoken
from audiorl.train.supervised import train_supervised
from audiorl.train.token_noise import disturbed

log = logging.getLogger(__name__)

TASK_WEIGHT = 0.1  # of the loss of each task beside the text
SMOOTHING = 0.1  # of the labels of attention and tasks

Tokens = Mapping[str, Sequence[int]]  # by utterance id


def train_reward_model(config: Config, dump: Path, tokens: Path, out: Path) -> None:
    """Train on dump/<data.train> and the tokens in tokens/<data.train> into `out`.

    Continues a run that was cut off. Writes checkpoints/, metrics.jsonl and, at the end, model/:
    the mean of the best by character error rate on <data.dev>. Does nothing if `out` is complete.
    """
    experiment = Experiment(out, config, ("reward_model.",))
    sets = {"train": config.data.train, "dev": config.data.dev}
    train, dev = (read_utterances(dump / name) for name in sets.values())
    spoken_train, codec = read_tokens_of(train, tokens / sets["train"])
    spoken_dev, codec_of_dev = read_tokens_of(dev, tokens / sets["dev"])
    check_codec(codec_of_dev, codec, str(tokens / sets["dev"]), str(tokens / sets["train"]))
    files = {f"tokens_{name}": tokens / sets[name] / TOKENS for name in sets}
    if not experiment.begin(config.seed, train=train, dev=dev, **files):
        return
    facts = collect_facts(config, train, spoken_train, codec)
    model = TokenRecogniser(RewardModelSettings.of(config), facts)
    model.to(pick_device(config.device))
    train = with_room(model, train, spoken_train)
    size, known = sum(p.numel() for p in model.parameters()) / 1e6, len(model.facts.characters)
    log.info("reward model: %.2f M parameters, %d characters", size, known)
    held_out = some(dev, config.reward_model.schedule.eval_utterances)
    tokens = {**spoken_train, **spoken_dev}
    task = RewardModelTraining(model, train, held_out, tokens, config.reward_model, config.seed)
    train_supervised(experiment, task, config.reward_model.schedule, "reward model", average=3)
    experiment.finish(model)


def collect_facts(
    config: Config, train: Sequence[Utterance], tokens: Tokens, codec: CodecInfo
) -> RecogniserFacts:
    """Return characters and classes of a set; rates are bounded so that a third is normal."""
    characters = "".join(sorted(set("".join(spoken(u.text) for u in train))))
    if not characters:
        raise UserError(f"{config.data.train} has no words; a reward model learns from texts.")
    tasks, bounds = {}, []
    for task in config.reward_model.tasks:
        if task == "rate":
            paces = [(len(spoken(u.text)) + 1) / len(tokens[u.id]) for u in train]
            bounds = np.quantile(paces, [1 / 3, 2 / 3]).tolist()
            tasks[task] = list(PACES)
        else:
            tasks[task] = sorted({u.speaker if task == "speaker" else _tag(u, task) for u in train})
    return RecogniserFacts(codec, characters, tasks, bounds)


def _tag(utterance: Utterance, task: str) -> str:
    if task not in utterance.tags:
        raise UserError(
            f"{utterance.id} has no {task}; add it to utt2{task} of its set, or take {task} out of "
            "reward_model.tasks."
        )
    return utterance.tags[task]


def with_room(
    model: TokenRecogniser, train: Sequence[Utterance], tokens: Tokens
) -> list[Utterance]:
    """Return the utterances that have words, and tokens enough for them."""
    kept = [u for u in train if spoken(u.text) and model.has_room(u.text, len(tokens[u.id]))]
    if not kept:
        raise UserError(
            "reward model: no utterance has a token for each character of its text; take a codec "
            "with more tokens a second."
        )
    log.info(
        "reward model: %d of %d utterances kept; the others have no words, or too few tokens for "
        "their text",
        len(kept),
        len(train),
    )
    return kept


@dataclass
class RewardModelTraining:
    """Training of texts and classes from tokens (`Supervised`)."""

    model: TokenRecogniser
    train: list[Utterance]
    dev: list[Utterance]
    tokens: Tokens
    keys: RewardModelConfig
    seed: int
    first_evaluation: ClassVar[int] = 0

    def batches(self, first: int, is_own: IsOwn) -> Iterator[Loaded]:
        """Yield utterances and their tokens."""
        for batch in batch_stream(self.train, self.keys.batch_seconds, self.seed, first):
            yield batch, [self.tokens[u.id] for u in batch]

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss on disturbed embeddings, and its parts."""
        model = self.model
        utterances, rows = batch
        tokens, lengths = model.pad(rows)
        embedded = disturbed(tokens, lengths, model.table.weight)
        return reading_loss(model, embedded, lengths, utterances, self.keys.tasks)

    def evaluate(self, step: int, reporter: Reporter) -> float:
        return evaluate(self.model, self.dev, self.tokens, step, reporter)


def reading_loss(
    model: TokenRecogniser,
    embedded: Tensor,
    lengths: Tensor,
    utterances: Sequence[Utterance],
    tasks: Sequence[str],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean over utterances of the text's loss per character, and of the tasks' losses.

    embedded [B, T, D], lengths [B]. The parts are returned, too.
    """
    texts = [u.text for u in utterances]
    spoken_for = list(zip(utterances, lengths.tolist(), strict=True))
    classes = {task: [model.class_of(task, u, n) for u, n in spoken_for] for task in tasks}
    found = model.log_likelihoods(embedded, lengths, texts, classes, SMOOTHING)
    units = torch.tensor([model.units(text) for text in texts], device=embedded.device)
    losses = {TEXT: -(found.pop(TEXT) / units).mean()}
    losses |= {task: -values.mean() for task, values in found.items()}
    total = sum(loss if t == TEXT else TASK_WEIGHT * loss for t, loss in losses.items())
    return total, {f"loss_{task}": loss for task, loss in losses.items()}


def evaluate(
    model: TokenRecogniser,
    dev: Sequence[Utterance],
    tokens: Tokens,
    step: int,
    reporter: Reporter,
) -> float:
    """Return the character error rate on `dev`; log the share of right classes of each task."""
    model.eval()
    started, counts = time.perf_counter(), Counts()
    rows = [tokens[u.id] for u in dev]
    for u, text in zip(dev, model.transcribe(rows), strict=True):
        counts += count_errors(split_units(spoken(u.text), "char"), split_units(text, "char"))
    metrics = {"eval/cer": counts.rate}
    for task, names in model.classify(rows).items():
        wanted = [model.class_of(task, u, len(tokens[u.id])) for u in dev]
        right = sum(w == name for w, name in zip(wanted, names, strict=True))
        metrics[f"eval/{task}_accuracy"] = right / len(dev)
    reporter.log(step, {**metrics, "timing_s/eval": time.perf_counter() - started})
    log.info("step %d: dev CER %.2f %%", step, 100 * counts.rate)
    return counts.rate
