"""egs/TEMPLATE: what its preparation accepts, and a copy of it that runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_runs import EGS, ROOT, SMALL, ids, run, settings

from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate

DATA_SH = EGS / "TEMPLATE" / "local" / "data.sh"


def write_audio(path: Path, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(len(path.name)).standard_normal(round(16000 * seconds))
    soundfile.write(path, samples, 16000)


def write_pair(folder: Path, name: str, text: str, suffix: str = ".wav") -> None:
    write_audio(folder / f"{name}{suffix}")
    (folder / f"{name}.txt").write_text(f"{text}\n", encoding="utf-8")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Folders of speakers, a folder without them, and a list."""
    made = tmp_path / "my corpus"
    for speaker in ("anna", "bob b"):
        for number in range(12):
            write_pair(made / "train" / speaker, f"take {number:02}", f"sentence {number}")
    for number in range(3):
        write_pair(made / "dev", f"d{number}", "hello", suffix=".flac")
        write_audio(made / "recordings" / f"t{number}.wav")
    (made / "test.tsv").write_text(
        "recordings/t0.wav\tone\tcarl\nrecordings/t1.wav\ttwo\tcarl\nrecordings/t2.wav\tthree\n"
    )
    return made


def test_folders_and_lists(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(DATA_SH, "--corpus", corpus, "--out", data)
    train, dev, test = (read_utterances(data / name) for name in ("train", "dev", "test"))
    assert len(train) == 24
    assert (train[0].id, train[0].speaker, train[0].text) == ("anna-take_00", "anna", "sentence 0")
    assert (train[-1].id, train[-1].speaker) == ("bob_b-take_11", "bob_b")
    assert [(u.id, u.speaker) for u in dev] == [("d0", "d0"), ("d1", "d1"), ("d2", "d2")]
    assert [(u.id, u.speaker, u.text) for u in test] == [
        ("carl-t0", "carl", "one"),
        ("carl-t1", "carl", "two"),
        ("t2", "t2", "three"),
    ]
    for name in ("train", "dev", "test"):
        assert not [p for p in validate(data / name, Checks(sample_rate=16000)) if not p.warning]


def test_missing_sets_and_partners(corpus: Path, tmp_path: Path) -> None:
    shutil.rmtree(corpus / "dev")
    (corpus / "test.tsv").unlink()
    (corpus / "train" / "anna" / "take 00.wav").rename(corpus / "train" / "anna" / "take 00.m4a")
    (corpus / "train" / "anna" / "take 01.txt").unlink()
    (corpus / "train" / "anna" / "take 02.txt").write_text("\n")
    (corpus / "train" / "anna" / "._take 03.wav").touch()
    said = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data").stdout
    assert "train: 1 recordings without a transcript left out: anna-take_01" in said
    assert "train: 1 files are no .txt and no audio that is read: .m4a" in said
    assert "train: 1 transcripts without audio left out: anna-take_00" in said
    assert "train: 1 empty transcripts left out: anna-take_02" in said
    assert "train: kept 21 of 24 utterances" in said
    assert "NOT OFFICIAL: dev 2, test 1 utterances." in said
    sets = [ids(tmp_path / "data" / name / "text") for name in ("train", "dev", "test")]
    assert [len(names) for names in sets] == [18, 2, 1]


def test_a_second_call_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(DATA_SH, "--corpus", corpus, "--out", data)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert run(DATA_SH, "--corpus", corpus, "--out", data).stdout.count("up to date") == 3
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


def break_columns(corpus: Path) -> None:
    (corpus / "test.tsv").write_text("recordings/t0.wav one\n")


def break_encoding(corpus: Path) -> None:
    (corpus / "dev" / "d1.txt").write_bytes("früh".encode("latin-1"))


def double_line(corpus: Path) -> None:
    (corpus / "test.tsv").write_text("recordings/t0.wav\tone\nrecordings/t0.wav\tone\n")


def double_name(corpus: Path) -> None:
    write_audio(corpus / "dev" / "d1.wav")


def remove_train(corpus: Path) -> None:
    shutil.rmtree(corpus / "train")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_columns, "test.tsv:1 has 1 columns"),
        (break_encoding, "d1.txt is not UTF-8"),
        (double_line, "test.tsv:2: t0 stands there twice"),
        (double_name, "have one name"),
        (remove_train, "has no train and no train.tsv"),
    ],
)
def test_broken_input_is_one_sentence(corpus: Path, tmp_path: Path, harm, message: str) -> None:
    harm(corpus)
    done = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data", expect=1)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


def test_its_preparation_serves_synthesis(corpus: Path, tmp_path: Path) -> None:
    """With the commands of docs/data.md."""
    root = tmp_path / "repo"
    (root / "egs").mkdir(parents=True)
    for name in ("audiorl", "conf", "utils", "tools", "setup.py", "egs/ljspeech", "egs/TEMPLATE"):
        (root / name).symlink_to(ROOT / name)
    told = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = (b for b in told.split("```") if "egs/TEMPLATE/local/*" in b)
    lines = block.removeprefix("sh").replace("cp -r", "cp -rL").replace("/data/mine", '"$1"')
    run("bash", "-euc", lines, "bash", corpus, cwd=root)
    assert len(ids(root / "egs" / "mine" / "dump" / "test" / "utt2dur")) == 3


def test_a_copy_of_the_recipe_runs(corpus: Path, tmp_path: Path) -> None:
    """As its README says: copied beside the others; here with data, warm start and RL data."""
    root = tmp_path / "repo"
    shutil.copytree(EGS / "TEMPLATE", root / "egs" / "mine")
    for name in ("audiorl", "conf", "utils", "tools", "setup.py"):
        (root / name).symlink_to(ROOT / name)
    small = SMALL | {
        "sft.schedule.max_steps": 2,
        "sft.schedule.eval_steps": 2,
        "rl.max_completion_length": 8,
    }
    small |= {"decode.max_completion_length": 8, "tokenizer.vocab_size": 30}
    recipe = root / "egs" / "mine"
    options = ["--corpus", str(corpus), "--stop_stage", "4", "--nj", "1", *settings(small)]
    run(recipe / "run.sh", *options, cwd=root)
    assert len(ids(recipe / "dump" / "test" / "utt2dur")) == 3
    assert (recipe / "exp" / "sft" / "model" / "model.safetensors").exists()
    assert (recipe / "exp" / "rl" / "train.jsonl").exists()
