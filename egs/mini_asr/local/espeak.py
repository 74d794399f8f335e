"""The espeak-ng synthesiser, bound by ctypes to the library that `espeakng-loader` installs."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass

import espeakng_loader
import numpy as np

from audiorl.errors import UserError

SAMPLE_RATE = 22050

# Constants of speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARS_UTF8 = 1
RATE, VOLUME, PITCH = 1, 2, 3
# Of the usual 100: the loudest voices are clipped at 50.
QUIET = 25

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


def synthesise(speech: Speech) -> np.ndarray:
    """The sound of `speech`: float32 [S] in -1..1 at 22,050 Hz, the same at every call."""
    chunks: list[bytes] = []

    @SynthCallback
    def collect(samples, count, _events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    with fresh_library(speech.voice) as library:
        library.espeak_SetSynthCallback(collect)
        library.espeak_SetParameter(RATE, speech.rate, 0)
        library.espeak_SetParameter(VOLUME, QUIET, 0)
        library.espeak_SetParameter(PITCH, speech.pitch, 0)
        text = speech.text.encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, 1, 0, CHARS_UTF8, None, None)
        library.espeak_Synchronize()
    return np.frombuffer(b"".join(chunks), dtype="<i2").astype(np.float32) / 32768


def phonemes(voice: str, text: str) -> str:
    """espeak's mnemonics for what `voice` makes of `text`; `(en)` marks a change of language."""
    with fresh_library(voice) as library:
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        rest = ctypes.c_char_p(text.encode())
        clauses = []
        while rest.value is not None:
            clause = library.espeak_TextToPhonemes(ctypes.byref(rest), CHARS_UTF8, 0)
            clauses.append(clause.decode())
    return " ".join(clauses)


@contextlib.contextmanager
def fresh_library(voice: str) -> Iterator[ctypes.CDLL]:
    """The library as if just loaded, with `voice` set; unloaded afterwards (all in 2 ms).

    espeak keeps state from one utterance to the next (glottal phase, flutter, random numbers
    begun at the time of day), so that a text sounds different the second time, and nothing in its
    interface resets all of it. Loading it anew does.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        data = os.fsencode(espeakng_loader.get_data_path())
        if library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0) != SAMPLE_RATE:
            raise UserError(
                f"{os.fsdecode(data)}: espeak-ng cannot use its data; "
                "install the package espeakng-loader again."
            )
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(
                f"espeak-ng has no voice {voice}; install the package espeakng-loader again."
            )
        yield library
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)
