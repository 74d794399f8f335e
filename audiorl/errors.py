"""The one exception that users are meant to read."""


class UserError(Exception):
    """A mistake in an input (file, option, config) that its user can mend.

    The message is one sentence: the file and line or the utterance, what was expected, the fix.
    Entry points print it without a traceback and exit with status 1.
    """
