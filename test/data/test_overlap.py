"""Sets that share utterances are told: a dev set that is a copy of test, a test set in training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from kaldi_files import RATE, tone, write_lines

from audiorl.config.data import DataConfig
from audiorl.config.schema import Config
from audiorl.config.speech import SpeechConfig
from audiorl.data.format import format_sets
from audiorl.data.overlap import shared
from audiorl.errors import UserError

NAMES = [f"s{n}-u{n}" for n in range(4)]


def make_set(folder: Path, first: int, text: Callable[[int], str] = "sentence {} of many".format):
    """Four utterances whose tones, speakers and texts begin with number `first`."""
    for n, name in enumerate(NAMES, start=first):
        (folder / "wav").mkdir(parents=True, exist_ok=True)
        wave = tone(1 + n / 100, frequency=200.0 + 10 * n)
        soundfile.write(folder / "wav" / f"{name}.wav", wave, RATE)
    write_lines(folder / "wav.scp", [f"{name} {folder}/wav/{name}.wav" for name in NAMES])
    write_lines(folder / "text", [f"{name} {text(n)}" for n, name in enumerate(NAMES, first)])
    write_lines(folder / "utt2spk", [f"{name} {name[:2]}" for name in NAMES])
    write_lines(folder / "spk2utt", [f"{name[:2]} {name}" for name in NAMES])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, name in enumerate(("train", "dev", "test")):
        make_set(tmp_path / "data" / name, 10 * number)
    return tmp_path / "data"


def told(data: Path, capsys) -> list[str]:
    dump = data.parent / "dump"
    format_sets(Config("asr", data=DataConfig(test=["test"], sample_rate=RATE)), data, dump)
    lines = capsys.readouterr().out.splitlines()
    warnings = [line for line in lines if line.startswith("warning: ") and "scores of" in line]
    assert warnings == shared(dump, ["train"], ["dev"], ["test"])
    return [line.split(" (same")[0] for line in warnings]


def test_sets_of_their_own(data: Path, capsys) -> None:
    assert told(data, capsys) == []


def test_a_copy_of_test(data: Path, capsys) -> None:
    shutil.rmtree(data / "dev")
    shutil.copytree(data / "test", data / "dev")
    expected = ["warning: 4 of the 4 utterances of dev are in test too, s0-u0 for one"]
    assert told(data, capsys) == expected
    assert told(data, capsys) == expected  # also when all is up to date


def test_renamed_speakers_and_texts_do_not_hide_equal_audio(data: Path, capsys) -> None:
    make_set(data / "dev", 0, "another sentence {}".format)
    for file in ("utt2spk", "spk2utt"):
        renamed = (data / "dev" / file).read_text().replace(" s", " t").replace("s", "t")
        (data / "dev" / file).write_text(renamed)
    for file in ("text", "wav.scp"):
        lines = (data / "dev" / file).read_text().splitlines()
        write_lines(data / "dev" / file, [f"t{line[1:]}" for line in lines])
    assert told(data, capsys) == [
        "warning: 4 of the 4 utterances of dev are in train too, t0-u0 for one"
    ]


@pytest.mark.parametrize("change", ["louder", "another format", "other noise"])
def test_other_files_do_not_hide_equal_sentences(data: Path, change: str, capsys) -> None:
    make_set(data / "test", 0)
    for file in (data / "test" / "wav").iterdir():
        wave, _ = soundfile.read(file)
        noise = np.random.default_rng(1).normal(0, 0.01, len(wave)) if "noise" in change else 0
        form = {"subtype": "PCM_24"} if "format" in change else {}
        soundfile.write(
            file, 1.5 * wave + noise if change != "another format" else wave, RATE, **form
        )
    assert told(data, capsys) == [
        "warning: 4 of the 4 utterances of test are in train too, s0-u0 for one"
    ]


def test_a_short_text_may_be_said_twice(data: Path, capsys) -> None:
    """Digits and commands: the same speaker says them again, in another time."""
    for number, name in enumerate(("train", "dev", "test")):
        make_set(data / name, 10 * number, lambda n: "yes")
    assert told(data, capsys) == []


def test_one_of_them(data: Path, capsys) -> None:
    shutil.copy(data / "train/wav/s2-u2.wav", data / "test/wav/s1-u1.wav")
    assert told(data, capsys) == [
        "warning: 1 of the 4 utterances of test are in train too, s1-u1 for one"
    ]


def test_segments_of_one_recording_are_different(data: Path, capsys) -> None:
    """Unless they are the same part of it."""
    wave = np.concatenate([tone(1.0, frequency=100.0 * n) for n in range(1, 13)])
    for number, name in enumerate(("train", "dev", "test")):
        soundfile.write(data / name / "all.wav", wave, RATE)
        write_lines(data / name / "wav.scp", [f"all {data / name / 'all.wav'}"])
        spans = [f"{u} all {4 * number + n} {4 * number + n + 1}" for n, u in enumerate(NAMES)]
        write_lines(data / name / "segments", spans)
    assert told(data, capsys) == []
    write_lines(data / "dev" / "segments", [f"{u} all {n} {n + 1}" for n, u in enumerate(NAMES)])
    assert told(data, capsys) == [
        "warning: 4 of the 4 utterances of dev are in train too, s0-u0 for one"
    ]


def test_a_voice_that_training_lacks(data: Path) -> None:
    """Of synthesis, before any model is trained; recognition has other speakers in test."""
    table = data / "test" / "utt2spk"
    write_lines(table, [f"{name} {'t230' if n > 1 else name[:2]}" for n, name in enumerate(NAMES)])
    write_lines(data / "test" / "spk2utt", ["s0 s0-u0", "s1 s1-u1", "t230 s2-u2 s3-u3"])
    sets, dump = DataConfig(test=["test"], sample_rate=RATE), data.parent / "dump"
    with pytest.raises(UserError, match=r"lacks speakers: 1 of the 3 of test \(t230 …\); take"):
        format_sets(Config("tts", data=sets), data, dump)
    format_sets(Config("asr", data=sets), data, dump)
    config = Config("tts", data=sets, speech=SpeechConfig(speakers="none"))
    config.codec.type = "mimi"  # whose tokens carry the voice
    format_sets(config, data, dump)
    config = Config("tts", data=sets, speech=SpeechConfig(speakers="prompt"))
    write_lines(data / "test" / "utt2prompt", ["s2-u2 s3-u3"])
    with pytest.raises(UserError, match=r"lacks speakers: 1 of the 3 of test"):
        format_sets(config, data, dump)
    write_lines(data / "test" / "utt2prompt", ["s2-u2 s3-u3", "s3-u3 s2-u2"])
    format_sets(config, data, dump)
