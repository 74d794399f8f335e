"""The schema seen as key paths (`rl.beta`): what may stand at each, and what does in a config."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from audiorl.config.schema import Config

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
BOUNDS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}

Keys = dict[str, tuple[type, Field]]  # name or path -> its type and its field


@functools.cache
def section_keys(section: type) -> Keys:
    """The keys of a section (a dataclass) by name."""
    types = get_type_hints(section)
    return {f.name: (types[f.name], f) for f in fields(section)}


@functools.cache
def schema_keys(root: type = Config) -> Keys:
    """Every key of a recipe (or of another `root`) by path, sections included, in its order."""

    def below(section: type, prefix: str) -> Keys:
        found = {}
        for name, (kind, field) in section_keys(section).items():
            found[prefix + name] = (kind, field)
            if is_dataclass(kind):
                found |= below(kind, f"{prefix}{name}.")
        return found

    return below(root, "")


def key_values(config: Config) -> dict[str, Any]:
    """Path -> value of every key that is not a section."""
    values = {}
    for path, (kind, _) in schema_keys().items():
        if not is_dataclass(kind):
            values[path] = functools.reduce(getattr, path.split("."), config)
    return values


def default_of(field: Field) -> Any:
    """The default of a key."""
    return field.default if field.default is not MISSING else field.default_factory()


def allows(metadata: Mapping[str, Any], value: Any) -> bool:
    """Whether `value` is within the choices and bounds that `key(...)` declares."""
    if metadata["choices"] and value not in metadata["choices"]:
        return False
    return all(metadata[k] is None or holds(value, metadata[k]) for k, (_, holds) in BOUNDS.items())


def limits(metadata: Mapping[str, Any]) -> str:
    """The declared choices or bounds: `one of a, b`, `>= 0, < 1`, or nothing."""
    if metadata["choices"]:
        return "one of " + ", ".join(metadata["choices"])
    declared = {sign: metadata[k] for k, (sign, _) in BOUNDS.items()}
    return ", ".join(f"{sign} {bound:g}" for sign, bound in declared.items() if bound is not None)


def expected(kind: type, metadata: Mapping[str, Any]) -> str:
    """Describe the values that a key takes, for messages: `a whole number >= 1`."""
    if is_dataclass(kind):
        return "a mapping of keys"
    if get_origin(kind) is list:
        (element,) = get_args(kind)
        return "a list of " + ("mappings" if is_dataclass(element) else TYPES[element])
    if get_origin(kind) is dict:
        return "names with keys below them"
    return limits(metadata) if metadata["choices"] else f"{TYPES[kind]} {limits(metadata)}".strip()
