"""egs/aishell3: its data preparation, and all its stages on a little real speech."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recipe_runs import (
    EGS,
    SMALL_SPEECH,
    check_speech,
    ids,
    load_preparation,
    run,
    run_recipe,
    settings,
    write_tar,
)

from audiorl.config.data import DataConfig
from audiorl.config.schema import Config
from audiorl.data.format import format_sets
from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate

DATA_SH = EGS / "aishell3" / "local" / "data.sh"
LINE = "而 er2 对 dui4 楼 lou2 市 shi4"
SPEAKERS = {"train": ["SSB0005", "SSB0009"], "test": ["SSB0273"]}
EACH = 30


def write_part(corpus: Path, part: str, speakers: list[str]) -> None:
    """Empty recordings and their texts: preparation does not open audio."""
    lines = []
    for speaker in speakers:
        (corpus / part / "wav" / speaker).mkdir(parents=True)
        for number in range(1, EACH + 1):
            (corpus / part / "wav" / speaker / f"{speaker}{number:04}.wav").touch()
            lines.append(f"{speaker}{number:04}.wav\t{LINE} \n")
    (corpus / part / "content.txt").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    made = tmp_path / "my corpora" / "data_aishell3"
    for part, speakers in SPEAKERS.items():
        write_part(made, part, speakers)
    rows = ["# AGE GROUPs and others", "SSB0005\tB\tfemale\tnorth", "SSB0009\tC\tmale\tsouth"]
    (made / "spk-info.txt").write_text("".join(f"{row}\n" for row in rows))
    return made


def test_the_official_sizes_are_those_of_the_corpus() -> None:
    official = load_preparation("aishell3").OFFICIAL
    assert official == {"train": 63262, "test": 24773} and sum(official.values()) == 88035


def test_a_whole_corpus(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    preparation, data = load_preparation("aishell3"), tmp_path / "data"
    monkeypatch.setattr(preparation, "OFFICIAL", {"train": 2 * EACH, "test": EACH})
    preparation.prepare(preparation.find_corpus(str(corpus.parent)), data)
    assert capsys.readouterr().out.count("complete") == 2
    sizes = {folder.name: len(ids(folder / "text")) for folder in data.iterdir()}
    judge = {"judge_train": 54}  # too small a corpus to part
    assert sizes == {"train": 54, "dev": 3, "test_seen": 3, "test": 30} | judge
    for name in sizes:
        assert not [p for p in validate(data / name, Checks(audio=False)) if not p.warning]
        for utterance in read_utterances(data / name):
            assert utterance.text == "而对楼市"
            assert utterance.tags == {"pinyin": "er2 dui4 lou2 shi4"}
    assert {u.speaker for u in read_utterances(data / "dev")} <= set(SPEAKERS["train"])
    assert (data / "train" / "spk2gender").read_text() == "SSB0005 f\nSSB0009 m\n"
    assert not (data / "test" / "spk2gender").exists()


def test_the_judge_has_speakers_of_its_own(tmp_path: Path) -> None:
    corpus, data = tmp_path / "data_aishell3", tmp_path / "data"
    write_part(corpus, "train", [f"SSB{number:04}" for number in range(1, 10)])
    said = run(DATA_SH, "--corpus", corpus, "--out", data).stdout
    assert "for the judge alone: 60 of 270 utterances for training, 2 of 9 speakers" in said
    found = {name.name: read_utterances(name) for name in data.iterdir()}
    judge = found.pop("judge_train")
    assert {u.speaker for u in judge} == {"SSB0004", "SSB0008"}
    assert all(u.tags["pinyin"] for u in judge)
    assert sorted(found) == ["dev", "test_seen", "train"]
    for utterances in found.values():
        assert utterances and not {"SSB0004", "SSB0008"} & {u.speaker for u in utterances}


def test_what_is_odd_is_counted_and_named(corpus: Path, tmp_path: Path) -> None:
    content = corpus / "train" / "content.txt"
    text = content.read_text(encoding="utf-8")
    text = text.replace(f"SSB00050002.wav\t{LINE} \n", "SSB00050002.wav\t而 对 楼 市\n")
    content.write_text(text.replace(f"SSB00050003.wav\t{LINE} \n", ""), encoding="utf-8")
    (corpus / "train" / "wav" / "SSB0005" / "SSB00050004.wav").unlink()
    command = (DATA_SH, "--corpus", corpus, "--out", tmp_path / "data")
    said = run(*command).stdout
    assert f"{content}: 1 lines without pinyin for each character left out: SSB00050002.wav" in said
    assert "train: 2 recordings without a transcript left out: SSB00050002, SSB00050003" in said
    assert "train: 1 transcripts without audio left out: SSB00050004" in said
    assert "train: kept 57 of 60 utterances" in said
    assert run(*command).stdout.count("up to date") == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--corpus is needed: the folder data_aishell3"),
        (["--corpus", "{tmp}/none"], "{tmp}/none has no train/content.txt"),
    ],
)
def test_what_cannot_be_prepared(tmp_path: Path, options: list[str], message: str) -> None:
    options = [option.format(tmp=tmp_path) for option in options]
    done = run(DATA_SH, *options, "--out", tmp_path / "data", cwd=tmp_path, expect=1)
    assert done.stderr.startswith("error: ") and message.format(tmp=tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "data").exists()


@pytest.mark.parametrize("wrapped", ["", "data_aishell3/"])
def test_download(
    wrapped: str, mirror: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an archive on this disk, with and without a folder around its content."""
    preparation, (served, address) = load_preparation("aishell3"), mirror
    members = {f"{wrapped}train/content.txt": b"x", f"{wrapped}train/wav/S/S1.wav": b"y"}
    archive = write_tar(served / "data_aishell3.tgz", members)
    monkeypatch.setattr(preparation, "SIZE", archive.stat().st_size)
    folder = tmp_path / "downloads"
    preparation.download(folder, address)
    archive.unlink()
    preparation.download(folder, address)  # nothing is left to fetch
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "data_aishell3/train/content.txt",
        "data_aishell3/train/wav/S/S1.wav",
    }


def test_the_real_corpus_is_read_whole_and_formatted_by_pinyin(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data, dump = tmp_path / "data", tmp_path / "dump"
    said = run(DATA_SH, "--corpus", shared_data("data_aishell3"), "--out", data).stdout
    assert "train: kept 30 of 30 utterances" in said and "missing" in said
    assert "NOT HELD OUT: dev 1, test_seen 1" in said  # each of the 30 says one sentence
    sets = {name: read_utterances(data / name) for name in ("train", "dev", "test_seen")}
    assert len({u.id for found in sets.values() for u in found}) == len(sets["train"]) == 30
    for found in sets.values():
        assert all(len(u.text) == len(u.tags["pinyin"].split()) for u in found)
    config = Config("tts", data=DataConfig(test=["test_seen"], text_tag="pinyin"))
    format_sets(config, data, dump)
    for name, found in sets.items():
        formatted = read_utterances(dump / name)
        assert [u.text for u in formatted] == [u.tags["pinyin"] for u in found]
        assert all(u.duration > 0.5 for u in formatted)


def test_all_stages_on_real_speech(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    places = ["--corpus", str(shared_data("data_aishell3")), "--data", str(tmp_path / "data")]
    run_recipe("aishell3", tmp_path, *places, *settings(SMALL_SPEECH))
    check_speech(tmp_path, ["test_seen"], "wer")
