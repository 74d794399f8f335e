"""A model's folder: its settings (the sections it was made of), and its weights, written last."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import nn

from audiorl.config.dump import dump_section
from audiorl.config.loader import load_section
from audiorl.errors import UserError, reason
from audiorl.models import WEIGHTS, load_weights, save_weights
from audiorl.runtime.files import atomic_write

Model = TypeVar("Model", bound=nn.Module)
Part = TypeVar("Part")
FILE = "config.yaml"
BROKEN = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, SafetensorError),
)
WHOLE_RECIPE = re.compile(r"^task: ", re.MULTILINE)  # what no model's own settings have


def part_of(section: Any, kind: type[Part]) -> Part:
    """Return what a model is made of, `kind`, without the rest of its section: its training."""
    return kind(**{f.name: getattr(section, f.name) for f in fields(kind)})


def save_model(model: nn.Module, folder: Path) -> None:
    """Write `model.settings`, a dataclass of keys, and the weights; call it last."""
    save_settings(model, folder)
    save_weights(model, folder / WEIGHTS)


def save_settings(model: nn.Module, folder: Path) -> None:
    """Write the settings alone."""
    with atomic_write(folder / FILE) as stream:
        stream.write(dump_section(model.settings))


def load_model(
    folder: Path, noun: str, kind: type, build: Callable[[Any], Model], device: str
) -> Model:
    """Return the model that `build` makes of settings of class `kind`, with the saved weights.

    In evaluation mode. Raises UserError if it is not there, not whole, of another kind, or of a
    former layout.
    """
    model = build_model(folder, noun, kind, build)
    load_weights(model, folder / WEIGHTS)
    return model.to(device).eval()


def build_model(folder: Path, noun: str, kind: type, build: Callable[[Any], Model]) -> Model:
    """Return the model that `build` makes of the settings in `folder`; UserErrors as above."""
    read_settings(folder, noun)
    try:
        return build(load_section(kind, folder / FILE))
    except BROKEN as error:
        raise UserError(
            f"{folder}: the {noun} is not whole ({reason(error)}); restore the folder or train "
            "again."
        ) from error


def read_settings(folder: Path, noun: str) -> str:
    """Return the text of a model's settings; UserError if there are none, or a whole recipe."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder}: there is no {noun}; run stage 3, or 5 if RL makes it.")
    text = path.read_text(encoding="utf-8", errors="replace")
    if WHOLE_RECIPE.search(text):
        raise UserError(
            f"{path}: was written by an audiorl before 0.2, which kept the whole recipe there; "
            "train it again."
        )
    return text
