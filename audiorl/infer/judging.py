"""Stage 7 of synthesis: the judge hears every synthesised set, and the instruments measure it.

decode_<name>/<set>/wav.scp has the waves of a system; dump/<set> their texts, speakers and, where
there are some, the speakers' own recordings. What is found goes into judged.json beside wav.scp; a
set whose waves, recordings and judge have not changed is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import audiorl
from audiorl.config import load_config
from audiorl.config.schema import Config
from audiorl.data.audio import audio_digests, audio_info, read_audio, resample
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance, absolute_audio, read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.transcribe import greedy
from audiorl.models import WEIGHTS
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.judge import LABELS, Judge
from audiorl.models.policy import load_policy
from audiorl.runtime.batching import batches_by_seconds
from audiorl.runtime.files import progress
from audiorl.runtime.stamps import Stamp
from audiorl.score.asr import check_ids
from audiorl.score.sound import measure, spectral_distance, speech_span
from audiorl.score.tts import JUDGED, Judged, write_judged

RECORDINGS = 20  # of a speaker, from the train set
FORMAT = 1  # of what is measured; another number, and all is measured again


class Listener(Protocol):
    """Who judges: `audiorl.models.judge.Judge`, or a trained audio LLM."""

    sample_rate: int

    def transcribe(self, waves: Sequence[Tensor]) -> list[str]: ...

    def speaker(self, waves: Sequence[Tensor]) -> Tensor | None:
        """[B, S] of unit length; None from who does not know voices."""


class AudioLLMListener:
    """A recogniser that this toolkit has trained (egs/mini_asr/exp/sft, say) as the judge."""

    def __init__(self, model: AudioLLM, max_length: int) -> None:
        """`max_length`: tokens of a transcript at most."""
        self.model, self.engine = model, PolicyEngine(model)
        self.sample_rate = model.sample_rate
        self.max_length = max_length

    @torch.no_grad()
    def transcribe(self, waves: Sequence[Tensor]) -> list[str]:
        prefix = self.model.prefix(self.model.encode(waves))
        return [found.text for found in greedy(self.engine, prefix, self.max_length)]

    def speaker(self, waves: Sequence[Tensor]) -> None:
        return None


def load_listener(exp: Path, device: str = "cpu") -> Listener:
    """The judge of an experiment: one by train_judge, or a recogniser by train_sft or train_rl."""
    if (exp / "model" / LABELS).exists():
        return Judge.load(exp / "model", device)
    model = load_policy(exp / "model", device)
    if not isinstance(model, AudioLLM):
        raise UserError(f"{exp} is no recogniser and cannot judge; name exp/judge, or one of ASR.")
    decode = load_config(exp / "config.yaml").decode
    return AudioLLMListener(model, decode.max_completion_length)


def hear(
    listener: Listener, waves: Sequence[Tensor], sample_rate: int, batch_seconds: float
) -> list[str]:
    """What is said in waves [S_i] of any rate; `batch_seconds` with padding are heard at once."""
    samples = {str(place): np.asarray(wave) for place, wave in enumerate(waves)}
    if sample_rate != listener.sample_rate:
        samples = {n: resample(w, sample_rate, listener.sample_rate) for n, w in samples.items()}
    lengths = {name: len(wave) / listener.sample_rate for name, wave in samples.items()}
    places = [Utterance(n, "", "", "", duration=seconds) for n, seconds in lengths.items()]
    texts = {}
    for batch in batches_by_seconds(places, batch_seconds):
        found = _transcribe(listener, [samples[u.id] for u in batch])
        texts |= {u.id: text for u, text in zip(batch, found, strict=True)}
    return [texts[name] for name in samples]


def judge_systems(judge: Path, exps: Iterable[Path], dump: Path, cfg: Config, device: str) -> None:
    """Writes judged.json of every set of every system, where it is out of date."""
    weights = judge / "model" / WEIGHTS
    listener = None
    for name in cfg.data.test:
        texts = read_utterances(dump / name, texts_alone=True)
        recordings, natural = _recordings(texts, dump / cfg.data.train), None
        for exp in exps:
            folder = exp / f"decode_{cfg.decode.name}" / name
            waves = _synthesised(folder, texts, dump / name)
            stamp = _stamp(folder, weights, waves, [*texts, *recordings])
            if stamp.is_current(folder / JUDGED):
                continue
            listener = listener or load_listener(judge, device)
            seconds = cfg.decode.batch_seconds
            natural = natural or _Natural(listener, texts, recordings, seconds, str(dump / name))
            judged = _judge(listener, waves, natural, seconds, str(folder))
            write_judged(stamp, judged, str(judge))


def _recordings(utterances: Sequence[Utterance], train: Path) -> list[Utterance]:
    """Natural speech of a set's speakers.

    Their own recordings of the set, where it has some; of a speaker with less than two there,
    recordings of the train set.
    """
    own = {u.id: u for u in utterances if u.audio}
    counts = Counter(u.speaker for u in own.values())
    lacking = {u.speaker for u in utterances if counts[u.speaker] < 2}
    theirs: dict[str, list[Utterance]] = {speaker: [] for speaker in sorted(lacking)}
    for u in read_utterances(train) if lacking and train.exists() else []:
        if u.speaker in lacking and u.id not in own:
            theirs[u.speaker].append(u)
    return [*own.values(), *(u for listed in theirs.values() for u in listed[:RECORDINGS])]


class _Natural:
    """What a set's synthesised utterances are held against: natural recordings."""

    def __init__(
        self,
        listener: Listener,
        utterances: Sequence[Utterance],
        recordings: Sequence[Utterance],
        batch_seconds: float,
        desc: str,
    ) -> None:
        heard = [_timed(u) for u in recordings]
        texts = {u.id for u in utterances}
        self.recordings = {u.id: u for u in heard if u.id in texts}
        self.speech_seconds: dict[str, float] = {}
        self._voices: dict[str, dict[str, Tensor]] = {u.speaker: {} for u in utterances}
        with progress(desc=desc, total=len(heard), unit="utt") as bar:
            for batch in batches_by_seconds(heard, batch_seconds):
                waves = [_read(u, listener.sample_rate) for u in batch]
                for u, wave, voice in zip(batch, waves, _voices(listener, waves), strict=True):
                    start, end = speech_span(wave, listener.sample_rate)
                    self.speech_seconds[u.id] = (end - start) / listener.sample_rate
                    if voice is not None:
                        self._voices[u.speaker][u.id] = voice
                bar.update(len(batch))

    def similarity(self, u: Utterance, voice: Tensor | None) -> float | None:
        """Cosine of a voice to the speaker's other recordings; None if there are none.

        The recording of the same sentence is left out, so that natural speech, too, is compared
        with what else its speaker has said.
        """
        others = [other for uid, other in self._voices[u.speaker].items() if uid != u.id]
        if voice is None or not others:
            return None
        return float(torch.nn.functional.cosine_similarity(voice, sum(others), dim=0))


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
    own, distance = natural.recordings.get(u.id), None
    if own and own.audio != u.audio:  # else it would be held against itself
        distance = spectral_distance(wave, _read(own, rate), rate)
    return Judged(
        heard=" ".join(text.split()),
        natural_seconds=natural.speech_seconds.get(u.id),
        similarity=natural.similarity(u, voice),
        distance=distance,
        **asdict(measure(wave, rate)),
    )


