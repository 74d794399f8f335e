"""Audio as stored in wav.scp: a path, `archive.ark:offset`, or (only when allowed) `command |`.

Files go through soundfile (wav, flac, ogg, mp3, sphere), archives through kaldiio. Several
channels are averaged into one.
"""

from __future__ import annotations

import functools
import io
import os
import re
import struct
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from audiorl.errors import UserError
from audiorl.runtime.files import progress
from audiorl.runtime.stamps import digest

if TYPE_CHECKING:
    import numpy as np

    from audiorl.data.utterance import Utterance

OVERSHOOT = 0.5  # s; Kaldi's extract-segments too cuts segments that end this little too late
ARCHIVE_ENTRY = re.compile(r"(.+):(\d+)")
COPY_AGAIN = "copy the file again"
WRITE_AGAIN = "write the archive and its wav.scp again"
ARCHIVED_AUDIO = (b"RIFF", b"fLaC", b"AUDIO")  # kaldiio would also unpickle: never from outside


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

    Entries of an archive have the digest of the whole archive and their offset.
    """
    entries = {name: archive_entry(audio) or (audio, "") for name, audio in recordings.items()}
    paths = list(dict.fromkeys(path for path, _ in entries.values()))
    with ThreadPoolExecutor(nj) as pool:
        digests = pool.map(digest, paths)
        known = dict(zip(paths, progress(digests, desc, len(paths), "file"), strict=True))
    return {name: f"{known[path]}:{at}".rstrip(":") for name, (path, at) in entries.items()}


def read_audio(utterance: Utterance, sample_rate: int, allow_pipes: bool = False) -> np.ndarray:
    """Return the utterance's samples as float32 [S], mono, at `sample_rate` Hz.

    Only the segment is read where the format can seek. Raises UserError when the audio is
    missing or unreadable, holds NaN, ends before the segment does, or is a command and
    `allow_pipes` is off.
    """
    import numpy as np

    try:
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
    return mono if rate == sample_rate else resample(mono, rate, sample_rate)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Return `samples` [S] at `new_rate` Hz (torchaudio's windowed sinc)."""
    import torch

    with torch.inference_mode():
        return _resampler(rate, new_rate)(torch.from_numpy(samples)).numpy()


@functools.lru_cache(maxsize=16)
def _resampler(rate: int, new_rate: int):
    import torchaudio

    return torchaudio.transforms.Resample(rate, new_rate)


def audio_info(audio: str, allow_pipes: bool = False) -> AudioInfo:
    """Read the header of a file; read an archive entry or the output of a command whole.

    Raises UserError when the audio is missing, empty or not audio.
    """
    if is_pipe(audio) or archive_entry(audio):
        samples, rate = read_samples(audio, allow_pipes=allow_pipes)
        return AudioInfo(len(samples) / rate, rate, samples.shape[1], len(samples))
    import soundfile

    try:
        header = soundfile.info(audio)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(audio, error) from error
    return AudioInfo(
        header.frames / header.samplerate, header.samplerate, header.channels, header.frames
    )


# Samples that the end may lack: an mp3 without a count of frames has its length estimated.
LACKING = {".flac": 0, ".mp3": 2304}


def check_audio(audio: str, allow_pipes: bool = False) -> AudioInfo:
    """Return `audio_info`; raise AudioError when the file is shorter than its header says.

    Checked in wav, flac, mp3 and archives; headers of other formats state no length.
    """
    path, offset = archive_entry(audio) or (audio, 0)
    if not is_pipe(audio) and os.path.isfile(path):
        try:
            with open(path, "rb") as stream:
                promised, present = _promised_bytes(stream, offset)
        except OSError as error:
            raise _unreadable(audio, error) from error
        if promised > present:
            reason = f"its header promises {promised} bytes of audio and {present} are there"
            raise AudioError("truncated audio", f"{audio} is truncated: {reason}", COPY_AGAIN)
    info = audio_info(audio, allow_pipes)
    if info.frames == 0:
        raise AudioError("empty audio", f"{audio} holds no samples", COPY_AGAIN)
    if (suffix := os.path.splitext(audio.lower())[1]) in LACKING:
        _decode_end(audio, info, LACKING[suffix])
    return info


def _promised_bytes(stream: BinaryIO, offset: int) -> tuple[int, int]:
    """Return (bytes of audio in a RIFF or kaldiio header, bytes that follow it).

    (0, 0) for other formats, and when the writer did not know the size: tools that write to a
    pipe put almost 2^31 or 2^32 there.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(offset)
    if stream.read(5) == b"AUDIO":  # then the number of bytes of a number, and that number
        promised = int.from_bytes(stream.read(int.from_bytes(stream.read(1))), "little")
        return promised, size - stream.tell()
    stream.seek(offset)
    if stream.read(12)[:4] != b"RIFF":
        return 0, 0
    while len(chunk := stream.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            return (0 if length >= 0x7FFFF000 else length), size - stream.tell()
        stream.seek(length + length % 2, io.SEEK_CUR)
    return 0, 0


def _decode_end(audio: str, info: AudioInfo, lacking: int) -> None:
    """Decode the last samples of a file: a truncated one has a good header and no end."""
    import soundfile

    last = min(info.frames, info.sample_rate)
    try:
        with soundfile.SoundFile(audio) as stream:
            stream.seek(info.frames - last)
            whole = len(stream.read(last)) >= last - lacking
    except soundfile.SoundFileError:
        whole = False
    if not whole:
        reason = f"of {info.frames} samples the last ones cannot be decoded"
        raise AudioError("truncated audio", f"{audio} is truncated: {reason}", COPY_AGAIN)


def read_samples(
    audio: str, start: float = 0.0, end: float | None = None, allow_pipes: bool = False
) -> tuple[np.ndarray, int]:
    """Return samples [S, C] as float32 from `start` to `end` seconds, and the sample rate in Hz.

    Raises AudioError when the audio is missing or unreadable, or a command that is not allowed.
    """
    import soundfile

    source: str | io.BytesIO = audio
    if is_pipe(audio):
        source = io.BytesIO(run_pipe(audio, allow_pipes))
    elif entry := archive_entry(audio):
        samples, rate = _read_archive(*entry)
        first, count = _span(audio, start, end, len(samples), rate)
        return samples[first : first + count], rate
    try:
        with soundfile.SoundFile(source) as stream:
            first, count = _span(audio, start, end, stream.frames, stream.samplerate)
            stream.seek(first)
            return stream.read(count, dtype="float32", always_2d=True), stream.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(audio, error) from error


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
    except OSError as error:
        raise _unreadable(path, error) from error
    except AudioError:
        raise
    except Exception as error:  # kaldiio raises whatever its decoders raise
        reason = f"{path}:{offset} cannot be decoded ({error})"
        raise AudioError("unreadable audio", reason, WRITE_AGAIN) from error
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
    fix = "give yourself access" if isinstance(error, PermissionError) else COPY_AGAIN
    return AudioError("unreadable audio", f"{audio} cannot be read ({error})", fix)
