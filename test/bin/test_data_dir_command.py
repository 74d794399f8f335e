"""The command line of data directories and of stage 2, as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe's folder, its name with a space, with data/train and data/test of 2 speakers."""
    recipe = tmp_path / "my recipe"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 8000)
    names = [f"{speaker}-{number}" for speaker in ("ann", "bob") for number in range(4)]
    for part in ("train", "test"):
        made = recipe / "data" / part
        made.mkdir(parents=True)
        tables = {"text": "some words", "utt2spk": None, "wav.scp": None}
        for file, value in tables.items():
            with open(made / file, "w", encoding="utf-8") as stream:
                for name in names:
                    other = name[:3] if file == "utt2spk" else f"wav/{name}.flac"
                    stream.write(f"{name} {value or other}\n")
        (made / "spk2utt").write_text(
            "".join(
                f"{s} {' '.join(n for n in names if n.startswith(s))}\n" for s in ("ann", "bob")
            )
        )
    (recipe / "wav").mkdir()
    for name in names:
        soundfile.write(recipe / "wav" / f"{name}.flac", noise, 8000)
    (recipe / "conf.yaml").write_text("data: {train: train, dev: test, test: [test]}\n")
    return recipe


def call(recipe: Path, *command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AUDIORL_PYTHON": sys.executable}
    return subprocess.run(command, cwd=recipe, env=environment, capture_output=True, text=True)


def data_dir(recipe: Path, *arguments: str) -> subprocess.CompletedProcess:
    return call(recipe, sys.executable, "-m", "audiorl.bin.data_dir", *arguments)


def test_validate_and_fix(recipe: Path) -> None:
    done = data_dir(recipe, "validate", "data/train", "data/test", "--nj", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "data/train: valid, 8 utterances, 2 speakers" in done.stdout
    (recipe / "wav" / "bob-3.flac").unlink()
    done = data_dir(recipe, "validate", "data/train", "data/test")
    assert done.returncode == 1
    assert "data/train/wav.scp:8: bob-3: " in done.stdout and "data/test: 1 errors" in done.stdout
    assert done.stderr.startswith("error: data/train, data/test not valid; ")
    assert done.stderr.count("\n") == 1
    assert data_dir(recipe, "validate", "--no-audio", "data/train").returncode == 0
    done = data_dir(recipe, "fix", "data/train")
    assert done.returncode == 0 and "data/train: kept 7 of 8 utterances" in done.stdout
    assert data_dir(recipe, "validate", "data/train").returncode == 0


def test_texts_alone_are_right_if_one_says_so(recipe: Path) -> None:
    (recipe / "data" / "test" / "wav.scp").unlink()
    done = data_dir(recipe, "validate", "data/test")
    assert done.returncode == 1 and "data/test/wav.scp: the file is missing" in done.stdout
    for command, said in (("validate", "valid, 8 utterances"), ("fix", "nothing to fix")):
        done = data_dir(recipe, command, "data/test", "--texts-alone")
        assert done.returncode == 0 and f"data/test: {said}" in done.stdout


def test_subset_split_combine(recipe: Path) -> None:
    done = data_dir(recipe, "subset", "data/train", "data/half", "--random", "4", "--seed", "3")
    assert (done.returncode, done.stdout) == (0, "data/half: kept 4 of 8\n")
    done = data_dir(recipe, "split", "data/train", "2")
    assert done.stdout.splitlines()[1] == "data/train/split2/2: 4 utterances, 1 speakers"
    halves = [f"data/train/split2/{number}" for number in (1, 2)]
    done = data_dir(recipe, "combine", "data/all", *halves)
    assert (done.returncode, done.stdout) == (0, "data/all: 8 utterances, 2 speakers\n")
    for file in ("text", "utt2spk", "spk2utt"):
        same = recipe / "data" / "all" / file, recipe / "data" / "train" / file
        assert same[0].read_text() == same[1].read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["subset", "data/train", "data/x"],
        ["subset", "data/train", "data/x", "--first", "0"],
        ["subset", "data/train", "data/x", "--first", "2", "--shortest", "2"],
        ["split", "data/train", "two"],
        ["validate"],
        ["repair", "data/train"],
    ],
)
def test_wrong_options(recipe: Path, arguments: list[str]) -> None:
    done = data_dir(recipe, *arguments)
    assert done.returncode == 2 and "usage:" in done.stderr
    assert not (recipe / "data" / "x").exists()


@pytest.mark.parametrize("command", ["data_dir", "format_data"])
def test_help_shows_an_example(recipe: Path, command: str) -> None:
    done = call(recipe, sys.executable, "-m", f"audiorl.bin.{command}", "--help")
    assert done.returncode == 0 and f"python -m audiorl.bin.{command} " in done.stdout


def test_disk_that_refuses(recipe: Path) -> None:
    """Where no byte can be written, one sentence, and the older directory stays."""
    subset = f"{sys.executable} -m audiorl.bin.data_dir subset data/train data/part --first"
    assert call(recipe, "bash", "-c", f"{subset} 2").returncode == 0
    done = call(recipe, "bash", "-c", f"ulimit -f 0; {subset} 4")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "cannot be written (File too large)" in done.stderr
    assert len((recipe / "data" / "part" / "text").read_text().splitlines()) == 2
    assert call(recipe, "bash", "-c", f"{subset} 4").returncode == 0
    assert sorted(path.name for path in (recipe / "data").iterdir()) == ["part", "test", "train"]


def test_shell_front_ends(recipe: Path) -> None:
    done = call(recipe, str(ROOT / "utils" / "validate_data_dir.sh"), "data/train", "--no-audio")
    assert (done.returncode, done.stderr) == (0, "") and "data/train: valid" in done.stdout
    (recipe / "wav" / "bob-3.flac").write_bytes(b"")
    done = call(recipe, str(ROOT / "utils" / "fix_data_dir.sh"), "data/train")
    assert done.returncode == 0 and "kept 7 of 8" in done.stdout
    assert call(recipe, str(ROOT / "utils" / "validate_data_dir.sh"), "none").returncode == 1


def test_format_data(recipe: Path) -> None:
    command = [sys.executable, "-m", "audiorl.bin.format_data", "--config", "conf.yaml"]
    done = call(recipe, *command, "--set", "data.max_duration=2", "--nj", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "dump/train: kept 8 of 8" in done.stdout
    assert "8 of 8 recordings are at 8000 Hz" in done.stdout
    first = (recipe / "dump" / "train" / "wav.scp").read_text().splitlines()[0]
    assert first == f"ann-0 {recipe}/wav/ann-0.flac"
    again = call(recipe, *command, "--set", "data.max_duration=2")
    assert again.stdout.startswith("dump/train: up to date.\n")
    (recipe / "wav" / "bob-3.flac").write_bytes(b"")
    done = call(recipe, *command)
    assert done.returncode == 1 and done.stderr.startswith("error: 2 of 2 sets are not valid")
    assert "Traceback" not in done.stderr
