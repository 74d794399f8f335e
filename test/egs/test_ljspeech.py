"""egs/ljspeech: its data preparation, and all its stages on a little real speech."""

from __future__ import annotations

import hashlib
import io
import tarfile
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
    zero_shot_list,
)

from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate

DATA_SH = EGS / "ljspeech" / "local" / "data.sh"
# Clips at both ends of each set of the split.
CLIPS = {
    "train": [*(f"LJ001-{n:04}" for n in range(1, 31)), "LJ049-0007"],
    "dev": ["LJ049-0008", "LJ049-0230", "LJ050-0001", "LJ050-0028"],
    "test": ["LJ050-0029", "LJ050-0278"],
}


def write_corpus(folder: Path, clips: list[str]) -> Path:
    """Empty recordings and their texts: preparation does not open audio."""
    (folder / "wavs").mkdir(parents=True)
    for clip in clips:
        (folder / "wavs" / f"{clip}.wav").touch()
    rows = [f"{clip}|Mr. {clip[-1]},|Mister {clip[-1]},\n" for clip in clips]
    (folder / "metadata.csv").write_text("".join(rows))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    clips = [clip for part in CLIPS.values() for clip in part]
    return write_corpus(tmp_path / "my corpora" / "LJSpeech-1.1", clips)


def test_the_last_500_clips_are_dev_and_test(shared_data: Callable[[str], Path]) -> None:
    """Counted in the list of all 13,100."""
    split = load_preparation("ljspeech").split_of
    rows = (shared_data("text") / "ljspeech.tsv").read_text(encoding="utf-8").splitlines()
    clips = sorted(row.partition("\t")[0] for row in rows)
    found = [split(clip) for clip in clips]
    assert found == ["train"] * 12600 + ["dev"] * 250 + ["test"] * 250


def test_the_sets(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = (DATA_SH, "--corpus", corpus.parent, "--out", data)
    said = run(*command).stdout
    assert "LJSpeech-1.1: kept 37 of 37 utterances" in said and said.count("partial") == 3
    for name, clips in CLIPS.items():
        assert ids(data / name / "text") == sorted(clips)
        assert not [p for p in validate(data / name, Checks(audio=False)) if not p.warning]
        assert (data / name / "spk2gender").read_text() == "LJ f\n"
    first = read_utterances(data / "train")[0]
    assert (first.id, first.speaker, first.text) == ("LJ001-0001", "LJ", "Mister 1,")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert ids(data / "judge_train" / "text") == sorted(CLIPS["train"])  # too few to part
    assert run(*command).stdout.count("up to date") == 4
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


def test_the_judge_has_chapters_of_its_own(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """All clips of the corpus, by the list of them."""
    rows = (shared_data("text") / "ljspeech.tsv").read_text(encoding="utf-8").splitlines()
    corpus = write_corpus(tmp_path / "LJSpeech-1.1", [row.partition("\t")[0] for row in rows])
    said = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data").stdout
    assert "for the judge alone: 3,330 of 12,600 utterances for training, 12 of 49 chapters" in said
    train, judge = (ids(tmp_path / "data" / name / "text") for name in ("train", "judge_train"))
    assert (len(train), len(judge)) == (9270, 3330)
    assert {name[:5] for name in train}.isdisjoint(name[:5] for name in judge)


def test_sets_that_are_missing_are_taken_from_training(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "LJSpeech-1.1", CLIPS["train"] + CLIPS["dev"])
    said = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data").stdout
    assert "held out of the training data: test 1 utterances, of its voices" in said
    assert ids(tmp_path / "data" / "dev" / "text") == CLIPS["dev"]
    assert len(ids(tmp_path / "data" / "train" / "text")) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--corpus is needed: the folder LJSpeech-1.1"),
        (["--corpus", "{tmp}/none"], "{tmp}/none has no metadata.csv"),
        (["--corpus", "{tmp}"], "{tmp}/metadata.csv:2 is not `LJ…|text|normalised text`"),
    ],
)
def test_what_cannot_be_prepared(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "metadata.csv").write_text("LJ001-0001|a|a\nLJ001-0002 b\n")
    options = [option.format(tmp=tmp_path) for option in options]
    done = run(DATA_SH, *options, "--out", tmp_path / "data", cwd=tmp_path, expect=1)
    assert done.stderr.startswith("error: ") and message.format(tmp=tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "data").exists()


def test_download(
    mirror: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an archive on this disk, packed as the corpus is (bzip2)."""
    preparation, (served, address) = load_preparation("ljspeech"), mirror
    archive = served / "LJSpeech-1.1.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for name in ("metadata.csv", "wavs/LJ001-0001.wav"):
            entry = tarfile.TarInfo(f"LJSpeech-1.1/{name}")
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"abc"))
    monkeypatch.setattr(preparation, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    folder = tmp_path / "downloads"
    preparation.download(folder, address)
    archive.unlink()
    preparation.download(folder, address)  # nothing is left to fetch
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "LJ001-0001.wav",
        "metadata.csv",
    ]


def test_the_real_corpus_is_read_whole(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    said = run(DATA_SH, "--corpus", shared_data("LJSpeech-1.1"), "--out", data).stdout
    assert "LJSpeech-1.1: kept 39 of 39 utterances" in said
    everyone = [u for name in CLIPS for u in read_utterances(data / name)]
    assert "dev: 3 utterances with characters that train lacks left out: LJ049-0108 (q)" in said
    assert "test: 1 utterances with characters" in said  # the only one, so one of train is taken
    assert len({u.id for u in everyone}) == len(everyone) == 35
    for name in CLIPS:
        assert not [p for p in validate(data / name) if not p.warning]


def test_all_stages_on_real_speech(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """And on texts to be spoken in a voice that was never heard, by prompts."""
    places = ["--corpus", str(shared_data("LJSpeech-1.1")), "--data", str(tmp_path / "data")]
    places += ["--zero_shot", str(zero_shot_list(tmp_path / "seed"))]
    unheard = {"speech.speakers": "prompt", "data.test": "[test,zero_shot]"}
    run_recipe("ljspeech", tmp_path, *places, *settings(SMALL_SPEECH | unheard))
    check_speech(tmp_path, ["test", "zero_shot"], "wer")
