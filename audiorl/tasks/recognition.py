"""What recognition brings to the RL loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Engine
from audiorl.infer.transcribe import transcribe
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import Models
from audiorl.rl.collect import Scorer
from audiorl.rl.frames import FrameArchive, FrameStore
from audiorl.rl.groups import Sampler, read_text
from audiorl.rl.grpo import GRPO
from audiorl.rl.prompts import Prompts
from audiorl.rl.supervised import Supervised
from audiorl.runs.optimizer import Optimizers
from audiorl.runs.reporter import Reporter
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import normalizer, split_units

log = logging.getLogger(__name__)


class Recognition:
    """RL of an audio LLM."""

    relevant: tuple[str, ...] = ()
    should_stop = False
    state: Any = None

    def __init__(self, config: Config) -> None:
        self.config = config
        self.parts = config.rl.train
        self.frozen = "encoder" not in config.rl.train
        # Frames of the dev set, from one evaluation to the next.
        self.frames: dict[str, Tensor] | None = {} if self.frozen else None

    def inputs(self) -> dict[str, Path]:
        return {}

    def prepare(
        self, model: AudioLLM, train: Sequence[Utterance], dev: Sequence[Utterance]
    ) -> Models:
        return Models()

    def learner(
        self,
        sampler: Sampler,
        reference: AudioLLM | None,
        rewards: Scorer,
        optimizer: Optimizers,
        prompts: Prompts,
        folder: Path,
    ) -> GRPO | Supervised:
        model, disk = sampler.engine.policy, None
        if self.config.rl.cache_frames and self.frozen:
            disk = FrameArchive(folder / "frames", next(model.encoder.parameters()).dtype)
        frames = FrameStore(model, self.frozen, disk=disk)
        if self.config.rl.algorithm == "supervised":
            return Supervised(model, optimizer, frames, self.config.rl)
        read = read_text(model.tokenizer)
        return GRPO(sampler, reference, rewards, optimizer, frames, read, prompts.more)

    def evaluate(
        self, engine: Engine, dev: Sequence[Utterance], step: int, reporter: Reporter
    ) -> float:
        return evaluate(engine, dev, self.config, step, reporter, self.frames).rate

    def restore(self, state: None) -> None:
        """Nothing was kept."""


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
    found = transcribe(
        engine,
        utterances,
        max_length=config.decode.max_completion_length,
        desc="evaluation",
        cache=cache,
    )
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
