"""Scalars by the type that the schema wants, not by what YAML 1.1 guesses.

`no`, `012` and `1:30` are text where text is meant; `1e-5` is a number where a number is meant.
Spellings that another reader would take for something else are refused, each with its fix.
"""

from __future__ import annotations

import math
import re

import yaml

NULLS = ("", "~", "null", "Null", "NULL")
YES = ("yes", "y", "on", "1", "1.0")
NO = ("no", "n", "off", "0", "0.0")
# At most what 64 bits surely hold. No leading zero: some readers take 012 for octal.
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


def parse_scalar(node: yaml.ScalarNode, kind: type) -> tuple[bool | int | float | str | None, str]:
    """The value as `kind`, and ''; or None and the fix (which may be '')."""
    text, plain = node.value, node.style is None
    if plain and text in NULLS:
        return None, 'write "" for an empty text' if kind is str else "remove the key"
    if kind is str:
        return text, ""
    if not plain:
        return None, "remove the quotes" if _parse(text, kind) is not None else ""
    value = _parse(text, kind)
    return value, "" if value is not None else _fix(text, kind)


def _parse(text: str, kind: type) -> bool | int | float | None:
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if kind is int:
        return int(text) if INTEGER.fullmatch(text) else None
    assert kind is float, f"the schema has a type that configs do not know: {kind}"
    value = float(text) if DECIMAL.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _fix(text: str, kind: type) -> str:
    """Suggest a replacement, if the meaning is plain."""
    if kind is bool:
        return "write true" if text.lower() in YES else "write false" if text.lower() in NO else ""
    try:
        meant = float(text)  # reads 012, 1_000 and, for an int, 1.0 and 1e3
    except ValueError:
        return ""
    if not math.isfinite(meant) or abs(meant) >= 1e15:
        return ""
    if kind is int:
        return f"write {int(meant)}" if meant.is_integer() else "write a number without a fraction"
    return f"write {meant:g}"
