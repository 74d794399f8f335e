"""Inspection of recordings by their samples: each is read once, whole, in pieces of a minute.

A header can be right and the recording useless: channels that cancel, digital silence, a joined
mp3. Faults that concern the whole recording raise; those of single utterances, and those that one
can live with, are returned.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.data.audio import (
    COPY_AGAIN,
    AudioError,
    AudioInfo,
    archive_entry,
    is_pipe,
    open_sound,
    read_samples,
)
from audiorl.data.containers import (
    FLAC_START,
    UNKNOWN,
    is_cut_ogg,
    unread_seconds,
    wav_data,
    with_size,
)

if TYPE_CHECKING:
    import numpy as np
    from soundfile import SoundFile

Spans = Mapping[str, tuple[float, float | None]]  # utterance -> start and end in s
PER_SECOND = 10  # levels of a recording
PIECE = 60  # s read at once
LACKING = 2304  # samples that an mp3 may lack: without a count of frames its length is estimated
UNREAD = 0.05  # s behind the end of what is read that may be a tag
WHOLE_SCALE = 2.0  # samples beyond it are on another scale; up to it a decoder may overshoot
LOSSY = ("MPEG_LAYER_III", "VORBIS", "OPUS")
COARSE = ("PCM_U8", "PCM_S8", "ULAW", "ALAW")  # loud samples share their few values
LEAST_STEP = 2.0**-15  # of 16 bits
FAINT = 0.003  # -50 dB of full scale
CLIPPED = 0.001  # share of samples that stand at the loudest value
CLIPPED_FROM = 0.01  # quieter ones have too few values to tell
NEAR = 0.98
CANCELLED = 0.1  # share of the energy
HALF = 0.5
REMOVE = "copy it again, or remove it"


@dataclass(frozen=True)
class Fault:
    """Fault of a recording, or of the utterance `utt` in it, as `validate` reports it."""

    kind: str  # a few constant words
    reason: str
    fix: str
    utt: str = ""
    warning: bool = True


@dataclass(frozen=True)
class Levels:
    """Levels of a recording."""

    rows: np.ndarray  # [2 or 4, N] by tenths of a second: least and greatest sample of the mean
    # of the channels; of several channels also the mean squares of that mean and of all of them
    per_second: float  # tenths of a second in one, by whole samples
    frames: int  # samples of one channel
    channels: int
    loudest: float  # magnitude of any sample; infinite where one is no number
    clipped: float  # share of samples that are cut off at a limit

    def within(self, start: float, end: float | None) -> np.ndarray:
        """Return the rows that lie in a span of seconds, or touch it if none does."""
        last = self.rows.shape[1]
        first = min(math.ceil(start * self.per_second), last)
        stop = last if end is None else min(math.floor(end * self.per_second), last)
        if stop <= first:
            first, stop = math.floor(start * self.per_second), first + 1
        return self.rows[:, first:stop]


def inspect(audio: str, spans: Spans, allow_pipes: bool = False) -> tuple[AudioInfo, list[Fault]]:
    """Decode a recording; return what it holds, by its samples, and its faults.

    spans: utterances with a transcript, which must be heard. Raises AudioError when the recording
    is missing, unreadable or empty, shorter or longer than its header says, not on the scale of
    1, or holds NaN.
    """
    import soundfile

    _refuse_sizes(audio)
    notes: list[str] = []
    form = subtype = ""
    if archive_entry(audio):
        samples, rate = read_samples(audio)
        promised = len(samples)
        levels = _measure([samples], rate)
    else:
        with open_sound(audio, allow_pipes, notes) as sound:
            rate, form, subtype = sound.samplerate, sound.format, sound.subtype
            promised = _stated_frames(audio, sound)
            try:
                levels = _measure(_pieces(sound), rate)
            except soundfile.SoundFileError as error:
                raise _cut(audio, f"it cannot be decoded to its end ({error})") from error
    if levels.frames < promised - (LACKING if form == "MP3" else 0):
        raise _cut(audio, f"of {promised} samples {levels.frames} can be decoded")
    if form == "NIST" and levels.frames > promised:
        _refuse_unread(audio, (levels.frames - promised) / rate)
    if levels.frames == 0:
        raise AudioError("empty audio", f"{audio} holds no samples", COPY_AGAIN)
    info = AudioInfo(levels.frames / rate, rate, levels.channels, levels.frames)
    if form and not is_pipe(audio):
        unread = unread_seconds(audio, form, info.duration, rate)
        if unread and form == "FLAC" and not _goes_on(audio, info):
            unread = 0.0
        _refuse_unread(audio, unread)
        if form == "OGG" and is_cut_ogg(audio):
            raise _cut(audio, "the page that ends its stream is not there")
    _refuse_values(audio, levels.loudest)
    return info, [*_recording_faults(audio, levels, subtype, notes), *_span_faults(levels, spans)]


def _stated_frames(audio: str, sound: SoundFile) -> int:
    """Return the samples that a header states, which libsndfile corrects without a word."""
    if sound.format == "NIST" and not is_pipe(audio):
        with open(audio, "rb") as stream:
            count = re.search(rb"sample_count -i (\d+)", stream.read(1024))
        return int(count[1]) if count else sound.frames
    if frames := re.search(r"(?:'ds64' chunk of |'COMM' chunk \()(\d+)", sound.extra_info):
        return int(frames[1])
    if sizes := re.search(r"Data Size +: (\d+) \(should be (\d+)\)", sound.extra_info):
        return sound.frames * int(sizes[1]) // max(int(sizes[2]), 1)
    return sound.frames


def _refuse_sizes(audio: str) -> None:
    """Raise AudioError when a wav or an entry of an archive is not as long as it says."""
    path, offset = archive_entry(audio) or (audio, 0)
    if is_pipe(audio) or not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(offset)
            kaldi = stream.read(5) == b"AUDIO"
            if kaldi:  # then the number of bytes of a number, and that number
                promised = int.from_bytes(stream.read(int.from_bytes(stream.read(1))), "little")
                present = size - stream.tell()
            data = None if kaldi else wav_data(stream, offset)
            stream.seek(offset)
            w64 = stream.read(24) if data is None else b""
    except (OSError, OverflowError):  # told where it is opened to be decoded
        return
    if data is not None and data.promised < UNKNOWN:
        promised, present = data.promised, data.present
    elif w64.startswith(b"riff") and w64[-1] == 0:  # the size of the file; streams state 2^64
        promised, present = int.from_bytes(w64[16:], "little"), size
    elif not kaldi:
        return
    if promised > present:
        raise _cut(audio, f"its header promises {promised} bytes of audio and {present} are there")
    if path == audio and data is not None and promised and data.byte_rate:
        _refuse_unread(audio, data.rest / data.byte_rate)


def _cut(audio: str, reason: str) -> AudioError:
    return AudioError("truncated audio", f"{audio} is truncated: {reason}", COPY_AGAIN)


def _refuse_unread(audio: str, seconds: float) -> None:
    if seconds > UNREAD:
        reason = f"{audio} goes on for {seconds:.2f} s after the end in its header, which is unread"
        fix = "copy it again, or decode each part of a joined file and join the samples"
        raise AudioError("more audio than stated", reason, fix)


def _goes_on(audio: str, info: AudioInfo) -> bool:
    """Whether a FLAC file can be decoded beyond its end: chance may write a frame's header."""
    import soundfile

    with open(audio, "rb") as stream:
        content = stream.read()
    if content.count(FLAC_START) > 1:
        return True
    try:
        with soundfile.SoundFile(io.BytesIO(with_size(content))) as sound:
            return sum(map(len, _pieces(sound))) > info.frames
    except soundfile.SoundFileError:
        return False


