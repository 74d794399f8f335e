"""egs/mini_tts, all nine stages at a small part of its size, with models that learn nothing yet."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import soundfile
from recipe_runs import ids, modified, run_recipe, settings

SYSTEMS = ("sft", "grpo", "diffro", "both")
TINY = {
    "num_threads": 1,
    "data.rl": "train",  # so few sentences have not all letters
    "codec.max_steps": 4,
    "codec.eval_steps": 4,
    "flow.max_steps": 4,
    "flow.euler_steps": 2,
    "flow.griffin_lim_steps": 2,
    "judge.max_steps": 4,
    "judge.eval_steps": 4,
    "reward_model.max_steps": 4,
    "reward_model.eval_steps": 4,
    "sft.max_steps": 8,
    "sft.eval_steps": 8,
    "rl.max_steps": 2,
    "rl.num_prompts": 2,
    "rl.num_generations": 2,
    "rl.max_completion_length": 130,
    "rl.eval_steps": 2,
    "rl.eval_utterances": 3,
    "score.bootstrap_samples": 200,
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
    exp = work / "exp"
    tests = {name: ids(work / "data" / name / "text") for name in ("test", "test_hard")}
    for system in (*SYSTEMS, "natural", "resynthesis"):
        for name, wanted in tests.items():
            folder = exp / system / "decode_sample" / name
            assert ids(folder / "wav.scp") == wanted
            result = json.loads((folder / "result.json").read_text())
            assert result["utterances"] == len(wanted) and "cer" in result
    for line in open(exp / "both" / "decode_sample" / "test" / "wav.scp"):
        info = soundfile.info(line.split(maxsplit=1)[1].strip())
        assert info.samplerate == 16000 and info.frames > 0
    assert (exp / "both" / "both.zip").stat().st_size > 0
    page = (exp / "both" / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= len(SYSTEMS)
    results = (exp / "both" / "RESULTS.md").read_text(encoding="utf-8")
    assert all(f"|{system}|" in results for system in SYSTEMS)


def test_each_system_learnt_by_its_own_loss(work: Path) -> None:
    def metrics(system: str) -> dict:
        lines = open(work / "exp" / system / "metrics.jsonl", encoding="utf-8")
        return [row for row in map(json.loads, lines) if "loss" in row][-1]

    assert "reward" in metrics("grpo") and "diffro/loss" not in metrics("grpo")
    assert "diffro/loss" in metrics("diffro") and "diffro/not_positive" not in metrics("diffro")
    assert {"reward", "diffro/kept", "diffro/not_positive"} <= metrics("both").keys()
    assert all(metrics(system)["grad_norm"] > 0 for system in ("diffro",))


def test_a_second_call_does_nothing_twice(work: Path) -> None:
    before = modified(work)
    run_recipe("mini_tts", work, *options(work))
    assert modified(work) == before
