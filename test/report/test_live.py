"""A run in the terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiorl.config import Config, dump_config
from audiorl.errors import UserError
from audiorl.report.live import live_view, sparkline, warnings

ROOT = Path(__file__).resolve().parents[2]


def series(**values: list[float]) -> dict:
    return {
        name.replace("__", "/"): (np.arange(len(v)), np.array(v, float))
        for name, v in values.items()
    }


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """A run of RL at step 60 of 150."""
    folder = tmp_path / "exp" / "grpo"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(Config()))
    (folder / "run.sh").write_text("exec python -m audiorl.bin.train_rl --out exp/grpo\n")
    with open(folder / "metrics.jsonl", "w") as stream:
        for step in range(1, 61):
            line = {
                "step": step, "reward": -0.4, "frac_reward_zero_std": 0.8, "entropy": None,
                "completions/mean_length": 9 + step / 10, "timing_s/step": 3.0,
                "timing_s/rollout": 2.1, "timing_s/update": 0.9, "timing_s/sync": 0.001,
                "sampling/sampling_logp_difference/mean": 1e-7,
            }  # fmt: skip
            stream.write(json.dumps(line) + "\n")
            if step % 30 == 0:
                stream.write(json.dumps({"step": step, "eval/wer": 0.5 - step / 1000}) + "\n")
    return folder


def test_numbers_course_phases_and_warnings(exp: Path) -> None:
    steps = Config().rl.max_steps
    shown = live_view(exp, (exp / "metrics.jsonl").stat().st_mtime + 60)
    assert f": step 60 of {steps}, about {(steps - 60) * 3 / 60:.0f} min left" in shown
    rows = {line.split("  ")[0]: line.split() for line in shown.splitlines()}
    assert rows["dev error rate"][-3:] == ["47.0%", "44.0%", "▁█"[::-1]]
    assert rows["length (tokens)"][-3:-1] == ["9.1", "15"]
    assert rows["length (tokens)"][-1][0] == "▁" and rows["length (tokens)"][-1][-1] == "█"
    assert "time: rollout 70%, update 30%\n" in shown
    assert "! reward is flat because 80% of the groups are equal: " in shown
    assert "no line for" not in shown
    later = (exp / "metrics.jsonl").stat().st_mtime + 600
    assert "! no line for 10 minutes" in live_view(exp, later)


def test_the_command_shows_it_once_where_there_is_no_terminal(exp: Path) -> None:
    command = [sys.executable, "-m", "audiorl.bin.watch", str(exp)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{exp}: step 60") and "\x1b" not in done.stdout


def test_a_run_that_has_ended(exp: Path) -> None:
    (exp / "model").mkdir()
    (exp / "model" / "model.safetensors").touch()
    assert ": done, step 60 of " in live_view(exp, 1e12)


def test_a_folder_without_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metrics\.jsonl with numbers"):
        live_view(tmp_path, 0.0)


def test_sparkline() -> None:
    assert sparkline(np.arange(8.0)).rstrip() == "▁▂▃▄▅▆▇█"
    assert sparkline(np.ones(3)).rstrip() == "▁▁▁"
    assert len(sparkline(np.arange(1000.0))) == 40


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (series(completions__clipped_ratio=[0.2]), "20% of the hypotheses are cut"),
        (series(completions__empty_ratio=[0.5]), "50% of the hypotheses are empty"),
        (series(frac_unscorable=[0.03]), "3.0% of the samples are unscorable"),
        (series(reward=[0, 1], eval__wer=[0.2, 0.1, 0.3]), "went from 20.0% to 30.0%"),
        (series(sampling__sampling_logp_difference__mean=[0.1]), "differ by 0.100 nats a token"),
        (series(hacking__flag=[0, 1]), "while the judge's falls"),
        (
            series(reward=np.arange(60), frac_reward_zero_std=[0.9] * 60),
            "the reward rises slowly because 90% of the groups are equal",
        ),
    ],
)
def test_warnings(metrics: dict, said: str) -> None:
    assert [said in line for line in warnings(metrics)] == [True]


def test_a_sound_run_has_none() -> None:
    assert warnings(series(reward=[0, 1], eval__wer=[0.3, 0.2], frac_reward_zero_std=[0.4])) == []
