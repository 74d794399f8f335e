"""Two systems side by side: whether they differ, where, and in which utterances."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

from audiorl.config.decoding import ScoreConfig
from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.report.breakdown import (
    Change,
    breakdown_tables,
    changes_table,
    find_changes,
    kinds_table,
    no_speech_table,
)
from audiorl.report.charts import rate_charts
from audiorl.report.page import about, headline, render, utterance_sections
from audiorl.report.tables import WIDTH, Table, as_text, overview, paired_table, verdict
from audiorl.score.asr import SystemScore, score_systems
from audiorl.score.metrics import measures_of
from audiorl.score.results import read_result

LISTED = 8  # changed utterances in each direction, and speakers, on a terminal


@dataclass(frozen=True)
class Analysis:
    """Contents of the terminal output and the page on two systems."""

    first: SystemScore
    second: SystemScore
    changes: list[Change]  # the most improved first
    breakdowns: list[Table]
    notes: list[str]  # what was left out

    @property
    def kinds(self) -> list[Table]:
        silent = no_speech_table(self.first, self.second)
        return [kinds_table(self.first, self.second), *([silent] if silent else [])]

    @property
    def sentences(self) -> list[str]:
        """Return the result in words."""
        better = sum(c.errors < 0 for c in self.changes)
        worse = sum(c.errors > 0 for c in self.changes)
        total = len(self.first.pooled.utterances)
        changed = (
            f"{len(self.changes)} of {total} utterances have another hypothesis: {better} with "
            f"fewer errors, {worse} with more, {len(self.changes) - better - worse} with as many."
        )
        unit = self.first.scoring.unit
        return [*verdict([self.first, self.second], self.second, unit), changed, *self.notes]


def analyse(first: Path, second: Path, dump: Path, decode: str) -> Analysis:
    """Compare exp/*/decode_<decode> of two experiments, as they were scored.

    Raises UserError when they are not scored, were scored in two ways, or have changed since.
    """
    results = [read_result(exp / f"decode_{decode}") for exp in (first, second)]
    if results[0]["scoring"] != results[1]["scoring"]:
        raise UserError(
            f"{first} and {second} were scored with different settings (`scoring` in their "
            f"decode_{decode}/result.json); score both with one config (stage 7)."
        )
    sets, others = results[0]["sets"], results[1]["sets"]
    common = [name for name in sets if name in others]
    if not any(sets[name]["speech"] for name in common):
        raise UserError(f"{first} and {second} have no test set with speech in common.")
    lone = sorted(sets.keys() ^ others.keys())
    notes = [f"Only one of them has {name}: left out." for name in lone]
    config = Config(task=results[0]["task"], score=ScoreConfig(**results[0]["scoring"]))
    config.decode.name = decode
    config.data.test = common
    config.data.no_speech = [name for name in common if not sets[name]["speech"]]
    systems = score_systems([first, second], dump, config, measures_of(config.task))
    for system, result in zip(systems, results, strict=True):
        for name, score in system.sets.items():
            if score.summary["inputs"] != result["sets"][name]["inputs"]:
                raise UserError(
                    f"{system.folder / name} or {dump / name} has changed since it was scored; "
                    "score again (stage 7)."
                )
    changes = find_changes(*systems)
    return Analysis(*systems, changes, breakdown_tables(*systems), notes)


def as_terminal(analysis: Analysis) -> str:
    """Return the text for a terminal; tables that are too long are cut, and say so."""
    systems = [analysis.first, analysis.second]
    shown = [overview(systems, analysis.first.scoring.unit), paired_table(systems)]
    shown += [*analysis.kinds, *map(_cut, analysis.breakdowns)]
    better = [c for c in analysis.changes if c.errors < 0]
    worse = [c for c in reversed(analysis.changes) if c.errors > 0]
    parts = [textwrap.fill(sentence, WIDTH) for sentence in analysis.sentences]
    for content in shown:
        note = textwrap.fill(content.note, WIDTH)
        parts += ["", f"{content.title}", "", as_text(content), *([note] if note else [])]
    for title, changes in (("better", better), ("worse", worse)):
        count = f"{min(len(changes), LISTED)} of {len(changes)}"
        parts += ["", f"Changed most for the {title} ({count})"]
        parts += [line for change in changes[:LISTED] for line in _change_lines(change)]
    return "\n".join(parts)


def _cut(content: Table) -> Table:
    if len(content.rows) <= 2 * LISTED:
        return content
    kept = sorted(content.rows, key=lambda row: -int(row[1]))[: 2 * LISTED]
    title = f"{content.title}: the {len(kept)} of {len(content.rows)} with most utterances"
    return Table(title, content.header, kept, content.note)


def _change_lines(change: Change) -> list[str]:
    before, after = change.before, change.after
    head = f"{before.utterance.id} ({before.set}): {before.errors} -> {after.errors} errors"
    lines = [f"{head}; {'; '.join(change.how)}"]
    texts = {"ref": before.ref, "was": before.hyp, "now": after.hyp}
    lines += [f"  {name}: {text}" for name, text in texts.items()]
    return [part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="    ")]


def as_page(analysis: Analysis, images: Path) -> str:
    """Return one page that needs no other file; pictures also go to `images`."""
    first, second = systems = [analysis.first, analysis.second]
    scoring = first.scoring
    return render(
        "comparison",
        analysis=analysis,
        first=first,
        second=second,
        about=about(second),
        headline=headline(first, second, scoring.unit),
        tables=[overview(systems, scoring.unit), paired_table(systems)],
        charts=rate_charts(systems, scoring, images),
        listed=changes_table(analysis.changes),
        **utterance_sections(systems, second, scoring.unit, Config().data.sample_rate),
    )
