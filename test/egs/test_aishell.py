"""egs/aishell: its data preparation, and all its stages on a little real speech."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

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
    run,
    run_recipe,
    settings,
    train_error,
    write_tar,
)
from tiny_whisper import save_whisper

from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError

DATA_SH = EGS / "aishell" / "local" / "data.sh"
TRANSCRIPTS = "transcript/aishell_transcript_v0.8.txt"
PARTS = {"train": "S0002", "dev": "S0724", "test": "S0764"}


def utterance(speaker: str, number: int) -> str:
    return f"BAC009{speaker}W{number:04}"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Five utterances of a speaker in each part; preparation does not open audio."""
    made = tmp_path / "my corpora" / "data_aishell"
    lines = []
    for part, speaker in PARTS.items():
        (made / "wav" / part / speaker).mkdir(parents=True)
        for number in range(121, 126):
            (made / "wav" / part / speaker / f"{utterance(speaker, number)}.wav").touch()
            lines.append(f"{utterance(speaker, number)} 而 对 楼市 成交 抑制\n")
    (made / "transcript").mkdir()
    (made / TRANSCRIPTS).write_text("".join(lines), encoding="utf-8")
    return made


def test_the_official_sizes_are_those_of_the_corpus() -> None:
    assert load_preparation("aishell").OFFICIAL == {"train": 120098, "dev": 14326, "test": 7176}


def test_a_whole_corpus_gives_the_official_sets(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    preparation, data = load_preparation("aishell"), tmp_path / "data"
    monkeypatch.setattr(preparation, "OFFICIAL", dict.fromkeys(PARTS, 5))
    (corpus.parent / "resource_aishell").mkdir()
    info = corpus.parent / "resource_aishell" / "speaker.info"
    info.write_text("0002 F\n0724 M\n0764 F\n")
    preparation.prepare(preparation.find_corpus(str(corpus.parent)), data)
    said = capsys.readouterr().out
    assert said.count("complete") == 3 and "NOT OFFICIAL" not in said
    for part, speaker in PARTS.items():
        found = read_utterances(data / part)
        assert [u.id for u in found] == [utterance(speaker, n) for n in range(121, 126)]
        assert {(u.speaker, u.text) for u in found} == {(speaker, "而对楼市成交抑制")}
        errors = [p for p in validate(data / part, Checks(audio=False)) if not p.warning]
        assert not errors
    assert (data / "dev" / "spk2gender").read_text() == "S0724 m\n"


def test_lost_partners_are_counted_and_named(corpus: Path, tmp_path: Path) -> None:
    """Recordings without a transcript are in the original, too; it has none without audio."""
    folder = corpus / "wav" / "train" / "S0002"
    (folder / f"{utterance('S0002', 121)}.wav").unlink()
    (folder / f"{utterance('S0002', 199)}.wav").touch()
    said = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data").stdout
    assert "train: 1 recordings without a transcript left out: BAC009S0002W0199" in said
    assert "train: 1 transcripts without audio left out: BAC009S0002W0121" in said
    assert "train: kept 4 of 6 utterances" in said
    assert "dev: kept 5 of 5 utterances" in said
    assert len(ids(tmp_path / "data" / "train" / "text")) == 4


def test_named_entities_are_keywords(corpus: Path, tmp_path: Path) -> None:
    """Those that are marked; elsewhere the longest of a list, and no single characters."""
    name = utterance(PARTS["dev"], 121)
    (tmp_path / "marked.tsv").write_text(f"{name}\t而对(楼)市[成交]抑制\n", encoding="utf-8")
    (tmp_path / "listed.tsv").write_text("<\t楼市\t3\n(\t楼市成\t1\n(\t制\t9\n")
    files = f"{tmp_path / 'marked.tsv'},{tmp_path / 'listed.tsv'}"
    data = tmp_path / "data"
    said = run(DATA_SH, "--corpus", corpus, "--entities", files, "--out", data).stdout
    assert "3 named entities, 1 marked utterances" in said
    first, second = read_utterances(data / "dev")[:2]
    assert (first.keywords, second.keywords) == (("楼", "成交"), ("楼市成",))
    assert {u.keywords for u in read_utterances(data / "test")} == {("楼市成",)}


def test_a_second_call_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(DATA_SH, "--corpus", corpus, "--out", data)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    done = run(DATA_SH, "--corpus", corpus, "--out", data)
    assert done.stdout.count("up to date") == 3
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--corpus is needed"),
        (["--corpus", "{tmp}/none"], f"{{tmp}}/none has no {TRANSCRIPTS}"),
    ],
)
def test_what_cannot_be_prepared(tmp_path: Path, options: list[str], message: str) -> None:
    options = [option.format(tmp=tmp_path) for option in options]
    done = run(DATA_SH, *options, "--out", tmp_path / "data", cwd=tmp_path, expect=1)
    assert done.stderr.startswith("error: ") and message.format(tmp=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "data").exists()


