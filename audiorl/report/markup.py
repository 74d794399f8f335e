"""HTML made of elements, so that text is escaped everywhere and every tag is closed."""

from __future__ import annotations

import html
from pathlib import Path

from audiorl.report.charts import Chart
from audiorl.report.tables import Table

STYLE = Path(__file__).with_name("report.css")
VOID = ("meta", "br", "hr", "img")


class Html(str):
    """Markup that may be shown as it is; any other string is escaped."""


def element(tag: str, /, *children: str | None, **attributes: str | bool | None) -> Html:
    """`element("a", "text", href="#x", class_="y")`; None children and attributes are left out."""
    opened = tag
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        opened += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    if tag in VOID:
        return Html(f"<{opened}>")
    return Html(f"<{opened}>{join(*children)}</{tag}>")


def join(*children: str | None) -> Html:
    """Children one after the other, escaped where they are plain text."""
    shown = (c if isinstance(c, Html) else html.escape(c) for c in children if c is not None)
    return Html("".join(shown))


def section(anchor: str, title: str, *children: str | None) -> Html:
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *children, id=anchor, aria_labelledby=f"{anchor}-title")


def table(content: Table, text: bool = False) -> Html:
    """A table that scrolls in its own box when it is too wide; `text`: cells wrap, left-aligned."""
    head = element("tr", *(element("th", cell, scope="col") for cell in content.header))
    rows = (
        element(
            "tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])
        )
        for row in content.rows
    )
    made = element(
        "table",
        element("caption", content.title),
        element("thead", head),
        element("tbody", *rows),
        class_="text" if text else None,
    )
    box = element(
        "div", made, class_="scroll", role="region", aria_label=content.title, tabindex="0"
    )
    note = element("p", content.note, class_="note") if content.note else None
    return join(box, note)


def chart(content: Chart) -> Html:
    """A picture with its title; its description is read where it cannot be seen."""
    picture = element("div", Html(content.svg), role="img", aria_label=content.description)
    return element("figure", element("figcaption", content.title), picture)


def code(text: str) -> Html:
    return element("pre", element("code", text), tabindex="0")


def details(summary: str, *children: str) -> Html:
    return element("details", element("summary", summary), *children)


def document(title: str, about: str, main: Html, links: dict[str, str]) -> str:
    """A whole page that needs nothing but itself; `links` (anchor -> text) lead to its sections."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    there = {anchor: text for anchor, text in links.items() if f'<section id="{anchor}"' in main}
    items = (element("a", text, href=f"#{anchor}") for anchor, text in there.items())
    navigation = element("nav", *items, aria_label="sections")
    header = element("header", element("h1", title), element("p", about, class_="note"), navigation)
    body = element("body", header, main)
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"
