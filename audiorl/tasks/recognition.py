"""The task of recognition: an audio LLM writes what is said in recordings."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.augment import at_speeds
from audiorl.data.loading import IsOwn, prefetch
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.engine import Engine, make_engine
from audiorl.engines.native import PolicyEngine
from audiorl.infer.decode import Transcriber
from audiorl.infer.transcribe import transcribe
from audiorl.infer.windows import join, windows
from audiorl.models import WEIGHTS
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.families.pretrained import pretrained_family
from audiorl.models.policy import find_policy, load_policy
from audiorl.models.recogniser import Recogniser
from audiorl.rewards import Models
from audiorl.rl.collect import Rewarder
from audiorl.rl.frames import FrameArchive, FrameStore
from audiorl.rl.groups import Sampler, read_text
from audiorl.rl.grpo import GRPO
from audiorl.rl.prompts import Prompts
from audiorl.rl.supervised import Continued
from audiorl.rl_data.build import build_rl_data, rl_set_stamp
from audiorl.runs.optimizer import Optimizers
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Loaded
from audiorl.runtime.batching import batch_stream, some
from audiorl.runtime.device import pick_device
from audiorl.tasks.task import Folders, Task
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import normalizer, split_units

log = logging.getLogger(__name__)


class Recognition(Task):
    """Recognition, as the stages see it."""

    sft_sections = (
        "model.",
        "data.sample_rate",
        "tokenizer.",
        "frontend.",
        "encoder.",
        "adaptor.",
        "llm.",
        "sft.",
    )
    rl_sections: tuple[str, ...] = ()

    def __init__(self, config: Config, folders: Folders) -> None:
        super().__init__(config, folders)
        self.parts = config.rl.train
        self.adapters = config.lora.in_warm_start(config)
        if self.adapters.rank:
            self.sft_sections = (*self.sft_sections, "lora.")
        # Conditions of the dev set, from one evaluation to the next, while they do not change.
        self.frames: dict[str, Tensor] = {}

    def sft_inputs(self) -> dict[str, Any]:
        data = self.config.data
        sets = {"train": data.train, "dev": data.dev}
        return {part: read_utterances(self.folders.dump / name) for part, name in sets.items()}

    def warm_start(self, inputs: dict[str, Any]) -> RecognitionWarmStart:
        config, train = self.config, inputs["train"]
        model = find_recogniser(config).create(config, (u.text for u in train))
        model = model.to(pick_device(config.device))
        model.adapt(self.adapters, config.seed)
        log.info(describe(model))
        self._refuse_unfit(model, inputs)
        model.parts(self.parts)  # it may lack some that RL is to train
        dev = some(inputs["dev"], config.sft.schedule.eval_utterances)
        return RecognitionWarmStart(config, model, train, dev)

    def build_rl_set(self, init: Path, out: Path) -> None:
        config, dump, weights = self.config, self.folders.dump, init / "model" / WEIGHTS
        if rl_set_stamp(config, str(init), dump, out, weights).is_current(out):
            print(f"{out} is complete: nothing to do")
            return
        model = load_policy(init / "model", str(pick_device(config.device)))
        with make_engine(config.rl.engine, model, config.rl) as engine:
            sampler = Sampler(engine, config.rl, config.seed)
            build_rl_data(sampler, str(init), weights, config, dump, out)

    def _refuse_unfit(self, model: Recogniser, inputs: dict[str, list[Utterance]]) -> None:
        """Raises UserError before any training for audio that the model cannot hear, tests too."""
        dump, data = self.folders.dump, self.config.data
        window = self.config.decode.window_seconds
        model.refuse_unfit(inputs["train"], dump / data.train)
        model.refuse_unfit(inputs["dev"], dump / data.dev, window)
        for folder in (dump / name for name in data.test if (dump / name).exists()):
            model.refuse_unfit(read_utterances(folder), folder, window)

    def prepare(self, policy: Recogniser, train: list[Utterance], dev: list[Utterance]) -> Models:
        policy.refuse_unfit(train, "the RL set")
        name, window = self.config.data.rl_dev, self.config.decode.window_seconds
        policy.refuse_unfit(dev, name or self.config.data.dev, window)
        return Models()

    def decoder(self) -> Transcriber:
        return Transcriber(self.config)

    def learner(
        self,
        sampler: Sampler,
        reference: Recogniser | None,
        rewards: Rewarder,
        optimizer: Optimizers,
        prompts: Prompts,
        folder: Path,
    ) -> GRPO | Continued:
        model, disk = sampler.engine.policy, None
        frozen = not model.condition_learns(self.parts)
        if self.config.rl.cache_frames and frozen:
            weights = next(model.part("encoder")[0].parameters())
            disk = FrameArchive(folder / "frames", weights.dtype)
        frames = FrameStore(model, frozen, disk=disk)
        if self.config.rl.algorithm == "supervised":
            return Continued(model, optimizer, frames, self.config.rl)
        read = read_text(model.tokenizer)
        return GRPO(sampler, reference, rewards, optimizer, frames, read, prompts.more)

    def evaluate(
        self, engine: Engine, dev: Sequence[Utterance], step: int, reporter: Reporter
    ) -> float:
        cache = None if engine.policy.condition_learns(self.parts) else self.frames
        return evaluate(engine, dev, self.config, step, reporter, cache).rate


class RecognitionWarmStart:
    """Cross entropy of transcripts, with CTC on the encoder (`Supervised`)."""

    def __init__(
        self, config: Config, model: Recogniser, train: list[Utterance], dev: list[Utterance]
    ) -> None:
        self.config, self.model = config, model
        self.engine = PolicyEngine(model)
        self.train, self.dev = train, dev
        self.first_evaluation = config.sft.ctc_steps

    def batches(self, first: int, is_own: IsOwn) -> Iterator[Loaded]:
        """Yield utterances and their waves, at one of `sft.speeds`."""
        sft, seed = self.config.sft, self.config.seed
        stream = batch_stream(self.train, sft.batch_seconds, seed, first)
        if not sft.speeds:
            return prefetch(stream, self.model.sample_rate, is_own)

        def change(number: int, waves: list[torch.Tensor]) -> list[torch.Tensor]:
            return at_speeds(waves, sft.speeds, f"{seed} {first + number}")

        return prefetch(stream, self.model.sample_rate, is_own, change)

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
        )
        return loss.total, {"loss_lm": loss.lm, "loss_ctc": loss.ctc}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """Return the greedy error rate on the dev set."""
        return evaluate(self.engine, self.dev, self.config, step, reporter).rate


def find_recogniser(config: Config) -> type[Recogniser]:
    """Return the class of a recipe's model: of `model.pretrained`, a new one, or the user's."""
    model, name = config.model, config.model.family
    if not name:
        name = pretrained_family(model.pretrained) if model.pretrained else AudioLLM.family
    return find_policy(name)


def describe(model: Recogniser) -> str:
    """Parameters of each part, in millions."""
    sizes = {
        name: sum(p.numel() for part in model.part(name) for p in part.parameters()) / 1e6
        for name in model.part_names
    }
    listed = ", ".join(f"{name} {size:.2f} M" for name, size in sizes.items())
    return f"{sum(sizes.values()):.2f} M parameters ({listed}), {model.tokenizer.vocab_size} tokens"


def evaluate(
    engine: Engine,
    utterances: Sequence[Utterance],
    config: Config,
    step: int,
    reporter: Reporter,
    cache: dict[str, Tensor] | None = None,
) -> Counts:
    """Return the greedy errors on `utterances`; logs their rate, and the first with its hypothesis.

    `cache`: see `transcribe`.
    """
    score, started = config.score, time.perf_counter()
    clean = normalizer(score.normalizer)
    parts = windows(utterances, config.decode.window_seconds)
    found = transcribe(
        engine,
        [part for own in parts.values() for part in own],
        max_length=config.decode.max_completion_length,
        desc="evaluation",
        cache=cache,
    )
    found = join(parts, found)
    counts = Counts()
    for u in utterances:
        reference = split_units(clean(u.text), score.unit)
        counts += count_errors(reference, split_units(clean(found[u.id][0].text), score.unit))
    unfinished = sum(not h[0].finished for h in found.values()) / len(found)
    reporter.log(
        step,
        {
            "eval/wer": counts.rate,
            "eval/unfinished_ratio": unfinished,
            "timing_s/eval": time.perf_counter() - started,
        },
    )
    rate = config.data.sample_rate
    first = utterances[0]
    text = f"reference: {first.text}\n\nhypothesis: {found[first.id][0].text}"
    reporter.audio(step, "eval/sample", read_audio(first, rate), rate, text)
    log.info("step %d: dev error rate %.2f %%", step, 100 * counts.rate)
    return counts
