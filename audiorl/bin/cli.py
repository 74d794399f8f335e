"""Options and one-sentence errors of all entry points."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from audiorl.errors import UserError, is_of_memory, reason, visible
from audiorl.runtime import ranks
from audiorl.runtime.processes import die_with_parent
from audiorl.runtime.ranks import LOST, LostRank
from audiorl.runtime.stopping import TERMINATED, Stopped

OF_THE_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}

ARGUMENTS = {
    "dump": ("--dump", {"required": True, "help": "folder of the formatted sets"}),
    "out": ("--out", {"required": True, "help": "experiment to write or continue"}),
    "experiments": (
        "experiments",
        {"nargs": "+", "metavar": "EXP", "help": "with a model/ inside"},
    ),
}


def parser(doc: str, *shared: str, config: bool = True) -> argparse.ArgumentParser:
    """Return a parser with a module's docstring as help, and some of the ARGUMENTS arguments."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if config:
        made.add_argument("--config", required=True, metavar="YAML", help="the recipe's config")
        add_set(made)
    for name, options in map(ARGUMENTS.get, shared):
        made.add_argument(name, type=Path, **options)
    return made


def add_set(options: argparse.ArgumentParser) -> None:
    """Add the option --set, which overrides keys of every config that is read."""
    options.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="overrides one key of the config; may be given several times",
    )


def refuse_other_task(experiment: Path, task: str) -> None:
    """Raise UserError for an experiment whose model is not for `task`, asr or tts."""
    from audiorl.models.policy import find_policy, saved_family

    if find_policy(saved_family(experiment / "model")).task == task:
        return
    kind, command = {
        "asr": ("a speech LM, which speaks", "synthesise"),
        "tts": ("a recogniser, which transcribes", "decode"),
    }[task]
    raise UserError(f"{experiment} is {kind}; run audiorl.bin.{command} on it.")


def run(main: Callable[[], None]) -> None:
    """Run an entry point; a UserError or an interruption becomes one line and an exit status."""
    if ranks.launched():
        # At once, also while it waits for another: what has ended the other ends all.
        die_with_parent(os.getppid())
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, lambda *_: _leave(TERMINATED))
    else:
        # A terminated program closes its files and ends its workers, as an interrupted one does.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    try:
        main()
    except SystemExit as end:
        if end.code == TERMINATED:
            _leave(TERMINATED)
        raise
    except Stopped as end:
        if ranks.is_main():
            print(end, file=sys.stderr)
        _leave(TERMINATED)
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output (head, less) went away: nothing is wrong.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        error = ranks.translated(error) or error
        sentence = _sentence(error)
        if ranks.launched():
            told = visible(sentence) or "".join(traceback.format_exception(error))
            _fail(told, LOST if isinstance(error, LostRank) else 1)
        if not sentence:
            raise
        print(f"error: {visible(sentence)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue.", file=sys.stderr)
        _leave(130)


def _sentence(error: Exception) -> str:
    """Return what a user should know of an error; empty: it is a mistake of ours."""
    if isinstance(error, UserError):
        return str(error)
    if is_of_memory(error):
        return (
            f"memory has ended ({reason(error)}); free some, or lower what is held at once "
            "(batch_seconds, rl.rollout_prompts, rl.micro_batch_tokens), and run the same command "
            "again to continue."
        )
    if isinstance(error, OSError) and error.errno in OF_THE_SYSTEM:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; free the disk or fix access, then run again."
    return ""


def _fail(message: str, code: int) -> NoReturn:
    """End one of several processes; who has started it shows the message of the first."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": "", "timestamp": str(int(time.time()))}
        told = {"message": {"message": message, "extraInfo": extra}}
        Path(path).write_text(json.dumps(told), encoding="utf-8")
    else:
        print(f"error: {message}", file=sys.stderr)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End at once: an ordinary exit waits for threads, which may wait for a server."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
