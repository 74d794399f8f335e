"""Prepares speech in several conditions, and recordings without speech, from LibriSpeech.

Readers of the sets differ. Where the corpus has its official parts, train is train-clean-100, dev
dev-clean and test test-other. Of a part of the corpus, the reader who says most is train, the next
test, the others dev. LJSpeech, if it is given, is one more test set (test_lj). Of a long set,
--most utterances are taken, spread over it.

For each set S, beside the recordings as they are (S):
  S_10db, S_5db   noise at this SNR: white, pink, hum; of the test sets brown, music, babble
  S_room          the echo of a room
and train_noisy and dev_noisy, which are the noisy ones of both, and train_nospeech,
dev_nospeech, test_nospeech: sounds without speech, 1 to 12 s long; dev_mixed is dev_noisy and
dev_nospeech. The kinds of noise and of sounds in test are heard nowhere else. --no_speech sets how
many recordings there are.

examples:
  local/data.sh --corpus /data/LibriSpeech
  local/data.sh --corpus /data/LibriSpeech --ljspeech /data/LJSpeech-1.1 --most 500
"""

from __future__ import annotations

import io
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import sound
import soundfile

from audiorl.bin.cli import parser, run
from audiorl.data.audio import read_audio
from audiorl.data.corpus import claim, compare_counts, join, write_set
from audiorl.data.libri import find_parts, read_genders, read_part
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runtime.files import atomic_write, progress

VERSION = 2  # raise it when the same options make other recordings
PARTS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-other"}
OFFICIAL = {"train-clean-100": 28539, "dev-clean": 2703, "test-other": 2939}
SNRS = (10, 5)
HEARD = ("white", "pink", "hum")  # kinds of noise in train and dev
NEW = ("brown", "music", "babble")  # in test
SOUNDS = {"train": HEARD, "dev": HEARD, "test": ("brown", "music", "clicks", "siren")}
SECONDS = (1.0, 12.0)  # of a recording without speech
TALKERS = 4  # of babble


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder that holds train-clean-100 …")
    options.add_argument("--ljspeech", default="", help="LJSpeech-1.1: one more reader of test")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    options.add_argument("--most", type=int, default=500, help="utterances of a set at most")
    options.add_argument("--no_speech", type=int, default=60, help="of each set without speech")
    args = options.parse_args()
    if args.most < 1 or args.no_speech < 1:
        raise UserError("--most and --no_speech: expected at least 1; correct it.")
    corpus = find_parts("LibriSpeech", list(PARTS.values()), args.corpus, "60 GB")
    sets = split({part: read_part(corpus / part) for part in OFFICIAL if (corpus / part).is_dir()})
    if args.ljspeech:
        sets["test"] = [*sets["test"], *read_ljspeech(Path(args.ljspeech))]
    sets = {name: spread(found, args.most) for name, found in sets.items()}
    ids = "".join(u.id for found in sets.values() for u in found)
    origin = {"version": VERSION, "utterances": zlib.crc32(ids.encode()), "sounds": args.no_speech}
    claim(args.out, origin)
    noisy = write_sets(sets, args.out, read_genders(corpus / "SPEAKERS.TXT"))
    silent = {
        name: write_no_speech(args.out, f"{name}_nospeech", kinds, args.no_speech)
        for name, kinds in SOUNDS.items()
    }
    # Where only some have speech, an empty transcript is one that was forgotten.
    told = [replace(u, id=u.id.replace("-", "-dev-"), text="[no speech]") for u in silent["dev"]]
    write_set(args.out / "dev_mixed", [*noisy["dev"], *told], {})


