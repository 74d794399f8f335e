"""`score` and `report` as a recipe calls them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_systems import make_systems

from audiorl.bin import cli, report, score
from audiorl.config import dump_config


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cfg = make_systems(tmp_path, utterances=20, seconds=0.05)
    (tmp_path / "c.yaml").write_text(dump_config(cfg))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, command, *arguments: str) -> None:
    options = ["--config", "c.yaml", "--dump", "dump"]
    monkeypatch.setattr(sys, "argv", [command.__name__, *options, *arguments])
    cli.run(command.main)


def test_score(recipe: Path, monkeypatch, capsys) -> None:
    call(monkeypatch, score, "exp/sft", "exp/grpo")
    shown = capsys.readouterr().out
    assert "exp/sft/decode_greedy: scored\nexp/grpo/decode_greedy: scored\n" in shown
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[3].split() == ["dataset", "sft", "grpo", "grpo", "-", "sft"]
    assert any(line.startswith("pooled ") and line.endswith("]*") for line in lines)
    call(monkeypatch, score, "exp/sft", "exp/grpo")
    assert "exp/grpo/decode_greedy: unchanged since it was scored" in capsys.readouterr().out


def test_report(recipe: Path, monkeypatch, capsys) -> None:
    for metrics in recipe.glob("exp/*/metrics.jsonl"):
        metrics.unlink()
    call(monkeypatch, report, "exp/sft", "exp/grpo", "--out", "exp/grpo")
    assert capsys.readouterr().out == "exp/grpo/report.html: written\n"
    command = "python -m audiorl.bin.report --config c.yaml --dump dump exp/sft exp/grpo --out"
    assert command in (recipe / "exp/grpo/RESULTS.md").read_text()
    assert (recipe / "exp/grpo/images/by_length.png").stat().st_size > 1000
    assert (recipe / "exp/sft/decode_greedy/result.json").exists()  # scored on the way
    call(monkeypatch, report, "exp/sft", "exp/grpo", "--out", "exp/grpo")
    assert capsys.readouterr().out == "exp/grpo/report.html: up to date\n"


def test_missing_hypothesis_is_one_sentence(recipe: Path, monkeypatch, capsys) -> None:
    path = recipe / "exp/grpo/decode_greedy/test_noisy/text"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, score, "exp/sft", "exp/grpo")
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: exp/grpo/decode_greedy/test_noisy/text lacks 1 of the 20")
    assert lines[0].split()[0] in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["score", "report"])
def test_help_has_an_example(name: str) -> None:
    command = [sys.executable, "-m", f"audiorl.bin.{name}", "--help"]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert f"example:\n  python -m audiorl.bin.{name} --config" in shown.stdout
