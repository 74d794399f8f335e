"""Engines in other processes, by a fake worker that speaks the protocol for real."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import contract
import pytest
import torch
from contract import Case
from deaths import is_running
from test_contract import TEXTS
from tiny import move_adapters, sing, tiny_config, tiny_model

from audiorl.config.lora import LoRAConfig
from audiorl.engines.engine import make_engine
from audiorl.engines.foreign import WORKERS, ForeignEngine
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.models.language_model import Prefix
from audiorl.models.lora import merge_adapters, merged_weights

FAKE = Path(__file__).with_name("fake_worker.py")


class FakeEngine(ForeignEngine):
    name, script = "fake", FAKE


def settings(**keys: object):
    return tiny_config({"rl.engine_python": sys.executable} | keys).rl


@pytest.fixture(scope="module")
def case() -> Case:
    policy = tiny_model(spread=3.0)
    return Case(policy, [torch.from_numpy(sing(text)) for text in TEXTS])


@pytest.fixture(scope="module")
def engine(case: Case) -> Iterator[ForeignEngine]:
    with FakeEngine(case.policy, settings(**{"rl.placement": "alternate"})) as engine:
        yield engine


@pytest.mark.parametrize("check", contract.PLAIN, ids=lambda check: check.__name__)
def test_the_contract_through_the_pipe(engine: ForeignEngine, case: Case, check) -> None:
    engine.is_stale = True
    check(lambda policy: engine, case)


def test_a_sleeping_engine_wakes_with_the_weights_of_then(engine: FakeEngine, case: Case) -> None:
    engine.is_stale = True
    before = contract.sample(engine, case)
    engine.sleep()
    engine.sync()  # nothing is sent to a sleeper
    again = contract.sample(engine, case)
    assert torch.equal(before.tokens, again.tokens) and not engine.is_asleep


def test_adapters_are_sent_merged_and_stay(case: Case) -> None:
    policy = tiny_model(spread=3.0)
    plain = [name for name, _ in policy.llm.named_parameters()]
    policy.adapt(LoRAConfig(rank=2, targets=["llm"]), 0)
    move_adapters(policy, 0.3)
    before = {name: p.clone() for name, p in policy.llm.named_parameters()}
    sent = dict(merged_weights(policy.llm))
    assert list(sent) == plain
    assert all(torch.equal(p, before[name]) for name, p in policy.llm.named_parameters())
    merge_adapters(policy)
    for name, parameter in policy.llm.named_parameters():
        torch.testing.assert_close(sent[name], parameter)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"max_length": 5000}, "fake reads 4096 tokens at most"),
        ({"sampling": Sampling(repetition_window=3)}, "fake has no repetition-aware sampling"),
    ],
)
def test_what_it_cannot_do(engine: ForeignEngine, case: Case, change, sentence: str) -> None:
    options = {"group": 1, "max_length": 3, "sampling": Sampling(greedy=True), **change}
    with pytest.raises(UserError, match=sentence):
        engine.generate(case.prefix(), **options)


def test_prefixes_that_it_cannot_read(engine: ForeignEngine, case: Case) -> None:
    prefix = case.prefix([0])
    options = {"group": 1, "max_length": 3, "sampling": Sampling(greedy=True)}
    odd = Prefix(prefix.embeds, prefix.mask, position_ids=prefix.positions() * 2)
    with pytest.raises(UserError, match="fake counts positions, and a audio_llm does otherwise"):
        engine.generate(odd, **options)
    heard = Prefix(prefix.embeds, prefix.mask, memory=prefix.embeds)
    with pytest.raises(UserError, match="fake cannot continue a decoder with cross attention"):
        engine.generate(heard, **options)


def test_errors_of_the_worker_are_told(engine: ForeignEngine) -> None:
    with pytest.raises(UserError, match="fake could not fly: ValueError: there is no operation"):
        engine.link.call("fly")


def test_an_environment_that_is_missing() -> None:
    with pytest.raises(UserError, match=r"no .*/vllm/bin/python; .* tools/install_engine.sh vllm"):
        make_engine(
            "vllm", tiny_model(), tiny_config({"rl.engine_python": "/x/vllm/bin/python"}).rl
        )


# Answers at once, and then does as its first argument says.
MUTE = """
import json, os, signal, sys, time
for line in sys.stdin:
    if json.loads(line)["op"] == "generate":
        print("out of memory, say", file=sys.stderr, flush=True)
        END
    print(json.dumps({"ok": True, "version": "a mute", "sleeps": False}), flush=True)
