"""Stage 6 of synthesis: the tokens and the waves of test sets, by the model of an experiment."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from audiorl.config.schema import Config
from audiorl.data.speech_tokens import CODEC, TOKENS, check_codec, read_tokens, write_tokens
from audiorl.data.tables import set_files, write_table
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.engine import Engine
from audiorl.infer.decode import DONE
from audiorl.infer.speak import speak
from audiorl.infer.voices import VOICES, recordings_for, voices_of
from audiorl.models import WEIGHTS
from audiorl.models.codec import Codec, codec_info, load_codec
from audiorl.models.policy import load_policy, model_files
from audiorl.models.speech_lm import SpeechLM
from audiorl.models.voice import Voices
from audiorl.runtime import ranks
from audiorl.runtime.batching import shown_batches
from audiorl.runtime.device import pick_device
from audiorl.runtime.files import atomic_path
from audiorl.runtime.stamps import Stamp

SAMPLED = "sampled.json"  # stamp of the tokens
WAVES_BEGUN = "waves.json"  # what the waves that are there were made from, written before them
SOUND = "sound/"  # beginning of the names of inputs that tokens do not follow from
# Keys that change no sound; the engine does if it is not the native one.
FREE = ("name", "method", "num_beams", "batch_seconds", "batch_size", "engine")


class Synthesiser:
    """Decoding of synthesis: out/tokens, out/wav/<id>.wav and out/wav.scp.

    Voices are the speakers' in the train set or, of a system that was unpacked, its own.
    """

    def __init__(self, config: Config, dump: Path, codec: Path) -> None:
        """`codec`: its experiment, which is read when it is first needed."""
        self.config, self.dump, self.folder = config, dump, codec

    def stamp(self, experiment: Path, data: Path, out: Path) -> Stamp:
        decode = {k: v for k, v in asdict(self.config.decode).items() if k not in FREE}
        if self.config.decode.engine != "native":
            decode["engine"] = self.config.decode.engine
        voices = self.folder / VOICES
        train = self.dump / self.config.data.train
        sound = {"voices": voices} if voices.exists() else set_files(train)
        sound["codec"] = self.folder / "model" / WEIGHTS
        inputs = {**model_files(experiment / "model"), **set_files(data)}
        inputs |= {f"{SOUND}{name}": path for name, path in sound.items()}
        return Stamp(out / DONE, {**decode, "seed": self.config.seed}, inputs, made_in(out))

    def load(self, experiment: Path) -> SpeechLM:
        device = str(pick_device(self.config.device))
        codec, _ = self._codec_and_voices
        model = load_policy(experiment / "model", device)
        fix = f"name the codec that {experiment} was trained on"
        check_codec(codec_info(codec), model.facts.codec, str(self.folder), str(experiment), fix)
        return model

    def decode(self, engine: Engine, data: Path, stamp: Stamp) -> None:
        synthesise_set(engine, *self._codec_and_voices, self.config, data, stamp)

    @functools.cached_property
    def _codec_and_voices(self) -> tuple[Codec, Voices]:
        codec = load_codec(self.folder / "model", str(pick_device(self.config.device)))
        sets = [self.dump / name for name in self.config.data.test]
        spoken = [u for data in sets for u in read_utterances(data, texts_alone=True)]
        stored, train = self.folder / VOICES, self.dump / self.config.data.train
        if stored.exists():
            return codec, voices_of(codec, spoken, (), stored)
        return codec, voices_of(codec, spoken, recordings_for(spoken, train))


def made_in(out: Path) -> list[Path]:
    """Return the files of a synthesised set whose content its stamp knows; waves are too many."""
    return [out / TOKENS, out / WAVES_BEGUN, out / "wav.scp"]


def synthesise_set(
    engine: Engine,
    codec: Codec,
    voices: Voices,
    config: Config,
    data: Path,
    stamp: Stamp,
) -> None:
    """Speak the set `data` into the folder of `stamp`: tokens, wav/<id>.wav, wav.scp.

    Continues where it was cut off, to the same waves. UserError, before anything is made, for a
    text that cannot be spoken.
    """
    out, utterances = stamp.path.parent, read_utterances(data, texts_alone=True)
    model = engine.policy
    model.meet(voices)
    model.refuse_texts(utterances, config.decode.max_completion_length)
    sampled = stamp.at(out / SAMPLED, [out / TOKENS, out / CODEC], without=SOUND)
    if not sampled.is_current():
        started = time.perf_counter()
        spoken = speak(engine, utterances, config.decode, config.seed, data.name)
        write_tokens(out, {n: s.tokens for n, s in spoken.items()}, model.facts.codec)
        sampled.write(
            method="sample",
            seconds=round(time.perf_counter() - started, 3),
            truncated=sorted(name for name, s in spoken.items() if not s.finished),
            silent=sorted(name for name, s in spoken.items() if not s.tokens),
        )
        ranks.wait_for_all()  # what one has written, all read
    report = sampled.facts()
    tokens, _ = read_tokens(out)
    started = time.perf_counter()
    audio = write_waves(codec, voices, utterances, tokens, config, stamp)
    report |= {
        "audio_seconds": round(audio, 3),
        "rtf": round(report["seconds"] / audio, 5),  # of the LM; waves come on top
        "wave_seconds": round(time.perf_counter() - started, 3),
    }
    stamp.write(**report)


def write_waves(
    codec: Codec,
    voices: Voices,
    utterances: Sequence[Utterance],
    tokens: Mapping[str, Sequence[int]],
    config: Config,
    stamp: Stamp,
) -> float:
    """Write wav/<id>.wav (16 bit) and wav.scp; return the seconds of audio.

    Batches of `decode.batch_seconds` that are whole, and follow from what `stamp` says, are left.
    An utterance without tokens becomes silence as long as one.
    """
    out = stamp.path.parent
    begun = stamp.at(out / WAVES_BEGUN)
    if not begun.is_current():
        if ranks.is_main():
            shutil.rmtree(out / "wav", ignore_errors=True)
        begun.write()
        ranks.wait_for_all()
    paths = {u.id: out / "wav" / f"{u.id}.wav" for u in utterances}
    timed = [replace(u, duration=max(1, len(tokens[u.id])) / codec.token_rate) for u in utterances]
    batches = shown_batches(f"{out.name}: waves", timed, config.decode.batch_seconds)
    for batch in ranks.dealt(batches):
        if all(paths[u.id].exists() for u in batch):
            continue
        torch.manual_seed(config.seed)  # for codecs that draw: a batch is always the same
        for name, wave in decode_waves(codec, voices, batch, tokens):
            with atomic_path(paths[name], own=True) as file:
                samples = wave.float().cpu().numpy()
                soundfile.write(file, samples, codec.output_rate, "PCM_16", format="WAV")
    ranks.wait_for_all()
    write_table(out / "wav.scp", {name: str(path.absolute()) for name, path in paths.items()})
    return sum(u.duration for u in timed)


@torch.no_grad()
def decode_waves(
    codec: Codec,
    voices: Voices,
    batch: Sequence[Utterance],
    tokens: Mapping[str, Sequence[int]],
) -> Iterator[tuple[str, Tensor]]:
    """Yield the waves [S_i] of utterances by id, with the vectors [S] of their speakers.

    An utterance without tokens becomes silence of its `duration`.
    """
    loud = [u for u in batch if tokens[u.id]]
    if loud:
        rows = [torch.tensor(tokens[u.id]) for u in loud]
        waves = codec.decode(rows, [voices[u] for u in loud])
        yield from zip((u.id for u in loud), waves, strict=True)
    for u in batch:
        if not tokens[u.id]:
            yield u.id, torch.zeros(round(u.duration * codec.output_rate))
