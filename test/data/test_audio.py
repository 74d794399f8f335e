"""Reading audio: formats, archives, segments, commands, and files that are not whole."""

from __future__ import annotations

import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from kaldi_files import RATE, tone

from audiorl.data.audio import AudioError, AudioInfo, audio_info, read_audio
from audiorl.data.inspection import inspect
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError


def check_audio(audio: str, allow_pipes: bool = False) -> AudioInfo:
    return inspect(audio, {}, allow_pipes)[0]


def utterance(audio: str | Path, **fields) -> Utterance:
    return Utterance(id="u1", audio=str(audio), text="", speaker="s", **fields)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_formats_and_odd_names(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a ü 你:12 b.{suffix}"
    soundfile.write(path, tone(1.0, 16000), 16000)
    assert audio_info(str(path)).sample_rate == 16000
    assert check_audio(str(path)).duration == pytest.approx(1.0, abs=0.1)
    samples = read_audio(utterance(path), 16000)
    assert samples.dtype == np.float32 and samples.ndim == 1
    inner = slice(4000, 12000)
    level = np.sqrt(np.mean(samples[inner] ** 2))
    assert level == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_path_that_ends_like_an_archive_entry(tmp_path: Path) -> None:
    path = tmp_path / "take:12"
    soundfile.write(path, tone(0.5), RATE, format="WAV")
    assert audio_info(str(path)).frames == RATE // 2


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    left = tone(0.5)
    soundfile.write(path, np.stack([left, np.zeros_like(left)], axis=1), RATE)
    assert audio_info(str(path)).channels == 2
    np.testing.assert_allclose(read_audio(utterance(path), RATE), left / 2, atol=1e-4)


def test_resampling_keeps_length_and_pitch(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 44100), 44100)
    samples = read_audio(utterance(path), 16000)
    assert abs(len(samples) - 16000) <= 1
    peak = np.argmax(np.abs(np.fft.rfft(samples))) * 16000 / len(samples)
    assert peak == pytest.approx(440, abs=2)


def test_segment_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    whole = tone(2.0)
    soundfile.write(path, whole, RATE)
    samples = read_audio(utterance(path, start=0.5, end=1.25), RATE)
    np.testing.assert_allclose(samples, whole[4000:10000], atol=1e-4)
    little_over = read_audio(utterance(path, start=1.5, end=2.3), RATE)
    assert len(little_over) == RATE // 2
    with pytest.raises(UserError, match=r"u1: .*lasts 2\.00 s and the segment ends at 3 s"):
        read_audio(utterance(path, start=1.5, end=3.0), RATE)
    with pytest.raises(UserError, match="no samples between"):
        read_audio(utterance(path, start=2.1, end=2.3), RATE)


@pytest.mark.parametrize("form", ["kaldi", "wav", "flac"])
def test_archives(tmp_path: Path, form: str) -> None:
    """Kaldi's archives and ESPnet's give the samples that went in, whole or in part."""
    waves = {name: (tone(1.0, frequency=f) * 32767).astype(np.int16) for name, f in A_AND_B}
    ark, scp = tmp_path / "my wav.ark", tmp_path / "wav.scp"
    kaldiio.save_ark(
        str(ark),
        {name: (RATE, wave) for name, wave in waves.items()},
        scp=str(scp),
        write_function=None if form == "kaldi" else "soundfile",
        write_kwargs={"format": form} if form == "flac" else {},
    )
    for line in scp.read_text().splitlines():
        name, entry = line.split(" ", 1)
        assert check_audio(entry).frames == RATE
        samples = read_audio(utterance(entry), RATE)
        np.testing.assert_allclose(samples, waves[name] / 32768, atol=1e-4)
        part = read_audio(utterance(entry, start=0.25, end=0.5), RATE)
        np.testing.assert_allclose(part, samples[2000:4000])


A_AND_B = (("a", 300.0), ("b", 600.0))


def test_archive_of_something_else_is_not_unpickled(tmp_path: Path) -> None:
    ark = tmp_path / "x.ark"
    ark.write_bytes(b"a PKL" + b"cposix\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(AudioError, match="is not audio"):
        audio_info(f"{ark}:2")
    assert not Path("hacked").exists()
    with pytest.raises(AudioError, match="does not exist"):
        audio_info(f"{tmp_path}/none.ark:2")
    with pytest.raises(AudioError, match="is not audio"):
        audio_info(f"{ark}:9999")


def test_commands_run_only_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5), RATE)
    piped = utterance(f"touch {tmp_path}/ran && cat {path} |")
    with pytest.raises(UserError, match="--allow-pipes"):
        read_audio(piped, RATE)
    assert not (tmp_path / "ran").exists()
    assert len(read_audio(piped, RATE, allow_pipes=True)) == RATE // 2
    assert (tmp_path / "ran").exists()
    with pytest.raises(AudioError, match=r"failed with status 3 \(why\)"):
        check_audio("echo why >&2; exit 3 |", allow_pipes=True)


def test_what_is_not_audio(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a wave")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    for name, kind in [
        ("absent.wav", "missing audio"),
        ("", "missing audio"),
        ("long" * 100, "missing audio"),
        ("empty.wav", "empty audio"),
        ("none.wav", "empty audio"),
        ("text.wav", "unreadable audio"),
    ]:
        with pytest.raises(AudioError) as caught:
            check_audio(f"{tmp_path}/{name}")
        assert caught.value.kind == kind, name
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ark", "espnet.ark"])
def test_truncated(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, RATE * 2)
    path = tmp_path / f"a.{suffix}"
    entry = str(path)
    if suffix.endswith("ark"):
        kaldiio.save_ark(
            str(path),
            {"u": (RATE, (noise * 32767).astype(np.int16))},
            write_function="soundfile" if suffix == "espnet.ark" else None,
            write_kwargs={},
        )
        entry += ":2"
    else:
        soundfile.write(path, noise, RATE)
    check_audio(entry)
    if suffix == "mp3":
        kept = min(kept, 0.7)  # its length is known to a few frames
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(AudioError, match="truncated") as caught:
        check_audio(entry)
    assert caught.value.kind == "truncated audio"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_streamed_wav_without_a_size_is_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "streamed.wav"
    soundfile.write(path, tone(1.0), RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert check_audio(str(path)).frames == RATE
    assert len(read_audio(utterance(path), RATE)) == RATE


def test_wav_with_chunks_before_and_after_the_audio(tmp_path: Path) -> None:
    """An odd LIST chunk before and one after `data`, as editors write them."""
    path = tmp_path / "tagged.wav"
    soundfile.write(path, tone(0.5), RATE)
    content = path.read_bytes()
    at = content.index(b"data")
    extra = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    path.write_bytes(content[:at] + extra + content[at:] + extra)
    assert check_audio(str(path)).frames == RATE // 2


@pytest.mark.parametrize("offset", ["9" * 18, "1" + "0" * 25, "9" * 5000])
def test_an_offset_beyond_any_file(tmp_path: Path, offset: str) -> None:
    (tmp_path / "x.ark").write_bytes(b"a " + bytes(100))
    with pytest.raises(AudioError) as refusal:
        audio_info(f"{tmp_path}/x.ark:{offset}")
    assert "\n" not in str(refusal.value)
