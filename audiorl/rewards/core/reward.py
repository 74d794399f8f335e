"""Samples, rewards, what rewards are built from, and the rewards of a batch."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audiorl.config.decoding import ScoreConfig
from audiorl.data.utterance import Utterance

if TYPE_CHECKING:
    from torch import Tensor

    from audiorl.models.token_recogniser import TokenRecogniser


@dataclass(frozen=True)
class Sample:
    """One hypothesis to be rewarded. In synthesis: speech, with the text recognised in it."""

    utterance: Utterance
    text: str
    finished: bool  # False if the length limit cut it
    tokens: tuple[int, ...] = ()  # of the codec, in synthesis
    # [S], if a reward needs it: a tensor or an array on the host. In recognition the recording.
    wave: Any = field(default=None, compare=False)
    sample_rate: int = field(default=0, compare=False)  # Hz, of `wave`


class Unscorable(float):
    """A reward that is none, with the reason."""

    why: str

    def __new__(cls, why: str) -> Unscorable:
        made = super().__new__(cls, "nan")
        made.why = why
        return made

    def __reduce__(self) -> tuple[type[Unscorable], tuple[str]]:
        return Unscorable, (self.why,)


# Rewards of a batch; None or `Unscorable`: there is none (it is never worth 0).
RewardFunction = Callable[[Sequence[Sample]], list[float | None]]


@dataclass(frozen=True)
class Reward:
    """A function that rewards samples, and how its values enter the total.

    kind: `sample`: a term of the total, each sample by itself; `group`: a term as well, but the
    function is given the samples of one utterance at a time; `gate`: where its value is below 0,
    that value times the weight is the total.
    applies: whether samples of an utterance have this reward at all. The others do without: all
    hypotheses of a group alike, so that they stay comparable.
    penalty: the best value is 0; otherwise it is 1.
    """

    function: RewardFunction
    kind: str = "sample"
    applies: Callable[[Utterance], bool] = lambda utterance: True
    penalty: bool = False


@dataclass
class Models:
    """Models that rewards of synthesis need; they run in the training process."""

    recogniser: TokenRecogniser | None = None
    # Waves [S_i] to vectors [B, S] of their speakers, of unit length.
    speaker: Callable[[Sequence[Tensor]], Tensor] | None = None
    voices: Container[Utterance] = ()  # `audiorl.models.voice.Voices`, by utterance
    token_rate: float = 25.0  # Hz, of Sample.tokens


@dataclass(frozen=True)
class Context:
    """Settings and models that a reward is built from, besides its own options."""

    score: ScoreConfig
    models: Models = field(default_factory=Models)


@dataclass
class BatchRewards:
    """Rewards of a batch: the total and each part, raw.

    A total of NaN is an unscorable sample: one of its rewards failed, or none applies to it. A part
    is NaN where it failed or does not apply. `failed` names, for each sample, the reward that
    failed and the reason; it is empty where none did.
    """

    total: list[float]
    parts: dict[str, list[float]]
    weights: dict[str, float]  # of the parts that are summed; a gate has none
    failed: list[str]

    def add(self, name: str, values: list[float], weight: float) -> None:
        """Add one more part to the sum."""
        self.parts, self.weights = {**self.parts, name: values}, {**self.weights, name: weight}
        self.total = [t + weight * v for t, v in zip(self.total, values, strict=True)]

    def select(self, rows: Sequence[int]) -> BatchRewards:
        """Return the rewards of some samples."""
        parts = {name: [values[r] for r in rows] for name, values in self.parts.items()}
        failed = [self.failed[r] for r in rows]
        return BatchRewards([self.total[r] for r in rows], parts, self.weights, failed)

    def join(self, other: BatchRewards) -> BatchRewards:
        """Return the rewards of both batches."""
        parts = {name: values + other.parts[name] for name, values in self.parts.items()}
        failed = self.failed + other.failed
        return BatchRewards(self.total + other.total, parts, self.weights, failed)