def _refuse_values(audio: str, loudest: float) -> None:
    if not loudest < float("inf"):
        reason = f"{audio} holds samples that are no numbers (NaN or infinite)"
        raise AudioError("samples that are no numbers", reason, REMOVE)
    if loudest > WHOLE_SCALE:
        reason = f"{audio} has samples up to {loudest:,.4g}, and the full scale is 1"
        raise AudioError("samples beyond 1", reason, "divide it by its scale (32768, say)")


def _pieces(sound: SoundFile) -> Iterator[np.ndarray]:
    """Yield the samples [S, C] of a file, a minute at a time."""
    size = sound.samplerate // PER_SECOND * PER_SECOND * PIECE
    while len(piece := sound.read(size, dtype="float32", always_2d=True)):
        yield piece


def _measure(pieces: Iterable[np.ndarray], rate: int) -> Levels:
    """Return the levels of a recording in pieces [S, C] that are whole tenths of a second."""
    import numpy as np

    step = rate // PER_SECOND
    rows, loudest, clipped, frames, channels = [], 0.0, 0, 0, 1
    for piece in pieces:
        if not len(piece):
            continue
        frames, channels = frames + len(piece), piece.shape[1]
        mono = piece[:, 0] if channels == 1 else piece.mean(axis=1)
        starts = np.arange(0, len(piece), step)
        counts = np.diff(np.append(starts, len(piece)))
        row = [np.minimum.reduceat(mono, starts), np.maximum.reduceat(mono, starts)]
        if channels > 1:
            row += [
                np.add.reduceat(mono * mono, starts) / counts,
                np.add.reduceat((piece * piece).mean(axis=1), starts) / counts,
            ]
        rows.append(np.stack(row))
        low, high = float(piece.min()), float(piece.max())
        # NaN compares as False with everything, so it is asked for first.
        loudest = max(loudest, -low, high) if np.isfinite(low + high) else float("inf")
        clipped += sum(_at_limit(one) + _at_limit(-one) for one in piece.T)
    if not rows:
        return Levels(np.zeros((2, 0)), 0.0, 0, channels, 0.0, 0.0)
    share = clipped / (frames * channels)
    return Levels(np.concatenate(rows, axis=1), rate / step, frames, channels, loudest, share)