def _transcribe(listener: Listener, samples: list[np.ndarray]) -> list[str]:
    """In silence of no length nothing is heard."""
    found = iter(listener.transcribe([torch.from_numpy(w) for w in samples if len(w)]))
    return [next(found) if len(wave) else "" for wave in samples]


def _voices(listener: Listener, samples: list[np.ndarray]) -> list[Tensor | None]:
    voices = listener.speaker([torch.from_numpy(w) for w in samples if len(w)])
    found = iter([] if voices is None else voices.cpu())
    return [next(found, None) if len(wave) else None for wave in samples]


def _synthesised(folder: Path, utterances: list[Utterance], data: Path) -> list[Utterance]:
    """The waves of a system as utterances of the set `data`."""
    path = folder / "wav.scp"
    if not path.exists():
        raise UserError(f"{path} does not exist; synthesise first (stage 6).")
    audio = absolute_audio(path, read_table(path))
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


def _stamp(
    folder: Path, weights: Path, waves: list[Utterance], natural: Sequence[Utterance]
) -> Stamp:
    """Of the judge, the waves, and the texts and recordings that they are held against."""
    inputs = {f"texts/{u.id}": [u.text, u.speaker, u.start, u.end, u.duration] for u in natural}
    for kind, utterances in (("wav", waves), ("recordings", natural)):
        found = audio_digests({u.id: u.audio for u in utterances if u.audio})
        inputs |= {f"{kind}/{name}": content for name, content in found.items()}
    inputs["judge"] = weights
    return Stamp(folder / JUDGED, {"audiorl": audiorl.__version__, "judging": FORMAT}, inputs)
