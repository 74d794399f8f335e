"""Utterances from data directories and JSON lines, and what ESPnet reads of the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from kaldi_files import RATE, write_lines

from audiorl.data.audio import audio_digest, read_audio
from audiorl.data.utterance import (
    Utterance,
    read_utterances,
    write_utterances_jsonl,
)
from audiorl.errors import UserError

Edit = Callable[[Path, str, str], None]


def test_all_fields(data_dir: Path) -> None:
    write_lines(data_dir / "utt2dur", [f"{u.id} 1.5" for u in read_utterances(data_dir)])
    write_lines(data_dir / "utt2keywords", ["bob-1 New York; Oslo;"])
    write_lines(data_dir / "utt2snr", ["bob-1 12.5"])
    write_lines(data_dir / "utt2lang", [f"{u.id} en" for u in read_utterances(data_dir)])
    first, *_, last = read_utterances(data_dir)
    assert (first.id, first.keywords, first.tags) == ("anna-1", (), {"lang": "en"})
    bob = read_utterances(data_dir)[2]
    assert bob == Utterance(
        id="bob-1",
        audio=str(data_dir.parent.parent / "audio" / "bob-1.wav"),
        text="words of bob-1",
        speaker="bob",
        duration=1.5,
        keywords=("New York", "Oslo"),
        tags={"snr": "12.5", "lang": "en"},
    )
    assert last.id == "bob-3"


def test_segments_give_spans_and_audio(segmented: Path) -> None:
    bob = read_utterances(segmented)[3]
    assert (bob.id, bob.start, bob.end, bob.duration) == ("bob-2", 1.0, 2.0, 1.0)
    samples = read_audio(bob, RATE)
    assert len(samples) == RATE
    assert np.argmax(np.abs(np.fft.rfft(samples))) == 400  # Hz: the second tone of the call


def test_sorted_as_in_the_c_locale(data_dir: Path, edit: Edit) -> None:
    for file in ("text", "wav.scp", "utt2spk"):
        edit(data_dir / file, "bob-1 ", "Bob-1 ")
        edit(data_dir / file, "bob-3 ", "é-3 ")
    ids = [utterance.id for utterance in read_utterances(data_dir)]
    assert ids == sorted(ids, key=str.encode) == ["Bob-1", "anna-1", "anna-2", "bob-2", "é-3"]


def test_relative_paths_from_the_recipe(
    data_dir: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Kaldi reads them, from the recipe's folder, and the same when called from elsewhere."""
    edit(data_dir / "wav.scp", f"{tmp_path}/audio/", "audio/")
    monkeypatch.chdir(tmp_path)
    expected = read_utterances("data/train")
    assert expected[0].audio == f"{tmp_path}/audio/anna-1.wav"
    monkeypatch.chdir("/")
    assert read_utterances(data_dir) == expected
    assert read_utterances(os.path.relpath(data_dir)) == expected


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("text", "anna-2 words of anna-2\n", "", "text and utt2spk differ in 1 .* lacks anna-2"),
        ("wav.scp", "bob-3 ", "bob-4 ", "wav.scp and utt2spk differ in 2 .* lacks bob-3"),
        ("text", "anna-2 words", "anna-1 words", "text:2: anna-1: the id stands on line 1"),
        ("text", "anna-2 words", "\nanna-2 words", "text:2: the line is empty"),
    ],
)
def test_malformed(data_dir: Path, edit: Edit, file: str, old: str, new: str, message: str) -> None:
    edit(data_dir / file, old, new)
    with pytest.raises(UserError, match=message):
        read_utterances(data_dir)


@pytest.mark.parametrize("file", ["text", "utt2spk"])
def test_missing_file(data_dir: Path, file: str) -> None:
    (data_dir / file).unlink()
    with pytest.raises(UserError, match=f"{file} cannot be read"):
        read_utterances(data_dir)
    with pytest.raises(UserError, match="does not exist"):
        read_utterances(data_dir / "none")


def test_texts_alone(data_dir: Path, tmp_path: Path) -> None:
    """Read where they are wanted, as a directory and as a list; refused elsewhere by name."""
    (data_dir / "wav.scp").unlink()
    utterances = read_utterances(data_dir, texts_alone=True)
    assert [(u.id, u.audio, u.duration) for u in utterances[:1]] == [("anna-1", "", None)]
    assert [u.text for u in utterances] == [f"words of {u.id}" for u in utterances]
    listed = tmp_path / "texts.jsonl"
    write_utterances_jsonl(listed, utterances)
    assert read_utterances(listed, texts_alone=True) == utterances
    for source in (data_dir, listed):
        with pytest.raises(UserError, match=f"^{source}: anna-1 has no audio, and a text alone"):
            read_utterances(source)


def test_texts_alone_have_no_segments(segmented: Path) -> None:
    (segmented / "wav.scp").unlink()
    with pytest.raises(UserError, match=r"wav\.scp cannot be read"):
        read_utterances(segmented, texts_alone=True)


