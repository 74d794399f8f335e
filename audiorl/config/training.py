"""Schedules of supervised trainings, and the warm start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from audiorl.config.field import Rule, key

if TYPE_CHECKING:
    from audiorl.config.schema import Config


SPEEDS = (0.5, 2.0)


def _fixed_length(config: Config) -> str:
    return "the learning rate falls to 2 % at the last step"


@dataclass
class Schedule:
    """Updates, learning rates and evaluations of a supervised training.

    The four models of synthesis have these keys; a warm start has more, in place of the constants.
    """

    max_steps: int = key(
        1000,
        "updates at most; 0, of sft alone: take a pretrained recogniser or speech LM (llasa, "
        "cosyvoice) as it is",
        ge=0,
        resume=_fixed_length,
    )
    learning_rate: float = key(2e-3, "peak learning rate (AdamW)", gt=0)
    muon_learning_rate: float = key(
        0.0, "peak learning rate of Muon on the layers' matrices; 0: AdamW there too", ge=0
    )
    warmup_steps: int = key(100, "updates of linear warm-up; cosine decay to 2 % follows", ge=0)
    eval_steps: int = key(200, "updates between evaluations on dev", ge=1)
    gradient_accumulation_steps: ClassVar[int] = 1
    logging_steps: ClassVar[int] = 10
    eval_utterances: ClassVar[int] = 200

    @property
    def save_steps(self) -> int:
        """Updates between checkpoints for resuming."""
        return self.eval_steps

    def rules_in(self, section: str) -> Iterator[Rule]:
        """Yield the rules that the schedule of a section with a new model breaks."""
        if self.max_steps == 0:
            yield (f"{section}.schedule.max_steps",), "nothing would be learnt; set at least 1"


@dataclass
class WarmStartSchedule(Schedule):
    """Updates, learning rates, evaluations and checkpoints of a warm start."""

    gradient_accumulation_steps: int = key(1, "batches summed into one update", ge=1)
    save_steps: int = key(100, "updates between checkpoints for resuming", ge=1, resume=True)
    logging_steps: int = key(10, "updates between lines of metrics.jsonl", ge=1, resume=True)
    average: int = key(3, "the model is the mean of this many best checkpoints on dev", ge=1)
    eval_utterances: int = key(200, "dev utterances per evaluation; 0: all", ge=0, resume=True)


@dataclass
class SFTConfig:
    """Supervised warm start (stage 3)."""

    schedule: WarmStartSchedule = key(
        WarmStartSchedule, "of its training; the best on dev (ASR: greedy WER; TTS: loss)"
    )
    batch_seconds: float = key(
        80.0, "seconds of audio in a batch, padding included", gt=0, task="asr"
    )
    batch_tokens: int = key(
        4000, "text and speech tokens in a batch, padding included", ge=1, task="tts"
    )
    ctc_weight: float = key(
        0.3, "weight of the CTC loss on the encoder; the LM's has 1 - this", ge=0, le=1, task="asr"
    )
    token_noise: float = key(
        0.1,
        "share of the response that the LM reads which is random: it must attend to the prefix",
        ge=0,
        lt=1,
    )
    ctc_steps: int = key(
        0,
        "updates at the start on CTC alone: the encoder hears before the LM listens",
        ge=0,
        task="asr",
    )
    ctc_unit: str = key(
        "byte",
        "labels of CTC: UTF-8 bytes (letters, in English: they align soonest), or the LM's tokens",
        choices=("byte", "token"),
        task="asr",
    )

    speeds: list[float] = key(
        [],
        "speed perturbation: each recording is read at one of these speeds, drawn anew every time; "
        "empty: as it is",
        task="asr",
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if not all(SPEEDS[0] <= speed <= SPEEDS[1] for speed in self.speeds):
            yield ("sft.speeds",), f"a speed is from {SPEEDS[0]} to {SPEEDS[1]}, 1 for as it is"
        if self.speeds and config.model.pretrained:
            keys = ("sft.speeds", "model.pretrained")
            yield keys, "a pretrained recogniser hears recordings as they are; remove it"
        pretrained = config.model.pretrained or config.speech.layout != "native"
        if self.schedule.max_steps == 0 and not pretrained:
            keys = (
                "sft.schedule.max_steps",
                "speech.layout" if config.speaks else "model.pretrained",
            )
            yield keys, "only a pretrained model can be taken as it is; set at least 1"
        if self.schedule.max_steps and config.model.pretrained:
            for name in ("ctc_weight", "ctc_steps"):
                if getattr(self, name):
                    message = "the encoder of a pretrained recogniser has no CTC head; set 0"
                    yield (f"sft.{name}", "model.pretrained"), message
