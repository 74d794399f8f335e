"""Changes from one system to another: errors of each kind, and their utterances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from audiorl.report.tables import Table, with_interval
from audiorl.score import failures
from audiorl.score.asr import ScoredUtterance, SystemScore
from audiorl.score.significance import compare

# What is counted in an utterance, by name.
KINDS: dict[str, Callable[[ScoredUtterance], int]] = {
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
    """The utterances with speech whose hypotheses differ, the most improved first."""
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
        if difference := KINDS[kind](after) - KINDS[kind](before):
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
    """Errors, failures and keywords of both systems, and in how many utterances they differ."""
    rows = []
    for name, count in KINDS.items():
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
    """The changed utterances, one a row."""
    rows = [
        [
            c.before.utterance.id,
            c.before.set,
            f"{c.before.errors} → {c.after.errors}",
            "; ".join(c.how),
        ]
        for c in changes
    ]
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
                *(f"{100 * s['non_empty_rate']:.1f}" for s in both),
                *(f"{s['words_per_minute'] or 0:.1f}" for s in both),
                with_interval(c.difference, c.interval, 1, "+", 60) + "*" * c.significant,
                f"{c.p_permutation:.4f}",
            ]
        )
    header = ["dataset"]
    for what in ("output %", "words/min"):
        header += [f"{what}, {first.label}", f"{what}, {second.label}"]
    header += [f"words/min, {second.label} - {first.label}", "p permutation"]
    return Table("Output without speech", header, rows) if rows else None