def test_packed_speakers_are_noticed(corpus: Path, tmp_path: Path) -> None:
    for speaker in ("S0003", "S0004"):
        (corpus / "wav" / f"{speaker}.tar.gz").touch()
    done = run(DATA_SH, "--corpus", corpus, "--out", tmp_path / "data", expect=1)
    assert "S0003.tar.gz and 1 others are not unpacked" in done.stderr


def packed(member: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_download(
    mirror: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From archives on this disk, in which each speaker has an archive of its own."""
    preparation = load_preparation("aishell")
    (served, address), folder = mirror, tmp_path / "downloads"
    contents = {
        "resource_aishell": {"resource_aishell/speaker.info": b"0002 F\n"},
        "data_aishell": {
            f"data_aishell/{TRANSCRIPTS}": "BAC009S0002W0122 而 对\n".encode(),
            "data_aishell/wav/S0002.tar.gz": packed("train/S0002/BAC009S0002W0122.wav", b"1"),
            "data_aishell/wav/S0003.tar.gz": packed("./train/S0003/BAC009S0003W0122.wav", b"2"),
        },
    }
    for name, members in contents.items():
        archive = write_tar(served / f"{name}.tgz", members)
        monkeypatch.setitem(preparation.MD5, name, hashlib.md5(archive.read_bytes()).hexdigest())
    preparation.download(folder, address)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "resource_aishell/speaker.info",
        f"data_aishell/{TRANSCRIPTS}",
        "data_aishell/wav/train/S0002/BAC009S0002W0122.wav",
        "data_aishell/wav/train/S0003/BAC009S0003W0122.wav",
    }
    for archive in served.iterdir():
        archive.write_bytes(b"other")
    preparation.download(folder, address)  # nothing is left to fetch
    (folder / "resource_aishell" / "speaker.info").unlink()
    (folder / "resource_aishell").rmdir()
    with pytest.raises(UserError, match="md5 checksum"):
        preparation.download(folder, address)


@pytest.fixture
def short_corpus(shared_data: Callable[[str], Path], tmp_path: Path) -> Path:
    """The 40 shortest utterances of the real corpus, in its layout, with all transcripts."""
    source = shared_data("data_aishell")
    corpus = tmp_path / "corpora" / "data_aishell"
    files = sorted(source.rglob("*.wav"), key=lambda file: soundfile.info(file).duration)
    for file in files[:40]:
        copy = corpus / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(file)
    lines = (source / TRANSCRIPTS).read_text(encoding="utf-8").splitlines(keepends=True)
    names = {file.stem for file in files[:40]}
    (corpus / "transcript").mkdir()
    (corpus / TRANSCRIPTS).write_text(
        "".join(line for line in lines if line.split()[0] in names), encoding="utf-8"
    )
    return corpus


def test_all_stages_on_real_speech(short_corpus: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    small = QUICK | {"tokenizer.vocab_size": 500}
    places = ["--corpus", str(short_corpus), "--data", str(work / "data")]
    done = run_recipe("aishell", work, *places, *settings(small))
    assert "NOT OFFICIAL: dev 2, test 2 utterances." in done.stdout
    check_outputs(work, ["test"])
    assert "CER" in (work / "exp" / "grpo" / "RESULTS.md").read_text()
    assert train_error("aishell", work, small) < 0.3


@pytest.mark.parametrize("name", ["qwen3_asr", "qwen2_audio", "fun_asr_nano"])
def test_pretrained_families_through_all_stages(
    name: str, short_corpus: Path, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    keys = {"model.pretrained": family_folder(name)}
    work, control = tmp_path / "work", "pretrained_supervised"
    check_pretrained("aishell", name, control, work, short_corpus, keys)


def test_a_whisper_encoder_before_an_lm_through_all_stages(
    short_corpus: Path, tmp_path: Path
) -> None:
    name, control, keys = "whisper_qwen3", "whisper_qwen3_supervised", built_of_parts(tmp_path)
    check_pretrained("aishell", name, control, tmp_path / "work", short_corpus, keys)


def test_whisper_through_all_stages(short_corpus: Path, tmp_path: Path) -> None:
    hub = save_whisper(tmp_path / "hub", multilingual=True, seconds=30, positions=448)
    keys = {"model.pretrained": hub, "whisper.window": "utterance"}
    work, control = tmp_path / "work", "whisper_supervised"
    check_pretrained("aishell", "whisper", control, work, short_corpus, keys)


def test_the_real_corpus_is_read_whole(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    said = run(DATA_SH, "--corpus", shared_data("data_aishell"), "--out", data).stdout
    assert "train: kept 200 of 200 utterances" in said
    assert "partial" in said and said.count("missing") == 2
    everyone = [u for part in PARTS for u in read_utterances(data / part)]
    assert len({u.id for u in everyone}) == len(everyone) == 200
    assert {u.speaker for u in everyone} == {"S0150", "S0252"}
    assert not any(" " in u.text for u in everyone)
    for part in PARTS:
        assert not [p for p in validate(data / part) if not p.warning]
