"""The one exception that users are meant to read."""


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
