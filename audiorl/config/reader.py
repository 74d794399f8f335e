"""From YAML nodes to settings: the schema says what each key is, and every problem is noted."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import Field, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import yaml

from audiorl.config.dump import clip, flow
from audiorl.config.keys import Keys, allows, default_of, expected, schema_keys, section_keys
from audiorl.config.scalars import NULLS, parse_scalar
from audiorl.config.schema import Config
from audiorl.config.strict_yaml import REFUSED, Unreadable, compose, where
from audiorl.config.variants import Variants


class Setting(NamedTuple):
    """A value and where it was set."""

    value: Any
    where: str


Settings = dict[str, Setting]  # by key path
Entries = dict[str, tuple[yaml.Node, yaml.Node]]  # of one mapping: name -> its key, its value
SECTION_NAME = re.compile(r"\w[\w+-]*")  # of a section, where the user chooses it


def build(section: type, settings: Settings, prefix: str = "", default: Any = None) -> Any:
    """Return a section from its settings; what is not set is as in `default`, or the class's."""
    values = {}
    for name, (kind, field) in section_keys(section).items():
        path = prefix + name
        if is_dataclass(kind):
            values[name] = build(
                kind, settings, f"{path}.", getattr(default, name, default_of(field))
            )
        elif get_origin(kind) is dict and path in settings:
            _, element = get_args(kind)
            named = [p.removeprefix(f"{path}.") for p in settings if p.startswith(f"{path}.")]
            names = [n for n in named if "." not in n]
            values[name] = {n: build(element, settings, f"{path}.{n}.") for n in names}
        elif path in settings:
            values[name] = settings[path].value
    return replace(default, **values) if default else section(**values)


def sentence(place: str, path: str, message: str) -> str:
    """A problem as users read it: `conf/grpo.yaml:3: rl.beta: expected …; fix.`"""
    label = "" if not path or place.startswith(f"--set {path}=") else f"{path}: "
    return f"{place}: {label}{message}{'' if message.endswith('?') else '.'}"


