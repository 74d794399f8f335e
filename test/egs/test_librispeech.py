"""egs/librispeech: its data preparation, and all its stages on a little real speech."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
from recipe_runs import (
    EGS,
    QUICK,
    built_of_parts,
    check_outputs,
    check_pretrained,
    ids,
    load_preparation,
    python,
    run,
    run_recipe,
    settings,
    train_error,
    write_tar,
)
from tiny_whisper import save_whisper
from transformers import Qwen3ASRForConditionalGeneration, WhisperForConditionalGeneration

from audiorl.data.utterance import Utterance, read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError

DATA_SH = EGS / "librispeech" / "local" / "data.sh"
HELD_OUT = ["dev_clean", "dev_other", "test_clean", "test_other"]
SPEAKERS = """\
;ID  |SEX| SUBSET           |MINUTES| NAME
1272 | M | dev-clean        |  8.02 | A
19   | F | train-clean-100  | 25.19 | B
"""


def write_chapter(corpus: Path, part: str, chapter: str, utterances: int) -> Path:
    """A chapter (`<reader>-<chapter>`) of empty files: preparation does not open audio."""
    folder = corpus / part / chapter.replace("-", "/")
    folder.mkdir(parents=True)
    names = [f"{chapter}-{number:04}" for number in range(utterances)]
    for name in names:
        (folder / f"{name}.flac").touch()
    lines = [f"{name} SOME WORDS OF {number}\n" for number, name in enumerate(names)]
    (folder / f"{chapter}.trans.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A small corpus with all seven parts, in a folder with a space."""
    made = tmp_path / "my corpora" / "LibriSpeech"
    for number, part in enumerate(load_preparation("librispeech").PARTS):
        write_chapter(made, part, f"{number + 19}-{number + 300}", 3)
    (made / "SPEAKERS.TXT").write_text(SPEAKERS)
    return made


@pytest.fixture
def preparation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The recipe's module, for a corpus of three utterances in each part."""
    module = load_preparation("librispeech")
    monkeypatch.setattr(module, "PARTS", {part: (3, "0") for part in module.PARTS})
    return module


def test_the_official_sizes_are_those_of_the_corpus() -> None:
    assert {part: count for part, (count, _) in load_preparation("librispeech").PARTS.items()} == {
        "train-clean-100": 28539,
        "train-clean-360": 104014,
        "train-other-500": 148688,
        "dev-clean": 2703,
        "dev-other": 2864,
        "test-clean": 2620,
        "test-other": 2939,
    }


def test_a_whole_corpus_gives_the_official_sets(
    preparation: ModuleType, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / "data"
    preparation.prepare(preparation.find_corpus(str(corpus.parent)), data)
    said = capsys.readouterr().out
    assert said.count("complete") == 7 and "NOT OFFICIAL" not in said
    sizes = {folder.name: len(ids(folder / "text")) for folder in data.iterdir()}
    parts = [part.replace("-", "_") for part in preparation.PARTS]
    assert sizes == {"train": 9} | dict.fromkeys(parts, 3)
    assert not [
        p for name in sizes for p in validate(data / name, Checks(audio=False)) if not p.warning
    ]
    first = read_utterances(data / "train")[0]
    assert (first.id, first.speaker, first.text) == ("19-300-0000", "19-300", "SOME WORDS OF 0")
    assert first.audio == str(corpus / "train-clean-100/19/300/19-300-0000.flac")
    assert (data / "train_clean_100" / "spk2gender").read_text() == "19-300 f\n"
    assert not (data / "train" / "spk2gender").exists()  # two of its readers are not listed


def test_a_second_call_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = (DATA_SH, "--corpus", corpus, "--out", data)
    # A corpus of 9 training utterances, all held-out sets there.
    run(*command)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    done = run(*command)
    assert done.stdout.count("up to date") == len(list(data.iterdir())) == 8
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


def test_lost_partners_are_counted_and_named(corpus: Path, tmp_path: Path) -> None:
    chapter = corpus / "train-clean-100" / "19" / "300"
    (chapter / "19-300-0001.flac").unlink()
    (chapter / "19-300-0009.flac").touch()
    said = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data").stdout
    assert "train-clean-100: 1 recordings without a transcript left out: 19-300-0009" in said
    assert "train-clean-100: 1 transcripts without audio left out: 19-300-0001" in said
    assert "train-clean-100: kept 2 of 4 utterances" in said
    assert ids(tmp_path / "data" / "train_clean_100" / "text") == ["19-300-0000", "19-300-0002"]


def test_missing_sets_are_carved_out_by_reader(tmp_path: Path) -> None:
    corpus, data = tmp_path / "LibriSpeech", tmp_path / "data"
    for reader in range(100, 145):
        write_chapter(corpus, "train-clean-360", f"{reader}-1", 2)
        write_chapter(corpus, "train-clean-360", f"{reader}-2", 1)
    write_chapter(corpus, "dev-clean", "7-1", 4)
    said = run(DATA_SH, "--corpus", corpus, "--out", data).stdout
    assert "NOT OFFICIAL: dev_other 9, test_clean 9, test_other 9 utterances." in said
    assert "has no train-clean-100" in said and "--set data.rl=train" in said
    names = ["train", *HELD_OUT]
    readers = [{name.split("-")[0] for name in ids(data / set_name / "text")} for set_name in names]
    assert sum(map(len, readers)) == len(set().union(*readers)) == 46
    assert ids(data / "train" / "text") == ids(data / "train_clean_360" / "text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--corpus is needed"),
        (["--corpus", "{tmp}/none"], "{tmp}/none holds no part of LibriSpeech"),
        (["--corpus", "{tmp}"], "its 0 utterances for training are too few"),
        (["--download", "true", "--parts", "dev-clena"], "dev-clena is no part of LibriSpeech"),
    ],
)
def test_what_cannot_be_prepared(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "test-clean").mkdir()
    options = [option.format(tmp=tmp_path) for option in options]
    done = run(DATA_SH, *options, "--out", tmp_path / "data", cwd=tmp_path, expect=1)
    assert done.stderr.startswith("error: ") and message.format(tmp=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "data").exists()