def split(parts: dict[str, list[Utterance]]) -> dict[str, list[Utterance]]:
    """Return train, dev and test: official parts, or readers of what there is."""
    compare_counts(parts, OFFICIAL)
    if all(parts.get(part) for part in PARTS.values()):
        return {name: parts[part] for name, part in PARTS.items()}
    by_reader: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in (u for found in parts.values() for u in found):
        by_reader[utterance.id.partition("-")[0]].append(utterance)
    readers = sorted(by_reader, key=lambda reader: (-len(by_reader[reader]), reader))
    if len(readers) < 3:
        raise UserError(
            f"{len(readers)} readers in {', '.join(parts)}, and train, dev and test need one each; "
            "get more of the corpus."
        )
    third = max(1, len(readers) // 3)
    chosen = {"train": readers[:third], "test": readers[third:-third], "dev": readers[-third:]}
    for name, found in chosen.items():
        print(f"NOT OFFICIAL: {name} is what readers {', '.join(found[:5])} say")
    return {name: [u for r in found for u in by_reader[r]] for name, found in chosen.items()}


def read_ljspeech(folder: Path) -> list[Utterance]:
    table = folder / "metadata.csv"
    if not table.is_file():
        raise UserError(f"{table} does not exist; --ljspeech needs the folder that holds it.")
    rows = [line.split("|") for line in table.read_text(encoding="utf-8").splitlines()]
    audio = {path.stem: path for path in (folder / "wavs").glob("*.wav")}
    return join("LJSpeech", audio, {row[0]: row[-1] for row in rows}, lambda name: "LJ")


def spread(utterances: list[Utterance], most: int) -> list[Utterance]:
    """Return at most so many of the utterances, evenly spread."""
    chosen = sorted(utterances, key=lambda u: u.id)
    if len(chosen) <= most:
        return chosen
    return [chosen[int(i * len(chosen) / most)] for i in range(most)]


def write_sets(
    sets: dict[str, list[Utterance]], out: Path, genders: dict[str, str]
) -> dict[str, list[Utterance]]:
    """Write the sets in all conditions; return the noisy ones of each."""
    noisy = {}
    for name, utterances in sets.items():
        write_set(
            out / name,
            [replace(u, tags={**u.tags, "source": u.id}) for u in utterances],
            {u.speaker: g for u in utterances if (g := genders.get(u.id.partition("-")[0]))},
        )
        kinds = NEW if name.startswith("test") else HEARD
        conditions = {f"{snr}db": noise_maker(utterances, kinds, snr) for snr in SNRS}
        made = {
            condition: write_condition(out, f"{name}_{condition}", utterances, make)
            for condition, make in {**conditions, "room": echo_maker()}.items()
        }
        noisy[name] = [u for found in made.values() for u in found]
        if name != "test":
            write_set(out / f"{name}_noisy", noisy[name], {})
    return noisy


Maker = Callable[[int, Utterance], tuple[str, Callable[[], np.ndarray]]]


def noise_maker(utterances: list[Utterance], kinds: tuple[str, ...], snr: int) -> Maker:
    """Return what adds noise: kinds in turn, babble of other utterances of the set."""

    def make(index: int, utterance: Utterance) -> tuple[str, Callable[[], np.ndarray]]:
        kind = kinds[index % len(kinds)]

        def render() -> np.ndarray:
            others = [utterances[(index + 7 * k) % len(utterances)] for k in range(1, TALKERS + 1)]
            talkers = [samples(u) for u in others] if kind == "babble" else []
            seed = (zlib.crc32(utterance.id.encode()), snr)
            return sound.noisy(samples(utterance), kind, snr, talkers, seed)

        return kind, render

    return make


def echo_maker() -> Maker:
    def make(index: int, utterance: Utterance) -> tuple[str, Callable[[], np.ndarray]]:
        seed = (zlib.crc32(utterance.id.encode()), 0)
        return "room", lambda: sound.in_a_room(samples(utterance), seed)

    return make


def samples(utterance: Utterance) -> np.ndarray:
    return read_audio(utterance, sound.SAMPLE_RATE)


def write_condition(
    out: Path, name: str, utterances: Iterable[Utterance], make: Maker
) -> list[Utterance]:
    """Write the recordings that are missing, and the data directory; return its utterances."""
    condition, listed = name.rpartition("_")[2], []
    for index, utterance in enumerate(progress(list(utterances), f"making {name}", unit="utt")):
        kind, render = make(index, utterance)
        new = f"{utterance.speaker}-{condition}-{utterance.id}"
        path = write_audio(out / "wav" / name / f"{utterance.id}.flac", render)
        tags = {"condition": condition, "noise": kind, "source": utterance.id}
        speaker = f"{utterance.speaker}-{condition}"
        listed.append(replace(utterance, id=new, audio=path, speaker=speaker, tags=tags))
    write_set(out / name, listed, {})
    return listed


def write_no_speech(out: Path, name: str, kinds: tuple[str, ...], count: int) -> list[Utterance]:
    listed = []
    for index in progress(range(count), f"making {name}", unit="utt"):
        kind = kinds[index % len(kinds)]
        seed = (zlib.crc32(name.encode()), index)
        path = write_audio(
            out / "wav" / name / f"{kind}-{index:03d}.flac",
            lambda kind=kind, seed=seed: sound.without_speech(kind, SECONDS, seed),
        )
        uid = f"{kind}-{index:03d}"
        listed.append(Utterance(uid, path, "", kind, tags={"noise": kind}))
    write_set(out / name, listed, {})
    return listed


def write_audio(path: Path, render: Callable[[], np.ndarray]) -> str:
    """Write a recording (flac, 16 bits) unless it is there; return its path."""
    if not path.exists():
        encoded = io.BytesIO()
        soundfile.write(encoded, render(), sound.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        with atomic_write(path, "wb") as stream:
            stream.write(encoded.getvalue())
    return os.path.abspath(path)


if __name__ == "__main__":
    run(main)