def test_bad_segments_and_durations(segmented: Path, edit: Edit) -> None:
    write_lines(segmented / "utt2dur", [f"{u.id} 1" for u in read_utterances(segmented)])
    edit(segmented / "utt2dur", "bob-2 1", "bob-2 soon")
    with pytest.raises(UserError, match="utt2dur: bob-2 lasts `soon`"):
        read_utterances(segmented)
    edit(segmented / "segments", "bob-1 call-bob", "bob-1 call-dave")
    with pytest.raises(UserError, match="segments: bob-1 is `call-dave"):
        read_utterances(segmented)


def test_commands_are_refused_unless_allowed(data_dir: Path, edit: Edit) -> None:
    edit(data_dir / "wav.scp", "bob-3.wav", "bob-3.wav |")
    with pytest.raises(UserError, match=r"wav\.scp: bob-3 is a command"):
        read_utterances(data_dir)
    assert read_utterances(data_dir, allow_pipes=True)[-1].audio.endswith("bob-3.wav |")


def test_jsonl_round_trip(segmented: Path, tmp_path: Path) -> None:
    write_lines(segmented / "utt2keywords", ["bob-1 Zoë;你好"])
    utterances = read_utterances(segmented)
    path = tmp_path / "rl.jsonl"
    extras = {"bob-1": {"subset": "keywords", "difficulty": 0.4}}
    write_utterances_jsonl(path, reversed(utterances), extras)
    assert read_utterances(path) == utterances
    lines = {item["id"]: item for item in map(json.loads, open(path, encoding="utf-8"))}
    assert lines["bob-1"]["difficulty"] == 0.4 and "difficulty" not in lines["anna-1"]
    assert "Zoë" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", "audio": "x"}', ":2 is not an utterance .*text.*speaker"),
        ("not json", ":2 is not a JSON object"),
        ("[1]", ":2 is not a JSON object"),
        ('{"id": "a", "audio": "", "text": "", "speaker": ""}', ":2: a stands there twice"),
        ('{"id": "b", "id": "c", "audio": "", "text": "", "speaker": ""}', "the key id twice"),
        (
            '{"id": "b", "audio": "x", "text": "", "speaker": "", "start": 5, "end": 1}',
            ":2 is not an utterance .*end is not after start",
        ),
    ],
)
def test_malformed_jsonl(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    write_lines(path, ['{"id": "a", "audio": "", "text": "", "speaker": ""}', line])
    with pytest.raises(UserError, match=message):
        read_utterances(path)


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, audiorl.data.utterance, audiorl.text.normalise, audiorl.data.format\n"
    code += "print([m for m in ('torch', 'numpy', 'transformers', 'kaldiio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def formatted(path: Path, **fields) -> Utterance:
    """An utterance of 2 s of noise as stage 2 writes it."""
    soundfile.write(path, noise(1), RATE)
    known = {"duration": 2.0, "audio_hash": audio_digest(str(path))}
    return Utterance("u", str(path), "text", "s", **(known | fields))


def noise(seed: int, seconds: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("seconds", [2.0, 1.0, 1.96, 3.0])
@pytest.mark.parametrize("part", [{}, {"start": 0.5, "end": 0.9, "duration": 0.4}])
def test_a_recording_that_is_another_than_in_stage_2(
    tmp_path: Path, suffix: str, seconds: float, part: dict
) -> None:
    utterance = formatted(tmp_path / f"a.{suffix}", **part)
    read_audio(utterance, RATE)
    times = (tmp_path / f"a.{suffix}").stat()
    soundfile.write(utterance.audio, noise(2, seconds), RATE)
    os.utime(utterance.audio, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(
        UserError, match=r"u: .* is not the recording that stage 2 formatted .*again"
    ):
        read_audio(utterance, RATE)
    soundfile.write(utterance.audio, noise(1), RATE)
    read_audio(utterance, RATE)


def test_an_entry_of_an_archive_that_is_another(tmp_path: Path) -> None:
    ark = tmp_path / "a.ark"
    waves = {name: (RATE, (noise(n) * 9999).astype(np.int16)) for n, name in enumerate("ab")}
    kaldiio.save_ark(str(ark), waves, scp=f"{tmp_path}/scp")
    entries = [line.split()[1] for line in (tmp_path / "scp").read_text().splitlines()]
    one, two = (Utterance(e, e, "", "s", audio_hash=audio_digest(e)) for e in entries)
    waves["b"] = (RATE, (noise(7) * 9999).astype(np.int16))
    kaldiio.save_ark(str(ark), waves)
    read_audio(one, RATE)
    with pytest.raises(UserError, match="is not the recording that stage 2 formatted"):
        read_audio(two, RATE)


@pytest.mark.parametrize("stated", [1.0, 1.9, 2.1, 4.0])
def test_a_length_that_does_not_fit_without_a_hash(tmp_path: Path, stated: float) -> None:
    utterance = formatted(tmp_path / "a.wav", duration=stated, audio_hash="")
    with pytest.raises(UserError, match=rf"gives 2\.00 s and {stated:.2f} s were there"):
        read_audio(utterance, RATE)


def test_ends_of_segments_may_be_cut_off_a_little(tmp_path: Path) -> None:
    fits = {"start": 1.5, "end": 2.3, "duration": 0.8}
    assert len(read_audio(formatted(tmp_path / "a.wav", **fits), RATE)) == RATE // 2
