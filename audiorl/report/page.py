"""Pages that need no other file, made from the templates beside this module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2

from audiorl.report import examples, voices
from audiorl.report.tables import (
    detail_table,
    error_tables,
    overview,
    paired_table,
    sound_tables,
    systems_table,
    verdict,
)
from audiorl.score.asr import POOLED, SystemScore
from audiorl.score.metrics import ERROR_RATES

if TYPE_CHECKING:
    from audiorl.report.report import Contents

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("audiorl.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Tile:
    """A large number of the headline."""

    name: str
    number: str
    detail: str


def render(template: str, **values) -> str:
    """Return the page of `templates/<template>.html.j2`; text in `values` is escaped."""
    style, _, _ = TEMPLATES.loader.get_source(TEMPLATES, "report.css")
    return TEMPLATES.get_template(f"{template}.html.j2").render(style=style, **values)


def report_page(report: Contents) -> str:
    """Return report.html, with the result first."""
    systems, unit = report.systems, report.unit
    references = [system for system in systems if system.is_reference]
    paired = [paired_table(report.compared)] if len(report.compared) > 1 else []
    return render(
        "report",
        report=report,
        about=about(report.focus),
        headline=headline(systems[0], report.focus, unit, references),
        verdict=verdict(report.compared, report.focus, unit),
        tables=[overview(report.compared, unit, apart=False), *paired],
        counts=[detail_table(systems), *error_tables(systems, unit)],
        **utterance_sections(systems, report.focus, unit, report.sample_rate),
    )


def about(focus: SystemScore) -> str:
    """Return the number of utterances and the names of the sets."""
    sets = [score.name for score in focus.sets.values()]
    return f"{len(focus.pooled.utterances)} utterances with speech · {', '.join(sets)}"


def utterance_sections(
    systems: list[SystemScore], focus: SystemScore, unit: str, sample_rate: int
) -> dict:
    """Return the values of the templates that show utterances: `listen`, `examples`, `outputs`.

    Synthesis is listened to, system beside system; recognition is read, with one recording each.
    """
    if focus.pooled.sound:
        tables = [systems_table(systems, unit), *sound_tables(systems)]
        rows, worst = voices.same_sentences(systems, focus), voices.worst_sentences(systems, focus)
        return {"listen": {"tables": tables, "rows": rows, "worst": worst}}
    return {
        "listen": None,
        "examples": examples.example_groups(systems[0], focus, sample_rate),
        "outputs": examples.no_speech_outputs(systems[0], focus),
    }


def headline(
    first: SystemScore, focus: SystemScore, unit: str, references: Sequence[SystemScore] = ()
) -> dict[str, list[Tile]]:
    """Return the error rates as large numbers, by title of their row.

    Recognition has one row, of the pooled sets, without a title; the sets of synthesis differ too
    much for that and have a row each.
    """
    metric = ERROR_RATES[unit]
    if not focus.pooled.sound:
        return {"": _tiles(first, focus, metric, POOLED, references)}
    names = [name for name in focus.speech if name != POOLED]
    return {name: _tiles(first, focus, metric, name, references) for name in names}


def _tiles(
    first: SystemScore,
    focus: SystemScore,
    metric: str,
    name: str,
    references: Sequence[SystemScore],
) -> list[Tile]:
    compared = (first, focus) if focus is not first else (focus,)
    tiles = [_rate_tile(system, metric, name) for system in compared]
    if focus is not first and focus.against[name].relative is not None:
        c = focus.against[name]
        low, high = (100 * bound for bound in c.relative_interval)
        number = f"{100 * c.relative:+.1f} %"
        tiles.append(Tile("relative change", number, f"95 %: {low:+.1f} to {high:+.1f}"))
    return tiles + [_rate_tile(system, metric, name) for system in references]


def _rate_tile(system: SystemScore, metric: str, name: str) -> Tile:
    rate = system.speech[name].summary[metric.lower()]
    low, high = (100 * bound for bound in rate["interval"])
    number = f"{100 * rate['rate']:.2f} %"
    return Tile(f"{metric}, {system.label}", number, f"95 %: {low:.2f} to {high:.2f}")
