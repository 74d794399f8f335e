"""The picture of the README shows the numbers of its table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_picture_is_that_of_the_table() -> None:
    spec = importlib.util.spec_from_file_location("draw_result", ROOT / "tools" / "draw_result.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.rates(module.README.read_text(encoding="utf-8"))
    assert list(found) == ["test_clean", "test_noisy", "test_long", "test_keyword", "pooled"]
    assert [len(seeds) for seeds in found["pooled"]] == [1, 3, 3]
    drawn = module.PICTURE.read_text(encoding="utf-8")
    assert drawn == module.svg(found), "run python tools/draw_result.py"
