"""The espeak-ng synthesiser, bound by ctypes to the library that `espeakng-loader` installs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import espeakng_loader
import numpy as np

from audiorl.errors import UserError

# Constants of speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARS_UTF8 = 1
RATE, PITCH = 1, 3
PHONEMES_IPA = 0x02

SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Speech:
    """One thing to be said: an espeak voice file with variant, words a minute, pitch 0-99, text."""

    voice: str
    rate: int
    pitch: int
    text: str


class Espeak:
    """The library, loaded once per process.

    espeak keeps state from one utterance to the next (glottal phase, flutter, random numbers), so
    that the same text sounds different the second time, and nothing in its interface resets it.
    `speak` therefore works in a forked child that begins with the library as just loaded: what
    comes out depends on what is asked for, and on nothing that was said before.
    """

    def __init__(self) -> None:
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = os.fsencode(espeakng_loader.get_data_path())
        self.sample_rate = self.library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if self.sample_rate <= 0:
            raise UserError(
                f"espeak-ng found no usable data in {os.fsdecode(data)}; "
                "install the package espeakng-loader again."
            )
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p

    def speak(self, speeches: Sequence[Speech]) -> list[np.ndarray]:
        """The samples of each speech: float32 [S] in -1..1, at `sample_rate`."""
        return [
            np.frombuffer(samples, dtype="<i2").astype(np.float32) / 32768
            for samples in self._in_child(lambda: [self._synthesise(s) for s in speeches])
        ]

    def phonemes(self, voice: str, text: str) -> str:
        """The phonemes (IPA) that `voice` makes of `text`, clauses joined by blanks."""
        self._set_voice(voice)
        rest = ctypes.c_char_p(text.encode())
        clauses = []
        while rest.value is not None:
            clause = self.library.espeak_TextToPhonemes(
                ctypes.byref(rest), CHARS_UTF8, PHONEMES_IPA
            )
            clauses.append(clause.decode())
        return " ".join(clauses)

    def _set_voice(self, voice: str) -> None:
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(
                f"espeak-ng has no voice {voice!r}; install the package espeakng-loader again."
            )

    def _synthesise(self, speech: Speech) -> bytes:
        self._set_voice(speech.voice)
        self.library.espeak_SetParameter(RATE, speech.rate, 0)
        self.library.espeak_SetParameter(PITCH, speech.pitch, 0)
        chunks: list[bytes] = []

        @SynthCallback
        def collect(samples, count, _events):
            if samples and count > 0:
                chunks.append(ctypes.string_at(samples, 2 * count))
            return 0

        self.library.espeak_SetSynthCallback(collect)
        text = speech.text.encode() + b"\0"
        self.library.espeak_Synth(text, len(text), 0, 1, 0, CHARS_UTF8, None, None)
        self.library.espeak_Synchronize()
        return b"".join(chunks)

    @staticmethod
    def _in_child(work: Callable[[], list[bytes]]) -> list[bytes]:
        """What `work` returns in a forked child: each item sent after its length (8 bytes)."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            # Nothing of the parent may run here (buffers, handlers, tests): leave by _exit only.
            status = 1
            try:
                os.close(read_end)
                with open(write_end, "wb") as pipe:
                    for item in work():
                        pipe.write(len(item).to_bytes(8, "little") + item)
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        items = []
        with open(read_end, "rb") as pipe:
            while header := pipe.read(8):
                items.append(pipe.read(int.from_bytes(header, "little")))
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise UserError(
                "espeak-ng ended before the utterance was whole (killed, or out of memory); "
                "run the same command again to go on."
            )
        return items
