"""YAML to nodes that know their line. What surprises or executes is refused here.

One document of mappings, lists and scalars. Tags (`!new`, `!!python/…`) are refused because a
config is data; anchors, aliases and merge keys because `extends` is the one way to share settings,
and so that one line sets each value.
"""

from __future__ import annotations

from collections.abc import Callable

import yaml

Report = Callable[[yaml.Node, str, str], None]
REFUSED = "refused"  # the tag of a node whose problem is reported already


class Unreadable(Exception):
    """A whole file or option that cannot be understood: where, why and the fix."""


def where(node: yaml.Node) -> str:
    """`file:line` of a node, or the --set option that it stands in."""
    return _place(node.start_mark.name, node.start_mark.line)


def compose(text: str, name: str, report: Report) -> yaml.Node | None:
    """The root node of `text`, or None if it is empty.

    report(node, "", message) gets each tag, anchor and alias; the node's tag is then REFUSED.
    Raises Unreadable on a syntax error.
    """
    try:
        return _Composer(text, name, report).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise Unreadable(_place(name, error.problem_mark.line), _explain(error)) from error
    except yaml.reader.ReaderError as error:
        place = _place(name, text.count("\n", 0, error.position))
        message = f"character U+{error.character:04X} cannot be printed; remove it"
        raise Unreadable(place, message) from error
    except RecursionError as error:
        raise Unreadable(_place(name, 0), "nested too deeply to be a config; flatten it") from error


class _Composer(yaml.SafeLoader):
    def __init__(self, text: str, name: str, report: Report) -> None:
        super().__init__(text)
        self.name = name  # what the marks of nodes and errors show
        self.report = report

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self.get_event()
            node = yaml.ScalarNode(REFUSED, "", event.start_mark, event.end_mark)
            self.report(node, "", f"alias *{event.anchor} is refused; write the value itself")
            return node
        node = super().compose_node(parent, index)
        if event.anchor:
            message = f"anchor &{event.anchor} is refused; share settings through `extends`"
            self.report(node, "", message)
        if event.tag:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.report(node, "", f"tag {tag} is refused, a config is plain data; remove it")
        if event.anchor or event.tag:
            node.tag = REFUSED
        return node


def _place(name: str, line: int) -> str:
    return name if name.startswith("--set ") else f"{name}:{line + 1}"


def _explain(error: yaml.MarkedYAMLError) -> str:
    if "another document" in error.problem:
        return "a second document begins here, a config is one; remove the `---` or what follows it"
    if r"'\t'" in error.problem:
        return "a tab stands here; indent with spaces"
    return (
        f"not YAML ({error.problem}); fix the indentation or the line before, "
        "and put text with one of : # { [ * & ! % @ ` in quotes"
    )
