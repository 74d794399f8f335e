"""A recipe that is killed at random moments leaves what an undisturbed one leaves."""

from __future__ import annotations

from pathlib import Path

from deaths import Trial

TINY = {
    "sft.schedule.max_steps": 6,
    "sft.ctc_steps": 2,
    "sft.schedule.eval_steps": 3,
    "sft.schedule.save_steps": 2,
    "rl.max_steps": 2,
    "rl.eval_steps": 1,
}


def test_kills_of_the_first_five_stages(tmp_path: Path) -> None:
    """Weights and tables to the bit, no stray file, no process; at full size: test/deaths.py."""
    trial = Trial("mini_asr", tmp_path / "work", 5, TINY)
    expected, seconds = trial.undisturbed()
    assert any(name.endswith("grpo/model/model.safetensors") for name in expected)
    assert trial.killed(seconds, kills=4, seed=10) == expected
