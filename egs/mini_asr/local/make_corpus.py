"""Makes the generated corpus: Kaldi data directories and audio, from espeak-ng and a grammar.

example: python local/make_corpus.py --out data --nj 2 --language en --seed 1 --scale 1.0
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

# One thread each: the processes are the parallelism, and a process that forks must have no other.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
from render import SPECS, audio_path, make_utterance  # noqa: E402
from sets import SETS, Plan, grammar_of, plan  # noqa: E402

from audiorl.bin.cli import parser, run  # noqa: E402
from audiorl.errors import UserError  # noqa: E402
from audiorl.files import atomic_write, progress, write_json  # noqa: E402

# Raise it when the same options make other sentences or other sound.
VERSION = 1
TABLES = "wav.scp text utt2spk spk2utt utt2dur utt2snr utt2keywords".split()


def main() -> None:
    arguments = parser(__doc__, config=False)
    arguments.add_argument("--out", default="data", help="the folder of the data directories")
    arguments.add_argument("--nj", type=int, default=os.cpu_count(), help="processes")
    arguments.add_argument("--language", choices=["en", "zh"], default="en")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--scale", type=float, default=1.0, help="multiplies all sizes")
    options = arguments.parse_args()
    if options.nj < 1 or options.scale <= 0 or options.seed < 0:
        raise UserError("--nj and --scale must be above 0, and --seed not below; correct them.")
    make_corpus(Path(options.out), options.nj, options.language, options.seed, options.scale)


def make_corpus(out: Path, nj: int, language: str, seed: int, scale: float) -> None:
    """Makes what is missing of the corpus in `out`; says so in one line when nothing is.

    Raises UserError when `out` holds a corpus of other options, the disk refuses, or a worker
    is killed; what is complete by then stays and is not made again.
    """
    origin = {"version": VERSION, "language": language, "seed": seed}
    claim(out, origin)
    plans = {
        spec.name: [
            plan(spec, index, seed, language) for index in range(math.ceil(spec.size * scale))
        ]
        for spec in SETS
    }
    missing = [
        (str(out), name, index, seed, language)
        for name, utterances in plans.items()
        for index, utterance in enumerate(utterances)
        if not audio_path(out, utterance).exists()
    ]
    total = sum(map(len, plans.values()))
    if not missing and all(is_listed(out, name, len(plans[name])) for name in plans):
        print(f"{out}: complete, {total} utterances in {len(plans)} sets; nothing to do.")
        return
    print(f"{out}: {total - len(missing)} of {total} utterances are there, making {len(missing)}.")
    synthesise(missing, nj)
    print(SUMMARY.format("set", "utts", "speakers", "minutes", "mean s", "SNR dB", "words", "vocab"))
    for name, utterances in plans.items():
        print(write_tables(out, name, utterances, language))


def claim(out: Path, origin: dict) -> None:
    """Notes in `out` what the corpus is made from; refuses a folder that holds another one."""
    note = out / "corpus.json"
    if not note.exists():
        write_json(note, origin)
        return
    found = json.loads(note.read_text(encoding="utf-8"))
    for key, value in origin.items():
        if found.get(key) != value:
            raise UserError(
                f"{note}: this corpus was made with {key} {found.get(key)}, not {value}; "
                f"give another --out, or remove {out} to make it anew."
            )


def is_listed(out: Path, name: str, count: int) -> bool:
    """Whether a set's tables are all there, for `count` utterances."""
    folder = out / name
    if not all((folder / table).exists() for table in TABLES):
        return False
    with open(folder / "utt2spk", encoding="utf-8") as lines:
        return sum(1 for _ in lines) == count


def synthesise(missing: list[tuple], nj: int) -> None:
    """Makes each (root, set, index, seed, language) in `nj` processes."""
    if not missing:
        return
    # Spawned, not forked: espeak and numpy must start fresh in each.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(nj, mp_context=context)
    try:
        done = pool.map(make_utterance, *zip(*missing, strict=True), chunksize=8)
        for _ in progress(done, "speech", len(missing), "utt"):
            pass
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed (out of memory?); run the same command again to go on, "
            "with a smaller --nj if it happens again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


SUMMARY = "{:<14} {:>6} {:>8} {:>8} {:>7} {:>13} {:>7} {:>6}"


def write_tables(out: Path, name: str, utterances: list[Plan], language: str) -> str:
    """Writes a set's Kaldi files; returns its line of the summary."""
    utterances = sorted(utterances, key=lambda utterance: utterance.id)
    grammar = grammar_of(language)
    folder = out / name
    texts = {u.id: grammar.separator.join(s.text for s in u.sentences) for u in utterances}
    durations = {u.id: soundfile.info(audio_path(out, u)).duration for u in utterances}
    spk2utt: dict[str, list[str]] = {}
    for utterance in utterances:
        spk2utt.setdefault(utterance.speaker_id, []).append(utterance.id)
    write_table(folder / "wav.scp", ((u.id, audio_path(out, u)) for u in utterances))
    write_table(folder / "text", texts.items())
    write_table(folder / "utt2spk", ((u.id, u.speaker_id) for u in utterances))
    write_table(folder / "spk2utt", ((s, " ".join(ids)) for s, ids in sorted(spk2utt.items())))
    write_table(folder / "utt2dur", ((key, f"{value:.4f}") for key, value in durations.items()))
    write_table(folder / "utt2snr", ((u.id, f"{u.snr:g}") for u in utterances))
    keywords = ((u.id, ";".join(u.keywords)) for u in utterances if u.keywords)
    write_table(folder / "utt2keywords", keywords)
    if SPECS[name].speech:
        genders = {u.speaker_id: u.speaker.gender for u in utterances}
        write_table(folder / "spk2gender", sorted(genders.items()))
    words = [word for text in texts.values() for word in (text.split() if grammar.separator else text)]
    minutes = sum(durations.values()) / 60
    levels = [u.snr for u in utterances if np.isfinite(u.snr)]
    return SUMMARY.format(
        name, len(utterances), len(spk2utt), f"{minutes:.1f}",
        f"{60 * minutes / len(utterances):.2f}",
        f"{min(levels):g} .. {max(levels):g}" if levels else "-", len(words), len(set(words)),
    )  # fmt: skip


def write_table(path: Path, rows: Iterable[tuple[str, object]]) -> None:
    """A Kaldi table: `key value` lines, or the key alone where the value is empty."""
    with atomic_write(path) as stream:
        stream.writelines(f"{key} {value}".rstrip() + "\n" for key, value in rows)


if __name__ == "__main__":
    run(main)
