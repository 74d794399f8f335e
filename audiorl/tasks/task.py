"""The door of the tasks: one object says what a task brings to the stages.

Stages 3 to 6 call its methods and know no task by name; `tasks.make_task` finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Engine
from audiorl.infer.decode import Decoder
from audiorl.models.policy import Policy
from audiorl.rewards import Models
from audiorl.rl.collect import Rewarder
from audiorl.rl.groups import Sampler
from audiorl.rl.grpo import StepOutput
from audiorl.rl.prompts import Prompts
from audiorl.runs.optimizer import Optimizers
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Supervised


@dataclass(frozen=True)
class Folders:
    """Experiments and sets that stages of a task need beside the policy."""

    dump: Path
    codec: Path | None = None
    reward_model: Path | None = None
    judge: Path | None = None  # None: no watch over reward hacking
    histories: Path | None = None  # tokens of the RL set's utterances, for DiffRO on fixed ones
    ear: Path | None = None  # recogniser of rewarded waves; None: the reward model reads tokens


class Learner(Protocol):
    """One step of an algorithm (`GRPO`, `DiffRO`, `Continued`)."""

    def step(self, step: int, utterances: list[Utterance], rate: float) -> StepOutput: ...


class Task(ABC):
    """Recognition or synthesis, as the stages see them."""

    texts_alone = False  # whether RL and test sets may be texts without recordings
    parts: Sequence[str]  # names of the policy's parts that RL trains
    sft_sections: tuple[str, ...]  # beginnings of the keys that a warm start depends on
    rl_sections: tuple[str, ...]  # likewise RL, beside `rl.`
    should_stop = False  # whether the evaluations so far say that RL is to end
    state: Any = None  # of the evaluations so far, for checkpoints

    def __init__(self, config: Config, folders: Folders) -> None:
        self.config, self.folders = config, folders

    @abstractmethod
    def sft_inputs(self) -> dict[str, Any]:
        """Return the sets and files that a warm start begins with, by name."""

    @abstractmethod
    def warm_start(self, inputs: dict[str, Any]) -> Supervised:
        """Return a new model with its supervised training on `inputs` (of `sft_inputs`).

        Raises UserError for data that cannot be trained on, in later stages either.
        """

    @abstractmethod
    def build_rl_set(self, init: Path, out: Path) -> None:
        """Write the RL set `out` by the model of experiment `init`, unless it is up to date."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """Return the decoding of test sets (stage 6)."""

    def rl_inputs(self) -> dict[str, Path]:
        """Return the files beside the policy that an RL run begins with, by name."""
        return {}

    def prepare(self, policy: Policy, train: list[Utterance], dev: list[Utterance]) -> Models:
        """Get ready for RL before the first step; return the models that rewards ask.

        Raises UserError for utterances that the policy cannot learn from.
        """
        return Models()

    def reward_modules(self) -> list[nn.Module]:
        """Return the models that rewards and evaluations ask; `prepare` has loaded them."""
        return []

    @abstractmethod
    def learner(
        self,
        sampler: Sampler,
        reference: Policy | None,
        rewards: Rewarder,
        optimizer: Optimizers,
        prompts: Prompts,
        folder: Path,
    ) -> Learner:
        """Return the algorithm of `rl.algorithm`."""

    @abstractmethod
    def evaluate(
        self, engine: Engine, dev: list[Utterance], step: int, reporter: Reporter
    ) -> float:
        """Return the error rate on `dev`, by which checkpoints are chosen."""

    def restore(self, state: Any) -> None:  # noqa: B027 (there may be nothing to restore)
        """Continue the evaluations of a resumed run."""
