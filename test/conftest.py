"""What all tests share: the place of the real corpora, which are not part of the repository."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Returns the folder of a corpus by name; skips the test where it is absent."""
    folder = Path(os.environ.get("AUDIORL_SHARED_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"{name} is not in {folder} (AUDIORL_SHARED_DATA names another folder)")
        return folder / name

    return find
