"""Lists of utterances in many formats give the same sets; broken rows are named."""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiorl.bin import import_data
from audiorl.data import sources
from audiorl.data.audio import audio_info
from audiorl.data.importing import HeldOut, Row, import_rows
from audiorl.data.sources import read_rows
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError

SETS = ("train", "dev", "test")
RATE = 8000
Said = tuple[Path, str, str]  # audio, text, speaker


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[Said]:
    """Thirty recordings of three speakers, whose files have the same names."""
    folder, noise = tmp_path_factory.mktemp("said"), np.random.default_rng(0)
    found = []
    for speaker in ("anna", "bob", "eve x"):
        for number in range(10):
            path = folder / speaker / f"take {number}.wav"
            path.parent.mkdir(exist_ok=True)
            samples = 0.1 * noise.standard_normal(RATE // 4 + 80 * len(found))
            soundfile.write(path, samples, RATE)
            found.append((path, f'she said "{number}", {speaker} and more', speaker))
    return found


def as_tsv(said: list[Said], folder: Path) -> Path:
    rows = [f"{audio}\t{text}\t{speaker}\n" for audio, text, speaker in said]
    (folder / "all.tsv").write_text("".join(["path\tsentence\tclient_id\n", *rows]))
    return folder / "all.tsv"


def as_tsv_without_names(said: list[Said], folder: Path) -> Path:
    path = as_tsv(said, folder)
    path.write_text("\ufeff" + path.read_text().partition("\n")[2])
    return path


def as_csv(said: list[Said], folder: Path) -> Path:
    with open(folder / "all.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(
            [("speaker", "audio", "text"), *((s, a, t) for a, t, s in said)]
        )
    return folder / "all.csv"


def as_manifest(said: list[Said], folder: Path) -> Path:
    rows = [{"audio_filepath": str(a), "text": t, "speaker": s, "duration": 9} for a, t, s in said]
    (folder / "all.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "all.json"


def as_pairs(said: list[Said], folder: Path) -> Path:
    for audio, text, speaker in said:
        copy = folder / "corpus" / speaker / audio.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(audio)
        copy.with_suffix(".txt").write_text(text + "\n")
    return folder / "corpus"


def as_cuts(said: list[Said], folder: Path) -> Path:
    """Cuts of lhotse, every second one a part of a recording that is all of what is said."""
    with gzip.open(folder / "cuts.jsonl.gz", "wt") as stream:
        for number, (audio, text, speaker) in enumerate(said):
            seconds, begin = audio_info(str(audio)).duration, 0.0
            if number % 2:
                whole, begin = folder / f"long_{number}.wav", 0.5
                samples = soundfile.read(audio)[0]
                around = np.zeros(RATE // 2)
                soundfile.write(whole, np.concatenate([around, samples, around]), RATE)
                audio = whole
            source = {"type": "file", "channels": [0], "source": str(audio)}
            recording = {"id": f"r{number}", "sources": [source], "sampling_rate": RATE}
            recording["duration"] = seconds + 2 * begin
            supervision = {"id": f"u{number:02}", "start": 0.0, "duration": seconds}
            supervision |= {"text": text, "speaker": speaker, "recording_id": f"r{number}"}
            cut = {"id": f"c{number}", "start": begin, "duration": seconds, "channel": 0}
            cut |= {"supervisions": [supervision], "recording": recording, "type": "MonoCut"}
            stream.write(json.dumps(cut) + "\n")
    return folder / "cuts.jsonl.gz"


def as_data_directory(said: list[Said], folder: Path) -> Path:
    """By what this makes of a table: see that it stays the same."""
    import_rows(read_rows(str(as_tsv(said, folder)), folder), folder / "kaldi", HeldOut(5, 5), "")
    return folder / "kaldi"


def as_parquet(said: list[Said], folder: Path, kind: str = "parquet") -> Path:
    """Of Hugging Face: audio inside, in several files, whose sets are in their names."""
    import pyarrow
    from pyarrow import parquet

    (folder / "hub" / "en").mkdir(parents=True)
    for split, part in (("train", said[:20]), ("validation", said[20:25]), ("test", said[25:])):
        rows = [
            {"audio": {"bytes": a.read_bytes(), "path": a.name}, "sentence": t, "speaker_id": s}
            for a, t, s in part
        ]
        table = pyarrow.Table.from_pylist(rows)
        if kind == "parquet":
            file = folder / "hub" / "en" / f"{split}-00000-of-00001.parquet"
            parquet.write_table(table, file, row_group_size=7)
        else:  # as datasets.save_to_disk writes it
            (folder / "hub" / split).mkdir()
            file = folder / "hub" / split / "data-00000-of-00001.arrow"
            with pyarrow.OSFile(str(file), "wb") as sink:
                with pyarrow.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
    return folder / "hub"


def as_arrow(said: list[Said], folder: Path) -> Path:
    return as_parquet(said, folder, "arrow")


def imported(corpus: Path | str, out: Path, **held_out) -> dict[str, list[Utterance]]:
    import_rows(read_rows(str(corpus), out / "audio"), out, HeldOut(**held_out), str(corpus))
    for name in SETS:
        found = validate(out / name, Checks(audio=False))
        assert not [problem for problem in found if not problem.warning]
    return {name: read_utterances(out / name) for name in SETS}


def facts(utterances: list[Utterance]) -> list[tuple[str, str, float]]:
    """Text, speaker and duration of each, whatever its id."""
    return sorted(
        (
            u.text,
            u.speaker,
            round(u.end - u.start if u.end else audio_info(u.audio).duration, 3),
        )
        for u in utterances
    )


@pytest.mark.parametrize(
    "write",
    [
        *(as_tsv, as_tsv_without_names, as_csv, as_manifest, as_pairs, as_cuts),
        *(as_data_directory, as_parquet, as_arrow),
    ],
)
def test_each_format_gives_the_same_utterances(
    said: list[Said], write: Callable[[list[Said], Path], Path], tmp_path: Path, capsys
) -> None:
    sets = imported(write(said, tmp_path), tmp_path / "data", dev=5, test=5)
    assert [len(sets[name]) for name in SETS] == [20, 5, 5]
    expected = [(t, s.replace(" ", "_"), audio_info(str(a)).duration) for a, t, s in said]
    everything = [u for utterances in sets.values() for u in utterances]
    assert facts(everything) == sorted((t, s, round(seconds, 3)) for t, s, seconds in expected)
    assert len({u.id for u in everything}) == 30
    assert "kept 30 of 30 utterances" in capsys.readouterr().out


def test_a_dump_of_espnet(said: list[Said], tmp_path: Path) -> None:
    """Data directories deeper than Kaldi's, with paths from the folder of the recipe."""
    raw = as_data_directory(said, tmp_path).rename(tmp_path / "raw")
    (tmp_path / "dump").mkdir()
    raw = raw.rename(tmp_path / "dump" / "raw")
    for name in SETS:
        table = raw / name / "wav.scp"
        table.write_text(table.read_text().replace(f"{said[0][0].parents[1]}/", "downloads/"))
        (raw / name / "feats_type").write_text("raw\n")
    (tmp_path / "downloads").symlink_to(said[0][0].parents[1])
    sets = imported(raw, tmp_path / "data")
    assert [len(sets[name]) for name in SETS] == [20, 5, 5]
    assert sets["dev"][0].audio.startswith(f"{tmp_path}/downloads/")


def test_a_name_of_the_hub_is_fetched(
    said: list[Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot_download(*where, **how) -> str:
        asked.append((*where, how["repo_type"], how["allow_patterns"]))
        if "none" in where[0]:
            raise OSError("404: no such repository")
        return str(as_parquet(said, tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    sets = imported("owner/speech/en", tmp_path / "data")
    assert [len(sets[name]) for name in SETS] == [20, 5, 5]
    assert asked == [("owner/speech", "dataset", ["en/*"])]
    with pytest.raises(UserError, match=r"--corpus owner/none is neither .* \(404: no such"):
        list(read_rows("owner/none", tmp_path))


def test_a_table_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="run `pip install pyarrow`"):
        list(read_rows(str(tmp_path), tmp_path))


def test_copies_in_other_codings_are_the_same_speech(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """mp3, opus in ogg, and 8 kHz, of one recording."""
    samples, rate = soundfile.read(next(shared_data("LibriSpeech").rglob("*.flac")))
    samples = samples[: 4 * rate]
    soundfile.write(tmp_path / "a.mp3", samples, rate)
    soundfile.write(tmp_path / "b.opus", samples, rate, format="OGG", subtype="OPUS")
    soundfile.write(tmp_path / "c.wav", samples[::2], rate // 2)
    rows = [f"{name}\tsome words\n" for name in ("a.mp3", "b.opus", "c.wav")]
    (tmp_path / "list.tsv").write_text("".join(rows))
    utterances = imported(tmp_path / "list.tsv", tmp_path / "data", dev=1, test=1)
    for name, (u,) in utterances.items():
        wave = sources_audio(u)
        assert len(wave) == pytest.approx(4 * 16000, abs=1600) and 0.01 < wave.std() < 0.5
        (problem,) = validate(tmp_path / "data" / name, Checks())
        assert problem.warning and problem.kind == "one speaker"


def sources_audio(utterance: Utterance) -> np.ndarray:
    from audiorl.data.audio import read_audio

    return read_audio(utterance, 16000)


def test_what_is_left_out_is_counted_and_named(said: list[Said], tmp_path: Path, capsys) -> None:
    path, out = as_tsv(said, tmp_path), tmp_path / "data"
    with open(path, "a") as stream:
        stream.write(f"{said[0][0]}\t{said[0][1]}\tanna\n{said[0][0]}\t \tanna\n")
        stream.write(f"gone.wav\twords\tanna\n{path}\twords\tanna\n")
    imported(path, out, dev=5, test=5)
    told = capsys.readouterr().out
    assert f"{path}: kept 30 of 34 utterances" in told
    for why in (
        f"1 left out, listed before: {path}:32 ",
        f"1 left out, without a transcript: {path}:33 ",
        f"1 left out, whose recording does not exist: {path}:34 ({tmp_path}/gone.wav)",
        f"1 left out, not of a format that is read (.tsv): {path}:35 ",
    ):
        assert why in told
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    imported(path, out, dev=5, test=5)
    assert capsys.readouterr().out.count("up to date") == 3
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*")}


LINE = '{"audio": "a.wav", "text": "words", '


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.tsv", "a.wav\twords\na.wav words\n", "a.tsv:2 has 1 columns, not 2 (audio, text)"),
        ("a.tsv", "audio\ttext\na.wav\twords\tx\n", "a.tsv:2 has 3 columns, not 2 (audio, text)"),
        ("a.tsv", "audio\tspeaker\na.wav\tx\n", "a.tsv:2 has no text; name it text, sentence"),
        ("a.csv", "audio,text\na.wav,früh\n", "a.csv:2 is not UTF-8"),
        ("a.jsonl", LINE + '"start": 0}\n{"audio"\n', "a.jsonl:2 is not a JSON object"),
        ("a.jsonl", LINE + '"start": "x"}\n', "a.jsonl:1: its start is no number of seconds ('x')"),
        ("a.jsonl", LINE + '"start": 2, "end": 1}\n', "a.jsonl:1 ends at 1 s, not after its start"),
        ("a.jsonl", LINE + '"speaker": [1]}\n', "a.jsonl:1: its speaker is no text ([1])"),
        ("a.jsonl", '{"supervisions": [], "tracks": []}\n', "a.jsonl:1 is no cut of one plain"),
        ("a.xml", "<a/>\n", "a.xml is no list that is read"),
        ("a.tsv", "a.wav\twords\n", "1 utterances for training are too few to take dev (0)"),
        ("a.tsv", "b.wav\twords\n", "a.tsv: no utterance is left"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, name: str, lines: str, message: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(RATE), RATE)
    (tmp_path / name).write_bytes(lines.encode("latin-1" if "ü" in lines else "utf-8"))
    with pytest.raises(UserError, match=re.escape(message)):
        imported(tmp_path / name, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*/utt2spk"))


@pytest.fixture
def many(said: list[Said]) -> Callable[..., Iterator[Row]]:
    """Rows of many speakers, ten each."""

    def rows(speakers: int = 40, text: str = "words") -> Iterator[Row]:
        for number in range(10 * speakers):
            name = f"s{number // 10:02}"
            yield Row(f"list:{number}", str(said[0][0]), text, name, f"u{number:05}")

    return rows


def speakers(out: Path, name: str) -> set[str]:
    return {u.speaker for u in read_utterances(out / name)}


def test_sets_are_of_other_speakers(many, tmp_path: Path, capsys) -> None:
    import_rows(many(), tmp_path / "a", HeldOut(0.1, 50, seed=1), "list")
    told = "taken out of 400 utterances: dev 40, test 50; whole speakers, drawn by seed 1"
    assert told in capsys.readouterr().out
    sets = [speakers(tmp_path / "a", name) for name in SETS]
    assert [len(names) for names in sets] == [31, 4, 5] and len(set().union(*sets)) == 40
    import_rows(many(), tmp_path / "b", HeldOut(0.1, 50, seed=2), "list")
    assert speakers(tmp_path / "b", "dev") != sets[1]
    import_rows(many(41), tmp_path / "c", HeldOut(0.1, 50, seed=1), "list")
    assert len(speakers(tmp_path / "c", "dev") & sets[1]) >= 3  # one more changes next to nothing


def test_sets_are_of_the_same_speakers(many, tmp_path: Path) -> None:
    """Few speakers, or where it is asked for: each of them keeps an utterance in train."""
    for number, (count, by) in enumerate(((3, ""), (40, "utterance"))):
        out = tmp_path / str(number)
        import_rows(many(count), out, HeldOut(0.1, 0.45, by=by), "list")
        sets = [speakers(out, name) for name in SETS]
        assert len(sets[0]) == count and sets[0] >= sets[1] | sets[2]
        assert len(read_utterances(out / "test")) == int(4.5 * count)
    with pytest.raises(UserError, match="2 speakers are too few for dev"):
        import_rows(many(2), tmp_path / "few", HeldOut(9, 10, by="speaker"), "list")


def test_sets_that_are_stated_stay(said: list[Said], tmp_path: Path) -> None:
    rows = [{"audio": str(a), "text": t, "split": "validation"} for a, t, _ in said[:5]]
    rows += [{"audio": str(a), "text": t} for a, t, _ in said[5:]]
    rows[-1]["split"] = "other"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = imported(tmp_path / "a.jsonl", tmp_path / "data", test=4)
    assert [len(sets[name]) for name in SETS] == [20, 5, 4]
    assert {u.text for u in sets["dev"]} == {text for _, text, _ in said[:5]}


def test_segments_and_keywords(said: list[Said], tmp_path: Path) -> None:
    """Parts of recordings of one name, beside one that is whole."""
    rows = []
    for number, (audio, text, _) in enumerate(said[:12]):
        span = {"offset": 0.05, "duration": 0.1} if number else {}
        rows.append({"audio": str(audio), "text": text, "keywords": ["bob x", "eve"], **span})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = imported(tmp_path / "a.jsonl", tmp_path / "data", dev=1, test=1)
    everything = [u for utterances in sets.values() for u in utterances]
    assert {u.keywords for u in everything} == {("bob x", "eve")}
    spans = {u.audio: (u.start, u.end) for u in everything}
    whole = spans.pop(str(said[0][0]))
    assert whole in ((0.0, audio_info(str(said[0][0])).duration), (0.0, None))
    assert set(spans.values()) == {(0.05, 0.15)} and len(spans) == 11


def test_memory_does_not_grow_with_rows(many, tmp_path: Path) -> None:
    tracemalloc.start()
    import_rows(many(300, "x" * 5000), tmp_path, HeldOut(), "list")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len((tmp_path / "train" / "text").read_bytes()) > 13_000_000 and peak < 3_000_000


def test_the_command(said: list[Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = as_tsv(said, tmp_path)
    options = ["--corpus", corpus, "--out", tmp_path / "data", "--dev", "0.2", "--test", "3"]
    monkeypatch.setattr(sys, "argv", ["import_data", *map(str, options), "--by", "utterance"])
    import_data.main()
    assert [len(read_utterances(tmp_path / "data" / name)) for name in SETS] == [21, 6, 3]
    monkeypatch.setattr(sys, "argv", ["import_data", "--corpus", str(corpus), "--dev", "1.5"])
    with pytest.raises(SystemExit):
        import_data.main()
    with pytest.raises(UserError, match="--corpus none is neither a list nor a folder"):
        sources.read_rows("none", tmp_path)
