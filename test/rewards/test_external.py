"""Rewards of users: a Python file, and a real server on this machine."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiorl.config.decoding import ScoreConfig
from audiorl.config.rewards import reward_options
from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.rewards import Context, Sample, build_reward, build_rewards, http
from audiorl.rewards.core.workers import open_rewards
from audiorl.rl.collect import refuse_failed_rewards

MINE = """
from dataclasses import dataclass

@dataclass
class Rule:
    weight: float

def reward(samples):
    rule = Rule(2.0)
    return [None if not s.text else rule.weight * len(s.text) / s.utterance.duration
            for s in samples]
"""


def samples(count: int = 3) -> list[Sample]:
    utterance = Utterance("u1", "", "a b", "s", duration=2.0, keywords=("b",), tags={"snr": "5"})
    return [Sample(utterance, "x" * n, n < 2) for n in range(count)]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Writes local/mine.py in the current folder and makes it the reward."""
    monkeypatch.chdir(tmp_path)

    def make(text: str, **options) -> Config:
        Path("local").mkdir(exist_ok=True)
        Path("local/mine.py").write_text(text)
        config = Config()
        config.rl.rewards = [reward_options("file", reward_file="local/mine.py", **options)]
        return config

    return make


def test_a_users_file(mine: Callable) -> None:
    scores = build_rewards(mine(MINE))(samples())
    assert math.isnan(scores.total[0]) and scores.total[1:] == [1.0, 2.0]
    assert list(scores.parts) == ["file"]


