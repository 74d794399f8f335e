"""Differences of two systems: error rates by condition, kinds of errors, changed utterances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from audiorl.report.tables import SILENT, Table, difference, with_interval
from audiorl.score import failures
from audiorl.score.asr import SystemScore, errors_and_units
from audiorl.score.metrics import ERROR_RATES
from audiorl.score.scored import ScoredUtterance
from audiorl.score.significance import compare

BINS = 6  # of length, and of SNR when it takes many values
MAX_VALUES = 8  # this many values of SNR are shown one by one
UNSTATED = "unknown"

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
    """Return closed ranges: every value by itself when there are few, else equally many in each."""
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
    """Return the main error rate of two systems by length, SNR and speaker, over all speech.

    A condition that is the same for all utterances, or that none of them states, has no table.
    """
    utterances = first.pooled.utterances
    by_snr = _in_spans(utterances, snr, lambda u: u.utterance.tags.get("snr", UNSTATED))
    speakers: dict[str, list[int]] = {}
    for index, u in enumerate(utterances):
        speakers.setdefault(u.utterance.speaker, []).append(index)
    grouped = {
        "length (s)": _in_spans(utterances, length, lambda u: UNSTATED),
        "SNR (dB)": by_snr,
        "speaker": dict(sorted(speakers.items())),
    }
    return [_table(first, second, by, groups) for by, groups in grouped.items() if len(groups) > 1]


def _in_spans(
    utterances: list[ScoredUtterance], value: Value, otherwise: Callable[[ScoredUtterance], str]
) -> dict[str, list[int]]:
    values = [value(u) for u in utterances]
    spans = bins([v for v in values if v is not None])
    groups: dict[str, list[int]] = {span_label(span): [] for span in spans}
    for index, (u, v) in enumerate(zip(utterances, values, strict=True)):
        inside = (span_label(s) for s in spans if v is not None and s[0] <= v <= s[1])
        groups.setdefault(next(inside, None) or otherwise(u), []).append(index)
    return groups


def _table(first: SystemScore, second: SystemScore, by: str, groups: dict[str, list[int]]) -> Table:
    scoring = first.scoring
    rows = []
    for label, places in groups.items():
        (before, units), (after, _) = (  # [N], [N]
            errors_and_units([pooled[i] for i in places], lambda u: u.counts[scoring.unit])
            for pooled in (first.pooled.utterances, second.pooled.utterances)
        )
        chosen = (before, after, units)
        c = compare(*chosen, scoring.bootstrap_samples, scoring.seed)
        total = max(int(chosen[2].sum()), 1)
        rates = [f"{100 * errors.sum() / total:.2f}" for errors in chosen[:2]]
        rows.append([label, str(len(places)), *rates, difference(c), str(c.better), str(c.worse)])
    header = [by, "utterances", first.label, second.label, f"{second.label} - {first.label}"]
    note = "Of twenty rows, one would be starred by chance alone."
    return Table(f"{ERROR_RATES[scoring.unit]} by {by}", [*header, "better", "worse"], rows, note)


# Counted in an utterance, by name.
COUNTED: dict[str, Callable[[ScoredUtterance], int]] = {
    "substitutions": lambda u: u.alignment.counts.substitutions,
    "deletions": lambda u: u.alignment.counts.deletions,
    "insertions": lambda u: u.alignment.counts.insertions,
    **{name: lambda u, name=name: int(name in u.flags) for name in failures.NAMES},
    "keywords recognised": lambda u: u.keywords.hits,
    "keywords missed": lambda u: u.keywords.deletions,
    "keywords made up": lambda u: u.keywords.insertions,
}


@dataclass(frozen=True)
class Change:
    """An utterance with different hypotheses of two systems."""

    before: ScoredUtterance
    after: ScoredUtterance
    how: tuple[str, ...]  # in words

    @property
    def errors(self) -> int:
        """Errors more than before; below 0 is better."""
        return self.after.errors - self.before.errors


def find_changes(first: SystemScore, second: SystemScore) -> list[Change]:
    """Return the utterances with speech whose hypotheses differ, the most improved first."""
    pairs = zip(first.pooled.utterances, second.pooled.utterances, strict=True)
    changes = [
        Change(before, after, _how(before, after))
        for before, after in pairs
        if before.hyp != after.hyp
    ]
    return sorted(changes, key=lambda c: (c.errors, c.before.set, c.before.utterance.id))


def _how(before: ScoredUtterance, after: ScoredUtterance) -> tuple[str, ...]:
    said = []
    for kind in ("substitutions", "deletions", "insertions"):
        if difference := COUNTED[kind](after) - COUNTED[kind](before):
            said.append(f"{kind} {difference:+d}")
    for flag in failures.NAMES:
        name = flag.replace("_", " ")
        if (flag in before.flags) != (flag in after.flags):
            said.append(f"now {name}" if flag in after.flags else f"no longer {name}")
    spoken, old, new = before.said, before.heard, after.heard
    for words, found in (
        ("keyword found", (spoken & new) - (spoken & old)),
        ("keyword lost", (spoken & old) - (spoken & new)),
        ("keyword made up", (new - spoken) - (old - spoken)),
        ("keyword no longer made up", (old - spoken) - (new - spoken)),
    ):
        said += [f"{words}: {' '.join(phrase)}" for phrase in sorted(found.elements())]
    return tuple(said) or ("other words, as many errors",)


def kinds_table(first: SystemScore, second: SystemScore) -> Table:
    """Return errors, failures and keywords of both systems, and how many utterances differ."""
    rows = []
    for name, count in COUNTED.items():
        before, after = (
            np.array([count(u) for u in system.pooled.utterances]) for system in (first, second)
        )
        if before.any() or after.any():
            totals = (before.sum(), after.sum(), f"{after.sum() - before.sum():+d}")
            moved = ((after < before).sum(), (after > before).sum())
            rows.append([name.replace("_", " "), *map(str, (*totals, *moved))])
    difference = f"{second.label} - {first.label}"
    header = ["", first.label, second.label, difference, "fewer in", "more in"]
    note = "All sets with speech; fewer in, more in: utterances. Empty to truncated are utterances."
    return Table("What changes", header, rows, note)


def changes_table(changes: list[Change]) -> Table:
    """Return the changed utterances, one a row."""
    rows = []
    for c in changes:
        errors = f"{c.before.errors} → {c.after.errors}"
        rows.append([c.before.utterance.id, c.before.set, errors, "; ".join(c.how)])
    return Table("Changed utterances", ["utterance", "set", "errors", "how"], rows)


def no_speech_table(first: SystemScore, second: SystemScore) -> Table | None:
    """Return words output without speech, compared in pairs; None without such sets."""
    rows = []
    for name, score in first.no_speech.items():
        later = second.no_speech[name]
        words = [np.array([u.output_words for u in s.utterances]) for s in (score, later)]
        seconds = np.array([u.utterance.duration or 0.0 for u in score.utterances])
        scoring = first.scoring
        c = compare(*words, seconds, scoring.bootstrap_samples, scoring.seed)
        both = [s.summary for s in (score, later)]
        rows.append(
            [
                name,
                *(f"{100 * s[share]:.1f}" for share in SILENT for s in both),
                *(f"{s['words_per_minute'] or 0:.1f}" for s in both),
                with_interval(c.difference, c.interval, 1, "+", 60) + "*" * c.significant,
                f"{c.p_permutation:.4f}",
            ]
        )
    header = ["dataset"]
    for what in (*(f"{label} %" for label in SILENT.values()), "words/min"):
        header += [f"{what}, {first.label}", f"{what}, {second.label}"]
    header += [f"words/min, {second.label} - {first.label}", "p permutation"]
    return Table("Output without speech", header, rows) if rows else None
