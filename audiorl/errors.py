"""The exception for mistakes of users, and wording for its messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NO_MEMORY = re.compile("out of memory|allocate memory|not enough memory", re.IGNORECASE)


class UserError(Exception):
    """Mistake in an input (file, option, config) that the user can fix.

    The message is one sentence: the file and line or the utterance, what was expected, the fix.
    Entry points print it without a traceback and exit with status 1.
    """


def reason(error: BaseException) -> str:
    """Return the message of a library's error in a short line: the first that is no heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    messages = [line for line in lines if line and not line.endswith(":")]
    return shortened(messages[0], 300) if messages else type(error).__name__


def is_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory has ended."""
    return isinstance(error, MemoryError) or bool(NO_MEMORY.search(str(error)))


def shortened(text: str, most: int) -> str:
    """Return a text of about `most` characters at most, without its middle if it is longer."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def visible(text: str) -> str:
    """Return somebody's text for a terminal: control characters are shown, not sent."""
    plain = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in shortened(text, 4000))
    return "".join(plain)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return advice for a name that is not among `known`: the closest one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
