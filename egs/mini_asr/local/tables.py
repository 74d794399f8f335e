"""Kaldi data directories from plans, and the summary of what they hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import soundfile
from plans import GRAMMARS, Plan, audio_path

from audiorl.files import atomic_write

TABLES = "wav.scp text utt2spk spk2utt utt2dur utt2snr".split()
ROW = "{:<14} {:>6} {:>8} {:>8} {:>7} {:>12} {:>7} {:>6}"
HEADER = ROW.format("set", "utts", "speakers", "minutes", "mean s", "SNR dB", "words", "vocab")


def is_listed(folder: Path, count: int) -> bool:
    """Whether the tables in `folder` are all there, for `count` utterances."""
    if not all((folder / table).exists() for table in TABLES):
        return False
    with open(folder / "utt2spk", encoding="utf-8") as lines:
        return sum(1 for _ in lines) == count


def write_set(root: Path, name: str, utterances: list[Plan], language: str) -> str:
    """Writes `root/name`, whose audio must be there; returns the set's line of the summary.

    `utt2snr` is in dB: `inf` for clean speech, `-inf` where nobody speaks. `utt2keywords` and
    `spk2gender` have lines only for utterances with keywords and for people.
    """
    folder = root / name
    separator = GRAMMARS[language].separator
    by_id = {utterance.id: utterance for utterance in sorted(utterances, key=lambda u: u.id)}
    texts = {key: separator.join(s.text for s in u.sentences) for key, u in by_id.items()}
    paths = {key: audio_path(root, u) for key, u in by_id.items()}
    durations = {key: soundfile.info(path).duration for key, path in paths.items()}
    members: dict[str, list[str]] = {}
    for key, utterance in by_id.items():
        members.setdefault(utterance.speaker_id, []).append(key)
    write_table(folder / "wav.scp", paths.items())
    write_table(folder / "text", texts.items())
    write_table(folder / "utt2spk", ((key, u.speaker_id) for key, u in by_id.items()))
    write_table(folder / "spk2utt", ((who, " ".join(ids)) for who, ids in members.items()))
    write_table(folder / "utt2dur", ((key, f"{value:.4f}") for key, value in durations.items()))
    write_table(folder / "utt2snr", ((key, f"{u.snr:g}") for key, u in by_id.items()))
    people = {u.speaker.id: u.speaker.gender for u in utterances if u.speaker}
    keywords = {key: ";".join(u.keywords) for key, u in by_id.items() if u.keywords}
    for table, rows in {"spk2gender": people, "utt2keywords": keywords}.items():
        if rows:
            write_table(folder / table, sorted(rows.items()))
    words = [word for text in texts.values() for word in GRAMMARS[language].tokens(text)]
    seconds = sum(durations.values())
    levels = [u.snr for u in utterances if math.isfinite(u.snr)]
    return ROW.format(
        name,
        len(by_id),
        len(members),
        f"{seconds / 60:.1f}",
        f"{seconds / len(by_id):.2f}",
        f"{min(levels):g}..{max(levels):g}" if levels else "-",
        len(words),
        len(set(words)),
    )


def write_table(path: Path, rows: Iterable[tuple[str, object]]) -> None:
    """`key value` lines; the key alone where the value is an empty text."""
    with atomic_write(path) as stream:
        stream.writelines(f"{key} {value}\n" if value != "" else f"{key}\n" for key, value in rows)
