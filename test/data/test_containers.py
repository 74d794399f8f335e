"""Headers at random: a wav is read as it is, or refused in a sentence, and never lost in part."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiorl.data.audio import RATES, AudioError, read_samples
from audiorl.data.containers import wav_data, with_size
from audiorl.data.inspection import inspect

CASES = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
names = st.text("abcLISTinfo 12", min_size=4, max_size=4).filter(lambda name: name != "data")
chunks = st.lists(st.tuples(names.map(str.encode), st.binary(max_size=30)), max_size=3)
sizes = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 36, 0x7FFFFFFF, 0xFFFFFFFF])


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return name + struct.pack("<I", length) + content + bytes(len(content) % 2)


def wav(samples: np.ndarray, rate: int = 8000, before=(), after=(), data=None, riff=None) -> bytes:
    """A wav of int16 samples [S, C] with further chunks; `data`, `riff`: its sizes."""
    channels = samples.shape[1]
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    body = b"WAVE" + chunk(b"fmt ", form) + b"".join(chunk(*pair) for pair in before)
    body += chunk(b"data", samples.astype("<i2").tobytes(), data)
    body += b"".join(chunk(*pair) for pair in after)
    return chunk(b"RIFF", body, riff)


noise = st.tuples(st.integers(1, 5000), st.integers(1, 3), st.integers(0, 99)).map(
    lambda sizes: np.random.default_rng(sizes[2]).integers(-9999, 9999, sizes[:2])
)


@CASES
@given(samples=noise, before=chunks, after=chunks, riff=st.none() | sizes)
def test_whole_files_are_read_whole(tmp_path: Path, samples, before, after, riff) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples, before=before, after=after, riff=riff))
    try:
        info, _ = inspect(str(path), {})
    except AudioError as error:  # libsndfile wants the size of RIFF to make sense, or 0
        assert error.kind == "unreadable audio" and riff is not None
        return
    assert (info.frames, info.channels) == samples.shape
    np.testing.assert_array_equal(read_samples(str(path))[0] * 32768, samples)


@CASES
@given(samples=noise, data=sizes, before=chunks, rate=st.integers(0, 500_000))
def test_any_size_and_rate(tmp_path: Path, samples, data: int, before, rate: int) -> None:
    """Every sample is read, or there is an error; odd sizes lose less than one sample."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples, rate, before=before, data=data))
    try:
        info, _ = inspect(str(path), {})
    except AudioError as error:
        assert str(path) in str(error)
        return
    lost = samples.shape[0] - info.frames
    assert lost <= 0.05 * rate and RATES[0] <= rate <= RATES[1]


@CASES
@given(content=st.binary(max_size=200), cut=st.integers(0, 200), at=st.integers(0, 60))
def test_damaged_headers_are_one_sentence(tmp_path: Path, content, cut: int, at: int) -> None:
    """Bytes at random over a header, and an end at random."""
    path = tmp_path / "a.wav"
    whole = bytearray(wav(np.ones((500, 1), int)))
    whole[at : at + len(content) // 20] = content[: len(content) // 20]
    path.write_bytes(bytes(whole[: len(whole) - cut]) if at % 2 else content[:cut])
    try:
        assert inspect(str(path), {})[0].frames > 0
    except AudioError as error:
        assert str(error).count("\n") == 0 and str(path) in str(error)


@CASES
@given(samples=noise, before=chunks)
def test_a_stream_is_told_its_size(samples, before) -> None:
    streamed = wav(samples, before=before, data=0, riff=0)
    data = wav_data(io.BytesIO(streamed))
    if data.rest == 0:  # the samples read like chunks, or are all 0
        return
    read, _ = soundfile.read(io.BytesIO(with_size(streamed)), dtype="int16", always_2d=True)
    np.testing.assert_array_equal(read, samples)


@pytest.mark.parametrize(
    ("form", "size_at", "order"), [("WAV", 40, ">"), ("WAV", 40, "<"), ("W64", None, "<")]
)
def test_every_kind_of_wav_states_its_size(
    tmp_path: Path, form: str, size_at: int | None, order: str
) -> None:
    samples = np.random.default_rng(1).integers(-9999, 9999, 4000).astype(np.int16)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 8000, format=form, endian="BIG" if order == ">" else "FILE")
    whole = path.read_bytes()
    assert inspect(str(path), {})[0].frames == 4000
    path.write_bytes(whole[:-1000])
    with pytest.raises(AudioError, match="truncated"):
        inspect(str(path), {})
    if size_at:
        for size in (0, 4000):
            stated = struct.pack(f"{order}I", size)
            path.write_bytes(whole[:size_at] + stated + whole[size_at + 4 :])
            if size:
                with pytest.raises(AudioError, match=r"goes on for 0\.25 s"):
                    inspect(str(path), {})
            else:
                np.testing.assert_array_equal(read_samples(str(path))[0][:, 0] * 32768, samples)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFFxxxxWAVE", b"fLaC", b"fLaC" + bytes(60)])
def test_what_ends_in_its_header(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError):
        inspect(str(path), {})
