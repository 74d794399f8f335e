"""The worker of SGLang, on a fake of SGLang: the real one needs a GPU, and was not run yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import contract
import pytest
import torch
from contract import Case
from test_contract import TEXTS
from tiny import sing, tiny_config, tiny_model

from audiorl.engines import foreign
from audiorl.engines.engine import make_engine
from audiorl.engines.sampling import Sampling
from audiorl.engines.sglang import SglangEngine
from audiorl.errors import UserError

KEYS = {"rl.engine_python": sys.executable, "rl.placement": "alternate"}
WITHOUT_CUTS = contract.SAMPLINGS[:2]


class FakeSglang(SglangEngine):
    script = Path(__file__).with_name("fake_sglang.py")
    dtypes = (torch.float32,)  # which the fake does not round


@pytest.fixture(scope="module")
def case() -> Case:
    policy = tiny_model(spread=3.0)
    return Case(policy, [torch.from_numpy(sing(text)) for text in TEXTS])


@pytest.fixture(scope="module")
def engine(case: Case) -> Iterator[FakeSglang]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "MOST_POSITIONS", 200)
        with FakeSglang(case.policy, tiny_config(KEYS).rl) as engine:
            yield engine


@pytest.mark.parametrize("check", contract.PLAIN, ids=lambda check: check.__name__)
def test_the_contract(engine: FakeSglang, case: Case, check, monkeypatch) -> None:
    monkeypatch.setattr(contract, "SAMPLINGS", WITHOUT_CUTS)
    engine.sync()
    check(lambda policy: engine, case)


@pytest.mark.parametrize("sampling", WITHOUT_CUTS, ids=str)
def test_logps(engine: FakeSglang, case: Case, sampling: Sampling) -> None:
    engine.sync()
    contract.logps_are_those_of_the_update(lambda policy: engine, case, sampling)


def test_it_sleeps_and_the_longest_responses_fit(engine: FakeSglang, case: Case) -> None:
    engine.sleep()
    assert engine.is_asleep
    rest = engine.longest - int(case.prefix().lengths.max())
    engine.policy.stop_ids, before = (), engine.policy.stop_ids
    try:
        rollout = contract.sample(engine, case, places=[2], group=1, max_length=rest)
    finally:
        engine.policy.stop_ids = before
    assert int(rollout.mask.sum()) == rest


def test_what_it_cannot_do(engine: FakeSglang, case: Case) -> None:
    for cut in (Sampling(top_k=3), Sampling(top_p=0.9)):
        with pytest.raises(UserError, match="sglang gives no log-probabilities of top_k and top_p"):
            contract.sample(engine, case, cut)
    sentence = "sglang reads embeddings in bfloat16 alone; set llm.dtype to it, or native"
    with pytest.raises(UserError, match=sentence):
        make_engine("sglang", case.policy, tiny_config(KEYS).rl)
