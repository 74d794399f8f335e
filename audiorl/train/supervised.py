"""The supervised loop: updates, evaluations, checkpoints. What is learnt is the task's."""

from __future__ import annotations

import functools
import logging
import time

import torch
from torch import Tensor

from audiorl.config.training import Schedule
from audiorl.errors import UserError
from audiorl.runs.checkpoint import BestWeights, Checkpoints
from audiorl.runs.experiment import Experiment
from audiorl.runs.optimizer import SUPERVISED_NORM, WEIGHT_DECAY, Optimizers, warmup_cosine
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Loaded, Supervised
from audiorl.runtime import ranks, sharding
from audiorl.runtime.files import progress
from audiorl.runtime.statistics import running_statistics
from audiorl.runtime.stopping import asked_to_stop, stop

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
    and has checkpoints of its own. Of several processes each learns from some of the batches of an
    update, so that the model does not depend on their number.
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
    _tell_idle(name, accumulation, sharding.sharing(model))
    batches = task.batches(done * accumulation, lambda n: _is_own(n % accumulation))
    started, audio_seconds = time.perf_counter(), 0.0
    bar = progress(desc=name, total=schedule.max_steps, unit="step")
    with bar, asked_to_stop() as is_asked:
        bar.update(done)
        for step in range(done, schedule.max_steps):
            model.train()
            rate = warmup_cosine(step, schedule.warmup_steps, schedule.max_steps)
            batch = [next(batches) for _ in range(accumulation)]
            metrics = update(task, optimizer, batch, step, rate, seed)
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
                score = ranks.from_main(task.evaluate(first + step + 1, reporter))
                best.offer(step + 1, score, model)
            asked = is_asked()
            if (step + 1) % schedule.save_steps == 0 or last or asked:
                checkpoints.save(step + 1, model, optimizer, {"best": best.scores})
                best.clean()
            if asked and not last:
                checkpoints.finish()
                stop(first + step + 1)
    reporter.close()
    checkpoints.finish()
    best.load_average(model)
    log.info("the model is the mean of steps %s", ", ".join(sorted(best.scores, key=int)))


def update(
    task: Supervised,
    optimizer: Optimizers,
    batches: list[Loaded],
    step: int,
    rate: float,
    seed: int = 0,
) -> dict[str, float]:
    """One update on the sum of `batches`, each weighted by its share of the utterances.

    `rate` is the share of the peak learning rates.
    """
    optimizer.zero_grad()
    total = sum(len(utterances) for utterances, _ in batches)

    def loss(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = batches[number]
        share = len(batch[0]) / total
        # Dropout and masks depend on the batch alone: a resumed run draws the same, and so do
        # several processes.
        torch.manual_seed(seed * 1_000_003 + step * len(batches) + number)
        begin(number)
        value, parts = task.loss(batch, step)
        told = {"loss": value, **parts}.items()
        return share * value, {name: share * part.detach().double() for name, part in told}

    sums: dict[str, Tensor] = {}
    own = [functools.partial(loss, n) for n in range(len(batches)) if _is_own(n)]
    with running_statistics(task.model) as begin:
        sharding.backward(task.model, own, lambda: torch.zeros(()), sums)
    seen = [u for utterances, _ in batches for u in utterances]
    means = {name: value.item() for name, value in ranks.added(sums).items()}
    return {**means, "grad_norm": optimizer.step(rate, SUPERVISED_NORM, seen)}


def _is_own(number: int) -> bool:
    """Return whether this process learns from that batch of an update."""
    return number % ranks.size() == ranks.rank()


def _tell_idle(name: str, batches: int, sharing: str) -> None:
    if sharing == "always" and batches % ranks.size():
        raise UserError(
            f"sft.schedule.gradient_accumulation_steps: the {batches} batches of an update are no "
            f"multiple of {ranks.size()} processes, which fsdp_reshard_after_forward: always asks "
            "for; set one, or never."
        )
    if batches < ranks.size():
        log.info(
            "%s: an update has %d of the %d batches that as many processes could learn from; the "
            "others wait (halve the batches and double gradient_accumulation_steps, where there is "
            "such a key)",
            name, batches, ranks.size(),
        )  # fmt: skip


def _lowest(scores: dict[str, float]) -> str:
    return f"{min(scores.values()):.3f}" if scores else "-"
