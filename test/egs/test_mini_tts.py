"""egs/mini_tts, all nine stages at a small part of its size, with models that learn nothing yet."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from recipe_runs import MOMENTS, SPEAKING, check_speech, modified, run_recipe, settings

TINY = MOMENTS | {
    "data.rl": "train",  # so few sentences have not all letters
    "rl.max_completion_length": 130,
    # All error rates are 1, of which nothing is learnt; how likely a text is differs.
    "rl.rewards": "[{name: wer, unit: char}, {name: likelihood}]",
}


def options(work: Path) -> list[str]:
    return ["--corpus", str(work / "data"), "--scale", "0.04", *settings(TINY)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that ran from the first stage to the last."""
    folder = tmp_path_factory.mktemp("tts")
    done = run_recipe("mini_tts", folder, *options(folder))
    assert re.search(r"^== Stages 1 to 9 done in \d+ s$", done.stdout, re.MULTILINE)
    return folder


def test_everything_is_there(work: Path) -> None:
    check_speech(work, ["test", "test_unusual", "test_hard"], "cer")


def test_each_system_learnt_by_its_own_loss(work: Path) -> None:
    def metrics(system: str) -> dict:
        lines = open(work / "exp" / system / "metrics.jsonl", encoding="utf-8")
        return [row for row in map(json.loads, lines) if "loss" in row][-1]

    assert "reward" in metrics("grpo") and "diffro/loss" not in metrics("grpo")
    assert "diffro/loss" in metrics("diffro") and "diffro/not_positive" not in metrics("diffro")
    assert {"reward", "diffro/kept", "diffro/not_positive"} <= metrics("both").keys()
    assert all(metrics(system)["grad_norm"] > 0 for system in SPEAKING)


def test_a_second_call_does_nothing_twice(work: Path) -> None:
    before = modified(work)
    run_recipe("mini_tts", work, *options(work))
    assert modified(work) == before
