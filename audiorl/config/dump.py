"""Configs as text: in full with comments, and what differs between two."""

from __future__ import annotations

import re
import textwrap
from dataclasses import Field, is_dataclass
from typing import Any

import yaml

from audiorl.config.keys import default_of, key_values, limits, section_keys
from audiorl.config.schema import Config

COLUMN = 40  # where comments begin
WIDTH = 100
GLUE = "\u00a0"  # a space at which no line breaks: `>= 0` stays together


def dump_config(config: Config) -> str:
    """The config as YAML: every key of its task, its value, its comment.

    `load_config` reads it back equal.
    """
    return "\n".join(_section_lines(config, "", config.task)) + "\n"


def dump_section(section: Any) -> str:
    """Return a section, or any dataclass of keys, as YAML; `load_section` reads it back equal."""
    return "\n".join(_section_lines(section, "", None)).lstrip() + "\n"


def config_differences(config: Config, other: Config) -> list[str]:
    """`key: value -> other's value` for every key that differs."""
    values, others = key_values(config), key_values(other)
    changed = [key for key in values if values[key] != others[key]]
    return [f"{key}: {flow(values[key])} -> {flow(others[key])}" for key in changed]


def flow(value: Any) -> str:
    """A value as it stands behind its key in YAML; of a section its first key, and what is set."""
    if is_dataclass(value):
        shown = {name: getattr(value, name) for name in section_keys(type(value))}
        defaults = {name: default_of(f) for name, (_, f) in section_keys(type(value)).items()}
        first = next(iter(shown))
        value = {name: v for name, v in shown.items() if name == first or v != defaults[name]}
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    # Quotes and escapes for what cannot be seen, lest a line break in a text breaks ours.
    style = '"' if isinstance(value, str) and not (value and value.isprintable()) else None
    options = {"default_flow_style": True, "default_style": style, "allow_unicode": True}
    return yaml.safe_dump([value], width=float("inf"), **options)[1:-2]


def clip(text: str, width: int) -> str:
    """The text on one line of at most `width` characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _section_lines(section: Any, indent: str, task: str | None, default: Any = None) -> list[str]:
    """Return the lines of a section, with the keys of one task, or of all (None)."""
    lines, default = [], default or type(section)()
    for name, (kind, field) in section_keys(type(section)).items():
        if task and field.metadata["task"] not in (None, task):
            continue
        value, usual = getattr(section, name), getattr(default, name)
        if is_dataclass(kind):
            doc = field.metadata["doc"] if indent else kind.__doc__.split("\n\n")[0].rstrip(".")
            lines += [
                *([] if indent else [""]),
                *_entry(f"{indent}{name}:", doc),
                *_section_lines(value, indent + "  ", task, usual),
            ]
        elif isinstance(value, list) and value and is_dataclass(value[0]):
            lines += _entry(f"{indent}{name}:", field.metadata["doc"])
            for item in value:
                first, *rest = _section_lines(item, indent + "    ", task)
                lines += [f"{indent}  - {first.lstrip()}", *rest]
        else:
            lines += _entry(f"{indent}{name}: {flow(value)}", _comment(field, value, usual))
    return lines


def _comment(field: Field, value: Any, default: Any) -> str:
    """The meaning, what is allowed, and the default where the value is another."""
    parts = [field.metadata["doc"]]
    if allowed := limits(field.metadata):
        parts.append(re.sub(r"(?<=[<>=]) ", GLUE, allowed))
    if value != default:
        parts.append(f"default {flow(default)}")
    return "; ".join(parts)


def _entry(entry: str, comment: str) -> list[str]:
    """The entry with its comment to the right; above it where the entry is too long for that."""
    room = len(entry) + 2 <= COLUMN
    margin = COLUMN if room else len(entry) - len(entry.lstrip())
    wrapped = textwrap.wrap(comment, WIDTH - margin - 2, break_on_hyphens=False)
    comments = ["# " + line.replace(GLUE, " ") for line in wrapped]
    if not room:
        return [*(" " * margin + line for line in comments), entry]
    first, *rest = comments
    return [f"{entry:<{margin}}{first}", *(" " * margin + line for line in rest)]
