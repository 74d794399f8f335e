"""What the judge's keys must fulfil together: where it is said, the reason and the fix."""

from __future__ import annotations

import pytest
import torch

from audiorl.config import Config, load_config
from audiorl.errors import UserError


def load(tmp_path, options: list[str]) -> Config:
    (tmp_path / "c.yaml").write_text("task: tts\n")
    return load_config(tmp_path / "c.yaml", options)


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        (["judge.encoder.output_size=90"], "output_size", "a multiple of the 4 attention heads"),
        (["judge.encoder.linear_units=99"], "linear_units", "e_branchformer halves it; set 100"),
        (["judge.train=dev"], "train", "dev is held out; name a set to learn from"),
        (["judge.train=t", "data.test=[t]"], "train", "t is held out"),
        (["judge.train=r", "data.rl_dev=r"], "train", "r is held out"),
    ],
)
def test_a_broken_rule_is_one_sentence(tmp_path, options, key: str, reason: str) -> None:
    with pytest.raises(UserError) as raised:
        load(tmp_path, options)
    said = str(raised.value)
    assert key in said and reason in said
    assert "\n" not in said


def test_rules_are_the_encoders(tmp_path) -> None:
    """What passes can be built and run."""
    from audiorl.models.judge import Judge, JudgeSettings

    options = [
        "judge.encoder.output_size=12",
        "judge.encoder.linear_units=10",
    ]
    config = load(tmp_path, [*options, "judge.encoder.num_blocks=1"])
    judge = Judge.of(JudgeSettings.of(config), ["ab"], ["ann"]).eval()
    assert len(judge.transcribe([torch.zeros(8000)])) == 1


def test_recognition_has_no_judge(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("judge: {batch_seconds: 5}\n")
    with pytest.raises(UserError, match=r"judge.batch_seconds: is a key of task tts"):
        load_config(tmp_path / "c.yaml")
