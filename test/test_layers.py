"""The layers of the package: imports run downward, and no modules import each other in a circle."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Collection
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "audiorl"
# From the top to the bottom; docs/architecture.md says what each is for.
LAYERS = (
    "bin train tasks rl_data rl infer table report engines runs rewards score models data text "
    "runtime config errors"
).split()


def imports(tree: ast.AST, modules: Collection[str]) -> set[str]:
    """Those of `modules` that a module imports; imports for type checks alone are left out."""
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
    """Module -> the modules that it imports."""
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in modules.items()}
    return {name: imports(tree, modules) for name, tree in trees.items()}


def layer(module: str) -> int:
    return LAYERS.index(module.split(".")[1])


def test_each_part_of_the_package_is_a_layer() -> None:
    parts = {name.split(".")[1] for name in graph() if "." in name}
    assert parts == set(LAYERS)


def test_imports_run_downward() -> None:
    edges = [(name, other) for name, others in graph().items() for other in others]
    inside = [(a, b) for a, b in edges if "." in a and "." in b]
    assert [f"{a} -> {b}" for a, b in inside if layer(b) < layer(a)] == []


def test_no_circle() -> None:
    graphlib.TopologicalSorter(graph()).prepare()  # CycleError names the circle


def test_a_circle_and_the_modules_in_a_function_are_noticed(tmp_path: Path) -> None:
    package = tmp_path / "audiorl"
    package.mkdir()
    (package / "a.py").write_text("from audiorl import b\n")
    (package / "b.py").write_text("def f():\n    from audiorl.a import x\n")
    found = graph(package)
    assert found == {"audiorl.a": {"audiorl.b"}, "audiorl.b": {"audiorl.a"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(found).prepare()
