"""The supervised warm start (stage 3)."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from audiorl.models.lora import merge_adapters
from audiorl.runs.experiment import Experiment
from audiorl.runtime.device import setup_torch
from audiorl.tasks.task import Task
from audiorl.train.supervised import train_supervised

log = logging.getLogger(__name__)


def train_sft(task: Task, out: Path) -> None:
    """Train a new model on data.train into `out`; continue a run that was cut off.

    Writes checkpoints/, metrics.jsonl and, at the end, model/: the mean of the best checkpoints on
    data.dev. Does nothing if `out` is complete. Raises UserError before training for data that
    cannot be learnt from.
    """
    config = task.config
    experiment = Experiment(out, config, task.sft_sections)
    inputs = task.sft_inputs()
    experiment.check_inputs(**inputs)
    if experiment.is_complete:
        log.info("%s is complete: nothing to do", out)
        return
    setup_torch(config.num_threads)
    torch.manual_seed(config.seed)
    training = task.warm_start(inputs)
    training.model.llm.gradient_checkpointing = config.gradient_checkpointing
    schedule = config.sft.schedule
    if schedule.max_steps:
        train_supervised(experiment, training, schedule, average=schedule.average)
    merge_adapters(training.model)
    training.model.eval().save(experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)