"""


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (
            "time.sleep(1000)",
            "fake gave no answer within 1 s and was ended; run the same",
        ),
        ("sys.exit(3)", r"fake ended \(with status 3\) while it was asked to generate; .* Run the"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"fake ended \(by signal 9\) while"),
    ],
)
def test_deaths(case: Case, tmp_path: Path, monkeypatch, end: str, sentence: str) -> None:
    """It hangs, ends itself, is killed: one sentence each, and no process is left."""
    monkeypatch.setattr(FakeEngine, "script", tmp_path / "mute.py")
    FakeEngine.script.write_text(MUTE.replace("END", end))
    engine = FakeEngine(case.policy, settings())
    engine.link.timeout = 1.0
    with pytest.raises(UserError, match=sentence):
        contract.sample(engine, case)
    engine.close()
    assert not is_running(engine.link.pid)


WORKER = f"""
import sys
sys.path.insert(0, {str(WORKERS)!r})
from serving import serve
class Idle:
    public = ()
serve(Idle())
"""
TRAINER = """
import sys, time
import os
from audiorl.runtime.line_server import LineServer
from audiorl.errors import UserError
command = [sys.executable, sys.argv[1], f"--parent={os.getpid()}"]
link = LineServer("idle", command, 60)
try:
    link.call("fly")
except UserError:
    print(link.pid, flush=True)
    time.sleep(1000)
"""


def test_a_killed_trainer_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "idle.py"
    script.write_text(WORKER)
    words = [sys.executable, "-c", TRAINER, str(script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=FAKE.parents[2]) as trainer:
        worker = int(trainer.stdout.readline())
        assert is_running(worker)
        trainer.kill()
    for _ in range(100):
        if not is_running(worker):
            return
        time.sleep(0.05)
    pytest.fail("the worker outlives its trainer")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AUDIORL_ENGINE_TOKEN", "a secret of the tests")
    port = 18000 + os.getpid() % 10000
    words = [sys.executable, str(FAKE), f"--listen=127.0.0.1:{port}"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert "listening" in process.stderr.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_server_is_as_good(server: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(case.policy, settings(**{"rl.engine_url": server}))
    contract.logps_are_those_of_the_update(lambda policy: engine, case, Sampling(temperature=0.7))
    contract.a_greedy_row_follows_each_group(lambda policy: engine, case)
    monkeypatch.setenv("AUDIORL_ENGINE_TOKEN", "another secret than its")
    with pytest.raises(UserError, match=r"refuses the call \(403 Forbidden\); set \$AUDIORL_ENG"):
        contract.sample(engine, case)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("127.0.0.1:80", "is no address; set http://HOST:PORT"),
        ("http://127.0.0.1:9", "does not answer .*refused.*; start it, then run the same command"),
    ],
)
def test_addresses_without_a_server(url: str, sentence: str, monkeypatch) -> None:
    monkeypatch.setenv("AUDIORL_ENGINE_TOKEN", "a secret of the tests")
    with pytest.raises(UserError, match=sentence):
        FakeEngine(tiny_model(), settings(**{"rl.engine_url": url}))


def test_a_server_needs_a_secret(tmp_path: Path) -> None:
    script = tmp_path / "idle.py"
    script.write_text(WORKER)
    env = {name: value for name, value in os.environ.items() if name != "AUDIORL_ENGINE_TOKEN"}
    words = [sys.executable, str(script), "--listen=127.0.0.1:1"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "set AUDIORL_ENGINE_TOKEN to a secret" in done.stderr
