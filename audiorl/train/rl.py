"""The RL loop: prompts, steps, evaluations, checkpoints. What a step does is in audiorl/rl."""

from __future__ import annotations

import logging
from pathlib import Path

from audiorl.config.rl import DIFFERENTIATED
from audiorl.data.rl_set import read_rl_set
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.engine import Engine, make_engine
from audiorl.errors import UserError
from audiorl.models import WEIGHTS
from audiorl.models.lora import ADAPTED, merge_adapters
from audiorl.models.policy import Policy, load_policy, model_files
from audiorl.rewards import build_rewards, reward_files
from audiorl.rewards.core.workers import open_rewards
from audiorl.rl.collect import Rewarder
from audiorl.rl.groups import Sampler
from audiorl.rl.placement import EVALUATION, Placement
from audiorl.rl.prompts import Prompts
from audiorl.runs.checkpoint import BestWeights, Checkpoints
from audiorl.runs.experiment import Experiment
from audiorl.runs.optimizer import Optimizers, warmup_then
from audiorl.runs.reporter import Reporter
from audiorl.runtime import ranks
from audiorl.runtime.batching import some
from audiorl.runtime.device import pick_device
from audiorl.runtime.files import progress
from audiorl.runtime.sharding import sharing
from audiorl.runtime.stopping import asked_to_stop, stop
from audiorl.tasks.task import Task

log = logging.getLogger(__name__)


def train_rl(task: Task, init: Path, data: Path, out: Path) -> None:
    """Improve the model of experiment `init` on the RL set `data` into `out`.

    Continues a run that was cut off; does nothing if `out` is complete. The model kept is the mean
    of the `rl.average` best by error rate on the RL dev set, the start included.
    """
    config, alone = task.config, task.texts_alone
    experiment = Experiment(out, config, ("rl.", "lora.", *task.rl_sections))
    train = read_rl_set(data, alone)
    name = config.data.rl_dev or config.data.dev
    dev = read_utterances(task.folders.dump / name, texts_alone=alone)
    weights = init / "model" / WEIGHTS
    if not weights.exists():
        raise UserError(f"{weights}: there is no model to start from; run stage 3.")
    code = reward_files(config)
    inputs = {"train": train, "dev": dev, "init": weights, **code, **task.rl_inputs()}
    adapted = model_files(init / "model").items()
    inputs |= {f"init/{name}": file for name, file in adapted if name.startswith("base/")}
    if not experiment.begin(config.seed, **inputs):
        return
    for name, path in code.items():
        experiment.keep(name, path)
    model = load_policy(init / "model", str(pick_device(config.device)))
    model.adapt(config.lora, config.seed)
    model.llm.gradient_checkpointing = config.gradient_checkpointing
    if ranks.size() > config.rl.num_prompts:
        raise UserError(
            f"rl.num_prompts: {ranks.size()} processes share {config.rl.num_prompts} prompts; "
            "raise the key, or take fewer processes."
        )
    if len(train) < config.rl.num_prompts:
        raise UserError(
            f"{data} has {len(train)} utterances, fewer than rl.num_prompts "
            f"({config.rl.num_prompts}); lower the key or build a larger RL set."
        )
    prompts, held_out = Prompts(train, config), some(dev, config.rl.eval_utterances)
    utterances = [item.utterance for item in train]
    models = task.prepare(model, utterances, held_out)
    build_rewards(config, models).tell_coverage(utterances)
    with (
        open_rewards(config, models) as rewards,
        make_engine(config.rl.engine, model, config.rl) as engine,
    ):
        _train(task, experiment, engine, prompts, held_out, rewards)
    model.eval()
    folder = experiment.model_folder
    if model.lora and not config.lora.merge:
        experiment.save(model, lambda: model.save_adapters(folder, init / "model"))
        return
    merge_adapters(model)
    if ranks.is_main():
        (folder / ADAPTED).unlink(missing_ok=True)  # of a run before its extension
    experiment.finish(model)