class Reader:
    """Reads files and overrides; `problems` are the sentences for the user."""

    def __init__(self, root: type = Config) -> None:
        self.root = root
        self.files: list[str] = []  # base first
        self.problems: list[str] = []
        self.refused: set[str] = set()  # keys without a usable value: rules would mislead there
        self.lost = False  # a file or option could not be read: rules would mislead anywhere

    def was_refused(self, path: str) -> bool:
        """Whether the value of a key, or of its section, was refused."""
        return any(path == key or path.startswith(f"{key}.") for key in self.refused)

    def attempt(self, read: Callable[..., Settings], *arguments: Any) -> Settings:
        """Return what `read` finds; nothing, after noting why, if its source is unreadable."""
        try:
            return read(*arguments)
        except Unreadable as error:
            place, message = error.args
            self.lost = True
            self.problems.append(sentence(place, "", message))
            return {}

    def read_file(self, path: str, chain: tuple[str, ...] = ()) -> Settings:
        """The settings of a file over those of its base; `chain`: the files that led here."""
        entries = self._read_entries(path)
        base = {}
        if "extends" in entries:
            base = self._read_bases(*entries.pop("extends"), (*chain, path))
        self.files.append(path)
        return base | self._settings(entries, self.root, "")

    def read_overlay(self, path: str) -> Settings:
        """The settings of a file that is merged over a config, and so has no base of its own."""
        entries = self._read_entries(path)
        if "extends" in entries:
            key, _ = entries.pop("extends")
            self._refuse(key, "extends", "a file that is merged over others has no base; remove it")
        self.files.append(path)
        return self._settings(entries, self.root, "")

    def read_override(self, option: str) -> Settings:
        """The settings of one `--set key.path=value`, as if it stood in a file."""
        path, equals, text = option.partition("=")
        place = clip(f"--set {option}", 80)
        if not equals or not path:
            raise Unreadable(place, "expected KEY.PATH=VALUE; write, for example, rl.beta=0.04")
        mark = yaml.Mark(place, 0, 0, 0, None, None)
        node = self._compose(text or '""', place) or yaml.ScalarNode("", "", mark, mark)
        for name in reversed(path.split(".")):
            node = yaml.MappingNode("", [(yaml.ScalarNode("", name, mark, mark), node)], mark, mark)
        return self._settings(self._entries(node, ""), self.root, "")

    def _read_entries(self, path: str) -> Entries:
        root = self._compose(_read_text(path), path)
        if not isinstance(root, yaml.MappingNode):
            got = "an empty file" if root is None else _shape(root)
            message = f"expected sections such as `rl:` with keys below (got {got}); add one"
            raise Unreadable(f"{path}:1", message)
        return self._entries(root, "")

    def _read_bases(self, key: yaml.Node, value: yaml.Node, chain: tuple[str, ...]) -> Settings:
        """The settings of the files that the last of `chain` extends, a later one over earlier."""
        several = isinstance(value, yaml.SequenceNode)
        found: Settings = {}
        for node in value.value if several else [value]:
            found |= self.attempt(self._read_base, key, node, chain)
        return found

    def _read_base(self, key: yaml.Node, value: yaml.Node, chain: tuple[str, ...]) -> Settings:
        if not isinstance(value, yaml.ScalarNode) or value.value in NULLS:
            message = (
                f"expected a path, or a list of them, relative to this file (got {_shape(value)})"
            )
            raise Unreadable(where(key), f"extends: {message}")
        base = os.path.normpath(os.path.join(os.path.dirname(chain[-1]), value.value))
        if not os.path.isfile(base):
            message = f"there is no file {base}; give its path relative to this file"
            raise Unreadable(where(key), f"extends: {message}")
        if any(os.path.samefile(base, other) for other in chain):
            circle = " -> ".join((*chain, base))
            raise Unreadable(where(key), f"extends: a circle ({circle}); remove one `extends`")
        return self.read_file(base, chain)

    def _compose(self, text: str, name: str) -> yaml.Node | None:
        return compose(text, name, self._refuse)

    def _refuse(self, node: yaml.Node, path: str, message: str) -> None:
        self.refused.add(path.partition("[")[0])
        self.problems.append(sentence(where(node), path, message))

    def _entries(self, node: yaml.Node, path: str) -> Entries:
        """The keys of a mapping, each once."""
        if node.tag == REFUSED:
            self.refused.add(path)
            return {}
        if not isinstance(node, yaml.MappingNode):
            message = f"expected keys indented below it (got {_shape(node)})"
            self._refuse(node, path, f"{message}; add one or remove the line")
            return {}
        found: Entries = {}
        for key, value in node.value:
            name = key.value
            if key.tag == REFUSED:
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, path, f"a key is a plain name (got {_shape(key)}); fix it")
            elif name == "<<":
                self._refuse(key, path, "merge key << is refused; share settings through `extends`")
            elif name in found:
                first = where(found[name][0])
                inside = f"{path}.{name}".lstrip(".")
                self._refuse(key, inside, f"set twice (first at {first}); keep one")
            else:
                found[name] = (key, value)
        return found

    def _settings(self, entries: Entries, section: type, prefix: str) -> Settings:
        """The settings in a section's entries, those of the sections below it included."""
        found: Settings = {}
        keys = section_keys(section)
        for name, (key, node) in entries.items():
            path = prefix + name
            if name not in keys:
                self._refuse(key, path, _unknown(path, keys, self.root))
                continue
            kind, field = keys[name]
            if is_dataclass(kind):
                found |= self._settings(self._entries(node, path), kind, f"{path}.")
            elif get_origin(kind) is dict:
                found[path] = Setting(name, where(key))
                found |= self._named_sections(self._entries(node, path), kind, path)
            elif (value := self._value(node, kind, field, path)) is not None:
                found[path] = Setting(value, where(key))
        return found

    def _named_sections(self, entries: Entries, kind: type, path: str) -> Settings:
        """The settings of sections whose names the user chose; each name is a setting, too."""
        found: Settings = {}
        _, element = get_args(kind)
        for name, (key, node) in entries.items():
            if not SECTION_NAME.fullmatch(name):
                message = f'"{name}" cannot be a name; use letters, digits and _ + - only'
                self._refuse(key, path, message)
                continue
            found[f"{path}.{name}"] = Setting(name, where(key))
            below = self._entries(node, f"{path}.{name}")
            found |= self._settings(below, element, f"{path}.{name}.")
        return found

    def _value(self, node: yaml.Node, kind: type, field: Field, path: str) -> Any:
        """The node as the schema's `kind`; None after noting what is wrong."""
        if node.tag == REFUSED:
            self.refused.add(path.partition("[")[0])
            return None
        is_list = get_origin(kind) is list
        if is_list and isinstance(node, yaml.SequenceNode):
            (element,) = get_args(kind)
            values = [
                self._value(n, element, field, f"{path}[{i}]") for i, n in enumerate(node.value)
            ]
            return None if None in values else values
        if is_dataclass(kind):  # in a list: whole, nothing is merged into it
            known = len(self.problems)
            kind, entries = self._variant(kind, self._entries(node, path), path)
            settings = self._settings(entries, kind, f"{path}.")
            return build(kind, settings, f"{path}.") if len(self.problems) == known else None

        value, fix = None, ""
        if isinstance(node, yaml.ScalarNode) and is_list:
            named = is_dataclass(get_args(kind)[0])  # as rewards are
            fix = f"write [{{name: {node.value}}}]" if named else f"write [{node.value}]"
        elif isinstance(node, yaml.ScalarNode):
            value, fix = parse_scalar(node, kind)
        elif isinstance(node, yaml.MappingNode) and kind is str:
            fix = "put text with braces in quotes"
        if value is not None and allows(field.metadata, value):
            return value
        message = f"expected {expected(kind, field.metadata)} (got {_shape(node)})"
        default = _default_at(self.root, path, field)
        self._refuse(node, path, f"{message}; {fix or _suggest(node, field, default)}")
        return None

    def _variant(self, kind: type, entries: Entries, path: str) -> tuple[type, Entries]:
        """The options of the variant that one key of the section names, and their entries."""
        for key, (_, field) in section_keys(kind).items():
            if not isinstance(variants := field.metadata["choices"], Variants):
                continue
            named = entries[key][1].value if key in entries else default_of(field)
            if named not in list(variants):
                return kind, {key: entries[key]}  # the others cannot be judged
            options = variants.module(named).Options
            known, common = section_keys(options), section_keys(kind)
            own = ", ".join(name for name in known if name not in common)
            for name in [name for name in entries if name not in known]:
                near = difflib.get_close_matches(name, known, n=1)
                what = f"knows {own}" if own else "has no options"
                message = f"{named} has no use for {name} (it {what}); remove it"
                if near:
                    message = f"unknown key; did you mean {path}.{near[0]}?"
                self._refuse(entries.pop(name)[0], f"{path}.{name}", message)
            return options, entries
        return kind, entries


