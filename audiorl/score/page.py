"""report.html: one page that needs nothing but itself, with the result first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from audiorl.score.asr import METRICS, POOLED, SystemScore
from audiorl.score.charts import Chart
from audiorl.score.examples import example_sections
from audiorl.score.markup import Html, chart, code, details, element, join, section, table
from audiorl.score.tables import detail_table, error_tables, overview, paired_table, verdict

if TYPE_CHECKING:
    from audiorl.score.report import Report

STYLE = Path(__file__).with_name("report.css")


def page(report: Report) -> str:
    """The whole document."""
    systems, unit = report.systems, report.unit
    first, focus = systems[0], report.focus
    compared = [table(paired_table(systems))] if len(systems) > 1 else []
    counts = [detail_table(systems), *error_tables(systems, unit)]
    curves = enumerate(report.curves.items())
    main = element(
        "main",
        section("result", "Result", _headline(first, focus, unit), _sentences(report)),
        section("tables", "Error rates", table(overview(systems, unit)), *compared),
        _charts("conditions", "By condition", report.rate_charts),
        *example_sections(first, focus, report.sample_rate),
        *(_charts(f"training-{n}", f"Training of {label}", made) for n, (label, made) in curves),
        _charts("time", "Time", report.phase_charts),
        section("all-tables", "All counts", *map(table, counts)),
        _reproduce(report),
    )
    title = f"{focus.label}: report"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    about = element("p", _about(focus), class_="note")
    header = element("header", element("h1", title), about, _navigation(main))
    return (
        "<!DOCTYPE html>\n" + element("html", head, element("body", header, main), lang="en") + "\n"
    )


def _about(focus: SystemScore) -> str:
    sets = [score.name for score in focus.sets.values()]
    return f"{len(focus.pooled.utterances)} utterances with speech · {', '.join(sets)}"


def _navigation(main: Html) -> Html:
    links = {
        "result": "Result",
        "tables": "Error rates",
        "conditions": "Conditions",
        "worst": "Utterances",
        "training-0": "Training",
        "all-tables": "All counts",
        "reproduce": "Reproduce",
    }
    there = {anchor: text for anchor, text in links.items() if f'<section id="{anchor}"' in main}
    items = (element("a", text, href=f"#{anchor}") for anchor, text in there.items())
    return element("nav", *items, aria_label="sections")


def _headline(first: SystemScore, focus: SystemScore, unit: str) -> Html:
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


def _charts(anchor: str, title: str, charts: list[Chart]) -> Html | None:
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
        details("Commands", *commands),
        table(report.environment, text=True),
    )
