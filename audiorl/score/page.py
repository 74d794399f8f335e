"""report.html: one page that needs nothing but itself, with the result first."""

from __future__ import annotations

from pathlib import Path

from audiorl.score.asr import METRICS, POOLED, SystemScore
from audiorl.score.charts import Chart
from audiorl.score.examples import example_sections
from audiorl.score.markup import Html, chart, code, details, element, join, section, table
from audiorl.score.report import Report
from audiorl.score.tables import (
    Table,
    detail_table,
    error_tables,
    overview,
    test_table,
    verdict,
)

STYLE = Path(__file__).with_name("report.css")


def page(report: Report) -> str:
    """The whole document."""
    systems, unit = report.systems, report.unit
    first, focus = systems[0], report.focus
    compared = [table(test_table(systems))] if len(systems) > 1 else []
    sections = [
        section("result", "Result", _headline(first, focus, unit), _sentences(report)),
        section("tables", "Error rates", table(overview(systems, unit)), *compared),
        _charts("conditions", "By condition", report.rate_charts),
        *example_sections(first, focus, report.sample_rate),
        *(
            _charts(f"training-{number}", f"Training of {label}", charts)
            for number, (label, charts) in enumerate(report.curves.items())
        ),
        _charts("time", "Time", report.phase_charts),
        section(
            "all-tables",
            "All counts",
            table(detail_table(systems)),
            *(table(content) for content in error_tables(systems, unit)),
        ),
        _reproduce(report),
    ]
    title = f"{focus.label}: report"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    header = element(
        "header",
        element("h1", title),
        element("p", f"{report.environment['date']} · {report.environment['CPU']}", class_="note"),
        _navigation(),
    )
    legend = element(
        "footer",
        element("p", "In alignments: ", element("mark", "substituted"), ", ",
                element("del", "left out"), ", ", element("ins", "inserted"), "."),
    )  # fmt: skip
    body = element("body", header, element("main", *sections), legend)
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def _navigation() -> Html:
    links = {
        "#result": "Result",
        "#tables": "Error rates",
        "#conditions": "Conditions",
        "#worst": "Utterances",
        "#all-tables": "All counts",
        "#reproduce": "Reproduce",
    }
    items = (element("a", text, href=anchor) for anchor, text in links.items())
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
    environment = Table(
        "Environment", ["name", "value"], [[*p] for p in report.environment.items()]
    )
    commands = (join(element("h3", n), code(text)) for n, text in report.commands.items())
    return section(
        "reproduce",
        "Reproduce",
        table(report.config_differences, text=True),
        details(f"Config of {report.focus.label}", code(report.config_text)),
        details("Commands", *commands),
        table(environment, text=True),
    )
