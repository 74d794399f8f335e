"""The numbers of a table: means over seeds, with intervals and paired differences.

A number is first computed for every seed, then averaged. Its interval comes from drawing the test
utterances again (`audiorl.score.significance`): in every draw the same utterances count for all
seeds and rows, each seed gives its number, and their mean is one draw. So the interval belongs to
the mean that is shown, and a difference between rows is paired by utterance. It says how far the
mean would move on other utterances; how far seeds are apart is shown beside it, seed by seed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiorl.errors import UserError
from audiorl.score.metrics import read_columns
from audiorl.score.ratio import Ratio
from audiorl.score.significance import by_source, resampled_sums
from audiorl.table.plan import Column


@dataclass(frozen=True)
class Estimate(Ratio):
    """A number of a row, the mean over its seeds; or how far it is above another row's."""

    seeds: np.ndarray  # [S]: of each seed
    ids: list[str]  # the utterances behind it

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the difference on equal utterances; of each seed from the other row's mean."""
        if self.ids != other.ids:
            raise UserError(
                "Rows were scored on different utterances; decode and score them again."
            )
        gap = super().__sub__(other)
        return Estimate(gap.value, gap.draws, self.seeds - other.value, self.ids)

    @property
    def significant(self) -> bool:
        """Return whether the interval excludes zero, with every seed on the same side of it."""
        side = np.sign(self.interval[0])
        return super().significant and bool((np.sign(self.seeds) == side).all())


def estimate(folders: Iterable[Path], column: Column, samples: int, seed: int) -> Estimate:
    """Return a column of the row whose seeds were scored in `folders` (exp/…/decode_<name>).

    NaN where there is nothing to divide by. Raises UserError when the seeds' sets differ.
    """
    above, below, listed = [], [], []
    for folder in folders:
        ids, sources, top, bottom = _sums_of(folder, column)
        listed.append(ids)
        above.append(top)
        below.append(bottom)
        if ids != listed[0]:
            raise UserError(f"{folder} has other utterances than other seeds; score again.")
    columns = by_source(np.stack([*above, *below], axis=1), sources)  # [N, 2 S]
    values = _ratios(columns.sum(axis=0, keepdims=True), column)[0]
    draws = _ratios(resampled_sums(columns, samples, seed), column).mean(axis=1)
    return Estimate(float(values.mean()), draws, values, listed[0])


def _sums_of(folder: Path, column: Column) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Return ids, sources, and each utterance's numbers above and below the line ([N], [N])."""
    above, below = column.metric.above, column.metric.below
    ids: list[str] = []
    sources: list[str] = []
    parts = []
    for name in column.sets:
        found, their_sources, values = read_columns(folder / name / "per_utt.tsv", (*above, *below))
        ids += [f"{name}/{uid}" for uid in found]
        sources += their_sources
        parts.append(values)
    values = np.concatenate(parts)
    return ids, sources, values[:, : len(above)].sum(axis=1), values[:, len(above) :].sum(axis=1)


def _ratios(sums: np.ndarray, column: Column) -> np.ndarray:
    """[B, 2 S] -> [B, S]; NaN where there is nothing to divide by."""
    above, below = np.split(sums, 2, axis=1)
    if not column.metric.below:
        return column.metric.factor * above
    empty = np.full_like(above, np.nan)
    return column.metric.factor * np.divide(above, below, out=empty, where=below > 0)
