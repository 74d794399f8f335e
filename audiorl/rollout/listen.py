"""Stage 7 of synthesis: the judge hears every synthesised set, and the instruments measure it.

decode_<name>/<set>/wav.scp has the waves of a system; dump/<set> their texts, speakers and the
speakers' own recordings. What is found goes into judged.json beside wav.scp; a set whose waves,
recordings and judge have not changed is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import audiorl
from audiorl.config.schema import Config
from audiorl.data.audio import audio_info, read_audio
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance, absolute_audio, read_utterances
from audiorl.errors import UserError
from audiorl.files import progress, sha256
from audiorl.models import WEIGHTS, load_model
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.judge import LABELS, Judge
from audiorl.rollout.transcribe import batches_by_seconds, greedy
from audiorl.score.asr import check_ids
from audiorl.score.sound import measure, spectral_distance, speech_span
from audiorl.score.tts import Judged, is_judged, write_judged

FORMAT = 1  # of what is measured; another number, and all is measured again


class Listener(Protocol):
    """Who judges: `audiorl.models.judge.Judge`, or a trained audio LLM."""

    sample_rate: int

    def transcribe(self, waves: Sequence[Tensor]) -> list[str]: ...

    def speaker(self, waves: Sequence[Tensor]) -> Tensor | None:
        """[B, S] of unit length; None from who does not know voices."""


class AudioLLMListener:
    """A recogniser that this toolkit has trained (egs/mini_asr/exp/sft, say) as the judge."""

    def __init__(self, model: AudioLLM) -> None:
        self.model = model
        self.sample_rate = model.config.data.sample_rate

    @torch.no_grad()
    def transcribe(self, waves: Sequence[Tensor]) -> list[str]:
        prefix = self.model.prefix(self.model.encode(waves))
        longest = self.model.config.decode.max_completion_length
        return [found.text for found in greedy(self.model, prefix, longest)]

    def speaker(self, waves: Sequence[Tensor]) -> None:
        return None


def load_listener(exp: Path, device: str = "cpu") -> Listener:
    """The judge of an experiment: one by train_judge, or a recogniser by train_sft or train_rl."""
    if (exp / "model" / LABELS).exists():
        return Judge.load(exp / "model", device)
    model = load_model(exp / "model", device)
    if not isinstance(model, AudioLLM):
        raise UserError(f"{exp} is no recogniser and cannot judge; name exp/judge, or one of ASR.")
    return AudioLLMListener(model)


def judge_systems(judge: Path, exps: Iterable[Path], dump: Path, cfg: Config, device: str) -> None:
    """Writes judged.json of every set of every system, where it is out of date."""
    weights = sha256(judge / "model" / WEIGHTS) if (judge / "model" / WEIGHTS).exists() else ""
    listener = None
    for name in cfg.data.test:
        natural = None
        for exp in exps:
            waves = _synthesised(exp / f"decode_{cfg.decode.name}" / name, dump / name)
            folder = exp / f"decode_{cfg.decode.name}" / name
            inputs = _fingerprint(weights, waves, dump / name)
            if is_judged(folder, inputs):
                continue
            listener = listener or load_listener(judge, device)
            natural = natural or _Natural(listener, dump / name, cfg.decode.batch_seconds)
            judged = _judge(listener, waves, natural, cfg.decode.batch_seconds, str(folder))
            write_judged(folder, judged, inputs, str(judge))


@dataclass(frozen=True)
class _Heard:
    """What a speaker's own recording is held against a synthesised one for."""

    recording: Utterance
    speech_seconds: float
    voice: Tensor | None  # [S]


