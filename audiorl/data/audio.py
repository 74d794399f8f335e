"""Audio as stored in wav.scp: a path, `archive.ark:offset`, or (only when allowed) `command |`.

Files go through soundfile (wav, flac, ogg, mp3, sphere), archives through kaldiio. Several
channels are averaged into one.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import io
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from audiorl.data.containers import wav_data, with_size
from audiorl.errors import UserError
from audiorl.runtime.files import progress
from audiorl.runtime.stamps import ABSENT, digest

if TYPE_CHECKING:
    import numpy as np
    from soundfile import SoundFile

    from audiorl.data.utterance import Utterance

OVERSHOOT = 0.5  # s; Kaldi's extract-segments too cuts segments that end this little too late
ARCHIVE_ENTRY = re.compile(r"(.+):(\d{1,18})")
COPY_AGAIN = "copy the file again"
FORMAT_AGAIN = "run stage 2 and what follows from it again"
WRITE_AGAIN = "write the archive and its wav.scp again"
ARCHIVED_AUDIO = (b"RIFF", b"fLaC", b"AUDIO")  # kaldiio would also unpickle: never from outside
SUFFIXES = ("wav", "flac", "ogg", "oga", "opus", "mp3", "sph", "aiff", "aif", "au", "w64", "caf")
MP3_STARTS = (b"ID3", *(bytes([0xFF, byte]) for byte in range(0xE0, 0x100)))
RATES = (2000, 400_000)  # Hz; headers with another say something wrong
MOST_FRAMES = 1 << 40  # samples; libsndfile takes about 2^63 where none are stated
SAME_LENGTH = 0.05  # s; less is rounding of tables
_POINTER = threading.RLock()  # whoever holds it may point C's standard error elsewhere


class AudioError(UserError):
    """Recording that cannot be used: kind in a few constant words, message, and fix."""

    def __init__(self, kind: str, reason: str, fix: str):
        super().__init__(f"{reason}; {fix}.")
        self.kind, self.reason, self.fix = kind, reason, fix


@dataclass(frozen=True)
class AudioInfo:
    """Contents of a recording's header."""

    duration: float  # s
    sample_rate: int  # Hz
    channels: int
    frames: int  # samples of one channel


def is_pipe(audio: str) -> bool:
    """Return whether a wav.scp entry is a command whose output is the audio."""
    return audio.rstrip().endswith("|")


def archive_entry(audio: str) -> tuple[str, int] | None:
    """Return (path, byte offset) of an `x.ark:123` entry; None for a path, even with a colon."""
    match = ARCHIVE_ENTRY.fullmatch(audio)
    if match is None or os.path.exists(audio):
        return None
    return match[1], int(match[2])


def audio_digests(recordings: Mapping[str, str], nj: int = 1, desc: str = "") -> dict[str, str]:
    """Return a digest of each recording's content by its name, read by `nj` threads.

    An entry of an archive has that of its samples, the only part of it whose end is known.
    """
    paths = list(dict.fromkeys(recordings.values()))
    with ThreadPoolExecutor(nj) as pool:
        digests = pool.map(audio_digest, paths)
        known = dict(zip(paths, progress(digests, desc, len(paths), "file"), strict=True))
    return {name: known[path] for name, path in recordings.items()}


def audio_digest(audio: str) -> str:
    """Return the digest of a recording, or that it is absent: missing, or no regular file."""
    if not (entry := archive_entry(audio)):
        return digest(audio) if os.path.isfile(audio) else ABSENT
    try:
        return _samples_digest(*_read_archive(*entry))
    except AudioError:
        return ABSENT


def _samples_digest(samples: np.ndarray, rate: int) -> str:
    return hashlib.sha256(samples.tobytes() + str(rate).encode()).hexdigest()


def read_audio(utterance: Utterance, sample_rate: int, allow_pipes: bool = False) -> np.ndarray:
    """Return the utterance's samples as float32 [S], mono, at `sample_rate` Hz.

    Only the segment is read where the format can seek. Raises UserError when the audio is
    missing or unreadable, holds NaN, ends before the segment does, is not as long as the utterance,
    is not the recording that stage 2 saw, or is a command and `allow_pipes` is off.
    """
    import numpy as np

    try:
        _check_content(utterance)
        samples, rate = read_samples(  # [S, C]
            utterance.audio, utterance.start, utterance.end, allow_pipes
        )
    except UserError as error:
        raise UserError(f"{utterance.id}: {error}") from error
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if len(mono) == 0:
        raise UserError(
            f"{utterance.id}: {utterance.audio} has no samples between {utterance.start:g} s and "
            f"{'its end' if utterance.end is None else f'{utterance.end:g} s'}; "
            "run `python -m audiorl.bin.data_dir fix` on the data directory."
        )
    if not np.isfinite(mono).all():
        raise UserError(
            f"{utterance.id}: {utterance.audio} holds samples that are no numbers (NaN or "
            f"infinite); {COPY_AGAIN}, or remove the utterance."
        )
    stated, seconds = utterance.duration, len(mono) / rate
    slack = SAME_LENGTH if utterance.end is None else OVERSHOOT
    if stated and abs(stated - seconds) > max(slack, 0.01 * stated):
        raise UserError(
            f"{utterance.id}: {utterance.audio} gives {seconds:.2f} s and {stated:.2f} s were "
            f"there when the set was made; restore the file, or {FORMAT_AGAIN}."
        )
    return mono if rate == sample_rate else resample(mono, rate, sample_rate)


