"""Stage 2: what is dropped and what is not, durations, restarts, and refusals."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import kaldiio
import pytest
import soundfile
from kaldi_files import RATE, tone, write_lines

from audiorl.config.data import DataConfig
from audiorl.config.schema import Config
from audiorl.data import format as formatting
from audiorl.data.audio import audio_digests
from audiorl.data.data_dir import subset
from audiorl.data.format import format_sets
from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError
from audiorl.runtime.stamps import Stamp, digest

Edit = Callable[[Path, str, str], None]
Accepts = Callable[[Path], None]
IDS = ["anna-1", "anna-2", "bob-1", "bob-2", "bob-3"]  # 1.0, 1.1 … 1.4 s


@pytest.fixture
def data(data_dir: Path) -> Path:
    """train, dev, rl, rl_dev and test, all the same."""
    for name in ("dev", "rl", "rl_dev", "test"):
        shutil.copytree(data_dir, data_dir.parent / name)
    return data_dir.parent


def config(task: str = "asr", **fields) -> Config:
    return Config(task, data=DataConfig(**{"test": ["test"], "sample_rate": RATE} | fields))


def ids(path: Path) -> list[str]:
    return [utterance.id for utterance in read_utterances(path)]


def test_writes_every_set(
    data: Path, kaldi_accepts: Accepts, capsys: pytest.CaptureFixture
) -> None:
    dump = data.parent / "dump"
    format_sets(config(rl="rl", rl_dev="rl_dev"), data, dump)
    for name in ("train", "dev", "rl", "rl_dev", "test"):
        kaldi_accepts(dump / name)
        utterances = read_utterances(dump / name)
        assert [u.duration for u in utterances] == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4])
        assert all(os.path.isabs(u.audio) for u in utterances)
        assert validate(dump / name, Checks()) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{dump / 'train'}: kept 5 of 5"
    assert lines[-6].split() == "set utterances speakers hours mean s words most/s".split()
    assert lines[-5].split() == ["train", "5", "2", "0.002", "1.2", "15", "3.0"]
    assert [line.split()[0] for line in lines[-4:]] == ["rl", "dev", "rl_dev", "test"]
    assert sorted(path.name for path in dump.iterdir()) == ["dev", "rl", "rl_dev", "test", "train"]


def test_only_train_and_rl_sets_are_filtered(
    data: Path, edit: Edit, kaldi_accepts: Accepts, capsys: pytest.CaptureFixture
) -> None:
    dump = data.parent / "dump"
    for name in ("train", "rl", "test"):
        edit(data / name / "text", "words of bob-2", "a far longer text than the others")
    limits = config(
        rl="rl", rl_dev="rl_dev", min_duration=1.05, max_duration=1.35, max_text_length=20
    )
    format_sets(limits, data, dump)
    for name in ("train", "rl"):
        assert ids(dump / name) == ["anna-2", "bob-1"]
        kaldi_accepts(dump / name)
    for name in ("dev", "rl_dev", "test"):
        assert ids(dump / name) == IDS
    said = capsys.readouterr().out
    why = (
        "1 too short (under 1.05 s), 1 text too long (over 20 characters), 1 too long (over 1.35 s)"
    )
    assert f"{dump / 'train'}: kept 2 of 5: {why}" in said
    assert f"{dump / 'test'}: kept all 5; outside the limits of training: {why}" in said


def test_a_held_out_set_is_never_filtered_even_if_it_is_trained_on(data: Path) -> None:
    format_sets(config(rl="test", max_duration=1.25), data, data.parent / "dump")
    assert ids(data.parent / "dump" / "test") == IDS
    assert ids(data.parent / "dump" / "train") == IDS[:3]


def test_nothing_left(data: Path) -> None:
    with pytest.raises(UserError, match=r"no utterance is left \(5 too long \(over 0\.5 s\)\)"):
        format_sets(config(max_duration=0.5), data, data.parent / "dump")


def test_second_call_does_nothing_and_changes_are_seen(
    data: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    dump = data.parent / "dump"
    format_sets(config(), data, dump)
    table = capsys.readouterr().out.splitlines()[-4:]
    made = []
    examine = formatting.examine
    monkeypatch.setattr(
        formatting, "examine", lambda path, checks: made.append(path.name) or examine(path, checks)
    )

    def remade(**fields) -> list[str]:
        made.clear()
        format_sets(config(**fields), data, dump)
        return made

    assert remade() == []
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [f"{dump / name}: up to date." for name in ("train", "dev", "test")]
    assert said[-4:] == table
    assert remade(max_duration=1.35) == ["train"]
    edit(data / "dev" / "text", "words of bob-1", "other words")
    assert remade(max_duration=1.35) == ["dev"]
    soundfile.write(data.parent / "audio" / "bob-1.wav", tone(0.7), RATE)
    assert remade(max_duration=1.35) == ["train", "dev", "test"]
    assert read_utterances(dump / "test")[2].duration == pytest.approx(0.7)
    (dump / "test" / "text").unlink()
    assert remade(max_duration=1.35) == ["test"]
    (dump / "dev" / "format.json").write_text("{")
    assert remade(max_duration=1.35) == ["dev"]
    assert remade(max_duration=1.35) == []


def test_interrupted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the second set is written: the first stays, the second is whole or absent."""
    dump = data.parent / "dump"
    write = Stamp.write

    def die(stamp: Stamp, **facts) -> None:
        if stamp.path.parent.name == ".dev.tmp":
            raise KeyboardInterrupt
        write(stamp, **facts)

    monkeypatch.setattr(Stamp, "write", die)
    with pytest.raises(KeyboardInterrupt):
        format_sets(config(), data, dump)
    assert sorted(path.name for path in dump.iterdir()) == [".dev.tmp", "train"]
    monkeypatch.undo()
    (dump / ".train.old").mkdir()  # it was to be removed last
    format_sets(config(), data, dump)
    assert sorted(path.name for path in dump.iterdir()) == ["dev", "test", "train"]


