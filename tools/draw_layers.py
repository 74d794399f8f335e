#!/usr/bin/env python3
"""Draws the layers of the package, read from its imports, to docs/images/layers.svg.

example: python tools/draw_layers.py
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "audiorl"
PICTURE = ROOT / "docs" / "images" / "layers.svg"
# From top to bottom: a layer imports those below it.
LAYERS = {
    "bin": "the commands of the stages",
    "train": "training loops: warm start, RL, codec, reward model, judge",
    "tasks": "recognition and synthesis, each as one object",
    "rl_data": "difficulty, subsets and texts of the RL set",
    "rl": "advantages, losses, GRPO, DiffRO, the control, prompts",
    "infer": "decoding and synthesis of sets, the judge's transcripts",
    "table": "experiments by rows and seeds",
    "report": "RESULTS.md, report.html, comparison, charts",
    "engines": "sampling, shared prefix, beam search",
    "runs": "experiment folder, checkpoints, optimizer, log",
    "rewards": "one file per reward; how they combine",
    "score": "error rates, keywords, significance, voices",
    "models": "audio LLM, speech LM, codec, judge, reward model",
    "data": "Kaldi directories, audio, downloads, tokens on disk",
    "text": "normalisation, alignment, keywords, detectors",
    "runtime": "device, batches, stamps, files",
    "config": "schema, checks, the strict YAML loader",
    "errors": "the exception that users read",
}

ROW, NAME, PURPOSE, CELL, TOP, MARGIN, RIGHT = 26, 84, 372, 26, 76, 12, 36  # pixels
STYLE = """text { font: 13px sans-serif; fill: #24313f; }
.name { font-weight: bold; }
.layer { fill: #e8f0f8; stroke: #2f7fc1; }
.own { fill: #2f7fc1; }
.import { fill: #d0661f; }
.line { stroke: #d5dbe1; }"""


def imports(tree: ast.AST, modules: Collection[str]) -> set[str]:
    """Return those of `modules` that a module imports; imports for type checks are left out."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            named = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in modules else node.module for name in named}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        found |= imports(node, modules)
    return found.intersection(modules)


def graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Return module -> the modules that it imports."""
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in modules.items()}
    return {name: imports(tree, modules) for name, tree in trees.items()}


def edges(modules: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return (importing layer, imported layer), of two different layers."""
    pairs = ((a.split("."), b.split(".")) for a, found in modules.items() for b in found)
    return {(a[1], b[1]) for a, b in pairs if len(a) > 1 and len(b) > 1 and a[1] != b[1]}


def svg(layers: dict[str, str], found: set[tuple[str, str]]) -> str:
    """Return the picture: a row for each layer, and a dot in the column of each that it imports."""
    names = list(layers)
    left = MARGIN + NAME + PURPOSE
    width, height = left + CELL * len(names) + RIGHT, TOP + ROW * len(names) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Layers of audiorl: each row imports the layers marked in it</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, name in enumerate(names):
        x, y = left + CELL * i, TOP + ROW * i
        parts += [
            f'<line class="line" x1="{MARGIN}" y1="{y + ROW}" x2="{width - MARGIN}" '
            f'y2="{y + ROW}"/>',
            f'<rect class="layer" x="{MARGIN}" y="{y + 3}" width="{NAME - 8}" '
            f'height="{ROW - 6}" rx="4"/>',
            _text(MARGIN + 8, y + 18, name, "name"),
            _text(MARGIN + NAME, y + 18, layers[name]),
            f'<text transform="translate({x + 17} {TOP - 8}) rotate(-60)">{name}</text>',
            f'<rect class="own" x="{x + 7}" y="{y + 7}" width="12" height="12" rx="2"/>',
        ]
    parts += [_dot(left, names.index(a), names.index(b)) for a, b in _sorted(found, names)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _sorted(found: Iterable[tuple[str, str]], names: list[str]) -> list[tuple[str, str]]:
    return sorted(found, key=lambda edge: [names.index(name) for name in edge])


def _dot(left: int, row: int, column: int) -> str:
    x, y = left + CELL * column + CELL // 2, TOP + ROW * row + ROW // 2
    return f'<circle class="import" cx="{x}" cy="{y}" r="5"/>'


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x}" y="{y}">{escape(text)}</text>'


def main() -> None:
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(svg(LAYERS, edges(graph())), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
