"""From the plan of an utterance to its sound, and to the file that holds it."""

from __future__ import annotations

import io
from dataclasses import replace

import acoustics
import espeak
import numpy as np
import soundfile
from acoustics import SAMPLE_RATE
from espeak import Speech
from plans import Plan, audio_path
from sets import SetSpec

from audiorl.runtime.files import atomic_write

GRID = 450  # Hz, which espeak's rate and those of other formants are multiples of


def make_utterance(root: str, utterance: Plan) -> None:
    """Renders and writes one utterance (16 kHz, 16 bits)."""
    speech, noise = render(utterance)
    encoded = io.BytesIO()
    soundfile.write(encoded, speech + noise, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    with atomic_write(audio_path(root, utterance), "wb") as stream:
        stream.write(encoded.getvalue())


def render(utterance: Plan) -> tuple[np.ndarray, np.ndarray]:
    """The speech and the noise of an utterance, [S] each; their sum is what is heard."""
    rng = np.random.default_rng(list(utterance.seed))
    if utterance.speaker is None:
        return render_noise(utterance, rng)
    rate = round(utterance.speaker.rate * rng.uniform(0.94, 1.06))
    pitch = round(utterance.speaker.pitch + rng.uniform(-4, 4))
    said = [
        speak(
            Speech(utterance.speaker.voice, rate, pitch, sentence.text), utterance.speaker.formants
        )
        for sentence in utterance.sentences
    ]
    speech = with_pauses(said, utterance.spec, rng)
    if utterance.t60:
        speech = acoustics.reverberate(speech, utterance.t60, rng)
    noise = np.zeros_like(speech)
    if utterance.noise != "none":
        noise = make_noise(utterance, len(speech), rng)
        noise = acoustics.scale_noise(speech, noise, utterance.snr)
    loudness = acoustics.active_power(speech)
    gain = acoustics.level_gain(speech + noise, loudness, rng.uniform(*utterance.spec.level))
    return gain * speech, gain * noise


def render_noise(utterance: Plan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nobody speaks: noise, music or near silence of 1 to 8 s."""
    length = int(rng.uniform(1, 8) * SAMPLE_RATE)
    if utterance.noise == "silence":
        noise, level = acoustics.hum(length, rng), rng.uniform(-75, -60)
    else:
        noise, level = make_noise(utterance, length, rng), rng.uniform(-40, -20)
    return np.zeros_like(noise), acoustics.level_gain(noise, 1.0, level) * noise


def make_noise(utterance: Plan, length: int, rng: np.random.Generator) -> np.ndarray:
    """The noise of an utterance, [length], unit power."""
    if utterance.noise == "babble":
        voices = [
            speak(Speech(person.voice, person.rate, person.pitch, sentence.text))
            for person, sentence in utterance.talkers
        ]
        return acoustics.babble(voices, length, rng)
    if utterance.noise in acoustics.COLOURS:
        return acoustics.coloured(utterance.noise, length, rng)
    return {"hum": acoustics.hum, "music": acoustics.music}[utterance.noise](length, rng)


def speak(speech: Speech, formants: float = 1.0) -> np.ndarray:
    """A speech at 16 kHz, without espeak's silence at both ends; `formants`: of `Speaker`."""
    # Played faster, it is higher in all frequencies, and said slower for that.
    slower = replace(speech, rate=round(speech.rate / formants))
    rate = GRID * round(espeak.SAMPLE_RATE * formants / GRID)
    return trim(acoustics.resample(espeak.synthesise(slower), rate))


def trim(voice: np.ndarray) -> np.ndarray:
    """`voice` from its first to its last sample within 50 dB of its peak."""
    loudness = np.abs(voice)
    loud = np.flatnonzero(loudness > 10 ** (-50 / 20) * loudness.max())
    return voice[loud[0] : loud[-1] + 1]


def with_pauses(voices: list[np.ndarray], spec: SetSpec, rng: np.random.Generator) -> np.ndarray:
    """Sentences after each other, with a pause between, and silence at both ends."""
    parts = [np.zeros(int(rng.uniform(*spec.lead) * SAMPLE_RATE), np.float32)]
    for number, voice in enumerate(voices):
        pause = rng.uniform(*((0.2, 0.5) if number + 1 < len(voices) else spec.tail))
        parts += [voice, np.zeros(int(pause * SAMPLE_RATE), np.float32)]
    return np.concatenate(parts)