def test_broken_sets_are_all_named_and_the_others_written(
    data: Path, edit: Edit, capsys: pytest.CaptureFixture
) -> None:
    dump = data.parent / "dump"
    edit(data / "dev" / "text", "words of bob-1", "")
    edit(data / "test" / "wav.scp", "bob-3.wav", "none.wav")
    with pytest.raises(UserError, match="2 of 3 sets are not valid") as refused:
        format_sets(config(), data, dump)
    assert f"fix {data / 'dev'} {data / 'test'}" in str(refused.value)
    said = capsys.readouterr().out
    assert "text:3: bob-1: the transcript is empty" in said
    assert "none.wav does not exist" in said
    assert [path.name for path in dump.iterdir()] == ["train"]


def test_missing_set_and_same_folder(data: Path) -> None:
    with pytest.raises(UserError, match="test2 does not exist; run stage 1"):
        format_sets(config(test=["test2"]), data, data.parent / "dump")
    with pytest.raises(UserError, match="--data and --dump"):
        format_sets(config(), data, data)


def test_empty_transcripts_of_a_set_without_speech(
    data: Path, edit: Edit, kaldi_accepts: Accepts, capsys: pytest.CaptureFixture
) -> None:
    lines = (data / "test" / "text").read_text().splitlines()
    ids = [line.split()[0] for line in lines]
    written = [ids[0], f"{ids[1]} [noise]", f"{ids[2]} (wind blowing)", *ids[3:]]
    (data / "test" / "text").write_text("\n".join(written) + "\n")
    format_sets(config(no_speech=["test"]), data, data.parent / "dump")
    kaldi_accepts(data.parent / "dump" / "test")
    formatted = read_utterances(data.parent / "dump" / "test")
    assert not any(u.has_speech or u.text for u in formatted)
    assert (data.parent / "dump" / "test" / "text").read_text().splitlines() == ids
    assert "test: emptied 2 transcripts, [noise] for one" in capsys.readouterr().out
    edit(data / "test" / "text", "[noise]", "um")
    with pytest.raises(UserError, match="sets are not valid"):
        format_sets(config(no_speech=["test"]), data, data.parent / "dump")


def test_other_sample_rates_are_accepted_and_said(
    data: Path, capsys: pytest.CaptureFixture
) -> None:
    soundfile.write(data.parent / "audio" / "bob-2.wav", tone(1, 44100), 44100)
    format_sets(config(sample_rate=16000), data, data.parent / "dump")
    said = capsys.readouterr().out
    assert "4 of 5 recordings are at 8000 Hz; nothing to do, they are resampled to 16000" in said
    assert "1 of 5 recordings are at 44100 Hz" in said