def _read_text(path: str) -> str:
    try:
        raw = Path(path).read_bytes()
        return raw.decode("utf-8")
    except OSError as error:
        message = f"cannot be read ({error.strerror}); fix the path or its access"
        raise Unreadable(path, message) from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"{path}:{line}", "not UTF-8; save the file as UTF-8") from error


def _shape(node: yaml.Node) -> str:
    """Return the user's own text, for messages."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    text = clip(node.value, 40)
    return f'"{text}"' if node.style else text or "nothing"


def _suggest(node: yaml.Node, field: Field, default: Any) -> str:
    """Return the likeliest choice, or else the default."""
    if isinstance(node, yaml.ScalarNode) and field.metadata["choices"]:
        near = difflib.get_close_matches(node.value.lower(), field.metadata["choices"], n=1)
        if near:
            return f"did you mean {near[0]}?"
    return f"the default is {flow(default)}"


def _default_at(root: type, path: str, field: Field) -> Any:
    """Return the default of a path: its section may have another than the class of the field."""
    try:
        return functools.reduce(getattr, path.split("."), root())
    except AttributeError:  # of an item of a list, say
        return default_of(field)


def _unknown(path: str, siblings: Iterable[str], root: type) -> str:
    """Suggest a replacement for a key that does not exist."""
    known = schema_keys(root)
    section, _, name = path.rpartition(".")
    if path in known:
        return f"a key of a section; write `{section}:` and below it, indented, `{name}: …`"
    if name == "extends":
        return "only a file extends, at its top; move it there"
    near = _namesakes(name, known)
    if not near:
        names = siblings if section else [*siblings, "extends"]
        near = [f"{section}.{n}".lstrip(".") for n in difflib.get_close_matches(name, names, n=1)]
    if not near:
        leaves = {p.rpartition(".")[2]: p for p in known}
        near = [leaves[n] for n in difflib.get_close_matches(name, leaves, n=1, cutoff=0.75)]
    if not near and root is not Config:
        return f"unknown key; here may stand {', '.join(siblings)}"
    if not near:
        return "unknown key; `check_config --defaults asr` lists all keys"
    return f"unknown key; did you mean {' or '.join(near[:3])}?"


def _namesakes(name: str, known: Keys) -> list[str]:
    """The keys of this name in any section, or whose comment has it in brackets (verl's name).

    Those of sections that every task has, if there are any.
    """
    verl = re.compile(rf"\[([\w.]+\.)?{re.escape(name)}\]")
    found = [
        p for p, (_, f) in known.items() if p.endswith(f".{name}") or verl.search(f.metadata["doc"])
    ]
    common = [p for p in found if known[p.partition(".")[0]][1].metadata["task"] is None]
    return common or found
