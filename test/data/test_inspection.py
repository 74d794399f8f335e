"""What samples give away: silence, channels that cancel, clipping, wrong scales, unread ends."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from kaldi_files import RATE, tone
from numpy.random import default_rng

from audiorl.data.audio import AudioError, audio_digest, read_audio
from audiorl.data.fix import fix
from audiorl.data.inspection import Fault, inspect
from audiorl.data.utterance import Utterance
from audiorl.data.validate import Checks, validate

SPEECH = tone(2.0) * (1 + tone(2.0, frequency=3.0) / 0.3) / 2  # rises and falls as speech does
ZERO = np.zeros(2 * RATE, np.float32)


def written(path: Path, samples: np.ndarray, rate: int = RATE, **form: str) -> str:
    soundfile.write(path, samples, rate, **form)
    return str(path)


def faults(audio: str, start: float = 0.0, end: float | None = None) -> list[Fault]:
    return inspect(audio, {"u": (start, end)})[1]


def refused(audio: str) -> str:
    """The kind of the error; empty if there is none."""
    try:
        inspect(audio, {"u": (0.0, None)})
    except AudioError as error:
        assert audio in str(error) and str(error).endswith(".")
        return error.kind
    return ""


def columns(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1)


SOUND = {  # name of the file: its samples, and how they are written
    "mono.wav": (SPEECH, {}),
    "mono.mp3": (SPEECH, {}),
    "loud.mp3": (SPEECH / 0.3, {}),
    "mono.ogg": (SPEECH, {}),
    "mono.opus": (SPEECH, {"format": "OGG", "subtype": "OPUS"}),
    "same.flac": (columns(SPEECH, SPEECH), {}),
    "one side.wav": (columns(SPEECH, ZERO), {}),
    "two rooms.wav": (columns(SPEECH, tone(2.0, frequency=300.0)), {}),
    "eight.wav": (columns(SPEECH, *[ZERO] * 7), {}),
    "half as loud.wav": (columns(SPEECH, -SPEECH / 2), {}),
    "full scale.wav": (tone(2.0) / 0.3, {}),
    "8 bit.wav": (SPEECH, {"subtype": "PCM_U8"}),
    "telephone.wav": (SPEECH * 3, {"subtype": "ULAW"}),
    "noise.wav": (default_rng(1).normal(0, 0.1, RATE), {}),
    "quiet.wav": (SPEECH / 50, {}),
    "float.wav": (SPEECH, {"subtype": "FLOAT"}),
}


@pytest.mark.parametrize("name", SOUND)
def test_recordings_without_a_fault(tmp_path: Path, name: str, capfd) -> None:
    samples, form = SOUND[name]
    assert faults(written(tmp_path / name, samples, **form)) == []
    assert capfd.readouterr() == ("", "")


UTTERANCE_FAULTS = {
    "channels cancel": {
        "opposite.wav": (columns(SPEECH, -SPEECH), {}),
        "nearly.flac": (columns(SPEECH, -0.9 * SPEECH), {}),
        "four.wav": (columns(SPEECH, -SPEECH, SPEECH, -SPEECH), {}),
        "opposite.mp3": (columns(SPEECH, -SPEECH), {}),
        "opposite.ogg": (columns(SPEECH, -SPEECH), {}),
        "late.wav": (columns(SPEECH, -np.roll(SPEECH, 1)), {}),
        "in its second half.wav": (columns(SPEECH, SPEECH * np.repeat([1, -1], RATE)), {}),
    },
    "no sound": {
        "zero.wav": (ZERO, {}),
        "zero.flac": (ZERO, {}),
        "zero.mp3": (ZERO, {}),
        "zero.ogg": (ZERO, {}),
        "constant.wav": (ZERO + 0.2, {}),
        "telephone.wav": (ZERO, {"subtype": "ULAW"}),
        "8 bit.wav": (ZERO, {"subtype": "PCM_U8"}),
        "two channels.wav": (columns(ZERO, ZERO), {}),
    },
    "nearly silent": {
        "faint.wav": (SPEECH / 2000, {}),
        "dither.wav": (default_rng(1).integers(-1, 2, 2 * RATE) / 32768, {}),
        "offset.wav": (SPEECH / 2000 + 0.1, {}),
        "faint.flac": (SPEECH / 1000, {}),
        "float.wav": (SPEECH / 1e4, {"subtype": "FLOAT"}),
    },
    "mostly silent": {
        "breaks off.wav": (np.where(np.arange(2 * RATE) < RATE // 2, SPEECH, 0), {}),
        "breaks off.flac": (np.where(np.arange(2 * RATE) < RATE // 3, SPEECH, 0), {}),
        "holes.wav": (np.where(np.arange(2 * RATE) // 1600 % 3 > 0, 0, tone(2.0)), {}),
        "begins late.wav": (np.where(np.arange(2 * RATE) > 1.5 * RATE, SPEECH, 0), {}),
        "stuck.wav": (np.where(np.arange(2 * RATE) < RATE // 2, SPEECH, 0.1), {}),
    },
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, files in UTTERANCE_FAULTS.items() for name in files]
)
def test_faults_of_utterances(tmp_path: Path, kind: str, name: str) -> None:
    """A transcript is what makes them faults: without one there is nothing to hear."""
    samples, form = UTTERANCE_FAULTS[kind][name]
    path = written(tmp_path / name, samples, **form)
    (fault,) = faults(path)
    assert (fault.kind, fault.utt) == (kind, "u")
    assert inspect(path, {})[1] == []


@pytest.mark.parametrize("limit", [0.02, 0.1, 0.15, 0.25])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_clipped(tmp_path: Path, limit: float, suffix: str) -> None:
    path = written(tmp_path / f"a.{suffix}", np.clip(SPEECH, -limit, limit) / limit * 0.99)
    (fault,) = faults(path)
    assert fault.kind == "clipped" and fault.warning and "cut off" in fault.reason


def test_clipped_on_one_side_or_on_one_channel(tmp_path: Path) -> None:
    above = np.minimum(SPEECH, 0.1)
    for samples in (above, -above, columns(SPEECH, above)):
        assert [f.kind for f in faults(written(tmp_path / "a.wav", samples))] == ["clipped"]


@pytest.mark.parametrize("scale", [8.0, 128.0, 32768.0, 2.0**23, 2.0**31])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_on_another_scale(tmp_path: Path, scale: float, subtype: str) -> None:
    path = written(tmp_path / "a.wav", SPEECH * scale, subtype=subtype)
    assert refused(path) == "samples beyond 1"


@pytest.mark.parametrize("peak", [1.01, 1.2, 1.9, -1.3])
def test_samples_a_little_above_1(tmp_path: Path, peak: float) -> None:
    path = written(tmp_path / "a.wav", np.append(SPEECH, peak), subtype="FLOAT")
    assert [fault.kind for fault in faults(path)] == ["samples above 1"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 9000])
def test_samples_that_are_no_numbers(tmp_path: Path, value: float, at: int) -> None:
    samples = SPEECH.copy()
    samples[at] = value
    path = written(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert refused(path) == "samples that are no numbers"


Change = Callable[[bytes], bytes]


def sizes(data: int, riff: int | None = None) -> Change:
    """A change of the sizes in the header of a plain wav."""

    def change(content: bytes) -> bytes:
        head = bytearray(content[:44])
        head[40:44] = struct.pack("<I", data)
        head[4:8] = struct.pack("<I", data + 36 if riff is None else riff)
        return bytes(head) + content[44:]

    return change


CHUNK = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
TAG = b"ID3\x03\0\0\0\0\x10\0" + bytes(2048)
UNREAD: list[tuple[str, Change]] = [
    ("wav", sizes(2 * RATE)),
    ("wav", sizes(2 * RATE, riff=4 * RATE + 36)),
    ("wav", sizes(2 * RATE + 1)),
    ("wav", sizes(2)),
    ("wav", lambda content: content * 2),
    ("wav", lambda content: content + CHUNK + content[44:]),
    ("mp3", lambda content: content * 2),
    ("mp3", lambda content: content * 5),
    ("mp3", lambda content: TAG + content + b"TAG" + bytes(125) + TAG + content),
    ("mp3", lambda content: content + bytes(700) + content),
    ("flac", lambda content: content * 2),
    ("flac", lambda content: content[:22] + (RATE // 2).to_bytes(4) + content[26:]),
    ("flac", lambda content: content[:22] + (2 * RATE - 1000).to_bytes(4) + content[26:]),
    ("ogg", lambda content: content * 2),
    ("opus", lambda content: content * 2),
]


@pytest.mark.parametrize(("suffix", "change"), UNREAD)
def test_audio_behind_the_stated_end(tmp_path: Path, suffix: str, change: Change, capfd) -> None:
    form = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    path = Path(written(tmp_path / f"a.{suffix}", SPEECH, **form))
    assert refused(str(path)) == ""
    path.write_bytes(change(path.read_bytes()))
    assert refused(str(path)) == "more audio than stated"
    assert capfd.readouterr() == ("", "")


HARMLESS: list[tuple[str, Change]] = [
    ("wav", lambda content: content + CHUNK),
    ("wav", lambda content: content + CHUNK + CHUNK),
    ("wav", lambda content: content + bytes(4096)),
    ("wav", lambda content: content + b"\1\2\3"),
    ("wav", sizes(4 * RATE, riff=0)),
    ("mp3", lambda content: TAG + content),
    ("mp3", lambda content: content + b"TAG" + bytes(125)),
    ("flac", lambda content: content + b"TAG" + bytes(125)),
]


@pytest.mark.parametrize(("suffix", "change"), HARMLESS)
def test_tags_and_padding_are_no_audio(tmp_path: Path, suffix: str, change: Change) -> None:
    path = Path(written(tmp_path / f"a.{suffix}", SPEECH))
    path.write_bytes(change(path.read_bytes()))
    info, found = inspect(str(path), {})
    assert info.frames == 2 * RATE and found == []


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("riff", [0, 36])
def test_wav_of_size_0_is_read_to_its_end(
    tmp_path: Path, subtype: str, channels: int, riff: int
) -> None:
    """As a program that writes to a pipe leaves it, and as Kaldi reads it."""
    path = Path(written(tmp_path / "a.wav", columns(*[SPEECH] * channels), subtype=subtype))
    utterance = Utterance("u", str(path), "", "s")
    whole, content = read_audio(utterance, RATE), bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", riff)
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert inspect(str(path), {})[0].frames == 2 * RATE
    np.testing.assert_array_equal(read_audio(utterance, RATE), whole)
    part = read_audio(Utterance("u", f"{path}", "", "s", start=0.5, end=1.0), RATE)
    np.testing.assert_array_equal(part, whole[RATE // 2 : RATE])
    piped = Utterance("u", f"cat {path} |", "", "s")
    np.testing.assert_array_equal(read_audio(piped, RATE, allow_pipes=True), whole)


@pytest.mark.parametrize("frames", [1, 17, 4096, 4097, 5000, 200_000])
def test_flac_of_unknown_length_is_read_to_its_end(tmp_path: Path, frames: int) -> None:
    noise = default_rng(frames).normal(0, 0.1, frames)
    path = Path(written(tmp_path / "a.flac", noise))
    whole, content = read_audio(Utterance("u", str(path), "", "s"), RATE), path.read_bytes()
    path.write_bytes(content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:])
    assert inspect(str(path), {})[0].frames == frames
    np.testing.assert_array_equal(read_audio(Utterance("u", str(path), "", "s"), RATE), whole)


@pytest.mark.parametrize("rate", [1, 7, 100, 1999, 400_001, 2_000_000_000])
def test_rates_of_no_speech_are_refused(tmp_path: Path, rate: int) -> None:
    """At 1 Hz these 2 s would become 256 million samples at 16 kHz."""
    path = Path(written(tmp_path / "a.wav", SPEECH))
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    assert refused(str(path)) in ("sample rate of no speech", "unreadable audio")
    with pytest.raises(AudioError.__base__, match=r"Hz|cannot be read"):
        read_audio(Utterance("u", str(path), "", "s"), 16000)


@pytest.mark.parametrize("rate", [15999, 16001, 44099, 47999])
def test_odd_rates_want_no_giant_kernel(tmp_path: Path, rate: int) -> None:
    path = written(tmp_path / "a.wav", tone(1.0, rate), rate)
    assert len(read_audio(Utterance("u", path, "", "s"), 16000)) == pytest.approx(16000, abs=20)


@pytest.mark.parametrize("suffix", ["m4a", "wma", "amr", "webm", "raw", "MP4"])
def test_formats_that_are_not_read_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    with pytest.raises(AudioError, match=rf"\.{suffix.lower()} is not among wav, .*ffmpeg"):
        inspect(str(path), {})


@pytest.mark.parametrize("suffix", ["opus", "ogg"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_truncated_ogg(tmp_path: Path, suffix: str, kept: float) -> None:
    form = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    path = Path(written(tmp_path / f"a.{suffix}", default_rng(1).normal(0, 0.1, 90000), **form))
    os.truncate(path, int(kept * path.stat().st_size))
    assert refused(str(path)) in ("truncated audio", "unreadable audio")


@pytest.mark.parametrize("form", ["RF64", "AIFF", "AU", "NIST", "W64"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_in_other_formats(tmp_path: Path, form: str, kept: float) -> None:
    path = Path(written(tmp_path / "a", SPEECH, format=form, subtype="PCM_16"))
    assert refused(str(path)) == ""
    os.truncate(path, int(kept * path.stat().st_size))
    assert refused(str(path)) == "truncated audio"


def test_a_sphere_file_of_more_than_it_states(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "a.sph", SPEECH, format="NIST", subtype="PCM_16"))
    path.write_bytes(path.read_bytes() * 2)
    assert refused(str(path)) == "more audio than stated"


@pytest.mark.parametrize("rate", [1, 100, 500_000])
def test_rates_of_no_speech_in_an_archive(tmp_path: Path, rate: int) -> None:
    kaldiio.save_ark(str(tmp_path / "a.ark"), {"u": (rate, (SPEECH * 9999).astype(np.int16))})
    assert refused(f"{tmp_path}/a.ark:2") == "sample rate of no speech"


@pytest.mark.parametrize("entry", ["a.ark:" + "9" * 25, "a\0b.wav", "fifo", ""])
def test_paths_that_are_no_files(tmp_path: Path, entry: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a.ark").write_bytes(b"AUDIO")
    assert audio_digest(f"{tmp_path}/{entry}") == "absent"
    with pytest.raises(AudioError):
        inspect(f"{tmp_path}/{entry}", {})


def test_a_damaged_mp3_is_told_in_place_of_the_decoder(tmp_path: Path, capfd) -> None:
    path = Path(written(tmp_path / "a.mp3", SPEECH))
    content = bytearray(path.read_bytes())
    content[1500:1600] = bytes(100)
    path.write_bytes(content)
    (fault,) = faults(str(path))
    assert fault.kind == "damaged mp3" and "its decoder says `Note: Illegal" in fault.reason
    assert len(read_audio(Utterance("u", str(path), "", "s"), RATE)) > RATE
    assert capfd.readouterr() == ("", "")


def test_each_segment_is_heard_by_itself(tmp_path: Path) -> None:
    """Also in an archive: sound, nothing, and channels that cancel, a second each."""
    sound, none = tone(1.0), np.zeros(RATE, np.float32)
    samples = columns(np.concatenate([sound, none, sound]), np.concatenate([sound, none, -sound]))
    path = written(tmp_path / "a.wav", samples)
    ark = tmp_path / "a.ark"
    kaldiio.save_ark(str(ark), {"r": (RATE, (samples * 32767).astype(np.int16))})
    spans = {"a": (0.0, 1.0), "b": (1.0, 2.0), "c": (2.0, 3.3), "d": (1.04, 1.07), "e": (9.0, 9.5)}
    for audio in (path, f"{ark}:2"):
        found = {fault.utt: fault.kind for fault in inspect(audio, spans)[1]}
        assert found == {"b": "no sound", "c": "channels cancel", "d": "no sound"}


def test_long_recordings_are_measured_in_pieces(tmp_path: Path) -> None:
    """Two minutes at 11,025 Hz, whose tenths are not whole: the silence is where it is."""
    noise = default_rng(1).normal(0, 0.1, 120 * 11025)
    noise[100 * 11025 : 110 * 11025] = 0
    path = written(tmp_path / "a.wav", noise, 11025)
    spans = {"a": (0.0, 99.9), "b": (100.0, 110.0), "c": (110.0, 120.0)}
    info, found = inspect(path, spans)
    assert info.frames == 120 * 11025
    assert [(fault.kind, fault.utt) for fault in found] == [("no sound", "b")]


def test_validate_tells_them_by_utterance_and_fix_counts_them(
    data_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    audio = data_dir.parent.parent / "audio"
    written(audio / "anna-2.wav", columns(SPEECH, -SPEECH))
    written(audio / "bob-1.wav", ZERO)
    written(audio / "bob-2.wav", columns(SPEECH, SPEECH))
    problems = {p.kind: p for p in validate(data_dir, Checks())}
    assert problems.keys() == {"channels cancel", "no sound", "channels"}
    assert str(problems["no sound"]).startswith(f"{data_dir}/wav.scp:3: bob-1: it has a transcript")
    assert "2 of 5 recordings have several channels" in problems["channels"].message
    fix(data_dir, Checks())
    said = capsys.readouterr().out
    assert "kept 3 of 5 utterances" in said
    assert "1 removed: no sound (wav.scp)" in said and "1 removed: channels cancel" in said
    assert not any(not p.warning for p in validate(data_dir, Checks()))


def test_silence_is_right_where_nobody_speaks(data_dir: Path, edit) -> None:
    written(data_dir.parent.parent / "audio" / "bob-1.wav", ZERO)
    assert "no sound" not in {p.kind for p in validate(data_dir, Checks(no_speech=True))}
    edit(data_dir / "text", "bob-1 words of bob-1", "bob-1")
    assert [p.kind for p in validate(data_dir, Checks())] == ["empty transcript"]


@pytest.mark.parametrize("form", ["AU", "CAF", "RF64", "W64"])
def test_joined_files_of_rarer_forms_are_told(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{form.lower()}"
    soundfile.write(path, 0.3 * np.sin(np.arange(16000) * 0.05), 16000, format=form)
    assert not refused(str(path))
    path.write_bytes(2 * path.read_bytes())
    assert refused(str(path)) == "more audio than stated"
