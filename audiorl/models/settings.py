"""Settings of a model as a file in its folder: the sections it was made of, and its kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from audiorl.config.dump import dump_section
from audiorl.config.loader import load_section
from audiorl.errors import UserError
from audiorl.runtime.files import atomic_write

T = TypeVar("T")
FILE = "config.yaml"
WHOLE_RECIPE = re.compile(r"^task: ", re.MULTILINE)  # what no model's own settings have


def save_settings(settings: Any, folder: Path) -> None:
    """Write the settings of a model, a dataclass of keys, into its folder."""
    with atomic_write(folder / FILE) as stream:
        stream.write(dump_section(settings))


def load_settings(kind: type[T], folder: Path) -> T:
    """Return the settings of class `kind` in a model's folder.

    Raises UserError if they are not there, not whole, of another kind, or the whole recipe, which
    older versions kept in their place.
    """
    path = folder / FILE
    if path.is_file() and WHOLE_RECIPE.search(path.read_text(encoding="utf-8", errors="replace")):
        raise UserError(
            f"{path}: was written by an audiorl before 0.2, which kept the whole recipe there; "
            "train it again."
        )
    return load_section(kind, path)
