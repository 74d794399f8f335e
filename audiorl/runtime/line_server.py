"""A program in an environment of its own, asked over its standard input and output.

A request is one line of JSON, `{"op": "decode", "file": …, "out": …, …}`, and so is its answer,
`{"ok": true, …}` or `{"ok": false, "error": "…"}`; blank lines before it say that the program is
still at work. Tensors travel in safetensors files: those of a
request in `file`, those of an answer in `out`. Nothing is pickled and no port is opened. What the
program writes to its standard error is shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiorl.errors import UserError, reason, shortened

if TYPE_CHECKING:
    from torch import Tensor

SHARED_MEMORY = "/dev/shm"  # files there are memory


class LineServer:
    """A program that answers requests line by line.

    It is ended with this process, or ends by itself when its input does: it is to read to the end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        timeout: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command`; `name`: for messages. `timeout`: of every answer or
        sign of life, in s.

        Raises UserError if there is no such program.
        """
        self.name, self.timeout = name, timeout
        room = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
        self._folder = tempfile.TemporaryDirectory(prefix="audiorl-", dir=room)
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # interruptions of the terminal are for us alone
            )
        except OSError as error:
            self._folder.cleanup()
            raise UserError(
                f"{name} cannot be started: {command[0]}: {reason(error)}; fix the command."
            ) from error
        self.pid = self._process.pid
        self._unread = b""
        self.close = weakref.finalize(self, _end, self._process, self._folder)

    def call(
        self, op: str, tensors: Mapping[str, Tensor] | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the answer to a request and the tensors that came with it.

        Raises UserError if the program refuses, ends, writes anything else, or takes longer than
        `timeout`, for which it is ended.
        """
        from safetensors.torch import load_file, save_file

        file, out = (Path(self._folder.name, name) for name in ("request", "answer"))
        out.unlink(missing_ok=True)
        if tensors is not None:
            arguments["file"] = str(file)
            save_file(_apart(tensors), file)
        request = json.dumps({"op": op, "out": str(out), **arguments})
        try:
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
            line = self._read_line()
        except (BrokenPipeError, EOFError) as error:
            raise UserError(
                f"{self.name} ended ({self._ended()}) while it was asked to {op}; what it wrote "
                "stands above. Run the same command again to continue."
            ) from error
        answer = self._parsed(line)
        if not answer["ok"]:
            raise UserError(
                f"{self.name} could not {op}: {answer.get('error') or 'it does not say why'}; fix "
                "it there."
            )
        return answer, load_file(out) if out.exists() else {}

    def _parsed(self, line: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict) and "ok" in answer:
                return answer
        self.close()
        shown = shortened(line.decode(errors="replace").strip(), 80)
        raise UserError(
            f"{self.name} wrote `{shown}` where an answer in JSON was due; let it print to its "
            "standard error."
        )

    def _read_line(self) -> bytes:
        """Return the next line; EOFError if the program has ended."""
        deadline = time.monotonic() + self.timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise UserError(
                        f"{self.name} gave no answer within {self.timeout:g} s and was ended; run "
                        "the same command again to continue."
                    )
                if not (read := os.read(self._process.stdout.fileno(), 1 << 16)):
                    raise EOFError
                self._unread = (self._unread + read).lstrip(b"\n")
                deadline = time.monotonic() + self.timeout
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _ended(self) -> str:
        code = self._process.wait()
        return f"by signal {-code}" if code < 0 else f"with status {code}"


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, contiguous; copies of those that share memory, which safetensors refuses."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        whole = tensor.contiguous()
        place = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if place in seen else whole
        seen.add(place)
    return apart


def _end(process: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
    folder.cleanup()