def _train(
    task: Task,
    experiment: Experiment,
    engine: Engine,
    prompts: Prompts,
    dev: list[Utterance],
    rewards: Rewarder,
) -> None:
    config, rl, model = task.config, task.config.rl, engine.policy
    model.eval()  # no dropout: the policy that samples is the policy that learns
    reference = model.reference(task.parts) if rl.beta > 0 else None
    learning = model.train_only(task.parts)
    model.share_weights(config.parallelism)
    optimizer = Optimizers(learning, rl.learning_rate, 0.0, model=model)
    checkpoints = Checkpoints(experiment.folder / "checkpoints")
    # The reward model's error is lowest where it is hacked: a run that stops for that looks back.
    window = rl.early_stop_window if rl.early_stop == "stop" else 0
    best = BestWeights(checkpoints.folder, rl.average, window, optimizer.masters)
    done, state = checkpoints.resume(model, optimizer, best)
    reporter = Reporter(experiment.folder, done if state else -1, config)
    placement = None
    if rl.placement == "alternate":
        differentiated = rl.algorithm in DIFFERENTIATED
        models = task.reward_modules()
        placement = Placement(engine, reference, optimizer, models, differentiated)
    sampler = Sampler(engine, rl, config.seed, placement)
    learner = task.learner(sampler, reference, rewards, optimizer, prompts, experiment.folder)
    if state:
        prompts.restore(state["prompts"])
        task.restore(state["task"])
        if not engine.exact:
            log.info(
                "going on from the checkpoint of step %d; %s samples otherwise after a restart, so "
                "the run is not the one that was never stopped, bit for bit", done, rl.engine,
            )  # fmt: skip
    else:
        best.offer(0, ranks.from_main(task.evaluate(engine, dev, 0, reporter)), model)
    if _is_probed(model):
        learner.probe(prompts.longest())
    log.info(
        "a loss near 0 and clip ratios of 0 are normal: with one update per rollout the ratio is 1"
    )
    bar = progress(desc=rl.algorithm, total=rl.max_steps, unit="step")
    with bar, asked_to_stop() as is_asked:
        bar.update(done)
        for step in range(done, done if task.should_stop else rl.max_steps):
            rate = warmup_then(rl.lr_scheduler_type, step, rl.warmup_steps, rl.max_steps)
            output = learner.step(step, prompts.draw(step), rate)
            prompts.learn(output.spreads)
            reporter.log(step + 1, {**output.metrics, "learning_rate": rate * rl.learning_rate})
            reporter.completions(step + 1, output.completions)
            bar.update()
            bar.set_postfix(_shown(output.metrics, best.scores))
            last = step + 1 == rl.max_steps
            if (step + 1) % rl.eval_steps == 0 or last:
                engine.sync()  # for learners that sample nothing themselves
                if placement:
                    placement.enter(EVALUATION)
                error = ranks.from_main(task.evaluate(engine, dev, step + 1, reporter))
                best.offer(step + 1, error, model)
            asked = is_asked()
            if (step + 1) % rl.save_steps == 0 or last or task.should_stop or asked:
                state = {"best": best.scores, "prompts": prompts.state, "task": task.state}
                checkpoints.save(step + 1, model, optimizer, state)
                best.clean()
            if task.should_stop:
                break
            if asked and not last:
                checkpoints.finish()
                stop(step + 1)
    reporter.close()
    checkpoints.finish()
    best.choose(distrusted=task.should_stop)
    best.load_average(model)
    log.info("the model is the mean of steps %s", ", ".join(sorted(best.scores, key=int)))


def _is_probed(model: Policy) -> bool:
    """Return whether an update is tried first: where memory is a device's own, and whole."""
    return model.device.type == "cuda" and not sharing(model)


def _shown(metrics: dict[str, float], scores: dict[str, float]) -> dict[str, str]:
    reward = {"reward": f"{metrics['reward']:.3f}"} if "reward" in metrics else {}
    return {**reward, "loss": f"{metrics['loss']:.3f}", "dev": f"{100 * min(scores.values()):.1f}%"}
