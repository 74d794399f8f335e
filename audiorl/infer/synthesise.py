"""Stage 6 of synthesis: the tokens and the waves of test sets, by the model of an experiment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile
import torch
from torch import Tensor

from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.speech_tokens import TOKENS, read_tokens, write_tokens
from audiorl.data.tables import write_table
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.infer.speak import speak
from audiorl.models.speech_lm import SpeechLM
from audiorl.runtime.batching import batches_by_seconds
from audiorl.runtime.files import atomic_path, progress, write_json

if TYPE_CHECKING:
    from audiorl.models.codec.base import Codec

RECORDINGS = 20  # of a speaker, at most, whose vectors the mean is of
# Reports: of the tokens; of all, written last.
SAMPLED, DONE = "sampled.json", "decode.json"


@torch.no_grad()
def speaker_vectors(
    codec: Codec, recordings: Iterable[Utterance], speakers: Iterable[str]
) -> dict[str, Tensor]:
    """The mean speaker vector [S] of each speaker's first recordings.

    UserError for a speaker who has none. Where tokens carry the voice, vectors are empty.
    """
    found: dict[str, list[Utterance]] = {name: [] for name in sorted(set(speakers))}
    if codec.speaker_size == 0:
        return dict.fromkeys(found, torch.zeros(0))
    for u in recordings:
        if u.speaker in found and len(found[u.speaker]) < RECORDINGS:
            found[u.speaker].append(u)
    vectors = {}
    for name, theirs in found.items():
        if not theirs:
            raise UserError(
                f"speaker {name} has no recordings in the train set that the voice could come "
                "from; let one of its speakers say the texts."
            )
        waves = [torch.from_numpy(read_audio(u, codec.sample_rate)) for u in theirs]
        vectors[name] = codec.speaker(waves).mean(0)
    return vectors


def synthesise_set(
    model: SpeechLM,
    codec: Codec,
    voices: Mapping[str, Tensor],
    config: Config,
    data: Path,
    weights: Path,
    out: Path,
) -> None:
    """Speaks the set `data`: out/tokens, out/wav/<id>.wav, out/wav.scp and, last, decode.json.

    Goes on where it was cut off, to the same waves. `voices`: speaker vectors [S] by speaker.
    UserError, before anything is made, for a text that cannot be spoken.
    """
    utterances = read_utterances(data, texts_alone=True)
    model.refuse_texts(utterances, config.decode.max_completion_length)
    if not is_made(config, weights, data, out / SAMPLED):
        started = time.perf_counter()
        spoken = speak(model, utterances, config.decode, config.seed, data.name)
        write_tokens(out, {n: s.tokens for n, s in spoken.items()}, model.facts.codec)
        report = {
            "settings": _settings(config),
            "method": "sample",
            "seconds": round(time.perf_counter() - started, 3),
            "truncated": sorted(name for name, s in spoken.items() if not s.finished),
            "silent": sorted(name for name, s in spoken.items() if not s.tokens),
        }
        write_json(out / SAMPLED, report)
    report = json.loads((out / SAMPLED).read_text(encoding="utf-8"))
    tokens, _ = read_tokens(out)
    started = time.perf_counter()
    audio = write_waves(codec, voices, utterances, tokens, config, out)
    report |= {
        "audio_seconds": round(audio, 3),
        "rtf": round(report["seconds"] / audio, 5),  # of the LM; waves come on top
        "wave_seconds": round(time.perf_counter() - started, 3),
    }
    write_json(out / DONE, report)


def write_waves(
    codec: Codec,
    voices: Mapping[str, Tensor],
    utterances: Sequence[Utterance],
    tokens: Mapping[str, Sequence[int]],
    config: Config,
    out: Path,
) -> float:
    """Writes out/wav/<id>.wav (16 bit) and out/wav.scp; batches that are there already are left.

    Returns the seconds of audio. The batches are of like length, `decode.batch_seconds` each with
    padding. An utterance without tokens becomes silence as long as one.
    """
    paths = {u.id: out / "wav" / f"{u.id}.wav" for u in utterances}
    made = (out / TOKENS).stat().st_mtime
    timed = [replace(u, duration=max(1, len(tokens[u.id])) / codec.token_rate) for u in utterances]
    with progress(desc=f"{out.name}: waves", total=len(timed), unit="utt") as bar:
        for batch in batches_by_seconds(timed, config.decode.batch_seconds):
            there = (paths[u.id] for u in batch)
            if not all(path.exists() and path.stat().st_mtime >= made for path in there):
                torch.manual_seed(config.seed)  # for codecs that draw: a batch is always the same
                for name, wave in _decode(codec, voices, batch, tokens):
                    with atomic_path(paths[name]) as file:
                        samples = wave.float().cpu().numpy()
                        soundfile.write(file, samples, codec.sample_rate, "PCM_16", format="WAV")
            bar.update(len(batch))
    write_table(out / "wav.scp", {name: str(path.absolute()) for name, path in paths.items()})
    return sum(u.duration for u in timed)


@torch.no_grad()
def _decode(
    codec: Codec,
    voices: Mapping[str, Tensor],
    batch: Sequence[Utterance],
    tokens: Mapping[str, Sequence[int]],
) -> Iterator[tuple[str, Tensor]]:
    """Waves [S_i] by utterance id."""
    loud = [u for u in batch if tokens[u.id]]
    if loud:
        speakers = torch.stack([voices[u.speaker] for u in loud])
        waves = codec.decode([torch.tensor(tokens[u.id]) for u in loud], speakers)
        yield from zip((u.id for u in loud), waves, strict=True)
    for u in batch:
        if not tokens[u.id]:
            yield u.id, torch.zeros(round(u.duration * codec.sample_rate))


def is_made(config: Config, weights: Path, data: Path, report: Path) -> bool:
    """Whether a report tells of these weights, this set and these settings."""
    if not report.exists():
        return False
    newest = max(weights.stat().st_mtime, (data / "text").stat().st_mtime)
    settings = json.loads(report.read_text(encoding="utf-8"))["settings"]
    return report.stat().st_mtime >= newest and settings == _settings(config)


def _settings(config: Config) -> dict[str, object]:
    free = ("name", "method", "num_beams", "batch_seconds", "batch_size")
    decode = {key: value for key, value in asdict(config.decode).items() if key not in free}
    return {**decode, "seed": config.seed}
