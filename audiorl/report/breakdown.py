"""Error rates by condition: length, SNR and speaker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from audiorl.report.tables import Table, difference
from audiorl.score.asr import METRICS, ScoredUtterance, SystemScore, errors_and_units
from audiorl.score.significance import compare

BINS = 6  # of length, and of SNR when it takes many values
MAX_VALUES = 8  # this many values of SNR are shown one by one
UNKNOWN = "unknown"

Span = tuple[float, float]  # closed on both sides
Value = Callable[[ScoredUtterance], float | None]


def length(u: ScoredUtterance) -> float | None:
    """Return the length in seconds."""
    return u.utterance.duration


def snr(u: ScoredUtterance) -> float | None:
    """Return the SNR in dB; None where the tag is no finite number (`clean`)."""
    try:
        number = float(u.utterance.tags["snr"])
    except (KeyError, ValueError):
        return None
    return number if np.isfinite(number) else None


def bins(values: list[float]) -> list[Span]:
    """Closed ranges: every value by itself when there are few, else equally many in each."""
    distinct = sorted(set(values))
    if len(distinct) <= MAX_VALUES:
        return [(v, v) for v in distinct]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1), method="nearest"))
    # Closed on both sides: a range starts at the smallest value above the one before.
    starts = [edges[0], *(min(v for v in distinct if v > edge) for edge in edges[1:-1])]
    return list(zip(map(float, starts), map(float, edges[1:]), strict=True))


def span_label(span: Span) -> str:
    low, high = span
    return f"{low:g}" if low == high else f"{low:.3g}–{high:.3g}"


def breakdown_tables(first: SystemScore, second: SystemScore) -> list[Table]:
    """Main error rate of two systems by length, SNR and speaker, over all sets with speech.

    A condition that is the same for all utterances, or that none of them states, has no table.
    """
    utterances = first.pooled.utterances
    by_snr = _in_spans(utterances, snr, lambda u: u.utterance.tags.get("snr", UNKNOWN))
    speakers: dict[str, list[int]] = {}
    for index, u in enumerate(utterances):
        speakers.setdefault(u.utterance.speaker, []).append(index)
    grouped = {
        "length (s)": _in_spans(utterances, length, lambda u: UNKNOWN),
        "SNR (dB)": by_snr,
        "speaker": dict(sorted(speakers.items())),
    }
    return [_table(first, second, by, groups) for by, groups in grouped.items() if len(groups) > 1]


def _in_spans(
    utterances: list[ScoredUtterance], value: Value, otherwise: Callable[[ScoredUtterance], str]
) -> dict[str, list[int]]:
    """Places of the utterances by range of a value; by `otherwise` where it has none."""
    values = [value(u) for u in utterances]
    spans = bins([v for v in values if v is not None])
    groups: dict[str, list[int]] = {span_label(span): [] for span in spans}
    for index, (u, v) in enumerate(zip(utterances, values, strict=True)):
        inside = (span_label(s) for s in spans if v is not None and s[0] <= v <= s[1])
        groups.setdefault(next(inside, None) or otherwise(u), []).append(index)
    return groups


def _table(first: SystemScore, second: SystemScore, by: str, groups: dict[str, list[int]]) -> Table:
    scoring = first.scoring
    before, units = errors_and_units(first.pooled.utterances, scoring.unit)  # [N], [N]
    after, _ = errors_and_units(second.pooled.utterances, scoring.unit)
    rows = []
    for label, places in groups.items():
        chosen = [counts[places] for counts in (before, after, units)]
        c = compare(*chosen, scoring.bootstrap_samples, scoring.seed)
        total = max(int(chosen[2].sum()), 1)
        rates = [f"{100 * errors.sum() / total:.2f}" for errors in chosen[:2]]
        rows.append([label, str(len(places)), *rates, difference(c), str(c.better), str(c.worse)])
    header = [by, "utterances", first.label, second.label, f"{second.label} - {first.label}"]
    note = "Of twenty rows, one would be starred by chance alone."
    return Table(f"{METRICS[scoring.unit]} by {by}", [*header, "better", "worse"], rows, note)
