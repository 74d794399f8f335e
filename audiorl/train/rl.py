"""The RL loop: prompts, steps, evaluations, checkpoints. What a step does is in audiorl/rl."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

from audiorl.config.schema import Config
from audiorl.data.rl_set import read_rl_set
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.files import progress
from audiorl.models import WEIGHTS, load_model, save_model
from audiorl.models.audio_llm import AudioLLM
from audiorl.optim import Optimizers, warmup_then
from audiorl.rewards import reward_files
from audiorl.rewards.workers import scoring
from audiorl.rl.collect import Scorer
from audiorl.rl.frames import FrameArchive, FrameStore
from audiorl.rl.grpo import GRPO
from audiorl.rl.supervised import Supervised
from audiorl.rollout.groups import read_text
from audiorl.train.checkpoint import BestWeights, Checkpoints
from audiorl.train.experiment import Experiment
from audiorl.train.prompts import Prompts
from audiorl.train.reporter import Reporter
from audiorl.train.sft import evaluate, pick_device, setup_torch, some

log = logging.getLogger(__name__)


def train_rl(config: Config, init: Path, data: Path, dump: Path, out: Path) -> None:
    """Improves the model of experiment `init` on the RL set `data` into `out`.

    Goes on with a run that was cut off; does nothing if `out` is complete. The model kept is the
    mean of the `rl.average` best by greedy error rate on the RL dev set, the start included.
    """
    experiment = Experiment(out, config, ("rl.",))
    train = read_rl_set(data)
    dev = read_utterances(dump / (config.data.rl_dev or config.data.dev))
    weights = init / "model" / WEIGHTS
    if not weights.exists():
        raise UserError(f"{weights}: there is no model to start from; run the stage before.")
    code = {str(path): path for path in reward_files(config)}
    experiment.check_inputs(train=train, dev=dev, init=weights, **code)
    for path in code.values():
        experiment.keep(path)
    if experiment.is_complete:
        log.info("%s is complete: nothing to do", out)
        return
    setup_torch(config)
    model = load_model(init / "model", str(pick_device(config)))
    # What is to be learnt and scored comes from this config; what the model is, from its own.
    for section in ("seed", "rl", "score", "decode"):
        setattr(model.config, section, getattr(config, section))
    _freeze(model)
    if len(train) < config.rl.num_prompts:
        raise UserError(
            f"{data} has {len(train)} utterances, fewer than rl.num_prompts "
            f"({config.rl.num_prompts}); lower the key or build a larger RL set."
        )
    prompts, held_out = Prompts(train, config), some(dev, config.rl.eval_utterances)
    with scoring(config) as rewards:
        _train(config, experiment, model, prompts, held_out, rewards)
    save_model(model.eval(), experiment.model_folder)
    log.info("wrote %s", experiment.model_folder)


def _train(
    config: Config,
    experiment: Experiment,
    model: AudioLLM,
    prompts: Prompts,
    dev: list[Utterance],
    rewards: Scorer,
) -> None:
    rl = config.rl
    model.eval()  # no dropout: the policy that samples is the policy that learns
    reference = copy.deepcopy(model).requires_grad_(False) if rl.beta > 0 else None
    parts = [getattr(model, part) for part in rl.train]
    optimizer = Optimizers(parts, rl.learning_rate, rl.weight_decay)
    checkpoints = Checkpoints(experiment.folder / "checkpoints")
    best = BestWeights(checkpoints.folder, rl.average)
    done, state = checkpoints.resume(model, optimizer)
    reporter = Reporter(experiment.folder, done if state else -1)
    frozen, disk = "encoder" not in rl.train, None
    if rl.cache_frames and frozen:
        disk = FrameArchive(experiment.folder / "frames", next(model.encoder.parameters()).dtype)
    frames = FrameStore(model, frozen, disk=disk)
    heard = {} if frozen else None  # frames of the dev set, from one evaluation to the next
    if rl.algorithm == "grpo":
        learner = GRPO(
            model, reference, rewards, optimizer, frames, read_text(model.tokenizer), prompts.more
        )
    else:
        learner = Supervised(model, optimizer, frames)
    if state:
        best.scores = state["best"]
        prompts.restore(state["prompts"])
    else:
        best.offer(0, evaluate(model, dev, 0, reporter, heard).rate, model)
    log.info(
        "a loss near 0 and clip ratios of 0 are normal: with one update per rollout the ratio is 1"
    )
    with progress(desc=rl.algorithm, total=rl.max_steps, unit="step") as bar:
        bar.update(done)
        for step in range(done, rl.max_steps):
            rate = warmup_then(rl.lr_scheduler_type, step, rl.warmup_steps, rl.max_steps)
            output = learner.step(step, prompts.draw(step), rate)
            prompts.learn(output.spreads)
            reporter.log(step + 1, {**output.metrics, "learning_rate": rate * rl.learning_rate})
            reporter.completions(step + 1, output.completions)
            bar.update()
            bar.set_postfix(_shown(output.metrics, best.scores))
            last = step + 1 == rl.max_steps
            if (step + 1) % rl.eval_steps == 0 or last:
                best.offer(step + 1, evaluate(model, dev, step + 1, reporter, heard).rate, model)
            if (step + 1) % rl.save_steps == 0 or last:
                state = {"best": best.scores, "prompts": prompts.state}
                checkpoints.save(step + 1, model, optimizer, state)
                best.clean()
    reporter.close()
    best.load_average(model)
    log.info("the model is the mean of steps %s", ", ".join(sorted(best.scores, key=int)))


def _freeze(model: AudioLLM) -> None:
    """Only the parts named in `rl.train` learn."""
    model.requires_grad_(False)
    for part in model.config.rl.train:
        getattr(model, part).requires_grad_(True)


def _shown(metrics: dict[str, float], scores: dict[str, float]) -> dict[str, str]:
    reward = {"reward": f"{metrics['reward']:.3f}"} if "reward" in metrics else {}
    return {**reward, "loss": f"{metrics['loss']:.3f}", "dev": f"{100 * min(scores.values()):.1f}%"}
