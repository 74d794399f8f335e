"""The contract with real vLLM, and its defects that the worker goes round."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import contract
import pytest
import tiny_families
import torch
from contract import Case
from real_vllm import PYTHON, SETTINGS, WIDE, needs_vllm
from test_contract import TEXTS, untie
from tiny import move_adapters, sing, tiny_config, tiny_model, write_set
from tiny_speech import tiny_speech_lm

from audiorl.config.lora import LoRAConfig
from audiorl.engines.engine import make_engine
from audiorl.engines.foreign import WORKERS
from audiorl.engines.vllm import VllmEngine
from audiorl.errors import UserError
from audiorl.models.policy import Policy
from audiorl.rl.mismatch import FIRST_LIMIT

pytestmark = needs_vllm
FAMILIES = ("granite_speech", "qwen2_audio")


def waves() -> list[torch.Tensor]:
    return [torch.from_numpy(sing(text)) for text in TEXTS]


def start(policy: Policy, **keys: object) -> VllmEngine:
    return make_engine("vllm", policy, tiny_config(SETTINGS | keys).rl)


@pytest.fixture(
    scope="module", params=["audio LLM", "speech LM", "qwen3", "qwen3, untied", *FAMILIES]
)
def promised(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:
    """An engine, and the case that it samples."""
    if request.param == "speech LM":
        texts = write_set(tmp_path_factory.mktemp("texts") / "test", TEXTS)
        case = Case(tiny_speech_lm(WIDE, spread=3.0), texts)
    elif request.param in FAMILIES:
        folder = tmp_path_factory.mktemp("family")
        sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
        with pytest.MonkeyPatch.context() as patch:
            for name, size in sizes.items():
                patch.setitem(tiny_families.LM, name, size)
            tiny_families.save_family(request.param, folder)
        case = Case(tiny_families.load_family(folder), waves())
    else:
        architecture = {"llm.architecture": "qwen3"} if "qwen3" in request.param else {}
        policy = tiny_model({**WIDE, **architecture}, spread=3.0)
        case = Case(untie(policy) if "untied" in request.param else policy, waves())
    with start(case.policy) as engine:
        yield engine, case


@pytest.mark.parametrize("sampling", contract.SAMPLINGS, ids=str)
def test_logps(promised: tuple, sampling) -> None:
    engine, case = promised
    contract.logps_are_those_of_the_update(lambda policy: engine, case, sampling)


@pytest.mark.parametrize("check", contract.PLAIN, ids=lambda check: check.__name__)
def test_contract(promised: tuple, check) -> None:
    engine, case = promised
    engine.sync()
    check(lambda policy: engine, case)


def other_worker(folder: Path, monkeypatch, *changes: tuple[str, str]) -> None:
    """Let engines from now on run a worker whose text is changed."""
    text = VllmEngine.script.read_text()
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    shutil.copy(WORKERS / "serving.py", folder)
    (folder / "vllm_worker.py").write_text(text)
    monkeypatch.setattr(VllmEngine, "script", folder / "vllm_worker.py")


REPACK = "        self.llm.apply_model(_repack_tied_head)\n"
DROP = "        self.drop_prefixes()\n"
RELOAD = """        self.llm.collective_rpc(
            "reload_weights", kwargs={"weights_iterator": iter(weights.items())}
        )
