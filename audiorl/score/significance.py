"""Bootstrap intervals of numbers, and paired tests of a difference.

Written on numpy, for scipy.stats.bootstrap cannot share its draws between sets of numbers.

Utterances are what is drawn again, as in Bisani and Ney, "Bootstrap estimates for confidence
intervals in ASR performance evaluation" (ICASSP 2004). Intervals are percentiles and cover 95 %.
They speak of the test set's utterances as a sample of such utterances (a recording in several
conditions is drawn with all of them: `by_source`); they know nothing of other speakers, of other
seeds of training, or of how often the test set was looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

Interval = tuple[float, float]

LEVEL = 0.95
BLOCK = 4_000_000  # draws held in memory at once


@dataclass(frozen=True)
class Comparison:
    """A pooled error rate after minus before, on the same utterances; below 0 is better."""

    difference: float  # of the rates, as a fraction
    interval: Interval
    relative: float | None  # difference / rate before; None when before made no error
    relative_interval: Interval | None
    p_bootstrap: float
    p_permutation: float
    better: int  # utterances with fewer errors than before
    worse: int

    @property
    def significant(self) -> bool:
        """Return whether the interval excludes zero."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def as_json(self) -> dict:
        return asdict(self) | {"significant": self.significant}


def rate_interval(errors: np.ndarray, units: np.ndarray, samples: int, seed: int) -> Interval:
    """Return the 95 % interval of sum(errors) / sum(units), both int [N] by utterance."""
    sums = resampled_sums(np.stack([errors, units], axis=1), samples, seed)
    return percentiles(sums[:, 0] / np.maximum(sums[:, 1], 1))


def compare(
    before: np.ndarray, after: np.ndarray, units: np.ndarray, samples: int, seed: int
) -> Comparison:
    """Compare two systems by their errors (int [N]) on the same utterances of `units` ([N]).

    Paired bootstrap: both systems are drawn with the same utterances, so what is hard for both
    cancels; p is twice the smaller share of draws on one side of zero. Permutation test: under
    the hypothesis that the systems are alike, either could have made either's errors in each
    utterance; p is how often random exchanges give a difference as large. It is chosen over NIST's
    matched-pairs test (MAPSSWE) because it needs neither segments between error-free stretches
    nor a normal approximation.
    """
    total = max(units.sum(), 1)
    rate_before, rate_after = before.sum() / total, after.sum() / total
    sums = resampled_sums(np.stack([before, after, units], axis=1), samples, seed)  # [B, 3]
    differences = (sums[:, 1] - sums[:, 0]) / np.maximum(sums[:, 2], 1)
    relative = relative_interval = None
    if rate_before > 0:
        relative = float(rate_after / rate_before - 1)
        relative_interval = percentiles((sums[:, 1] - sums[:, 0]) / np.maximum(sums[:, 0], 1))
    one_sided = min((differences <= 0).sum(), (differences >= 0).sum())
    return Comparison(
        difference=float(rate_after - rate_before),
        interval=percentiles(differences),
        relative=relative,
        relative_interval=relative_interval,
        p_bootstrap=min(1.0, 2 * float(one_sided + 1) / (samples + 1)),
        p_permutation=permutation_test(after - before, samples, seed),
        better=int((after < before).sum()),
        worse=int((after > before).sum()),
    )


def permutation_test(differences: np.ndarray, samples: int, seed: int) -> float:
    """Return the two-sided p of sum(differences), int [N], under random signs."""
    moved = differences[differences != 0]
    observed = abs(int(differences.sum()))
    generator = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(samples, len(moved)):
        signs = generator.integers(0, 2, size=(size, len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= observed).sum())
    return (extreme + 1) / (samples + 1)


def by_source(columns: np.ndarray, sources: Sequence[str]) -> np.ndarray:
    """Return the rows of [N, K] summed over equal sources: [M, K], in order of appearance."""
    places: dict[str, int] = {}
    rows = [places.setdefault(source, len(places)) for source in sources]
    sums = np.zeros((len(places), columns.shape[1]), columns.dtype)
    np.add.at(sums, rows, columns)
    return sums


def resampled_sums(columns: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Return column sums [samples, K] of [N, K] over N utterances drawn with replacement.

    The same N and seed draw the same utterances: that pairs what is summed in two calls.
    """
    count = len(columns)
    generator = np.random.default_rng(seed)
    sums = []
    for size in _blocks(samples, count):
        drawn = generator.integers(0, count, size=(size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        sums.append(times.astype(float) @ columns.astype(float))
    return np.concatenate(sums)


def _blocks(samples: int, count: int) -> list[int]:
    # A block of draws [size, count] has to fit in memory.
    size = max(1, min(samples, BLOCK // max(count, 1)))
    whole, rest = divmod(samples, size)
    return [size] * whole + [rest] * (rest > 0)


def percentiles(values: np.ndarray) -> Interval:
    """Return the 95 % interval of draws [samples]; NaN draws do not count."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
