"""Calls of a reward that may fail: a failure costs only its own samples, and is logged once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from audiorl.errors import UserError, reason
from audiorl.rewards.core.reward import Reward, Sample

log = logging.getLogger(__name__)

HOPELESS = 32  # samples that failed, and none that did not: the others are not tried

Split = Callable[[list[Sample]], Iterable[list[Sample]]]


def by_utterance(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Split samples into groups of one utterance, whose samples are consecutive."""
    return [list(group) for _, group in groupby(samples, lambda s: s.utterance.id)]


def one_by_one(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Split samples into single ones."""
    return [[sample] for sample in samples]


class Attempts:
    """Values of a reward for samples; NaN, with the reason, where it has none or fails.

    A reward is a rule, a model or somebody's server: its failure must not pass for a bad
    hypothesis. The samples are counted as unscorable; over a threshold the run stops.
    """

    def __init__(self, name: str, reward: Reward) -> None:
        self.name, self.reward = name, reward
        self.rewarded = self.lost = 0  # samples
        self.error: Exception | None = None  # the first that lost a sample, if one did
        self.where = ""  # that sample's utterance
        self.why = ""  # the last error

    def ask(self, samples: list[Sample], *splits: Split) -> list[tuple[float, str]]:
        """Reward all in one call; if it fails, in the parts of the first split, and so on."""
        if self.lost >= HOPELESS and not self.rewarded:  # each may wait for a server that is down
            return self._lose(samples)
        try:
            given = list(self.reward.function(samples))
            values = [math.nan if value is None else float(value) for value in given]
        except UserError:
            raise
        except Exception as error:
            self.error = self.error if self.lost else error
            values, self.why = None, f"{type(error).__name__}: {reason(error)}"
            # Asked again outside of the handler, or each error would be logged with all before it.
        if values is None and splits and len(samples) > 1:
            return [value for part in splits[0](samples) for value in self.ask(part, *splits[1:])]
        if values is None:
            self.where = self.where or samples[0].utterance.id
            return self._lose(samples)
        if len(values) != len(samples):
            message = f"{len(values)} values for {len(samples)} samples"
            raise AssertionError(f"reward {self.name}: {message}")
        self.rewarded += len(samples)
        reasons = [getattr(value, "why", "it gave no number") for value in given]
        return [
            (value, "") if math.isfinite(value) else (math.nan, why)
            for value, why in zip(values, reasons, strict=True)
        ]

    def _lose(self, samples: list[Sample]) -> list[tuple[float, str]]:
        self.lost += len(samples)
        return [(math.nan, self.why)] * len(samples)

    def log(self) -> None:
        """Log how it failed, if it did."""
        if self.error:
            count = f"{self.lost} of {self.lost + self.rewarded} samples"
            where = f", first of utterance {self.where}, which are unscorable" if self.lost else ""
            log.error("reward %s failed on %s%s", self.name, count, where, exc_info=self.error)
