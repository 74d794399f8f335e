"""Configs written by the tests, and what the loader says about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audiorl.config import Config, load_config
from audiorl.errors import UserError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a config into the current folder and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "c.yaml") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


@pytest.fixture
def load(write: Callable[..., str]) -> Callable[..., Config]:
    """The config in a text."""
    return lambda text, *overrides: load_config(write(text), overrides)


@pytest.fixture
def problems(write: Callable[..., str]) -> Callable[..., list[str]]:
    """The problems of a config's text, one a line; the count that is announced is checked."""

    def problems(text: str | bytes, *overrides: str) -> list[str]:
        with pytest.raises(UserError) as refusal:
            load_config(write(text), overrides)
        first, *rest = str(refusal.value).split("\n")
        if not rest:
            return [first]
        assert first == f"c.yaml has {len(rest)} problems:"
        return [line.removeprefix("  ") for line in rest]

    return problems
