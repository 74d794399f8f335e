"""The supervised loop: updates, evaluations, checkpoints. What is learnt is the task's."""

from __future__ import annotations

import logging
import time

import torch

from audiorl.config.training import Schedule
from audiorl.runs.checkpoint import BestWeights, Checkpoints
from audiorl.runs.experiment import Experiment
from audiorl.runs.optimizer import SUPERVISED_NORM, WEIGHT_DECAY, Optimizers, warmup_cosine
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Loaded, Supervised
from audiorl.runtime.files import progress

log = logging.getLogger(__name__)


def train_supervised(
    experiment: Experiment,
    task: Supervised,
    schedule: Schedule,
    name: str = "supervised training",
    average: int = 1,
    seed: int | None = None,
    first: int = 0,
) -> None:
    """Trains `task.model`: at the end, the mean of its `average` best checkpoints.

    Continues a run that was cut off, to the bit (on a CPU). `seed`: the config's, unless given.
    Another training in the same folder counts its steps from `first`, where those before it end,
    and has checkpoints of its own.
    """
    config, model = experiment.config, task.model
    seed = config.seed if seed is None else seed
    optimizer = Optimizers(
        [model], schedule.learning_rate, WEIGHT_DECAY, schedule.muon_learning_rate
    )
    checkpoints = Checkpoints(experiment.folder / "checkpoints" / (name if first else ""))
    best = BestWeights(checkpoints.folder, average, masters=optimizer.masters)
    done, _ = checkpoints.resume(model, optimizer, best)
    if done == schedule.max_steps:  # behind its lines there may be those of a further training
        best.load_average(model)
        return
    reporter = Reporter(experiment.folder, first + done, config)
    accumulation = schedule.gradient_accumulation_steps
    batches = task.batches(done * accumulation)
    started, audio_seconds = time.perf_counter(), 0.0
    with progress(desc=name, total=schedule.max_steps, unit="step") as bar:
        bar.update(done)
        for step in range(done, schedule.max_steps):
            model.train()
            # Dropout and masks of a step depend on the step alone: a resumed run draws the same.
            torch.manual_seed(seed * 1_000_003 + step)
            rate = warmup_cosine(step, schedule.warmup_steps, schedule.max_steps)
            batch = [next(batches) for _ in range(accumulation)]
            metrics = update(task, optimizer, batch, step, rate)
            audio_seconds += sum(u.duration for utterances, _ in batch for u in utterances)
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.3f}", dev=_lowest(best.scores))
            last = step + 1 == schedule.max_steps
            if (step + 1) % schedule.logging_steps == 0 or last:
                seconds = time.perf_counter() - started
                speed = {"perf/audio_seconds_per_second": audio_seconds / seconds}
                rates = {"learning_rate": rate * schedule.learning_rate, **speed}
                reporter.log(first + step + 1, {**metrics, **rates})
            if ((step + 1) % schedule.eval_steps == 0 and step >= task.first_evaluation) or last:
                score = task.evaluate(first + step + 1, reporter)
                best.offer(step + 1, score, model)
            if (step + 1) % schedule.save_steps == 0 or last:
                checkpoints.save(step + 1, model, optimizer, {"best": best.scores})
                best.clean()
    reporter.close()
    best.load_average(model)
    log.info("the model is the mean of steps %s", ", ".join(sorted(best.scores, key=int)))


def update(
    task: Supervised,
    optimizer: Optimizers,
    batches: list[Loaded],
    step: int,
    rate: float,
) -> dict[str, float]:
    """One update on the sum of `batches`, each weighted by its share of the utterances.

    `rate` is the share of the peak learning rates.
    """
    optimizer.zero_grad()
    total = sum(len(utterances) for utterances, _ in batches)
    sums: dict[str, float] = {}
    for batch in batches:
        share = len(batch[0]) / total
        loss, parts = task.loss(batch, step)
        (share * loss).backward()
        for name, value in {"loss": loss, **parts}.items():
            sums[name] = sums.get(name, 0.0) + share * value.item()
    seen = [u for utterances, _ in batches for u in utterances]
    return {**sums, "grad_norm": optimizer.step(rate, SUPERVISED_NORM, seen)}


def _lowest(scores: dict[str, float]) -> str:
    return f"{min(scores.values()):.3f}" if scores else "-"