def test_segments_durations_and_odd_spaces(
    data: Path, segmented: Path, edit: Edit, kaldi_accepts: Accepts
) -> None:
    edit(segmented / "segments", "call-bob 2.00 3.00", "call-bob 2.25 3.30")
    edit(segmented / "text", "words of bob-2", "wo\u200brds of  bob-2")
    write_lines(segmented / "utt2num_frames", [f"{name} 98" for name in IDS[:4]] + ["bob-3 73"])
    for name in ("dev", "test"):
        subset(segmented, data / name, first=5)
    format_sets(config(), data, data.parent / "dump")
    kaldi_accepts(data.parent / "dump" / "train")
    *_, two, three = read_utterances(data.parent / "dump" / "train")
    assert (three.start, three.end, three.duration) == (2.25, 3.3, 0.75)
    assert two.text == "words of  bob-2"


def test_commands_are_run_once_when_allowed(data: Path, edit: Edit) -> None:
    audio, dump = data.parent / "audio", data.parent / "dump"
    edit(data / "train" / "wav.scp", f"{audio}/bob-3.wav", f"cat {audio}/bob-3.wav |")
    with pytest.raises(UserError, match="1 of 3 sets are not valid"):
        format_sets(config(), data, dump)
    format_sets(config(), data, dump, allow_pipes=True)
    bob = read_utterances(dump / "train")[-1]
    assert bob.audio_hash == digest(bob.audio)
    assert bob.audio == str(dump / "train" / "wav" / "bob-3.wav")
    assert bob.duration == pytest.approx(1.4)
    made, original = (soundfile.read(path)[0] for path in (bob.audio, audio / "bob-3.wav"))
    assert made == pytest.approx(original, abs=1e-4)
    assert validate(dump / "train", Checks()) == []


def test_stamp_is_readable(data: Path) -> None:
    format_sets(config(), data, data.parent / "dump")
    stamp = json.loads((data.parent / "dump" / "train" / "format.json").read_text())
    assert stamp["row"][:2] == ["train", 5]
    assert list(stamp["inputs"]) == [
        "train/spk2utt", "train/text", "train/utt2spk", "train/wav.scp", "audio",
    ]  # fmt: skip
    assert stamp["settings"]["min_duration"] == 0.1
    assert stamp["outputs"].keys() >= {"text", "utt2dur", "wav.scp", "reco2hash"}


def hashes(folder: Path) -> list[str]:
    return [u.audio_hash for u in read_utterances(folder)]


def test_recordings_are_known_by_their_content(data: Path, capsys) -> None:
    """Others of the same length and with the same date are noticed, the same ones never are."""
    dump, wave = data.parent / "dump", data.parent / "audio" / "bob-1.wav"
    format_sets(config(), data, dump)
    before = hashes(dump / "test")
    assert before == [digest(data.parent / "audio" / f"{name}.wav") for name in IDS]
    times = (wave.stat().st_atime_ns, wave.stat().st_mtime_ns)
    content = wave.read_bytes()
    capsys.readouterr()
    for change in (wave.touch, lambda: os.utime(wave, (1, 1)), lambda: wave.write_bytes(content)):
        change()
        format_sets(config(), data, dump)
        assert capsys.readouterr().out.count("up to date.") == 3
    wave.write_bytes(content[:-2] + bytes([content[-2] ^ 1, content[-1]]))
    os.utime(wave, ns=times)
    format_sets(config(), data, dump)
    said = capsys.readouterr().out
    for name in ("train", "dev", "test"):
        assert f"{dump / name} is out of date: audio changed\n" in said
        assert [a == b for a, b in zip(hashes(dump / name), before, strict=True)] == [
            True, True, False, True, True,
        ]  # fmt: skip
    wave.write_bytes(content)
    format_sets(config(), data, dump)
    assert hashes(dump / "test") == before


def test_what_changed_is_said(data: Path, edit: Edit, capsys) -> None:
    dump = data.parent / "dump"
    format_sets(config(), data, dump)
    capsys.readouterr()
    edit(data / "dev" / "text", "words of bob-1", "other words")
    text = (dump / "test" / "text").read_text()
    (dump / "test" / "text").write_text(text.partition("\n")[2])  # cut at a line
    (dump / "train" / "format.json").write_text('{"format": 99}')
    format_sets(config(), data, dump)
    said = [line for line in capsys.readouterr().out.splitlines() if "out of date" in line]
    assert said == [
        f"{dump}/train is out of date: format.json (of another version, or broken) changed",
        f"{dump}/dev is out of date: dev/text changed",
        f"{dump}/test is out of date: text changed",
    ]
    assert (dump / "test" / "text").read_text() == text


