"""Numbers of a test set as ratios of sums over its utterances.

Such a number can be averaged over seeds and drawn again over utterances, whatever it measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audiorl.score.significance import Interval, percentiles, resampled_sums

UTTERANCES = "utterances"  # stands for a column of ones


@dataclass(frozen=True)
class Metric:
    """factor * sum of the columns `above` / sum of the columns `below`, each over utterances."""

    title: str
    above: tuple[str, ...]
    below: tuple[str, ...] = ()  # empty: the sum itself, a number of utterances
    factor: float = 100.0


@dataclass(frozen=True)
class Ratio:
    """A number and its bootstrap draws; NaN where the denominator is 0."""

    value: float
    draws: np.ndarray  # [samples]

    @property
    def known(self) -> bool:
        return not np.isnan(self.value)

    @property
    def interval(self) -> Interval:
        return percentiles(self.draws)

    def __sub__(self, other: Ratio) -> Ratio:
        # Paired: both were drawn with the same utterances, samples and seed.
        return Ratio(self.value - other.value, self.draws - other.draws)

    @property
    def significant(self) -> bool:
        """Return whether the interval of a difference excludes zero."""
        low, high = self.interval
        return low > 0 or high < 0


def ratios(
    metrics: Mapping[str, Metric], rows: Sequence[Mapping[str, float]], samples: int, seed: int
) -> dict[str, Ratio]:
    """Return the metrics, all drawn together, of utterances with these columns; no plain sums."""

    def total(names: tuple[str, ...]) -> list[float]:
        return [sum(row[name] for name in names) for row in rows]

    sides = [total(side) for m in metrics.values() for side in (m.above, m.below)]
    columns = np.array(sides, dtype=float).T  # [N, 2 M]
    sums = np.concatenate([columns.sum(axis=0)[None], resampled_sums(columns, samples, seed)])
    above, below = sums[:, ::2], sums[:, 1::2]  # [1 + samples, M]
    values = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return {
        name: Ratio(float(m.factor * of[0]), m.factor * of[1:])
        for (name, m), of in zip(metrics.items(), values.T, strict=True)
    }