def test_a_users_file_may_be_a_gate_or_see_groups(mine: Callable) -> None:
    text = "def reward(samples):\n    return [-float(len(samples))] * len(samples)\n"
    assert build_rewards(mine(text, kind="gate"))(samples(2)).total == [-2.0, -2.0]
    other = Sample(Utterance("u2", "", "", "s"), "", True)
    config = mine(text, kind="group", label="mine")
    assert build_rewards(config)([*samples(2), other]).parts["mine"] == [-2.0, -2.0, -1.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def reword(samples): pass", "local/mine.py has no function reward(samples); add one"),
        ("reward = 3", "local/mine.py has no function reward(samples); add one"),
        ("import no_such_module", "(ModuleNotFoundError: No module named 'no_such_module'); fix"),
        ("def reward(", "local/mine.py cannot be loaded (SyntaxError: "),
        ("1 / 0", "local/mine.py cannot be loaded (ZeroDivisionError: division by zero); fix it."),
        ("import sys; sys.exit()", "local/mine.py cannot be loaded (SystemExit: SystemExit); fix"),
        ("exit(3)", "local/mine.py cannot be loaded (SystemExit: 3); fix it."),
        ("import os; os._exit(0)", "the reward local/mine.py ended (by itself, with status 0)"),
        ("import time; time.sleep(9)", "the reward local/mine.py took more than 0.5 s; fix it, or"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(mine: Callable, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        build_rewards(mine(text, timeout=0.5 if "sleep" in text else 600))
    assert sentence in str(refusal.value)


def test_a_missing_file_is_refused() -> None:
    config = Config()
    config.rl.rewards = [reward_options("file", reward_file="gone.py")]
    with pytest.raises(UserError, match=r"gone\.py does not exist; fix reward_file"):
        build_rewards(config)


def test_wrong_answers_of_a_users_file(mine: Callable, caplog) -> None:
    short = build_rewards(mine("def reward(samples):\n    return [1.0]\n"))
    with pytest.raises(UserError, match="returned 1 values for 3 samples; return a number or None"):
        short(samples())
    broken = build_rewards(mine("def reward(samples):\n    return samples[0].nothing\n"))
    assert all(map(math.isnan, broken(samples()).total))
    assert "has no attribute 'nothing'" in caplog.text


@pytest.mark.parametrize(
    "values",
    ["{i: 1.0 for i in range(3)}", "'123'", "['1', '2', '3']", "{1.0, 2.0, 3.0}"],
)
def test_what_looks_like_numbers_is_none(mine: Callable, values: str) -> None:
    scores = build_rewards(mine(f"def reward(samples):\n    return {values}\n"))(samples())
    assert all(map(math.isnan, scores.total)) and "TypeError" in scores.failed[0]


def test_a_users_file_cannot_end_the_run(mine: Callable, caplog) -> None:
    text = """
import sys

def reward(samples):
    if any(s.text == "x" for s in samples):
        sys.exit(3)
    return [1.0] * len(samples)
"""
    total = build_rewards(mine(text))(samples()).total
    assert math.isnan(total[1]) and total[::2] == [1.0, 1.0]
    assert "RuntimeError: it calls exit(3)" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("os._exit(0)", "the reward local/mine.py ended (by itself, with status 0); run the same"),
        ("os.abort()", "the reward local/mine.py ended (by signal 6)"),
        ("os.kill(os.getpid(), 9)", "ended (it was killed, for want of memory as a rule)"),
        ("re.match('(a*)*b', 'a' * 60)", "the reward local/mine.py took more than 0.5 s; fix it"),
        ("time.sleep(60)", "the reward local/mine.py took more than 0.5 s; fix it, or raise its"),
    ],
)
def test_a_users_file_cannot_end_or_block_the_run(
    mine: Callable, code: str, sentence: str, workers: int
) -> None:
    limit = 0.5 if "more than" in sentence else 600
    config = mine(f"import os, re, time\ndef reward(samples):\n    {code}\n", timeout=limit)
    config.rl.reward_workers = workers
    with pytest.raises(UserError) as refusal, open_rewards(config) as rewards:
        rewards.submit(samples())()
    assert sentence in str(refusal.value)


NONE = [pytest.approx(math.nan, nan_ok=True)] * 3


class Server:
    """A server whose answers are given; `requests` are the bodies it was sent."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.answers: list[Callable[[dict], tuple[int, bytes]]] = []  # the last one goes on
        self.headers: dict[str, str] = {}
        self.drip = 0.0  # s after each byte of an answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append(json.loads(body))
                number = min(len(outer.requests), len(outer.answers)) - 1
                status, answer = outer.answers[number](outer.requests[-1])
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                outer.seen = self.headers
                with contextlib.suppress(OSError):  # nobody waits any longer
                    for part in (
                        [answer] if isinstance(answer, bytes) and not outer.drip else answer
                    ):
                        self.wfile.write(bytes([part]) if isinstance(part, int) else part)
                        time.sleep(outer.drip)

            def log_message(self, *args) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/score"

    def score(self, count: int = 3, **options) -> list[float | None]:
        config = reward_options("http", url=self.url, **options)
        return build_reward(config, Context(ScoreConfig())).function(samples(count))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    made = Server()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def lengths(request: dict) -> tuple[int, bytes]:
    values = [len(s["hypothesis"]) or None for s in request["samples"]]
    return 200, json.dumps({"rewards": values}).encode()


def says(answer: str, status: int = 200) -> Callable:
    return lambda request: (status, answer.encode())


def test_a_server_is_sent_batches(server: Server) -> None:
    server.answers = [lengths]
    assert server.score(5, batch_size=2) == [None, 1, 2, 3, 4]
    assert [len(request["samples"]) for request in server.requests] == [2, 2, 1]
    assert server.requests[0]["samples"][1] == {
        "id": "u1",
        "reference": "a b",
        "hypothesis": "x",
        "finished": True,
        "duration": 2.0,
        "keywords": ["b"],
        "tags": {"snr": "5"},
        "tokens": [],
    }


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says("oops", 500), "HTTP Error 500"),
        (says("not JSON"), "Expecting value"),
        (says("[1, 2, 3]"), "no list `rewards` of 3 values"),
        (says('{"rewards": [1, 2]}'), "no list `rewards` of 3 values"),
        (says('{"rewards": [1, 2, "3"]}'), "`rewards` holds '3', which is neither a number nor"),
        (says('{"rewards": [1, 2, true]}'), "`rewards` holds True"),
        (says("[" * 100_000), "recursion"),
    ],
)
def test_what_fails_is_tried_again_and_then_unscorable(server, caplog, answer, reason) -> None:
    server.answers = [answer, answer, lengths]
    assert server.score() == [None, 1, 2]  # the third attempt
    server.requests.clear()
    with caplog.at_level(logging.WARNING):
        assert server.score(retries=1) == NONE
    assert len(server.requests) == 2
    assert "no rewards for 3 samples" in caplog.text and reason in caplog.text


def test_one_failed_batch_leaves_the_others(server: Server) -> None:
    server.answers = [lengths, says("", 503), lengths]
    assert server.score(6, batch_size=2, retries=0) == [None, 1, *NONE[:2], 4, 5]


def test_a_server_that_does_not_answer_in_time(server: Server, caplog) -> None:
    server.answers = [lambda request: (time.sleep(0.5), lengths(request))[1]]
    start = time.perf_counter()
    assert server.score(timeout=0.05, retries=0) == NONE
    assert time.perf_counter() - start < 0.4
    assert "timed out" in caplog.text


def test_a_server_that_drips_does_not_answer_in_time_either(server: Server, caplog) -> None:
    server.answers, server.drip = [lengths], 0.05
    start = time.perf_counter()
    assert server.score(timeout=0.2, retries=0) == NONE
    assert time.perf_counter() - start < 0.8  # the whole answer takes more than one second
    assert "timed out, no whole answer in 0.2 s" in caplog.text


@pytest.mark.parametrize(("status", "requests"), [(400, 1), (404, 1), (408, 3), (429, 3), (503, 3)])
def test_a_wrong_request_is_not_sent_again(server, caplog, status: int, requests: int) -> None:
    server.answers = [says("", status)]
    assert server.score() == NONE
    assert len(server.requests) == requests
    assert f"HTTP Error {status}" in caplog.text


def test_no_server_at_all(server: Server, caplog) -> None:
    server.url = "http://127.0.0.1:9/score"
    assert server.score(retries=1) == NONE
    assert "Connection refused" in caplog.text


def test_the_reason_of_a_server_reaches_the_end(server: Server) -> None:
    server.answers = [says("", 503)]
    config = Config()
    config.rl.rewards = [reward_options("http", url=server.url, retries=0)]
    failed = build_rewards(config)(samples()).failed
    assert failed == ["http (HTTP Error 503: Service Unavailable)"] * 3
    with pytest.raises(UserError, match=r"fix reward http \(HTTP Error 503: Service Unavailable\)"):
        refuse_failed_rewards("step 1", failed, 0.5)


def test_an_answer_that_never_ends_is_not_read_to_its_end(server: Server, caplog) -> None:
    sent = []

    def flood(request: dict) -> tuple[int, Iterator[bytes]]:
        return 200, (sent.append(1) or bytes(1 << 20) for _ in range(100))

    server.answers = [flood]
    assert server.score(retries=0) == NONE
    assert "the answer is larger than 1051648 bytes" in caplog.text
    assert len(sent) < 20


def test_nothing_is_read_after_the_timeout(server: Server) -> None:
    """A server that goes on sending finds nobody who listens."""
    stopped = threading.Event()

    def drip(request: dict) -> tuple[int, Iterator[bytes]]:
        def parts() -> Iterator[bytes]:
            try:
                while True:
                    time.sleep(0.02)
                    yield b" " * 999
            finally:
                stopped.set()

        return 200, parts()

    server.answers = [drip]
    assert server.score(timeout=0.1, retries=0) == NONE
    assert stopped.wait(10)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_samples_go_to_no_other_address(server: Server, caplog, status: int) -> None:
    server.answers = [says("", status)]
    server.headers = {"Location": "http://127.0.0.1:9/elsewhere"}
    assert server.score(retries=0) == NONE
    assert f"HTTP Error {status}" in caplog.text
    assert "leads to http://127.0.0.1:9/elsewhere; name that in url" in caplog.text
    assert len(server.requests) == 1


def test_a_reason_is_short(server: Server, caplog) -> None:
    server.answers = [says(json.dumps({"rewards": ["x" * 10**6, 1, 2]}))]
    assert server.score(retries=0) == NONE
    assert len(caplog.text) < 500


def test_credentials_come_from_the_environment(server: Server, monkeypatch) -> None:
    server.answers = [lengths]
    for value in (None, "", "Bearer hidden\n", "hiddenü"):
        monkeypatch.delenv("MY_TOKEN", raising=False)
        if value is not None:
            monkeypatch.setenv("MY_TOKEN", value)
        with pytest.raises(UserError, match=r"MY_TOKEN is not set to one line .*; export") as no:
            server.score(authorization="MY_TOKEN")
        assert "hidden" not in str(no.value)
    monkeypatch.setenv("MY_TOKEN", "Bearer hidden")
    assert server.score(authorization="MY_TOKEN") == [None, 1, 2]
    assert server.seen["Authorization"] == "Bearer hidden"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"url": "http://jane:hidden@h/score"}, "url holds a password"),
        ({"url": "https://hidden@h/score"}, "url holds a password"),
        ({"url": "https://h/score?api_key=hidden"}, "url holds a password"),
        ({"url": "https://h/?x=1&access_token=hidden"}, "url holds a password"),
        ({"url": "https://h/", "authorization": "Bearer hidden"}, "the name of an environment"),
    ],
)
def test_credentials_in_a_config_are_refused(options: dict, sentence: str) -> None:
    (problem,) = reward_options("http", **options).problems()
    assert sentence in problem and "hidden" not in problem


def recordings(tmp_path: Path) -> list[Sample]:
    """Hypotheses of two recordings of 0.1 s at 8 kHz; the first is louder."""
    found = []
    for name, level in (("u1", 0.5), ("u2", 0.25)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.full(800, level), 8000, subtype="PCM_16")
        utterance = Utterance(name, str(path), "a", "s", duration=0.1)
        found += [Sample(utterance, text, True) for text in ("a", "b")]
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_file_has_the_recording(mine: Callable, tmp_path: Path, workers: int) -> None:
    text = """
def reward(samples):
    assert all(s.sample_rate == 8000 and len(s.wave) == 800 for s in samples)
    return [float(s.wave.max()) for s in samples]
"""
    config = mine(text, waves=True)
    config.data.sample_rate, config.rl.reward_workers = 8000, workers
    with open_rewards(config) as rewards:
        assert rewards.submit(recordings(tmp_path))().total == [0.5, 0.5, 0.25, 0.25]


def test_a_server_has_the_recording(server: Server, tmp_path: Path) -> None:
    def loudness(request: dict) -> tuple[int, bytes]:
        files = [io.BytesIO(base64.b64decode(s["wave"])) for s in request["samples"]]
        assert all(soundfile.info(file).subtype == "PCM_16" for file in files)
        waves = [soundfile.read(file.seek(0) or file) for file in files]
        assert all(len(wave) == 800 and rate == 8000 for wave, rate in waves)
        return says(json.dumps({"rewards": [wave.max() for wave, _ in waves]}))(request)

    server.answers = [loudness]
    config = Config()
    config.data.sample_rate = 8000
    config.rl.rewards = [reward_options("http", url=server.url, waves=True)]
    assert build_rewards(config)(recordings(tmp_path)).total == [0.5, 0.5, 0.25, 0.25]


def test_a_server_has_the_spoken_wave(server: Server) -> None:
    server.answers = [lambda request: says('{"rewards": [1, 0]}')(request)]
    utterance = Utterance("u1", "", "a", "s")
    spoken = Sample(utterance, "a", True, (1,), torch.linspace(-1, 2, 7), 24000)
    options = reward_options("http", url=server.url, waves=True)
    reward = build_reward(options, Context(ScoreConfig()))
    assert reward.function([spoken, Sample(utterance, "", True)]) == [1, 0]
    sent, none = (sample["wave"] for sample in server.requests[0]["samples"])
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sent)))
    assert rate == 24000 and none is None
    assert wave == pytest.approx([-1, -0.5, 0, 0.5, 1, 1, 1], abs=1e-4)


def test_numbers_that_are_none_are_unscorable(server: Server) -> None:
    server.answers = [says('{"rewards": [NaN, 1e999, 0.5]}')]
    config = Config()
    config.rl.rewards = [reward_options("http", url=server.url)]
    total = build_rewards(config)(samples()).total
    assert math.isnan(total[0]) and math.isnan(total[1]) and total[2] == 0.5
