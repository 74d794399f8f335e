"""A Python that has torch and transformers imported already, for tests that start many programs.

Half of a small recipe's processor time is imports: 5 s for each of its dozen programs. Here a
server imports them once, and `program()` is an executable that stands for Python: for a program of
this checkout it asks the server for a fork of itself, with its own arguments, folder, environment
and open files; anything else it leaves to the real Python. Tests of deaths start the real one.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = (
    "audiorl.rl.diffro",
    "audiorl.infer.decode",
    "audiorl.models.families.whisper",
    "audiorl.report.report",
    "audiorl.train.rl",
    "audiorl.train.sft",
    "matplotlib.figure",
    "scipy.signal",
)

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
words = sys.argv[1:]
ours = words[:1] == ["-m"] and words[1].startswith("audiorl.bin.")
other = os.path.isdir("audiorl") and os.getcwd() != {root!r}
other = other or "AUDIORL_PLUGINS" in os.environ  # are read at import
if not ours or other or os.environ["PYTHONPATH"].split(":")[0] != {root!r}:
    os.execv({python!r}, [{python!r}, *words])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
server.sendall(request)
replies = server.makefile()
child = int(replies.readline())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(child, number))
code = int(replies.readline() or 70)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@functools.cache
def program() -> str:
    """Start a server that ends with this process; return the executable that stands for Python."""
    folder = tempfile.TemporaryDirectory(prefix="warm")
    address = f"{folder.name}/socket"
    command = [sys.executable, __file__, address]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT
    )
    if server.stdout.readline() != b"ready\n":
        raise RuntimeError("the server of the tests' Python has not started; it says why above")
    path = Path(folder.name, "python")
    path.write_text(CLIENT.format(python=sys.executable, root=str(ROOT), address=address))
    path.chmod(0o755)
    KEPT.extend([folder, server])
    return str(path)


KEPT: list[object] = []  # as long as this process lives: the pipe to the server stays open


def serve(address: str) -> None:
    """Answer each connection by a fork, until standard input is closed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    for name in IMPORTED:
        __import__(name)
    os.write(1, b"ready\n")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            answer(connection)
        connection.close()
    assert ready


def answer(connection: socket.socket) -> None:
    """Run the program that was asked for in a child; send its pid, then its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    reader = connection.makefile("rb")
    words, folder, environment = json.loads(reader.read(int.from_bytes(size, "big")))
    child = os.fork()
    if child == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        reader.close()
        connection.close()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        become(words)
    connection.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(words: list[str]) -> None:
    """Run `python -m WORDS` in this process, and end as it does."""
    import runpy

    sys.argv, sys.path[0] = list(words), ""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    for number, name in enumerate(("stdout", "stderr"), 1):
        errors, lines = ("strict", False) if number == 1 else ("backslashreplace", True)
        stream = open(number, "w", encoding="utf-8", errors=errors, closefd=False)
        stream.reconfigure(line_buffering=lines or stream.isatty())
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    code = 0
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finish(code)


def finish(code: int) -> None:
    """Do what an interpreter does at its end."""
    import atexit
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
