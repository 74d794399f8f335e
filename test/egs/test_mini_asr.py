"""egs/mini_asr, all nine stages at a fiftieth of its size, in a folder with a space."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile
from recipe_runs import QUICK, check_outputs, environment, ids, modified, run_recipe, settings

TESTS = "test_clean test_noisy test_long test_keyword test_nospeech".split()
TINY = QUICK | {
    "sft.max_steps": 20,
    "sft.ctc_steps": 5,
    "sft.eval_steps": 20,
    "rl.max_completion_length": 24,
    "decode.max_completion_length": 32,
}
DONE = r"complete|nothing to do|up to date|unchanged"


def options(work: Path) -> list[str]:
    return ["--corpus", str(work / "data"), "--scale", "0.02", *settings(TINY)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that ran from the first stage to the last."""
    folder = tmp_path_factory.mktemp("mini") / "a job"
    done = run_recipe("mini_asr", folder, *options(folder))
    assert re.search(r"^== Stages 1 to 9 done in \d+ s$", done.stdout, re.MULTILINE)
    return folder


def test_everything_is_there(work: Path) -> None:
    assert len(ids(work / "data" / "train" / "text")) == 120
    assert len(ids(work / "dump" / "rl" / "text")) == 24
    check_outputs(work, TESTS)
    for system in ("sft", "grpo", "supervised"):
        for name in ("config.yaml", "env.json", "metrics.jsonl", "train.log", "run.sh"):
            assert (work / "exp" / system / name).stat().st_size > 0
        assert any((work / "exp" / system / "tensorboard").iterdir())
    assert (work / "exp" / "grpo" / "completions.jsonl").stat().st_size > 0


def test_a_second_call_does_nothing_twice(work: Path) -> None:
    before = modified(work)
    done = run_recipe("mini_asr", work, *options(work))
    after = modified(work)
    assert {path for path in before if before[path] != after.get(path)} == set()
    assert after.keys() == before.keys()
    stages = re.split(r"^== Stage \d of 9: ", done.stdout, flags=re.MULTILINE)[1:]
    assert len(stages) == 9
    for stage in stages:
        assert re.search(DONE, stage), stage


def test_stage_7_alone(work: Path) -> None:
    folder = work / "exp" / "grpo" / "decode_greedy" / "test_noisy"
    expected = (folder / "result.json").read_bytes()
    for file in ("result.json", "result.txt", "per_utt.tsv"):
        (folder / file).unlink()
    before = modified(work)
    done = run_recipe("mini_asr", work, "--stage", "7", "--stop_stage", "7", *options(work))
    assert re.findall(r"^== Stage (\d) of 9", done.stdout, re.MULTILINE) == ["7"]
    assert (folder / "result.json").read_bytes() == expected
    assert (folder / "per_utt.tsv").exists() and (folder / "result.txt").exists()
    changed = {path for path in before if before[path] != modified(work)[path]}
    assert all("decode_greedy" in path for path in changed)


def test_a_failing_stage_says_where_why_and_how_to_go_on(work: Path, tmp_path: Path) -> None:
    entry = (work / "data" / "train" / "wav.scp").read_text().splitlines()[7]
    name, _, path = entry.partition(" ")
    whole = tmp_path / "whole.wav"
    shutil.copy2(path, whole)
    with open(path, "r+b") as damaged:
        damaged.truncate(soundfile.info(path).frames)  # half of the bytes
    try:
        stages = ["--stage", "2", "--stop_stage", "2"]
        done = run_recipe("mini_asr", tmp_path, *stages, *options(work), expect=1)
        assert "Stage 2 (Validate and format) failed." in done.stderr
        assert name in done.stderr and "truncated" in done.stderr and "fix" in done.stderr
        *_, before, command = done.stderr.splitlines()
        assert before == "Go on with:"
        assert not (tmp_path / "dump" / "train").exists()
    finally:
        shutil.copy2(whole, path)
    # What it prints can be typed as it stands.
    again = subprocess.run(command, shell=True, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(ids(tmp_path / "dump" / "train" / "text")) == 120


def test_mandarin_is_one_option(tmp_path: Path) -> None:
    small = ["--language", "zh", "--scale", "0.005", "--corpus", str(tmp_path / "data")]
    done = run_recipe("mini_asr", tmp_path, "--stop_stage", "2", *small, *settings(TINY))
    assert re.search(r"score\.unit +char", done.stdout)
    text = (tmp_path / "dump" / "test_clean" / "text").read_text(encoding="utf-8")
    assert re.search("[\u4e00-\u9fff]", text)


def test_the_corpus_is_not_mixed_with_another(work: Path, tmp_path: Path) -> None:
    stage = ["--stop_stage", "1", "--language", "zh", "--corpus", str(work / "data")]
    done = run_recipe("mini_asr", tmp_path, *stage, expect=1)
    assert "was made with language en, not zh" in done.stderr
    assert os.path.exists(work / "data" / "train" / "text")
