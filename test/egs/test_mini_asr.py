"""egs/mini_asr, all nine stages at a fiftieth of its size, in a folder with a space."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import soundfile
from recipe_runs import (
    EGS,
    QUICK,
    check_outputs,
    environment,
    ids,
    modified,
    run,
    run_recipe,
    settings,
)

TESTS = "test_clean test_noisy test_long test_keyword test_nospeech".split()
TINY = QUICK | {
    "sft.schedule.max_steps": 20,
    "sft.ctc_steps": 5,
    "sft.schedule.eval_steps": 20,
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
        assert before == "Fix that, then go on with:"
        assert not (tmp_path / "dump" / "train").exists()
    finally:
        shutil.copy2(whole, path)
    # What it prints can be typed as it stands.
    again = subprocess.run(command, shell=True, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(ids(tmp_path / "dump" / "train" / "text")) == 120


MATRIX = f"""\
config: {EGS / "mini_asr" / "conf" / "grpo.yaml"}
seeds: [1, 2]
baseline: grpo
columns: [test_clean.wer, pooled.wer, pooled.looping, test_keyword.keyword_f1,
    test_nospeech.output, test_nospeech.words_per_minute]
cells:
  grpo: {{}}
  fast: {{merge: [fast.yaml], set: [rl.temperature=0.9]}}
"""


def kill_when_training(driver: subprocess.Popen, exp: Path) -> None:
    """Kills the training of `exp` as soon as it has begun."""
    while not (exp / "inputs.json").exists():
        assert driver.poll() is None, "the table has ended before the training began"
        time.sleep(0.02)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if "audiorl.bin.train_rl" in words and str(exp) in words:
                os.kill(int(process.name), signal.SIGKILL)
                return
    raise AssertionError(f"nothing trains {exp}")


def test_a_table_of_two_rows_and_two_seeds(work: Path, tmp_path: Path) -> None:
    """Through the killing of one run: the others go on, and the next call does what is left."""
    matrix, table = tmp_path / "rows.yaml", work / "exp" / "rows"
    matrix.write_text(MATRIX)
    (tmp_path / "fast.yaml").write_text("rl: {learning_rate: 0.002}\n")
    small = settings(TINY | {"num_threads": 1})
    where = ["--dump", str(work / "dump"), "--exp", str(work / "exp")]
    command = [EGS / "mini_asr" / "run_table.sh", "--stage", "2", "--matrix", str(matrix)]
    command += [*where, "--jobs", "2", *small]

    first = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    kill_when_training(first, table / "grpo" / "seed1")
    shown, errors = first.communicate()
    assert first.returncode == 1
    failed = r"grpo/seed1: audiorl\.bin\.train_rl \(ended by SIGKILL"
    assert re.search(f"^FAILED {failed}", shown, re.MULTILINE)
    assert re.search(f"1 of 6 jobs failed:\n.*{failed}.*\n.*all of it: .*seed1.log", errors)
    assert re.search(r"^grpo \(1 of 2 seeds\)", shown, re.MULTILINE)

    shown = run(*command).stdout
    jobs = ["warm_start", "data/train", *(f"{row}/seed{n}" for n in "12" for row in rows(table))]
    assert len(jobs) == 6
    again = [name for name in jobs if f"{name}: started" in shown]
    assert again == ["grpo/seed1"]
    check_table(work, table)
    for run_of in jobs[2:]:
        for file in ("config.yaml", "run.sh", "metrics.jsonl", "model/model.safetensors"):
            assert (table / run_of / file).stat().st_size > 0

    before = modified(table)
    assert run(*command).stdout.count(": done before") == 6
    assert modified(table) == before


def rows(table: Path) -> list[str]:
    return sorted((p.parent.name for p in table.glob("*/seed1.yaml")), reverse=True)


def check_table(work: Path, table: Path) -> None:
    """RESULTS.md has the means of what scoring has counted, and the differences between rows."""
    assert rows(table) == ["grpo", "fast"]

    def of(result: Path) -> list[float]:
        scored = json.loads(result.read_text())
        sets, silent = scored["sets"], scored["sets"]["test_nospeech"]
        return [
            100 * sets["test_clean"]["wer"]["rate"],
            100 * scored["pooled"]["wer"]["rate"],
            scored["pooled"]["failures"]["looping"],
            100 * sets["test_keyword"]["keywords"]["f1"],
            100 * silent["non_empty_rate"],
            silent["words_per_minute"],
        ]

    results = {"warm_start": [of(work / "exp" / "sft" / "decode_greedy" / "result.json")]}
    for row in rows(table):
        folders = [table / row / f"seed{n}" / "decode_greedy" for n in (1, 2)]
        results[row] = [of(folder / "result.json") for folder in folders]
    means = {
        row: [sum(v) / len(v) for v in zip(*found, strict=True)] for row, found in results.items()
    }
    text = (table / "RESULTS.md").read_text()
    means_shown, differences_shown = (
        text.partition(f"### {title}")[2].partition("###")[0]
        for title in ("Means over seeds", "Differences from grpo")
    )
    for row, values in means.items():
        cells = re.search(rf"^\|{row}\|(.*)\|$", means_shown, re.MULTILINE)[1].split("|")
        assert [float(cell.split()[0]) for cell in cells] == pytest.approx(values, abs=0.051)
        if row != "grpo":
            cells = re.search(rf"^\|{row}\|(.*)\|$", differences_shown, re.MULTILINE)[1]
            expected = [value - base for value, base in zip(values, means["grpo"], strict=True)]
            found = [float(cell.split()[0]) for cell in cells.split("|")]
            assert found == pytest.approx(expected, abs=0.051)
    assert "|fast|train|rl.temperature: 0.6 -> 0.9; rl.learning_rate: 0.0002 -> 0.002|" in text
    assert "</html>" in (table / "report.html").read_text()


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