def test_biasing_lists_are_keywords(
    preparation: ModuleType, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The words of a list; rare ones elsewhere. In upper case, as transcripts are."""
    (tmp_path / "lists" / "ref").mkdir(parents=True)
    (tmp_path / "lists" / "words").mkdir()
    (tmp_path / "lists" / "words" / "common_words_5k.txt").write_text("some\nof\n")
    reader = next((corpus / "test-clean").rglob("*.trans.txt")).name.partition(".")[0]
    (tmp_path / "lists" / "ref" / "test-clean.biasing_100.tsv").write_text(
        f'{reader}-0000\tsome words\t["calmed", "o\'er"]\t["x", "calmed", "o\'er"]\n'
        f"{reader}-0001\tsome words\t[]\t[]\n"
    )
    preparation.prepare(corpus, tmp_path / "data", str(tmp_path / "lists"))
    assert "lists of 2 utterances, 2 common words" in capsys.readouterr().out
    keywords = [u.keywords for u in read_utterances(tmp_path / "data" / "test_clean")]
    assert keywords == [("CALMED", "O'ER"), (), ("WORDS", "2")]
    assert read_utterances(tmp_path / "data" / "train")[0].keywords == ("WORDS", "0")
    with pytest.raises(UserError, match=r"has no .*biasing_100\.tsv or no"):
        preparation.prepare(corpus, tmp_path / "data", str(corpus))


def test_the_published_biasing_lists(
    preparation: ModuleType, shared_data: Callable[[str], Path]
) -> None:
    keywords = preparation.read_biasing_lists(str(shared_data("text/deep_bias")))
    listed = Utterance("260-123286-0016", "", "THESE THOUGHTS AGITATED ME", "260")
    assert keywords(listed) == ("CALMED",)
    assert keywords(replace(listed, id="0", text="HE CALMED DOWN")) == ("CALMED",)


def test_download(
    preparation: ModuleType,
    mirror: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From archives on this disk; the transport has its own tests."""
    (served, address), folder = mirror, tmp_path / "downloads"
    content = {
        "LibriSpeech/SPEAKERS.TXT": SPEAKERS.encode(),
        "LibriSpeech/dev-clean/1272/1/1272-1.trans.txt": b"1272-1-0000 WORDS\n",
        "LibriSpeech/dev-clean/1272/1/1272-1-0000.flac": b"",
    }
    archive = write_tar(served / "dev-clean.tar.gz", content)
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(preparation.PARTS, "dev-clean", (1, checksum))
    preparation.download(folder, ["dev-clean"], address)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(content)
    archive.unlink()
    preparation.download(folder, ["dev-clean"], address)  # nothing is left to fetch
    with pytest.raises(UserError, match="dev-other"):
        preparation.download(folder, ["dev-other"], address)


@pytest.fixture
def short_corpus(shared_data: Callable[[str], Path], tmp_path: Path) -> Path:
    """The 40 shortest utterances of the real corpus, in its layout."""
    source = shared_data("LibriSpeech")
    corpus = tmp_path / "corpora" / "LibriSpeech"
    files = sorted(source.rglob("*.flac"), key=lambda file: soundfile.info(file).duration)
    for file in sorted(files[:40]):
        copy = corpus / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(file)
        transcripts = next(file.parent.glob("*.trans.txt"))
        lines = transcripts.read_text().splitlines(keepends=True)
        with open(copy.parent / transcripts.name, "a") as chosen:
            chosen.writelines(line for line in lines if line.startswith(f"{file.stem} "))
    shutil.copy(source / "SPEAKERS.TXT", corpus)
    return corpus


def test_all_stages_on_real_speech(short_corpus: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    places = ["--corpus", str(short_corpus), "--data", str(work / "data")]
    done = run_recipe("librispeech", work, *places, *settings(QUICK))
    assert "NOT OFFICIAL: dev_clean 2, dev_other 2, test_clean 2, test_other 2" in done.stdout
    check_outputs(work, ["test_clean", "test_other"])
    assert train_error("librispeech", work, QUICK) < 0.3


def test_whisper_through_all_stages(short_corpus: Path, tmp_path: Path) -> None:
    """The recipe conf/whisper.yaml with a random Whisper: its system is `whisper`."""
    work, hub = tmp_path / "work", save_whisper(tmp_path / "hub", seconds=30, positions=448)
    places = ["--corpus", str(short_corpus), "--data", str(work / "data")]
    keys = {
        "model.pretrained": str(hub),
        "device": "cpu",
        "num_threads": 1,
        "whisper.window": "utterance",
        "rl.max_steps": 2,
        "rl.num_prompts": 2,
        "rl.num_generations": 2,
        "rl.max_completion_length": 6,
        "rl.eval_steps": 2,
        "decode.max_completion_length": 6,
        "score.bootstrap_samples": 100,
    }
    done = run_recipe(
        "librispeech", work, "--config", "conf/whisper.yaml", *places, *settings(keys)
    )
    exp = work / "exp"
    assert "--config conf/whisper_supervised.yaml" in done.stdout
    for system in ("sft", "whisper", "whisper_supervised"):
        folder = exp / system / "decode_greedy" / "test_clean"
        assert ids(folder / "text") == ids(work / "dump" / "test_clean" / "text")
        assert (folder / "result.json").exists()
    WhisperForConditionalGeneration.from_pretrained(exp / "whisper" / "model")
    assert (exp / "whisper" / "whisper.zip").stat().st_size > 0


def test_a_pretrained_family_through_all_stages(
    short_corpus: Path, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Adapters learn, are merged, packed with a card, and exported."""
    work, keys = tmp_path / "work", {"model.pretrained": family_folder("qwen3_asr")}
    control = "pretrained_supervised"
    check_pretrained("librispeech", "qwen3_asr", control, work, short_corpus, keys)
    exp = work / "exp" / "qwen3_asr"
    with zipfile.ZipFile(exp / "qwen3_asr.zip") as packed:
        card = packed.read("model/README.md").decode()
    assert "trained by grpo (RL of 2 steps, of which " in card and "points from sft" in card
    assert str(work) not in card
    python("export", exp, "--out", tmp_path / "out")
    Qwen3ASRForConditionalGeneration.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("name", ["qwen2_audio", "fun_asr_nano"])
def test_other_families_through_all_stages(
    name: str, short_corpus: Path, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    keys = {"model.pretrained": family_folder(name)}
    work, control = tmp_path / "work", "pretrained_supervised"
    check_pretrained("librispeech", name, control, work, short_corpus, keys)


def test_a_whisper_encoder_before_an_lm_through_all_stages(
    short_corpus: Path, tmp_path: Path
) -> None:
    name, control, keys = "whisper_qwen3", "whisper_qwen3_supervised", built_of_parts(tmp_path)
    check_pretrained("librispeech", name, control, tmp_path / "work", short_corpus, keys)


def test_the_real_corpus_is_read_whole(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    said = run(DATA_SH, "--corpus", shared_data("LibriSpeech"), "--out", data).stdout
    assert "train-clean-100: kept 144 of 144 utterances" in said
    assert "partial" in said and said.count("missing") == 6
    names = ["train", *HELD_OUT]
    everyone = [u for name in names for u in read_utterances(data / name)]
    assert len({u.id for u in everyone}) == len(everyone) == 144
    assert {u.speaker for u in everyone} == {"19-198", "26-496", "27-124992"}
    genders = (data / "train" / "spk2gender").read_text()
    assert genders == "19-198 f\n26-496 m\n27-124992 m\n"
    for name in names:
        assert not validate(data / name, Checks(audio=name == "test_clean", sample_rate=16000))
