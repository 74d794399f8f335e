"""The layers of the package: imports run downward, and no modules import each other in a circle."""

from __future__ import annotations

import graphlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from draw_layers import LAYERS, PICTURE, edges, graph, svg


def test_each_part_of_the_package_is_a_layer() -> None:
    parts = {name.split(".")[1] for name in graph() if "." in name}
    assert parts == set(LAYERS)


def test_imports_run_downward() -> None:
    order = list(LAYERS)
    inside = [(a, b) for a, found in graph().items() for b in found if "." in a and "." in b]

    def layer(module: str) -> int:
        return order.index(module.split(".")[1])

    assert [f"{a} -> {b}" for a, b in inside if layer(b) < layer(a)] == []


def test_no_circle() -> None:
    graphlib.TopologicalSorter(graph()).prepare()  # CycleError names the circle


def test_the_picture_is_that_of_the_imports() -> None:
    drawn = svg(LAYERS, edges(graph()))
    assert PICTURE.read_text("utf-8") == drawn, "run python tools/draw_layers.py"


def test_an_import_adds_a_dot() -> None:
    layers = {"a": "above", "b": "below & beside"}
    pair = edges({"audiorl": {"audiorl.a"}, "audiorl.a.x": {"audiorl.b", "audiorl.a"}})
    assert pair == {("a", "b")}
    drawn, empty = svg(layers, pair), svg(layers, set())
    assert drawn.count("<circle") == 1 and empty.count("<circle") == 0
    assert "below &amp; beside" in drawn


def test_a_circle_and_the_modules_in_a_function_are_noticed(tmp_path: Path) -> None:
    package = tmp_path / "audiorl"
    package.mkdir()
    (package / "a.py").write_text("from audiorl import b\n")
    (package / "b.py").write_text("def f():\n    from audiorl.a import x\n")
    found = graph(package)
    assert found == {"audiorl.a": {"audiorl.b"}, "audiorl.b": {"audiorl.a"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(found).prepare()
