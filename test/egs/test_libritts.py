"""egs/libritts: its data preparation."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import pytest
from recipe_runs import EGS, ids, load_preparation, run, write_tar, zero_shot_list

from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate

DATA_SH = EGS / "libritts" / "local" / "data.sh"
OFFICIAL = ["dev_clean", "dev_other", "test_clean", "test_other"]
EACH = 12  # utterances of a reader


def write_reader(corpus: Path, part: str, reader: int, utterances: int = EACH) -> Path:
    """A chapter of empty recordings and their two texts: preparation does not open audio."""
    folder = corpus / part / str(reader) / "1001"
    folder.mkdir(parents=True)
    for number in range(utterances):
        name = f"{reader}_1001_{number // 5:06}_{number % 5:06}"
        (folder / f"{name}.wav").touch()
        (folder / f"{name}.original.txt").write_text(f"No. {number}!")
        (folder / f"{name}.normalized.txt").write_text(f"Number {number}!\n")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """All seven parts, two readers each, whose ids are of different length."""
    made = tmp_path / "my corpora" / "LibriTTS"
    for number, part in enumerate(load_preparation("libritts").PARTS):
        write_reader(made, part, 8 + number)
        write_reader(made, part, 80 + number)
    (made / "SPEAKERS.txt").write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
        + "".join(
            f"{start + n} | {'FM'[n % 2]} | x | 1 | y\n" for start in (8, 80) for n in range(7)
        )
    )
    return made


@pytest.fixture
def preparation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The recipe's module, for a corpus of two readers in each part."""
    module = load_preparation("libritts")
    monkeypatch.setattr(module, "PARTS", {part: (2 * EACH, "0") for part in module.PARTS})
    return module


def test_the_official_sizes_are_those_of_the_corpus() -> None:
    counts = [count for count, _ in load_preparation("libritts").PARTS.values()]
    assert sum(counts) == 375086
    assert counts == [33236, 116500, 205044, 5736, 4613, 4837, 5120]


def test_a_whole_corpus(
    preparation: ModuleType, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / "data"
    preparation.prepare(corpus, data)
    assert capsys.readouterr().out.count("complete") == 7
    sizes = {folder.name: len(ids(folder / "text")) for folder in data.iterdir()}
    trains = [name for name in sizes if name.startswith("train_")]
    assert {name: sizes[name] for name in OFFICIAL} == dict.fromkeys(OFFICIAL, 2 * EACH)
    assert (sizes["train"], sizes["dev"], sizes["test_seen"]) == (66, 3, 3)
    assert sizes["judge_train"] == 66  # too small a corpus to part
    assert sum(sizes[name] for name in trains) == 66 and len(trains) == 3
    for name in sizes:
        assert not [p for p in validate(data / name, Checks(audio=False)) if not p.warning]
    train = read_utterances(data / "train")
    readers = {u.speaker for u in train}
    for name in ("dev", "test_seen"):
        found = read_utterances(data / name)
        assert {u.speaker for u in found} <= readers
        assert {u.id for u in found}.isdisjoint(u.id for u in train)
    for name in OFFICIAL:
        assert readers.isdisjoint(u.speaker for u in read_utterances(data / name))
    official = read_utterances(data / "dev_clean")[-1]
    assert (official.id, official.speaker) == ("83-1001-000002-000001", "83")
    assert official.text == "Number 11!"
    assert official.audio.endswith("/dev-clean/83/1001/83_1001_000002_000001.wav")
    assert (data / "dev_clean" / "spk2gender").read_text() == "11 m\n83 m\n"
    unheard = read_utterances(data / "dev_clean")
    assert all(u.prompt.speaker == u.speaker and u.prompt.id != u.id for u in unheard if u.prompt)
    assert any(u.prompt for u in unheard) and not (data / "dev" / "utt2prompt").exists()


def test_the_judge_has_readers_of_its_own(tmp_path: Path) -> None:
    corpus, data = tmp_path / "LibriTTS", tmp_path / "data"
    for reader in range(9):
        part = "train-clean-100" if reader < 5 else "train-other-500"
        write_reader(corpus, part, 10 + reader, 25)
    said = run(DATA_SH, "--corpus", corpus, "--out", data).stdout
    assert "for the judge alone: 50 of 225 utterances for training, 2 of 9 readers" in said
    found = {name.name: read_utterances(name) for name in data.iterdir()}
    assert {u.speaker for u in found.pop("judge_train")} == {"13", "17"}
    assert sorted(found) == ["dev", "test_seen", "train", "train_clean_100", "train_other_500"]
    for utterances in found.values():
        assert utterances and not {"13", "17"} & {u.speaker for u in utterances}


def test_a_part_of_it_will_do_and_a_second_call_writes_nothing(tmp_path: Path) -> None:
    corpus, data = tmp_path / "LibriTTS", tmp_path / "data"
    chapter = write_reader(corpus, "train-clean-100", 19, 40)
    (chapter / "19_1001_000000_000001.wav").unlink()
    (chapter / "19_1001_000000_000002.normalized.txt").unlink()
    listed = zero_shot_list(tmp_path / "seed")
    command = (DATA_SH, "--corpus", tmp_path, "--zero_shot", listed, "--out", data)
    said = run(*command).stdout
    assert (
        "train-clean-100: 1 recordings without a transcript left out: 19-1001-000000-000002" in said
    )
    assert "train-clean-100: kept 38 of 40 utterances" in said
    assert said.count("missing") == 6 and "partial" in said
    assert "held out of the training data: dev 1, test_seen 1 utterances, of its voices" in said
    first, _ = read_utterances(data / "zero_shot")
    assert (first.text, first.prompt.text) == ("in a voice", "some words")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert run(*command).stdout.count("up to date") == len(list(data.iterdir())) == 6
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--corpus is needed: the folder of LibriTTS"),
        (["--corpus", "{tmp}/none"], "{tmp}/none holds no part of LibriTTS"),
        (["--corpus", "{tmp}"], "the corpus has 0 utterances for training, too few"),
        (["--download", "true", "--parts", "dev-clena"], "dev-clena is no part of LibriTTS"),
    ],
)
def test_what_cannot_be_prepared(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "test-clean").mkdir()
    options = [option.format(tmp=tmp_path) for option in options]
    done = run(DATA_SH, *options, "--out", tmp_path / "data", cwd=tmp_path, expect=1)
    assert done.stderr.startswith("error: ") and message.format(tmp=tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "data").exists()


def test_download(preparation: ModuleType, mirror: tuple[Path, str], tmp_path: Path) -> None:
    """From an archive on this disk; the transport has its own tests."""
    served, address = mirror
    content = {
        "LibriTTS/SPEAKERS.txt": b"84 | F | dev-clean | 8 | A\n",
        "LibriTTS/dev-clean/84/1/84_1_000000_000000.normalized.txt": b"Words.",
        "LibriTTS/dev-clean/84/1/84_1_000000_000000.wav": b"",
    }
    archive = write_tar(served / "dev-clean.tar.gz", content)
    checksums = {"dev-clean": hashlib.sha256(archive.read_bytes()).hexdigest()}
    folder = tmp_path / "downloads"
    preparation.download_parts("LibriTTS", checksums, ["dev-clean"], folder, address)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(content)
