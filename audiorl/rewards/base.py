"""What a reward is, what it sees, and what a batch of samples earns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from audiorl.data.utterance import Utterance
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import CACHED_TEXTS


@dataclass(frozen=True)
class Sample:
    """One hypothesis to be rewarded. Of synthesis: speech, and what a recogniser hears in it."""

    utterance: Utterance
    text: str
    finished: bool  # False if the length limit cut it
    tokens: tuple[int, ...] = ()  # the codec's, of synthesis
    # [S], of synthesis, if a reward looks at it: a tensor or an array on the host.
    wave: Any = field(default=None, compare=False)


# Scores a batch; None means that a sample cannot be scored (it is never worth 0).
ScoreSamples = Callable[[Sequence[Sample]], list[float | None]]


def _all(utterance: Utterance) -> bool:
    return True


@dataclass(frozen=True)
class Reward:
    """A function that scores samples, and how its values enter the total.

    kind: `sample`: a term of the total, each sample by itself; `group`: a term as well, but the
    function is given the samples of one utterance at a time; `gate`: where its value is below 0,
    that value times the weight is the total.
    applies: whether samples of an utterance have this reward at all. The others do without: all
    hypotheses of a group alike, so that they stay comparable.
    penalty: the best value is 0; otherwise it is 1.
    waves: it looks at `Sample.wave`, which then has to be made.
    """

    score: ScoreSamples
    kind: str = "sample"
    applies: Callable[[Utterance], bool] = _all
    penalty: bool = False
    waves: bool = False


def deviation(length: float, wanted: float) -> float:
    """-|n - m| / m, floored at -1."""
    if length == wanted:
        return 0.0
    return -min(1.0, abs(length - wanted) / wanted) if wanted else -1.0


@functools.lru_cache(maxsize=CACHED_TEXTS)
def errors(ref: tuple[str, ...], hyp: tuple[str, ...]) -> Counts:
    """The errors of a hypothesis; remembered, for several rewards of a batch ask."""
    return count_errors(ref, hyp)


@dataclass
class Scores:
    """Rewards of a batch: the total and each part raw.

    A total of NaN is an unscorable sample: one of its rewards failed, or none applies to it. A part
    is NaN where it failed or does not apply. `failed` tells the two apart: the reward that failed
    on a sample, and why; empty where none did.
    """

    total: list[float]
    parts: dict[str, list[float]]
    weights: dict[str, float]  # of the parts that are summed; a gate has none
    failed: list[str]

    def add(self, name: str, values: list[float], weight: float) -> None:
        """One more part of the sum."""
        self.parts, self.weights = {**self.parts, name: values}, {**self.weights, name: weight}
        self.total = [t + weight * v for t, v in zip(self.total, values, strict=True)]

    def select(self, rows: Sequence[int]) -> Scores:
        """Those of some samples."""
        parts = {name: [values[r] for r in rows] for name, values in self.parts.items()}
        failed = [self.failed[r] for r in rows]
        return Scores([self.total[r] for r in rows], parts, self.weights, failed)

    def join(self, other: Scores) -> Scores:
        """Those of both batches."""
        parts = {name: values + other.parts[name] for name, values in self.parts.items()}
        return Scores(self.total + other.total, parts, self.weights, self.failed + other.failed)
