"""Sizes that audio files state, against the bytes that are there.

Decoders believe a header: of a file that holds more than its header says they read a part, without
a word. Streams written to a pipe have a size of 0, or nearly 2^31 or 2^32, as nobody went back.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

UNKNOWN = 0x7FFFF000  # bytes; a stated size from here on says that the writer did not know it
FLAC_START = b"fLaC\x00\x00\x00\x22"  # marker and the header of the first block, of 34 bytes
OGG_START = b"OggS\x00\x02"  # page that begins a stream
BEGINNINGS = {  # of files, by what soundfile calls them; long enough not to occur in audio
    **{"FLAC": FLAC_START, "OGG": OGG_START, "AU": b".snd\0\0", "CAF": b"caff\0\1"},
    **{"RF64": b"RF64\xff\xff\xff\xff", "W64": b"riff\x2e\x91\xcf\x11"},
}
OGG_PAGE = 65_307  # bytes of a page at most
ENCODER_DELAY = 4  # mp3 frames that encoders add and decoders leave out, at most
BITRATES = {  # kbit/s by MPEG 1, and by MPEG 2 and 2.5, of layer III
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz


@dataclass(frozen=True)
class WavData:
    """Chunk of a RIFF file that holds the audio."""

    size_at: int  # bytes from the beginning of the file to the field of its size
    promised: int  # bytes, as the field says
    present: int  # bytes from its beginning to the end of the file
    rest: int  # of these, bytes behind it that are no chunks of RIFF
    byte_rate: int  # bytes a second
    order: str  # of its numbers, as `struct` names it

    @property
    def streamed(self) -> bool:
        """Whether the size is 0 and audio follows, as Kaldi and sox read it: to the end."""
        return self.promised == 0 and self.rest > 0


def wav_data(stream: BinaryIO, offset: int = 0) -> WavData | None:
    """Return the audio of the RIFF file that begins at `offset`; None if there is none."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(offset)
    order = {b"RIFF": "<", b"RIFX": ">"}.get(stream.read(12)[:4])
    if order is None:
        return None
    byte_rate = 0
    while len(chunk := stream.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", chunk)
        start = stream.tell()
        if name == b"data":
            ends = (start + length, start + length + length % 2)
            rest = min(_no_chunks(stream, end, size, order) for end in ends)
            return WavData(start - 4, length, size - start, rest, byte_rate, order)
        if name == b"fmt " and length >= 12:
            byte_rate = struct.unpack(f"{order}8xI", stream.read(12))[0]
        stream.seek(start + length + length % 2)
    return None


def _no_chunks(stream: BinaryIO, at: int, size: int, order: str) -> int:
    """Return how many bytes from `at` on are no chunks; 0 where zeros alone fill the file."""
    while at + 8 <= size:
        stream.seek(at)
        name, length = struct.unpack(f"{order}4sI", stream.read(8))
        printable = all(0x20 <= letter < 0x7F for letter in name)
        if not printable or name in (b"RIFF", b"RIFX") or at + 8 + length > size:
            stream.seek(at)
            return size - at if stream.read().strip(b"\0") else 0
        at += 8 + length + length % 2
    return max(size - at, 0)


def with_size(content: bytes) -> bytes:
    """Return a wav or FLAC file; one whose writer could not state its size states it."""
    if content.startswith(b"fLaC"):
        _, frames = flac_samples(content)
        head = (content[21] & 0xF0 | frames >> 32) << 32 | frames & 0xFFFFFFFF
        return content[:21] + head.to_bytes(5) + content[26:]
    data = wav_data(io.BytesIO(content))
    if data is None or not data.streamed:
        return content
    size = struct.pack(f"{data.order}I", min(data.present, 0xFFFFFFFF))
    return content[: data.size_at] + size + content[data.size_at + 4 :]


def flac_samples(content: bytes | mmap.mmap) -> tuple[int, int]:
    """Return the samples of a FLAC file as its header states them, and as its last frame does."""
    stated = int.from_bytes(content[21:26]) & 0xFFFFFFFFF
    largest = int.from_bytes(content[10:12])  # samples of a frame, all but the last
    at = content.rfind(b"\xff", 42)
    while at > 0:
        if (last := _flac_frame(content[at : at + 16], largest)) is not None:
            return stated, last
        at = content.rfind(b"\xff", 42, at)
    return stated, 0


def _flac_frame(head: bytes, largest: int) -> int | None:
    """Return the number of samples up to the end of a frame; None if none begins here."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    code, rate = head[2] >> 4, head[2] & 15
    more = max(8 - (head[4] ^ 0xFF).bit_length(), 1)  # bytes of a number as UTF-8 writes it
    end = 4 + more + {6: 1, 7: 2}.get(code, 0) + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if code == 0 or len(head) <= end or _crc8(head[:end]) != head[end]:
        return None
    number = head[4] & (0x7F if more == 1 else 0xFF >> more + 1)
    for byte in head[5 : 4 + more]:
        number = number << 6 | byte & 0x3F
    if code in (6, 7):
        size = int.from_bytes(head[4 + more : 4 + more + code - 5]) + 1
    else:
        size = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    return (number if head[1] & 1 else number * largest) + size


def _crc8(head: bytes) -> int:
    """Return the checksum of a FLAC frame's header (polynomial 0x107)."""
    value = 0
    for byte in head:
        value ^= byte
        for _ in range(8):
            value = value << 1 ^ (0x107 if value & 0x80 else 0)
    return value


def unread_seconds(path: str, form: str, seconds: float, rate: int) -> float:
    """Return how many seconds of a file its decoder does not read.

    `form`: as soundfile names it; `seconds`, `rate`: what the decoder read, and its rate in Hz.
    Files that were joined with `cat` have more than one header, of which the first is believed.
    """
    marker = BEGINNINGS.get(form)
    if not marker and form != "MP3":
        return 0.0
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if form == "MP3":
            samples, slack = _mp3_samples(content)
            return max(samples - slack - seconds * rate, 0) / rate
        second = content.find(marker, content.find(marker) + 1)
        if second > 0:
            return seconds * (len(content) - second) / second
        return max(flac_samples(content)[1] / rate - seconds, 0) if form == "FLAC" else 0.0


def is_cut_ogg(path: str) -> bool:
    """Whether the page that ends an Ogg file is not whole; libsndfile reads a cut Opus file."""
    with open(path, "rb") as stream:
        stream.seek(-min(os.path.getsize(path), OGG_PAGE), io.SEEK_END)
        tail = stream.read()
    page = tail[max(tail.rfind(b"OggS\0"), 0) :]
    if len(page) < 27 or not page[5] & 4:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _mp3_samples(content: mmap.mmap) -> tuple[int, int]:
    """Return the samples of all frames of an mp3, and how many of them are an encoder's delay.

    (0, 0) for layers I and II. A frame that holds a tag (Xing, Info, VBRI) has no samples.
    """
    samples = per_frame = at = 0
    while at + 4 <= len(content):
        length, held = _mp3_frame(content, at)
        if length:
            tagged = any(tag in content[at : at + 44] for tag in (b"Xing", b"Info", b"VBRI"))
            samples, per_frame, at = samples + (0 if tagged else held), held, at + length
        elif content[at : at + 3] == b"ID3" and at + 10 <= len(content):
            size = 0
            for seven_bits in content[at + 6 : at + 10]:
                size = size << 7 | seven_bits & 0x7F
            at += 10 + size
        else:  # noise looks like a frame at times: two in a row are wanted
            at = content.find(b"\xff", at + 1)
            while at > 0 and not (
                (length := _mp3_frame(content, at)[0]) and _mp3_frame(content, at + length)[0]
            ):
                at = content.find(b"\xff", at + 1)
            if at < 0:
                break
    return samples, ENCODER_DELAY * per_frame


def _mp3_frame(content: mmap.mmap, at: int) -> tuple[int, int]:
    """Return (bytes, samples) of the layer III frame that begins at `at`; (0, 0) if none does."""
    head = int.from_bytes(content[at : at + 4])
    version, kbit, rate = head >> 19 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or head >> 17 & 3 != 1 or version == 1 or kbit in (0, 15) or rate == 3:
        return 0, 0
    samples = 1152 if version == 3 else 576
    bits = BITRATES[version == 3][kbit] * 1000
    return samples // 8 * bits // MPEG_RATES[version][rate] + (head >> 9 & 1), samples
