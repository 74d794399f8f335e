"""report.html: one page that needs nothing but itself, with the result first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from audiorl.report.charts import Chart
from audiorl.report.examples import example_sections
from audiorl.report.markup import (
    Html,
    chart,
    code,
    details,
    document,
    element,
    join,
    section,
    table,
)
from audiorl.report.tables import detail_table, error_tables, overview, paired_table, verdict
from audiorl.report.tts_tables import sound_tables, systems_table
from audiorl.report.voices import voice_sections
from audiorl.score.asr import METRICS, POOLED, SystemScore

if TYPE_CHECKING:
    from audiorl.report.report import Report

LINKS = {
    "result": "Result",
    "systems": "Systems",
    "voices": "Listen",
    "worst-voices": "Worst",
    "tables": "Error rates",
    "conditions": "Conditions",
    "worst": "Utterances",
    "training-all": "Training",
    "training-0": "Training, one by one",
    "all-tables": "All counts",
    "reproduce": "Reproduce",
}


def page(report: Report) -> str:
    """The whole document."""
    systems, unit = report.systems, report.unit
    first, focus = systems[0], report.focus
    paired = [table(paired_table(report.compared))] if len(report.compared) > 1 else []
    counts = [detail_table(systems), *error_tables(systems, unit)]
    curves = enumerate(report.curves.items())
    main = element(
        "main",
        section("result", "Result", _headline(report), _sentences(report)),
        *(synthesis_sections(systems, focus, unit) if report.is_synthesis else []),
        section("tables", "Error rates", table(overview(report.compared, unit)), *paired),
        charts_section("conditions", "By condition", report.rate_charts),
        *([] if report.is_synthesis else example_sections(first, focus, report.sample_rate)),
        charts_section("training-all", "Training, side by side", report.shared_curves),
        *(
            charts_section(f"training-{n}", f"Training of {label}", made)
            for n, (label, made) in curves
        ),
        charts_section("time", "Time", report.phase_charts),
        section("all-tables", "All counts", *map(table, counts)),
        _reproduce(report),
    )
    return document(f"{focus.label}: report", about(focus), main, LINKS)


def about(focus: SystemScore) -> str:
    """How many utterances of which sets."""
    sets = [score.name for score in focus.sets.values()]
    return f"{len(focus.pooled.utterances)} utterances with speech · {', '.join(sets)}"


def synthesis_sections(systems: list[SystemScore], focus: SystemScore, unit: str) -> list[Html]:
    """Of synthesis: systems as rows of tables, and what they sound like."""
    tables = (table(systems_table(systems, unit)), *map(table, sound_tables(systems)))
    return [section("systems", "Systems", *tables), *voice_sections(systems, focus)]


def _headline(report: Report) -> Html:
    references = [system for system in report.systems if system.is_reference]
    return headline(report.systems[0], report.focus, report.unit, references)


def headline(
    first: SystemScore, focus: SystemScore, unit: str, references: Sequence[SystemScore] = ()
) -> Html:
    """The error rates as large numbers: pooled, or of synthesis, whose sets differ much, by set."""
    if not focus.pooled.sound:
        return _tiles(first, focus, METRICS[unit], POOLED, references)
    names = [name for name in focus.speech if name != POOLED]
    rows = ((name, _tiles(first, focus, METRICS[unit], name, references)) for name in names)
    return join(*(join(element("h3", name), tiles) for name, tiles in rows))


def _tiles(
    first: SystemScore,
    focus: SystemScore,
    metric: str,
    name: str,
    references: Sequence[SystemScore],
) -> Html:
    """Of the set `name`."""
    compared = (first, focus) if focus is not first else (focus,)
    tiles = [_rate_tile(system, metric, name) for system in compared]
    if focus is not first and focus.against[name].relative is not None:
        c = focus.against[name]
        low, high = (100 * bound for bound in c.relative_interval)
        number = f"{100 * c.relative:+.1f} %"
        tiles.append(_tile("relative change", number, f"95 %: {low:+.1f} to {high:+.1f}"))
    tiles += [_rate_tile(system, metric, name) for system in references]
    return element("div", *tiles, class_="tiles")


def _rate_tile(system: SystemScore, metric: str, name: str) -> Html:
    rate = system.speech[name].summary[metric.lower()]
    low, high = (100 * bound for bound in rate["interval"])
    number = f"{100 * rate['rate']:.2f} %"
    return _tile(f"{metric}, {system.label}", number, f"95 %: {low:.2f} to {high:.2f}")


def _tile(name: str, number: str, detail: str) -> Html:
    parts = element("span", name), element("strong", number), element("small", detail)
    return element("div", *parts, class_="tile")


def _sentences(report: Report) -> Html:
    said = verdict(report.compared, report.focus, report.unit)
    return element("ul", *(element("li", sentence) for sentence in said))


def charts_section(anchor: str, title: str, charts: list[Chart]) -> Html | None:
    """Pictures side by side; nothing where there are none."""
    if not charts:
        return None
    return section(anchor, title, element("div", *map(chart, charts), class_="charts"))


def _reproduce(report: Report) -> Html:
    commands = (join(element("h3", n), code(text)) for n, text in report.commands.items())
    return section(
        "reproduce",
        "Reproduce",
        table(report.config_differences, text=True),
        details(f"Config of {report.focus.label}", code(report.config_text)),
        *(details(f"Reward {name}", code(text)) for name, text in report.reward_code.items()),
        details("Commands", *commands),
        table(report.environment, text=True),
    )