"""
CUT = '            options["enable_chunked_prefill"] = False\n'


def test_a_tied_head_stays_old_unless_it_is_packed_again(tmp_path: Path, monkeypatch) -> None:
    other_worker(tmp_path, monkeypatch, (REPACK, ""))
    case = Case(tiny_model(WIDE, spread=3.0), waves())
    with start(case.policy) as engine, pytest.raises(AssertionError):
        contract.sync_takes_all_weights(lambda policy: engine, case)


def test_prefixes_of_former_weights_are_used_unless_dropped(tmp_path: Path, monkeypatch) -> None:
    other_worker(tmp_path, monkeypatch, (DROP, ""))
    policy = tiny_model(WIDE, spread=3.0)
    case = Case(policy, [torch.from_numpy(sing(" ".join(["ba do ki"] * 60)))] * 3)
    with start(policy) as engine:
        prefix = case.prefix()
        assert int(prefix.lengths.min()) > 128  # a block of the cache, at least
        monkeypatch.setattr(case, "prefix", lambda places=None: prefix)
        contract.sample(engine, case)
        with torch.no_grad():
            for parameter in policy.llm.model.layers.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        engine.sync()
        rollout = contract.sample(engine, case)
        gap = (rollout.logps - contract.update_logps(case, rollout, contract.SAMPLINGS[0])).abs()
        assert gap.max() > 0.1


def test_load_weights_does_not_know_packed_weights(tmp_path: Path, monkeypatch) -> None:
    plain = "        self.llm.apply_model(lambda model: model.load_weights(weights.items()))\n"
    other_worker(tmp_path, monkeypatch, (RELOAD, plain))
    case = Case(tiny_model(WIDE, spread=3.0), waves())
    with start(case.policy) as engine, pytest.raises((UserError, AssertionError)):
        contract.logps_are_those_of_the_update(lambda policy: engine, case, contract.SAMPLINGS[0])


def test_a_seed_and_a_prefix_in_pieces_end_the_engine(tmp_path: Path, monkeypatch) -> None:
    small = ("max(LEAST_BATCH, max_model_len)", "128")
    other_worker(tmp_path, monkeypatch, (CUT, ""), small)
    case = Case(tiny_model(WIDE, spread=3.0), [torch.from_numpy(sing(" ".join(["ba"] * 300)))] * 3)
    with start(case.policy) as engine, pytest.raises(UserError):
        contract.sample(engine, case)


def test_sleep_is_a_capability_to_ask_for(tmp_path: Path) -> None:
    case = Case(tiny_model(WIDE, spread=3.0), waves())
    with start(case.policy, **{"rl.placement": "alternate"}) as engine:
        before = contract.sample(engine, case)
        engine.sleep()
        assert engine.is_asleep == engine.can_sleep == torch.cuda.is_available()
        assert torch.equal(contract.sample(engine, case).tokens, before.tokens)


def test_adapters_arrive_merged(tmp_path: Path) -> None:
    policy = tiny_model(WIDE, spread=3.0)
    policy.adapt(LoRAConfig(rank=2, targets=["llm"]), 0)
    case = Case(policy, waves())
    with start(policy) as engine:
        for _ in range(2):
            move_adapters(policy, 0.2)
            apart = {name: p.clone() for name, p in policy.llm.named_parameters()}
            engine.sync()
            contract.logps_are_those_of_the_update(
                lambda policy: engine, case, contract.SAMPLINGS[0]
            )
            assert all(torch.equal(p, apart[name]) for name, p in policy.llm.named_parameters())


def test_bfloat16_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it differs by is rounding; and one sentence when the server is gone."""
    monkeypatch.setenv("AUDIORL_ENGINE_TOKEN", "a secret of the tests")
    port = 19000 + os.getpid() % 10000
    words = [PYTHON, "-E", str(VllmEngine.script), f"--listen=127.0.0.1:{port}"]
    policy = tiny_model({**WIDE, "llm.dtype": "bfloat16"})
    case = Case(policy, waves())
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert any("listening" in line for line in server.stderr)
            engine = start(policy, **{"rl.engine_url": f"http://127.0.0.1:{port}"})
            rollout = contract.sample(engine, case)
            scored = contract.update_logps(case, rollout, contract.SAMPLINGS[0])
            gap = (scored - rollout.logps).abs()[rollout.mask].mean()
            assert 0 < gap < FIRST_LIMIT / 4
        finally:
            server.kill()
        server.wait()
        with pytest.raises(UserError, match=r"vllm at http.* does not answer .*; start it, then"):
            contract.sample(engine, case)


def test_a_killed_engine(tmp_path: Path) -> None:
    case = Case(tiny_model(WIDE), waves())
    with start(case.policy) as engine:
        contract.sample(engine, case)
        os.kill(engine.link.pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"vllm ended \(by signal 9\) .* Run the same command"):
            contract.sample(engine, case)
