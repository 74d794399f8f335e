"""egs/TEMPLATE: what its preparation accepts, and a copy of it that runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
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


def write_pair(
    folder: Path, name: str, text: str, suffix: str = ".wav", seconds: float = 1.0
) -> None:
    write_audio(folder / f"{name}{suffix}", seconds)
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
        (remove_train, "has no train that is read"),
    ],
)
def test_broken_input_is_one_sentence(corpus: Path, tmp_path: Path, harm, message: str) -> None:
    harm(corpus)
    done = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data", expect=1)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


def guide(section: str, kind: str) -> str:
    """The only block of a kind in a section of the README."""
    told = (EGS / "TEMPLATE" / "README.md").read_text(encoding="utf-8")
    part = told.partition(f"\n## {section}")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"```{kind}\n(.*?)```", part, re.DOTALL)
    return block


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose egs/ may be written to."""
    root = tmp_path / "repo"
    (root / "egs").mkdir(parents=True)
    for name in ("audiorl", "conf", "utils", "tools", "setup.py"):
        (root / name).symlink_to(ROOT / name)
    for name in ("TEMPLATE", "libritts"):
        copy = shutil.ignore_patterns("data", "dump", "exp", "__pycache__")
        shutil.copytree(EGS / name, root / "egs" / name, ignore=copy)
    return root


def follow(root: Path, section: str, corpus: Path, *more: str) -> str:
    """Run the commands of a section, with its `read_set`, if it has one, in local/prepare.py."""
    lines = guide(section, "sh").replace("\\\n", " ").splitlines()
    last = re.sub(r"--corpus \S+", f"--corpus '{corpus}'", lines[-1])
    run("bash", "-euc", "\n".join(lines[:-1]), cwd=root)
    if "```python" in (EGS / "TEMPLATE" / "README.md").read_text().partition(f"## {section}")[2]:
        prepare = root / Path(last.split()[0]).parent / "local" / "prepare.py"
        old = re.compile(r"def read_set\(.*?\n\n\n", re.DOTALL)
        text, count = old.subn(lambda _: guide(section, "python") + "\n\n", prepare.read_text())
        assert count == 1
        prepare.write_text(text)
    return run("bash", "-euc", " ".join([last, "--nj 1", *more]), cwd=root).stdout


def speakers(folder: Path) -> set[str]:
    return {u.speaker for u in read_utterances(folder)}


def test_the_example_of_yes_and_no(checkout: Path, shared_data: Callable[[str], Path]) -> None:
    corpus = shared_data("waves_yesno")
    follow(checkout, "An example: yes and no", corpus, "--stop_stage 2")
    dump = checkout / "egs" / "yesno" / "dump"
    sets = [read_utterances(dump / name) for name in ("train", "dev", "test")]
    assert [len(found) for found in sets] == [54, 3, 3]
    assert sets[0][0].text == "LO LO LO KEN LO KEN KEN LO" and sets[0][0].speaker == "yesno"


def test_synthesis_of_vctk(checkout: Path, shared_data: Callable[[str], Path]) -> None:
    """In its layout, of readers of LibriSpeech."""
    corpus, source = checkout.parent / "VCTK", shared_data("LibriSpeech")
    for number, file in enumerate(sorted(source.rglob("*.flac"))):
        if number % 4 == 0:
            speaker = f"p2{file.name.partition('-')[0]}"
            name = f"{speaker}_{number:03}"
            lines = next(file.parent.glob("*.trans.txt")).read_text().splitlines()
            (text,) = (line for line in lines if line.startswith(f"{file.stem} "))
            for path in ("wav48_silence_trimmed", "txt"):
                (corpus / path / speaker).mkdir(parents=True, exist_ok=True)
            (corpus / "txt" / speaker / f"{name}.txt").write_text(text.partition(" ")[2].title())
            for microphone in ("mic1", "mic2"):
                copy = corpus / "wav48_silence_trimmed" / speaker / f"{name}_{microphone}.flac"
                copy.symlink_to(file)
    follow(checkout, "Synthesis", corpus)
    dump = checkout / "egs" / "mine" / "dump"
    assert speakers(dump / "train") == {"p219", "p226", "p227"} >= speakers(dump / "test")
    assert len(read_utterances(dump / "test")) == len(read_utterances(dump / "dev")) == 1
    first = read_utterances(dump / "train")[0]
    assert first.id.startswith("p219-p219_0") and first.audio.endswith(f"{first.id[5:]}_mic1.flac")


def test_synthesis_of_many_voices(checkout: Path) -> None:
    """Voices that are taken out of train would be unknown in stage 3."""
    corpus = checkout.parent / "corpus"
    for speaker in range(25):
        for number in range(9):
            folder = corpus / "train" / f"p{speaker + 230}"
            write_pair(folder, f"{number}", "the same few words", seconds=0.2)
    lines = guide("Synthesis", "sh").replace("/data/mine", str(corpus))
    run("bash", "-euc", lines, cwd=checkout)
    mine = checkout / "egs" / "mine"
    sets = {name: speakers(mine / "dump" / name) for name in ("train", "dev", "test")}
    assert len(read_utterances(mine / "dump" / "judge_train")) == 54
    assert len(sets["train"]) == 19 and sets["train"] >= sets["dev"] | sets["test"] > set()


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
