"""Declaration of a recipe's keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import field
from typing import Any

FOLDER = re.compile(r"\w[\w.+-]*")
Rule = tuple[tuple[str, ...], str]  # the keys it is about (the one to name first), the sentence


def key(
    default: Any,
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Collection[str] | None = None,
    task: str | None = None,
    resume: bool | Callable[[Any], str] = False,
) -> Any:
    """A config field: its default, what it means, and which values it may take.

    `task`: the one that has it; recipes of the other may neither set nor see it.
    `resume`: whether a run may continue with another value; or a function of the config that
    returns the reason why not, "" if it may.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices}
    metadata = {"doc": doc, **limits, "task": task, "resume": resume}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def repeated(names: list[str]) -> list[str]:
    """Return the names that stand in the list more than once, sorted."""
    return sorted({name for name in names if names.count(name) > 1})


def not_a_folder(name: str) -> str:
    """Return the problem of a name that cannot be a folder's."""
    return f'names a folder (got "{name}"); use letters, digits and . _ + - only'
