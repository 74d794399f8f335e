"""The exception for mistakes of users, and wording for its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Mistake in an input (file, option, config) that the user can fix.

    The message is one sentence: the file and line or the utterance, what was expected, the fix.
    Entry points print it without a traceback and exit with status 1.
    """


def reason(error: BaseException) -> str:
    """Return the message of a library's error in one line: the first that is no heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    messages = [line for line in lines if line and not line.endswith(":")]
    return messages[0] if messages else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return advice for a name that is not among `known`: the closest one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
