from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from runs import Corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A run replaces the handlers of the root logger; a test gives them back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
