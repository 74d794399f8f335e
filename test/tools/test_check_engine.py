"""tools/check_engine.py: a line for each promise of an engine to a model of the user's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import SIZES, sing, tiny_model

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "test" / "engines")]
import check_engine  # noqa: E402
import contract  # noqa: E402
from test_contract import TEXTS, OneStop  # noqa: E402


def test_the_native_engine(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    tiny_model(spread=3.0).save(tmp_path / "exp" / "model")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"device": SIZES["device"], "num_threads": 1}))
    words = ["check_engine.py", "--config", str(recipe), str(tmp_path / "exp")]
    monkeypatch.setattr(sys, "argv", words)
    assert check_engine.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(contract.PLAIN) + len(contract.SAMPLINGS)
    assert all(line.endswith("PASS") for line in lines)


def test_a_broken_promise(capsys: pytest.CaptureFixture) -> None:
    policy = tiny_model(spread=3.0)
    case = contract.Case(policy, [torch.from_numpy(sing(text)) for text in TEXTS])
    assert check_engine.check(contract, case, OneStop(policy)) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    assert [line.startswith("responses end at any stop id") for line in failed] == [True]


def test_an_engine_that_is_not_installed(tmp_path: Path, monkeypatch, capsys) -> None:
    tiny_model().save(tmp_path / "exp" / "model")
    (tmp_path / "recipe.yaml").write_text("rl: {engine: vllm, engine_python: /x/bin/python}\n")
    words = ["x", "--config", str(tmp_path / "recipe.yaml"), str(tmp_path / "exp")]
    monkeypatch.setattr(sys, "argv", words)
    assert check_engine.main() == 1
    assert "tools/install_engine.sh vllm" in capsys.readouterr().err