THREE = (("a", 0.5), ("b", 0.6), ("c", 0.5))


def test_recordings_of_segments_and_archives(data: Path, segmented: Path) -> None:
    for name in ("dev", "test"):
        subset(segmented, data / name, first=5)
    format_sets(config(), data, data.parent / "dump")
    by_audio = {u.audio: u.audio_hash for u in read_utterances(data.parent / "dump" / "train")}
    assert by_audio == {audio: digest(audio) for audio in by_audio}
    assert len(set(by_audio.values())) == 2
    archive = data.parent / "x.ark"
    waves = {name: (RATE, (tone(seconds) * 9999).astype("int16")) for name, seconds in THREE}
    kaldiio.save_ark(str(archive), waves, scp=str(data.parent / "scp"))
    entries = dict(line.split() for line in (data.parent / "scp").read_text().splitlines())
    found = audio_digests(entries | {"x": f"{archive}:0", "y": "cat x |", "z": ""})
    assert found["a"] == found["c"] != found["b"]  # of their samples, wherever they lie
    assert {found[name] for name in "xyz"} == {"absent"}


def remove_audio(folder: Path) -> None:
    (folder / "wav.scp").unlink()


def test_synthesis_takes_texts_alone_for_rl_and_tests(
    data: Path, edit: Edit, capsys: pytest.CaptureFixture
) -> None:
    dump = data.parent / "dump"
    for name in ("rl", "rl_dev", "test"):
        remove_audio(data / name)
        edit(data / name / "text", "words of bob-2", "a far longer text than the others")
    sets = config("tts", rl="rl", rl_dev="rl_dev", max_text_length=20, max_duration=1.35)
    format_sets(sets, data, dump)
    said = capsys.readouterr().out
    assert f"{dump / 'rl'}: kept 4 of 5: 1 text too long (over 20 characters)\n" in said
    assert f"{dump / 'test'}: kept all 5; outside the limits of training: 1 text" in said
    assert said.splitlines()[-1].split() == ["test", "5", "2", "-", "-", "19", "-"]
    prompts = read_utterances(dump / "rl", texts_alone=True)
    assert [u.id for u in prompts] == ["anna-1", "anna-2", "bob-1", "bob-3"]
    assert not (dump / "rl" / "utt2dur").exists()
    assert ids(dump / "train") == IDS[:4]
    format_sets(sets, data, dump)
    assert capsys.readouterr().out.count("up to date") == 5


@pytest.mark.parametrize(
    ("task", "silent"), [("asr", "rl"), ("asr", "test"), ("tts", "train"), ("tts", "dev")]
)
def test_where_texts_alone_do_not_suffice(
    task: str, silent: str, data: Path, capsys: pytest.CaptureFixture
) -> None:
    remove_audio(data / silent)
    with pytest.raises(UserError, match=f"1 of 5 sets are not valid.*{silent}`"):
        format_sets(config(task, rl="rl", rl_dev="rl_dev"), data, data.parent / "dump")
    said = capsys.readouterr().out
    assert f"error: {data / silent / 'wav.scp'}: the file is missing" in said


def test_the_set_of_the_judge_is_formatted_too(data: Path) -> None:
    dump = data.parent / "dump"
    shutil.copytree(data / "train", data / "judged")
    sets = config("tts", max_duration=1.25)
    sets.judge.train = "judged"
    format_sets(sets, data, dump)
    assert ids(dump / "judged") == ids(dump / "train") == IDS[:3]
    remove_audio(data / "judged")
    with pytest.raises(UserError, match=r"judged`"):
        format_sets(sets, data, dump)


def test_a_tag_is_read_in_the_place_of_text(data: Path, edit: Edit) -> None:
    dump = data.parent / "dump"
    for name in ("train", "dev", "test"):
        write_lines(data / name / "utt2pinyin", [f"{utterance} yi1 ge4" for utterance in IDS])
    format_sets(config("tts"), data, dump)
    assert read_utterances(dump / "dev")[0].text == "words of anna-1"
    format_sets(config("tts", text_tag="pinyin"), data, dump)
    assert {u.text for u in read_utterances(dump / "dev")} == {"yi1 ge4"}
    edit(data / "test" / "utt2pinyin", "bob-3 yi1 ge4\n", "")
    with pytest.raises(UserError, match=r"utt2pinyin: 1 utterances have no pinyin, bob-3 for one"):
        format_sets(config("tts", text_tag="pinyin"), data, dump)
