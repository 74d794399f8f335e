"""Parts that workers of engines share; calls on a pipe by one trainer, or over HTTP by token.

Workers run in the Python of their engine and import nothing of audiorl. A call is a name, options
(JSON) and tensors (safetensors):

    pipe   stdin   {"op": "generate", "file": F, "out": F, "group": 8, ...}   one line; the tensors
           stdout  {"ok": true, ...}                     one line      lie in these files
    HTTP   POST /  the line without files, then the tensors            answered alike

An answer may follow blank lines, which say that the worker is alive. An error is {"ok": false,
"error": "..."}. Nothing is unpickled; the server takes one call at a time.
"""

from __future__ import annotations

import ctypes
import functools
import hmac
import json
import os
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

TOKEN = "AUDIORL_ENGINE_TOKEN"
BEAT = 5.0  # s between signs of life


class Worker:
    """A language model that continues embeddings, with weights that are sent to it.

    That of an engine defines `start`, which returns the version and whether it can sleep, and
    `sync`, `generate`, `sleep` and `wake`.
    """

    public = ("load", "sync", "generate", "sleep", "wake")
    loaded: tuple | None = None
    facts: dict
    beat: Callable[[], None]  # tells whoever waits that there is progress

    def load(
        self, _: dict, model: dict, dtype: str, max_model_len: int, share: float, sleeps: bool
    ) -> dict:
        """Make ready for the weights of a model, whose config.json is given.

        share: of the device's free memory that may be taken. sleeps: whether it is to be given
        back in `sleep`.
        """
        wanted = (model, dtype, max_model_len)
        if self.loaded is None:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "config.json").write_text(json.dumps(model))
                self.facts = self.start(folder, dtype, max_model_len, share, sleeps)
            self.loaded = wanted
        elif wanted != self.loaded:
            raise ValueError("this server holds another model; start it anew")
        return dict(self.facts)


def padded(rows: list[tuple[list[int], list[float]]]) -> dict[str, Tensor]:
    """Return ids and log-probabilities of responses as tensors [N, R], and their lengths [N]."""
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    logps = torch.zeros(tokens.shape)
    for i, (ids, values) in enumerate(rows):
        tokens[i, : len(ids)] = torch.tensor(ids)
        logps[i, : len(ids)] = torch.tensor(values)
    return {"tokens": tokens, "logps": logps, "lengths": lengths}


class Calls:
    """Calls the methods of a worker that are named in `public`, and writes signs of life."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        worker.beat = self.beat
        self.out: BinaryIO | None = None
        self.last = 0.0

    def beat(self) -> None:
        """Tell whoever waits that there is progress; at most every few seconds."""
        if time.monotonic() - self.last > BEAT:
            self._write(b"\n")

    def answer(self, request: dict, tensors: dict, keep: Callable[[dict], None]) -> None:
        """Do one call and write its answer; `keep` takes the tensors, before or behind it."""
        made = {}
        try:
            operation = request.pop("op")
            if operation not in self.worker.public:
                raise ValueError(f"there is no operation {operation}")
            facts = getattr(self.worker, operation)(tensors, **request) or {}
            made = facts.pop("tensors", {})
            line = {"ok": True, **facts}
        except Exception as error:
            line = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        keep(made)
        self._write(json.dumps(line).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        self.out.write(line)
        self.out.flush()
        self.last = time.monotonic()


def serve(worker: Any) -> None:
    """Answer calls until the pipe ends or, as a server, for ever."""
    parser = ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--parent", type=int, help="process that it ends with (on a pipe)")
    parser.add_argument("--listen", metavar="HOST:PORT", help=f"serve by the token in ${TOKEN}")
    options = parser.parse_args()
    calls = Calls(worker)
    if options.listen:
        _listen(calls, options.listen)
    else:
        _end_with(options.parent)
        _answer_pipe(calls)


def _end_with(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of Linux
    if os.getppid() != parent:
        os._exit(1)


def _answer_pipe(calls: Calls) -> None:
    calls.out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # engines print; the pipe is for answers alone
    for line in sys.stdin:
        request = json.loads(line)
        file, out = request.pop("file", None), request.pop("out")
        tensors = load_file(file) if file else {}
        if file:  # it is memory: nothing large is to outlive a trainer that is killed
            os.unlink(file)
        calls.answer(request, tensors, functools.partial(save_file, filename=out))


def _listen(calls: Calls, address: str) -> None:
    token = os.environ.get(TOKEN, "")
    if len(token) < 16:
        sys.exit(f"error: set {TOKEN} to a secret of at least 16 characters, there and here.")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                self.send_error(403)
                return
            request = json.loads(self.rfile.readline())
            rest = self.rfile.read(int(self.headers["X-Tensors"]))
            self.send_response(200)
            self.end_headers()
            calls.out, made = self.wfile, {}
            calls.answer(request, load(rest), made.update)
            self.wfile.write(save(made))

        def log_message(self, *arguments: Any) -> None:
            pass

    host, _, port = address.rpartition(":")
    server = HTTPServer((host, int(port)), Handler)
    print(f"listening on {host}:{port}", file=sys.stderr, flush=True)
    server.serve_forever()