def _check_content(utterance: Utterance) -> None:
    """Raise AudioError if the recording is another than stage 2 saw; the file is read once."""
    if not utterance.audio_hash or is_pipe(utterance.audio):
        return
    if (found := audio_digest(utterance.audio)) not in (utterance.audio_hash, ABSENT):
        reason = f"{utterance.audio} is not the recording that stage 2 formatted ({found[:8]} …)"
        raise AudioError("changed audio", reason, f"restore the file, or {FORMAT_AGAIN}")


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Return `samples` [S] at `new_rate` Hz (torchaudio's windowed sinc)."""
    import torch

    if not len(samples):  # torchaudio cannot
        return samples
    with torch.inference_mode():
        return _resampler(rate, new_rate)(torch.from_numpy(samples)).numpy()


@functools.lru_cache(maxsize=16)
def _resampler(rate: int, new_rate: int):
    import torchaudio

    # 16001 Hz to 16000 Hz would want a kernel of a gigabyte; a change of 0.01 % is not heard.
    ratio = Fraction(new_rate, rate).limit_denominator(1000)
    return torchaudio.transforms.Resample(ratio.denominator, ratio.numerator)


def audio_info(audio: str, allow_pipes: bool = False) -> AudioInfo:
    """Read the header of a file; read an archive entry or the output of a command whole.

    Raises UserError when the audio is missing, empty or not audio.
    """
    if entry := archive_entry(audio):
        samples, rate = _read_archive(*entry)
        return AudioInfo(len(samples) / rate, rate, samples.shape[1], len(samples))
    with open_sound(audio, allow_pipes) as sound:
        frames, rate = sound.frames, sound.samplerate
        return AudioInfo(frames / rate, rate, sound.channels, frames)


@contextlib.contextmanager
def open_sound(
    audio: str, allow_pipes: bool = False, notes: list[str] | None = None
) -> Iterator[SoundFile]:
    """Open a file, or the output of a command, that is not in an archive.

    notes: gets what libmpg123 says of an mp3, which nobody sees otherwise. Raises AudioError when
    the audio is missing or unreadable, or ends in the middle of what is read.
    """
    import soundfile

    try:
        source, head = _source(audio, allow_pipes)
        said = _decoder_notes() if head.startswith(MP3_STARTS) else contextlib.nullcontext([])
        with said as lines, soundfile.SoundFile(source) as sound:
            _check_rate(audio, sound.samplerate)
            if sound.frames > MOST_FRAMES:
                reason = f"{audio} states no length in its header, as a stream does"
                raise AudioError("no length", reason, "write it again with `sox` or `ffmpeg`")
            yield sound
        if notes is not None:
            notes += lines
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(audio, error) from error


def _check_rate(audio: str, rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        reason = f"{audio} is at {rate} Hz, and speech at {RATES[0]:,} to {RATES[1]:,} Hz"
        raise AudioError("sample rate of no speech", reason, f"fix it, or {COPY_AGAIN}")


def _source(audio: str, allow_pipes: bool) -> tuple[str | io.BytesIO, bytes]:
    """Return what soundfile can open, and its first bytes; a streamed wav is told its size."""
    if is_pipe(audio):
        content = with_size(run_pipe(audio, allow_pipes))
        return io.BytesIO(content), content[:3]
    if os.path.splitext(audio)[1].lower() == ".raw" or not os.path.isfile(audio):
        raise OSError("it is no file with a header")
    with open(audio, "rb") as stream:
        head = stream.read(4)
        streamed = head[:3] == b"RIF" and (data := wav_data(stream)) and data.streamed
        if head == b"fLaC":
            head += stream.read(22)
            streamed = len(head) == 26 and not int.from_bytes(head[21:]) & 0xFFFFFFFFF
        if streamed:
            stream.seek(0)
            return io.BytesIO(with_size(stream.read())), head
    return audio, head


@contextlib.contextmanager
def _decoder_notes() -> Iterator[list[str]]:
    """Yield a list that gets the lines which C code writes to its standard error meanwhile.

    C's `stderr` itself points elsewhere: what Python and child processes write is not caught.
    """
    lines: list[str] = []
    libc = ctypes.CDLL(None)
    name = next((n for n in ("stderr", "__stderrp") if hasattr(libc, n)), None)
    if name is None:
        yield lines
        return
    libc.fdopen.restype = ctypes.c_void_p
    pointer = ctypes.c_void_p.in_dll(libc, name)
    with _POINTER, tempfile.TemporaryFile() as kept:
        terminal, pointer.value = pointer.value, libc.fdopen(os.dup(kept.fileno()), b"w")
        try:
            yield lines
        finally:
            libc.fclose(ctypes.c_void_p(pointer.value))
            pointer.value = terminal
            kept.seek(0)
            lines += kept.read().decode(errors="replace").splitlines()


def read_samples(
    audio: str, start: float = 0.0, end: float | None = None, allow_pipes: bool = False
) -> tuple[np.ndarray, int]:
    """Return samples [S, C] as float32 from `start` to `end` seconds, and the sample rate in Hz.

    Raises AudioError when the audio is missing or unreadable, or a command that is not allowed.
    """
    if entry := archive_entry(audio):
        samples, rate = _read_archive(*entry)
        first, count = _span(audio, start, end, len(samples), rate)
        return samples[first : first + count], rate
    with open_sound(audio, allow_pipes) as sound:
        first, count = _span(audio, start, end, sound.frames, sound.samplerate)
        sound.seek(first)
        return sound.read(count, dtype="float32", always_2d=True), sound.samplerate


def _span(audio: str, start: float, end: float | None, frames: int, rate: int) -> tuple[int, int]:
    """Return (first sample, number of samples) of a segment in a recording of `frames`."""
    if end is not None and end > frames / rate + OVERSHOOT:
        reason = f"{audio} lasts {frames / rate:.2f} s and the segment ends at {end:g} s"
        raise AudioError("truncated audio", reason, "fix segments or copy the file again")
    first = min(round(start * rate), frames)
    last = frames if end is None else min(round(end * rate), frames)
    return first, max(last - first, 0)


def _read_archive(path: str, offset: int) -> tuple[np.ndarray, int]:
    """Return samples [S, C] as float32 and sample rate of the archive entry at an offset."""
    import kaldiio
    import numpy as np

    try:
        with open(path, "rb") as stream:
            stream.seek(offset)
            if not stream.read(5).startswith(ARCHIVED_AUDIO):
                reason = f"{path}:{offset} is not audio (wav or flac)"
                raise AudioError("unreadable audio", reason, WRITE_AGAIN)
            stream.seek(offset)
            rate, samples = kaldiio.matio.read_kaldi(stream)
    except (OSError, OverflowError) as error:
        raise _unreadable(path, error) from error
    except AudioError:
        raise
    except Exception as error:  # kaldiio raises whatever its decoders raise
        reason = f"{path}:{offset} cannot be decoded ({error})"
        raise AudioError("unreadable audio", reason, WRITE_AGAIN) from error
    _check_rate(f"{path}:{offset}", rate)
    if samples.dtype == np.int16:
        samples = samples / np.float32(32768)
    elif samples.dtype == np.uint8:
        samples = (samples - np.float32(128)) / np.float32(128)
    return samples.astype(np.float32).reshape(len(samples), -1), rate


def run_pipe(audio: str, allow_pipes: bool) -> bytes:
    """Return the output of a `command |` entry.

    Raises UserError unless `allow_pipes` is set, or when the command fails.
    """
    if not allow_pipes:
        reason = f"`{audio}` is a command, and those of a data directory are not run unless asked"
        raise AudioError("command", reason, "write a file, or pass --allow-pipes if you trust it")
    command = audio.rstrip().removesuffix("|")
    done = subprocess.run(
        command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        reason = f"`{audio}` failed with status {done.returncode} ({''.join(last)})"
        raise AudioError("failing command", reason, "run it by hand")
    return done.stdout


def _unreadable(audio: str, error: Exception) -> AudioError:
    """Return the error of a file that soundfile or the system refused."""
    if not os.path.exists(audio):
        fix = "fix the path or restore the file"
        return AudioError("missing audio", f"{audio} does not exist", fix)
    if os.path.isdir(audio):
        return AudioError("missing audio", f"{audio} is a folder", "name an audio file")
    if os.path.getsize(audio) == 0:
        return AudioError("empty audio", f"{audio} is empty", COPY_AGAIN)
    suffix = os.path.splitext(audio)[1].lower()
    if suffix and suffix[1:] not in SUFFIXES:
        reason = f"{audio} cannot be read: {suffix} is not among {', '.join(SUFFIXES)}"
        return AudioError("format not read", reason, f"convert it: `ffmpeg -i x{suffix} x.flac`")
    fix = "give yourself access" if isinstance(error, PermissionError) else COPY_AGAIN
    return AudioError("unreadable audio", f"{audio} cannot be read ({error})", fix)
