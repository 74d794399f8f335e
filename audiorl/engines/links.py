"""Calls of a worker that runs in another Python: a child process, or a server.

The protocol is described in `workers/serving.py`. Whatever goes wrong with the other side ends in
one UserError.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import signal
import subprocess
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import load, load_file, save
from torch import Tensor

from audiorl.errors import UserError, shortened

TOKEN = "AUDIORL_ENGINE_TOKEN"
AGAIN = "run the same command again to go on from the last checkpoint"
Answer = tuple[dict[str, Any], dict[str, Tensor]]


class Link(ABC):
    """One worker; `silence` is how long it may give no sign of life, in s."""

    def __init__(self, name: str, silence: float) -> None:
        self.name, self.silence = name, silence

    def call(self, operation: str, tensors: Mapping[str, Tensor], **options: Any) -> Answer:
        """Return the facts and the tensors that a call is answered with.

        Raises UserError if the worker refuses it, has ended, or gives no sign of life.
        """
        line, made = self._exchange(json.dumps({"op": operation, **options}), dict(tensors))
        facts = json.loads(line)
        if not facts.pop("ok"):
            raise UserError(
                f"{self.name} cannot {operation}: {shortened(facts['error'], 600)}; look into "
                "docs/engines.md, or set rl.engine: native."
            )
        return facts, made

    @abstractmethod
    def _exchange(self, line: str, tensors: dict[str, Tensor]) -> tuple[bytes, dict[str, Tensor]]:
        """Return the line and the tensors that answer a line and tensors."""

    def close(self) -> None:  # noqa: B027 (a server goes on)
        """End the worker if it is ours."""

    def _silent(self) -> UserError:
        return UserError(f"{self.name} gave no sign of life for {self.silence:g} s; {AGAIN}.")


class Child(Link):
    """A process of ours: it ends when we end, however that happens, and leaves no file.

    Create it in the main thread: the system counts the end of the thread that did as the parent's.
    """

    def __init__(self, name: str, python: str, script: Path, silence: float) -> None:
        super().__init__(name, silence)
        memory = os.memfd_create("audiorl-engine")
        self.memory = f"/proc/self/fd/{memory}"
        self.log = tempfile.TemporaryFile()
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [python, str(script), f"--memory={memory}", f"--parent={os.getpid()}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            bufsize=0,
            pass_fds=[memory],
            start_new_session=True,
            env={"OMP_NUM_THREADS": str(torch.get_num_threads()), **env},
        )
        self._end = weakref.finalize(self, _end, self.process, memory)
        self._read = b""

    def _exchange(self, line: str, tensors: dict[str, Tensor]) -> tuple[bytes, dict[str, Tensor]]:
        Path(self.memory).write_bytes(save(tensors))
        try:
            self.process.stdin.write(line.encode() + b"\n")
            answer = self._line()
        except BrokenPipeError as error:
            raise self._ended() from error
        return answer, {name: tensor.clone() for name, tensor in load_file(self.memory).items()}

    def _line(self) -> bytes:
        """Return the next line that is not blank."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not (found := self._read.lstrip(b"\n")).endswith(b"\n"):
                if not selector.select(self.silence):
                    self.close()
                    raise self._silent()
                more = self.process.stdout.read(1 << 16)
                if not more:
                    raise self._ended()
                self._read = found + more
        self._read = b""
        return found

    def _ended(self) -> UserError:
        code = self.process.wait()
        how = "it was killed, for want of memory as a rule" if code == -signal.SIGKILL else code
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return UserError(
            f"the process of {self.name} ended ({how}); the last that it said: "
            f"{shortened(last, 300)}; {AGAIN}."
        )

    def close(self) -> None:
        self._end()


def _end(process: subprocess.Popen, memory: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    os.close(memory)


class Server(Link):
    """A worker that somebody started with --listen; no other host is ever asked."""

    def __init__(self, name: str, url: str, silence: float) -> None:
        super().__init__(f"{name} at {url}", silence)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise UserError(f"rl.engine_url: {url} is no address; set http://HOST:PORT.")
        if not os.environ.get(TOKEN):
            raise UserError(f"rl.engine_url: set the secret of that server in ${TOKEN}.")
        self.kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[
            parts.scheme
        ]
        self.address = (parts.hostname, parts.port)

    def _exchange(self, line: str, tensors: dict[str, Tensor]) -> tuple[bytes, dict[str, Tensor]]:
        connection, rest = self.kind(*self.address, timeout=self.silence), save(tensors)
        headers = {"Authorization": f"Bearer {os.environ[TOKEN]}", "X-Tensors": str(len(rest))}
        try:
            connection.request("POST", "/", line.encode() + b"\n" + rest, headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise UserError(
                    f"{self.name} refuses the call ({answer.status} {answer.reason}); "
                    f"set ${TOKEN} to its secret."
                )
            while (found := answer.readline()) == b"\n":
                pass
            if not found.endswith(b"\n"):
                raise ConnectionError("it ended")
            return found, load(answer.read())
        except TimeoutError as error:
            raise self._silent() from error
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"{self.name} does not answer ({error}); start it, then {AGAIN}."
            ) from error
        finally:
            connection.close()
