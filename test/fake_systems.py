"""Small dump/ and exp/ folders as the stages before scoring leave them, without any training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import soundfile

from audiorl.config import Config, dump_config

WORDS = """call play stop the a light lamp kitchen garden music seven eleven to from turn on off
down up please tomorrow morning evening weather in oslo lima cairo reminder set for meet""".split()
NAMES = ("Zephyra", "Quillon Bay", "Marlowe")
RATE = 16000


def make_systems(
    root: Path,
    utterances: int = 12,
    seconds: float = 0.3,
    error_rates: dict[str, float] | None = None,
    seed: int = 0,
) -> Config:
    """Writes root/dump and root/exp/<system>; returns the config to score them with.

    `error_rates` is the share of words each system gets wrong, by system name.
    """
    generator = random.Random(seed)
    cfg = Config()
    cfg.data.test = ["test_clean", "test_noisy", "test_nospeech"]
    cfg.data.no_speech = ["test_nospeech"]
    cfg.score.normalizer = "none"
    cfg.score.bootstrap_samples = 200
    for name in cfg.data.test:
        _generate_set(root / "dump" / name, name, utterances, seconds, generator)
    for system, share in (error_rates or {"sft": 0.35, "grpo": 0.1}).items():
        for name in cfg.data.test:
            _decode(
                root / "dump" / name,
                root / "exp" / system / "decode_greedy" / name,
                share,
                generator,
            )
        _train(root / "exp" / system, system, generator)
    return cfg


def make_set(
    root: Path, name: str, refs: dict[str, str], hyps: dict[str, str], **extra: dict[str, str]
) -> None:
    """dump/<name> and exp/a/decode_greedy/<name> by hand; `extra`: further utt2* files."""
    dump, folder = root / "dump" / name, root / "exp" / "a" / "decode_greedy" / name
    files = {
        "text": refs,
        "wav.scp": {uid: f"/audio/{uid}.wav" for uid in refs},
        "utt2spk": {uid: uid.split("-")[0] for uid in refs},
        "utt2dur": {uid: "30.0" for uid in refs},
        **extra,
    }
    dump.mkdir(parents=True)
    for file, table in files.items():
        write_table(dump / file, table)
    folder.mkdir(parents=True)
    write_table(folder / "text", hyps)


def write_table(path: Path, table: dict[str, str]) -> None:
    path.write_text("".join(f"{key} {value}".rstrip() + "\n" for key, value in table.items()))


def _generate_set(
    folder: Path, name: str, count: int, seconds: float, generator: random.Random
) -> None:
    lines: dict[str, list[str]] = {}
    noise = np.random.default_rng(0)
    for index in range(count):
        speaker = f"spk{index % 3}"
        uid = f"{speaker}-{name}-{index:04d}"
        words = generator.choices(WORDS, k=generator.randint(3, 12))
        keyword = generator.choice(NAMES) if index % 3 == 0 else None
        text = " ".join(words + ([keyword] if keyword else [])) if "nospeech" not in name else ""
        length = seconds * (1 + len(words) / 6)
        tone = 0.2 * np.sin(
            np.arange(int(length * RATE)) * 2 * np.pi * (200 + 40 * (index % 9)) / RATE
        )
        audio = folder.parent.parent / "audio" / f"{uid}.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio, tone + 0.02 * noise.standard_normal(len(tone)), RATE)
        entries = {
            "wav.scp": str(audio.resolve()),
            "text": text,
            "utt2spk": speaker,
            "utt2dur": f"{length:.3f}",
            "utt2snr": "clean" if "clean" in name else str((0, 5, 10, 15)[index % 4]),
        }
        if keyword and text:
            entries["utt2keywords"] = keyword
        for file, value in entries.items():
            lines.setdefault(file, []).append(f"{uid} {value}".rstrip())
    folder.mkdir(parents=True)
    for file, content in lines.items():
        (folder / file).write_text("".join(f"{line}\n" for line in sorted(content)))


def _decode(dump: Path, folder: Path, share: float, generator: random.Random) -> None:
    folder.mkdir(parents=True)
    lines = []
    for line in (dump / "text").read_text().splitlines():
        uid, *words = line.split()
        lines.append(" ".join([uid, *recognise(words, share, generator)]))
    (folder / "text").write_text("".join(f"{line}\n" for line in lines))
    decoding = {"seconds": 2.0, "audio_seconds": 10.0, "rtf": 0.2, "method": "greedy"}
    decoding["truncated"] = [lines[0].split()[0]] if share > 0.3 else []
    (folder / "decode.json").write_text(json.dumps(decoding))


def recognise(words: list[str], share: float, generator: random.Random) -> list[str]:
    if not words:
        return ["thank", "you"] if generator.random() < share else []
    heard = []
    for word in words:
        draw = generator.random() / share
        if draw < 0.5:
            heard.append(generator.choice(WORDS))
        elif draw < 0.8:
            continue
        else:
            heard += [word] if draw > 1 else [word, generator.choice(WORDS)]
    if generator.random() < share / 40:
        heard += ["to", "the"] * 5
    return [] if generator.random() < share / 15 else heard


def _train(folder: Path, system: str, generator: random.Random) -> None:
    cfg = Config()
    cfg.rl.algorithm = "supervised" if system == "supervised" else "grpo"
    (folder / "config.yaml").write_text(dump_config(cfg))
    (folder / "env.json").write_text('{"python": "3.0", "torch": "1.0", "gpu": null}')
    (folder / "run.sh").write_text(f"python -m audiorl.bin.train_rl --out exp/{system} # <b>&\n")
    with open(folder / "metrics.jsonl", "w") as stream:
        for step in range(1, 61):
            noise = generator.gauss(0, 0.05)
            line = {"step": step, "loss": 2.0 / step + abs(noise), "grad_norm": 1 + noise}
            if system == "sft":
                line |= {"timing_s/eval": 1.0, "loss_ctc": 3.0 / step, "loss_lm": 1.5 / step}
            else:
                line |= {
                    "reward": 0.6 + step / 200 + noise,
                    "reward_std": 0.2,
                    "entropy": 0.5 - step / 300,
                }
                line |= {
                    "frac_reward_zero_std": 0.1 + step / 200,
                    "completions/mean_length": 12 + noise,
                }
                line |= {"completions/clipped_ratio": 0.01}
                line |= {f"timing_s/{p}": s for p, s in PHASES.items()}
            if step % 10 == 0:
                line["eval/wer"] = 0.4 - step / 400
            stream.write(json.dumps(line) + "\n")


PHASES = {"encode": 0.1, "rollout": 0.6, "reward": 0.02, "update": 0.9, "step": 1.7}
