"""The one exception that users are meant to read, and words for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in an input (file, option, config) that its user can mend.

    The message is one sentence: the file and line or the utterance, what was expected, the fix.
    Entry points print it without a traceback and exit with status 1.
    """


def reason(error: BaseException) -> str:
    """What a library's error says, in one line: the first that is no heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.endswith(":")]
    return told[0] if told else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """What to write instead of a name that is not among `known`: the likeliest, or any of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
