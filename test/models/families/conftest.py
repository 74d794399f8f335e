from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_families import save_family


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pretrained model, by the name of its family."""
    root = tmp_path_factory.mktemp("hub")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            save_family(name, root / name)
        return root / name

    return folder
