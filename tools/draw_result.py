#!/usr/bin/env python3
"""Draws the table of README.md's section Results, Recognition, to docs/images/result.svg.

example: python tools/draw_result.py
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, PICTURE = ROOT / "README.md", ROOT / "docs" / "images" / "result.svg"
LEARNT = {"GRPO": "#1f5f99", "control": "#d0661f"}
ROW, NAME, PLOT, TOP = 34, 170, 500, 64  # pixels
LEAST, MOST = -18, 2  # % at the edges of the plot


def rates(readme: str) -> dict[str, list[list[float]]]:
    """Return error rates in % by set: of each system, those of its seeds."""
    table = readme.partition("### Recognition")[2].partition("- **Gain")[0]
    found = {}
    for line in re.findall(r"^\| ([\w ]+ \|.*) \|$", table, re.MULTILINE):
        name, *cells = line.split(" | ")
        numbers = [re.findall(r"[\d.]+", re.sub(r"\[.*?\]", "", cell)) for cell in cells]
        if all(numbers) and name != "set":
            found[name] = [[float(number) for number in listed] for listed in numbers]
    return found


def svg(found: dict[str, list[list[float]]]) -> str:
    """Return the picture: a row for each set, a dot for each run."""
    height, width = TOP + ROW * len(found) + 30, NAME + PLOT + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="sans-serif" font-size="13">',
        "<title>Relative change of the word error rates of mini_asr by GRPO and control</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="20" font-weight="bold">mini_asr: change of the word error rate in % of '
        "the warm start's, three seeds</text>",
    ]
    for place, (system, colour) in enumerate(LEARNT.items()):
        x = NAME + 130 * place
        parts.append(f'<circle cx="{x}" cy="42" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 12}" y="46">{system}</text>')
    for tick in range(-15, MOST + 1, 5):
        x, colour = _x(tick), "#e3e6ea" if tick else "#8a939e"
        parts.append(f'<path d="M{x} {TOP - 4}V{height - 24}" stroke="{colour}"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{tick}</text>')
    for place, (name, ((start,), *learnt)) in enumerate(found.items()):
        y = TOP + ROW * place + ROW // 2
        parts.append(f'<text x="12" y="{y + 4}">{name} ({start} %)</text>')
        for shift, runs, colour in zip((-4, 4), learnt, LEARNT.values(), strict=True):
            places = (_x(100 * (rate / start - 1)) for rate in runs)
            parts += (f'<circle cx="{x}" cy="{y + shift}" r="5" fill="{colour}"/>' for x in places)
    return "\n".join([*parts, "</svg>\n"])


def _x(change: float) -> float:
    return round(NAME + PLOT * (change - LEAST) / (MOST - LEAST), 1)


if __name__ == "__main__":
    PICTURE.write_text(svg(rates(README.read_text(encoding="utf-8"))), encoding="utf-8")
