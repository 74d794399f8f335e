"""report.html: one page that needs nothing but itself, with the result first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audiorl.score.asr import METRICS, POOLED, SystemScore
from audiorl.score.charts import Chart
from audiorl.score.examples import example_sections
from audiorl.score.markup import Html, chart, code, details, document, element, join, section, table
from audiorl.score.tables import detail_table, error_tables, overview, paired_table, verdict

if TYPE_CHECKING:
    from audiorl.score.report import Report

LINKS = {
    "result": "Result",
    "tables": "Error rates",
    "conditions": "Conditions",
    "worst": "Utterances",
    "training-0": "Training",
    "all-tables": "All counts",
    "reproduce": "Reproduce",
}


def page(report: Report) -> str:
    """The whole document."""
    systems, unit = report.systems, report.unit
    first, focus = systems[0], report.focus
    compared = [table(paired_table(systems))] if len(systems) > 1 else []
    counts = [detail_table(systems), *error_tables(systems, unit)]
    curves = enumerate(report.curves.items())
    main = element(
        "main",
        section("result", "Result", headline(first, focus, unit), _sentences(report)),
        section("tables", "Error rates", table(overview(systems, unit)), *compared),
        charts_section("conditions", "By condition", report.rate_charts),
        *example_sections(first, focus, report.sample_rate),
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


def headline(first: SystemScore, focus: SystemScore, unit: str) -> Html:
    """The pooled error rates as large numbers."""
    metric = METRICS[unit]

    def tile(name: str, number: str, detail: str) -> Html:
        return element(
            "div",
            element("span", name),
            element("strong", number),
            element("small", detail),
            class_="tile",
        )

    tiles = []
    for system in (first, focus) if focus is not first else (focus,):
        rate = system.pooled.summary[metric.lower()]
        low, high = (100 * bound for bound in rate["interval"])
        name = f"{metric}, {system.label}"
        tiles.append(tile(name, f"{100 * rate['rate']:.2f} %", f"95 %: {low:.2f} to {high:.2f}"))
    if focus is not first and focus.against[POOLED].relative is not None:
        c = focus.against[POOLED]
        low, high = (100 * bound for bound in c.relative_interval)
        number = f"{100 * c.relative:+.1f} %"
        tiles.append(tile("relative change", number, f"95 %: {low:+.1f} to {high:+.1f}"))
    return element("div", *tiles, class_="tiles")


def _sentences(report: Report) -> Html:
    said = verdict(report.systems, report.focus, report.unit)
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