class _Natural:
    """The natural recordings of a set."""

    def __init__(self, listener: Listener, data: Path, batch_seconds: float) -> None:
        self.heard: dict[str, _Heard] = {}
        utterances = [_timed(u) for u in read_utterances(data)]
        with progress(desc=str(data), total=len(utterances), unit="utt") as bar:
            for batch in batches_by_seconds(utterances, batch_seconds):
                waves = [_read(u, listener.sample_rate) for u in batch]
                for u, wave, voice in zip(batch, waves, _voices(listener, waves), strict=True):
                    start, end = speech_span(wave, listener.sample_rate)
                    self.heard[u.id] = _Heard(u, (end - start) / listener.sample_rate, voice)
                bar.update(len(batch))
        self._sums: dict[str, Tensor] = {}  # by speaker, of the voices
        self._counts: dict[str, int] = {}
        for one in self.heard.values():
            if one.voice is not None:
                speaker = one.recording.speaker
                self._sums[speaker] = self._sums.get(speaker, 0) + one.voice
                self._counts[speaker] = self._counts.get(speaker, 0) + 1

    def similarity(self, uid: str, voice: Tensor | None) -> float | None:
        """Cosine of a voice to the speaker's other recordings; None if there are none.

        The recording of the same sentence is left out, so that natural speech, too, is compared
        with what else its speaker has said.
        """
        own = self.heard[uid]
        speaker = own.recording.speaker
        if voice is None or self._counts[speaker] < 2:
            return None
        others = self._sums[speaker] - own.voice
        return float(torch.nn.functional.cosine_similarity(voice, others, dim=0))


def _judge(
    listener: Listener,
    waves: list[Utterance],
    natural: _Natural,
    batch_seconds: float,
    desc: str,
) -> dict[str, Judged]:
    judged = {}
    with progress(desc=desc, total=len(waves), unit="utt") as bar:
        for batch in batches_by_seconds(waves, batch_seconds):
            samples = [_read(u, listener.sample_rate) for u in batch]
            texts = _transcribe(listener, samples)
            voices = _voices(listener, samples)
            for u, wave, text, voice in zip(batch, samples, texts, voices, strict=True):
                judged[u.id] = _measure(u, wave, text, voice, natural, listener.sample_rate)
            bar.update(len(batch))
    return {uid: judged[uid] for uid in sorted(judged)}


def _measure(
    u: Utterance, wave: np.ndarray, text: str, voice: Tensor | None, natural: _Natural, rate: int
) -> Judged:
    sound, own = measure(wave, rate), natural.heard[u.id]
    distance = None
    if u.audio != own.recording.audio:  # else it would be held against itself
        distance = spectral_distance(wave, _read(own.recording, rate), rate)
    return Judged(
        heard=" ".join(text.split()),
        natural_seconds=own.speech_seconds,
        similarity=natural.similarity(u.id, voice),
        distance=distance,
        **asdict(sound),
    )


def _transcribe(listener: Listener, samples: list[np.ndarray]) -> list[str]:
    """In silence of no length nothing is heard."""
    found = iter(listener.transcribe([torch.from_numpy(w) for w in samples if len(w)]))
    return [next(found) if len(wave) else "" for wave in samples]


def _voices(listener: Listener, samples: list[np.ndarray]) -> list[Tensor | None]:
    voices = listener.speaker([torch.from_numpy(w) for w in samples if len(w)])
    found = iter([] if voices is None else voices.cpu())
    return [next(found, None) if len(wave) else None for wave in samples]


def _synthesised(folder: Path, data: Path) -> list[Utterance]:
    """The waves of a system as utterances of the set."""
    path = folder / "wav.scp"
    if not path.exists():
        raise UserError(f"{path} does not exist; synthesise first (stage 6).")
    audio = absolute_audio(path, read_table(path))
    utterances = read_utterances(data)
    check_ids(path, audio, [u.id for u in utterances], data)
    return [
        _timed(replace(u, audio=audio[u.id], start=0.0, end=None, duration=None))
        if audio[u.id] != u.audio
        else _timed(u)
        for u in utterances
    ]


def _timed(u: Utterance) -> Utterance:
    return u if u.duration is not None else replace(u, duration=audio_info(u.audio).duration)


def _read(u: Utterance, rate: int) -> np.ndarray:
    """Samples [S]; a system that says nothing at all leaves a file without any."""
    return read_audio(u, rate) if u.duration else np.zeros(0, np.float32)


def _fingerprint(weights: str, waves: list[Utterance], data: Path) -> str:
    """Of the judge, the waves, and the set that they are held against."""
    files = [(u.id, u.audio, _size_and_time(u.audio)) for u in waves]
    natural = [(asdict(u), _size_and_time(u.audio)) for u in read_utterances(data)]
    parts = json.dumps([audiorl.__version__, FORMAT, weights, files, natural])
    return hashlib.sha256(parts.encode()).hexdigest()


def _size_and_time(path: str) -> tuple[int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None  # an archive's entry; a missing file is named when it is read
    return state.st_size, state.st_mtime_ns
