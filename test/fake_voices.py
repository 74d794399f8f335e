"""Small dump/ and exp/ folders of synthesis: spoken tones in place of speech, judged or not yet."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import soundfile
from fake_systems import RATE, WORDS, recognise, write_table

from audiorl.config import Config, dump_config
from audiorl.runtime.stamps import Stamp
from audiorl.score.sound import measure
from audiorl.score.tts import JUDGED, REFERENCE, Judged, write_judged

SPEAKERS = {"ann": 210.0, "bob": 110.0, "eve": 250.0}  # Hz
SETS = ("test", "test_hard")


def tone(seconds: float, pitch: float, seed: int = 0, noise: float = 0.003) -> np.ndarray:
    """[S]: a buzz whose pitch rises and falls by a semitone, after and before 50 ms of silence."""
    time = np.arange(int(seconds * RATE)) / RATE
    f0 = pitch * 2 ** (np.sin(2 * np.pi * time) / 12)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 9))
    hiss = noise * np.random.default_rng(seed).standard_normal(len(time))
    return np.pad(0.1 * buzz + hiss, int(0.05 * RATE)).astype(np.float32)


def make_voices(
    root: Path, systems: dict[str, float], utterances: int = 9, judged: bool = True, seed: int = 0
) -> Config:
    """Writes root/dump, root/exp/<system> and the reference root/exp/natural.

    `systems`: the share of words that each says wrong. The more, the slower it speaks, too.
    """
    generator = random.Random(seed)
    config = Config(task="tts")
    config.data.test = list(SETS)
    config.score.normalizer = "none"
    config.score.bootstrap_samples = 200
    for name in SETS:
        texts = write_set(root / "dump" / name, utterances, generator)
        decode(root, "natural", name, texts, 0.02, generator, judged)
        for system, share in systems.items():
            decode(root, system, name, texts, share, generator, judged)
    (root / "exp" / "natural" / REFERENCE).write_text("{}")
    for system in systems:
        _train(root / "exp" / system, generator)
    return config


def write_set(folder: Path, count: int, generator: random.Random) -> dict[str, str]:
    """A formatted set with natural recordings; returns its texts by id."""
    tables: dict[str, dict[str, str]] = {n: {} for n in ("wav.scp", "text", "utt2spk", "utt2dur")}
    audio = folder.parent.parent / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    for index in range(count):
        speaker = list(SPEAKERS)[index % len(SPEAKERS)]
        uid = f"{speaker}-{folder.name}-{index:03d}"
        text = " ".join(generator.choices(WORDS, k=generator.randint(3, 7)))
        wave = tone(0.03 * len(text), SPEAKERS[speaker], index)
        soundfile.write(audio / f"{uid}.wav", wave, RATE)
        tables["wav.scp"][uid] = str((audio / f"{uid}.wav").absolute())
        tables["text"][uid], tables["utt2spk"][uid] = text, speaker
        tables["utt2dur"][uid] = f"{len(wave) / RATE:.4f}"
    for name, table in tables.items():
        write_table(folder / name, dict(sorted(table.items())))
    return dict(sorted(tables["text"].items()))


def decode(
    root: Path,
    system: str,
    name: str,
    texts: dict[str, str],
    share: float,
    generator: random.Random,
    judged: bool,
) -> None:
    """exp/<system>/decode_greedy/<name> as synthesis leaves it; with `judged` also judged.json."""
    folder = root / "exp" / system / "decode_greedy" / name
    (folder / "wav").mkdir(parents=True)
    waves, found = {}, {}
    for place, (uid, text) in enumerate(texts.items()):
        pitch = SPEAKERS[uid.split("-")[0]]
        natural = root / "audio" / f"{uid}.wav"
        path = natural if system == "natural" else folder / "wav" / f"{uid}.wav"
        if system != "natural":
            wave = tone(0.03 * len(text) * (1 + share), pitch * (1 + share / 4), place, 0.01)
            soundfile.write(path, wave, RATE)
        waves[uid] = str(path.absolute())
        if judged:
            own, sound = measure(soundfile.read(natural)[0], RATE), None
            sound = measure(soundfile.read(path)[0], RATE)
            heard = recognise(text.split(), share, generator)
            found[uid] = Judged(
                heard=" ".join(heard),
                seconds=sound.seconds,
                speech_seconds=sound.speech_seconds,
                natural_seconds=own.speech_seconds,
                similarity=0.9 - share / 2 + generator.gauss(0, 0.01),
                f0=sound.f0,
                f0_spread=sound.f0_spread,
                hnr=sound.hnr,
                distance=None if system == "natural" else 4 + share,
            )
    write_table(folder / "wav.scp", waves)
    truncated = [next(iter(texts))] if share > 0.3 else []
    (folder / "decode.json").write_text(json.dumps({"seconds": 2.0, "truncated": truncated}))
    if judged:
        write_judged(Stamp(folder / JUDGED, {}, {}), found, "exp/judge")


def _train(folder: Path, generator: random.Random) -> None:
    config = Config(task="tts")
    (folder / "config.yaml").write_text(dump_config(config))
    with open(folder / "metrics.jsonl", "w") as stream:
        for step in range(1, 31):
            noise = generator.gauss(0, 0.05)
            line = {"step": step, "loss": 1 / step, "reward": step / 60 + noise, "kl": step / 900}
            if step % 5 == 0:
                line |= {"eval/reward_model": step / 60, "eval/judge": 0.8 - step / 300 + noise}
            stream.write(json.dumps(line) + "\n")