def _at_limit(piece: np.ndarray) -> int:
    """Return how many samples [S] are cut off at the greatest of them; 0 of a round peak.

    Neighbours are alike there, and few samples come near it without reaching it.
    """
    import numpy as np

    limit = piece.max()
    if limit < CLIPPED_FROM or piece.min() == limit:
        return 0
    at = piece == limit
    count = int(np.count_nonzero(at))
    if count < CLIPPED * piece.size / 4:
        return 0
    pairs = int(np.count_nonzero(at[1:] & at[:-1]))
    near = int(np.count_nonzero(piece >= NEAR * limit))
    return count if pairs > count / 3 and count > 0.6 * near else 0


def _recording_faults(audio: str, levels: Levels, subtype: str, notes: list[str]) -> list[Fault]:
    faults = []
    if levels.loudest > 1 and subtype not in LOSSY:
        reason = f"{audio} has samples up to {levels.loudest:.3f}, and the full scale is 1"
        faults.append(Fault("samples above 1", reason, "divide it by that, or nothing to do"))
    if levels.clipped > CLIPPED and (subtype not in COARSE or levels.loudest > NEAR):
        reason = f"{audio} is clipped: {levels.clipped:.1%} of its samples are cut off at a limit"
        faults.append(Fault("clipped", reason, "record it at a lower level, or nothing to do"))
    if notes:
        note = next((line for line in notes if "Xing" not in line), notes[0]).strip()
        reason = f"{audio} is damaged: its decoder says `{note}`"
        faults.append(Fault("damaged mp3", reason, "listen to it, and copy it again"))
    return faults


def _span_faults(levels: Levels, spans: Spans) -> list[Fault]:
    """Return the faults of utterances with a transcript of which nothing can be heard."""
    faults = []
    for name, span in spans.items():
        rows = levels.within(*span)
        if levels.rows.shape[1] < 2 or not rows.size:  # too short to be silent, or beyond the end
            continue
        low, high = rows[:2]
        swing = float(high.max() - low.min())
        flat = float((high - low <= LEAST_STEP).mean())
        cancelled = _cancelled(rows, levels.channels)
        if cancelled > CANCELLED:
            reason = (
                f"its {levels.channels} channels cancel when they are averaged: {cancelled:.0%} of "
                "the sound is lost (one is turned over)"
            )
            fix = "write one channel as a file of its own, or remove it"
            faults.append(Fault("channels cancel", reason, fix, name, warning=False))
        elif swing <= LEAST_STEP:
            reason = "it has a transcript and no sound: all its samples are alike"
            faults.append(Fault("no sound", reason, REMOVE, name, warning=False))
        elif swing / 2 < FAINT:
            decibels = 20 * math.log10(swing / 2)
            reason = f"it is nearly silent: its loudest sample is at {decibels:.0f} dB"
            faults.append(Fault("nearly silent", reason, "listen to it", name))
        elif flat > HALF:
            reason = f"{flat:.0%} of it is digital silence"
            faults.append(Fault("mostly silent", reason, "listen to it", name))
    return faults


def _cancelled(rows: np.ndarray, channels: int) -> float:
    """Return the share of the sound's energy that the mean of the channels loses.

    Channels that have nothing in common keep 1/C of their power, those of opposite phase nothing;
    tenths of a second that keep a tenth of that count.
    """
    if channels == 1 or not rows.shape[1]:
        return 0.0
    mean, each = rows[2:]
    lost = (each > FAINT**2) & (mean * channels < 0.1 * each)
    return float(each[lost].sum() / max(each.sum(), FAINT**2))
