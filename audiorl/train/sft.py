"""The supervised warm start (stage 3)."""

from __future__ import annotations

from pathlib import Path

from audiorl.models.lora import merge_adapters
from audiorl.runs.experiment import Experiment
from audiorl.tasks.task import Task
from audiorl.train.supervised import train_supervised


def train_sft(task: Task, out: Path) -> None:
    """Train a new model on data.train into `out`; continue a run that was cut off.

    Writes checkpoints/, metrics.jsonl and, at the end, model/: the mean of the best checkpoints on
    data.dev. Does nothing if `out` is complete. Raises UserError before training for data that
    cannot be learnt from.
    """
    config = task.config
    experiment = Experiment(out, config, task.sft_sections)
    inputs = task.sft_inputs()
    if not experiment.begin(config.seed, **inputs):
        return
    training = task.warm_start(inputs)
    training.model.llm.gradient_checkpointing = config.gradient_checkpointing
    training.model.share_weights(config.parallelism)
    schedule = config.sft.schedule
    if schedule.max_steps:
        train_supervised(experiment, training, schedule, average=schedule.average)
    merge_adapters(training.model)
    experiment.finish(training.model)
