"""A program that is asked line by line: its answers, and how its silence or death is told."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from audiorl.errors import UserError
from audiorl.runtime.line_server import LineServer

SERVER = """
import json, sys, time
from safetensors.torch import load_file, save_file
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "double":
        save_file({n: 2 * t for n, t in load_file(request["file"]).items()}, request["out"])
        answer = {"ok": True, "by": 2}
    elif request["op"] == "work":
        for _ in range(3):
            time.sleep(0.2)
            print(flush=True)  # it is alive
        answer = {"ok": True}
    elif request["op"] == "hang":
        time.sleep(60)
    elif request["op"] == "die":
        sys.exit(7)
    elif request["op"] == "chat":
        print("Loading ...", flush=True)
        continue
    else:
        answer = {"ok": False, "error": "no such thing"}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def server(tmp_path: Path) -> LineServer:
    path = tmp_path / "server.py"
    path.write_text(textwrap.dedent(SERVER))
    made = LineServer("the fake", [sys.executable, str(path)], timeout=20.0)
    yield made
    made.close()


def test_signs_of_life_prolong_the_wait(server: LineServer) -> None:
    server.call("double", {})  # it has started
    server.timeout = 0.5
    server.call("work")


def test_tensors_go_there_and_come_back(server: LineServer) -> None:
    given = {"a": torch.arange(6).view(2, 3).t(), "b": torch.tensor([0.5])}
    given["c"] = given["b"]  # the same memory
    for _ in range(2):
        answer, found = server.call("double", given)
        assert answer["by"] == 2
        assert torch.equal(found["a"], 2 * given["a"]) and torch.equal(found["b"], 2 * given["b"])
    with pytest.raises(UserError, match=r"^the fake could not fly: no such thing; fix it there"):
        server.call("fly")
    assert server.call("double", given)[0]["ok"]


def test_its_end_is_told(server: LineServer) -> None:
    with pytest.raises(UserError, match=r"^the fake ended \(with status 7\) while it was asked to"):
        server.call("die")


def test_one_that_is_killed_is_told(server: LineServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^the fake ended \(by signal 9\)"):
        server.call("double", {})


def test_one_that_hangs_is_ended(server: LineServer) -> None:
    assert server.call("double", {"a": torch.ones(1)})[0]["ok"]
    server.timeout = 0.2
    with pytest.raises(UserError, match=r"^the fake gave no answer within 0.2 s and was ended"):
        server.call("hang")
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_chatter_is_no_answer(server: LineServer) -> None:
    with pytest.raises(UserError, match=r"^the fake wrote `Loading ...` where an answer in JSON"):
        server.call("chat")


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"^x cannot be started: /nowhere/python: .*; fix the comm"):
        LineServer("x", ["/nowhere/python"], timeout=1.0)
