"""Kaldi data directories from plans, and the summary of what they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import soundfile
from plans import Plan, audio_path
from sentences import Grammar
from sets import SetSpec

from audiorl.runtime.files import atomic_write

TEXT_TABLES = "text utt2spk spk2utt".split()
AUDIO_TABLES = "wav.scp utt2dur utt2snr".split()
ROW = "{:<14} {:>6} {:>8} {:>8} {:>7} {:>12} {:>7} {:>6}"
HEADER = ROW.format("set", "utts", "speakers", "minutes", "mean s", "SNR dB", "words", "vocab")


def is_listed(root: Path, spec: SetSpec, count: int) -> bool:
    """Whether the tables of a set below `root` are all there, for `count` utterances."""
    folder = root / spec.name
    tables = TEXT_TABLES + AUDIO_TABLES if spec.audio else TEXT_TABLES
    if not all((folder / table).exists() for table in tables):
        return False
    with open(folder / "utt2spk", encoding="utf-8") as lines:
        return sum(1 for _ in lines) == count


def write_set(root: Path, spec: SetSpec, utterances: list[Plan], grammar: Grammar) -> str:
    """Writes the set below `root`, its audio being there; returns its line of the summary.

    `utt2snr` is in dB: `inf` for clean speech, `-inf` where nobody speaks. `utt2keywords` and
    `spk2gender` have lines only for utterances with keywords and for people. Sets with hard
    sentences have `utt2topic`.
    """
    by_id = {utterance.id: utterance for utterance in sorted(utterances, key=lambda u: u.id)}
    texts = {key: grammar.separator.join(s.text for s in u.sentences) for key, u in by_id.items()}
    paths = {key: audio_path(root, u) for key, u in by_id.items()} if spec.audio else {}
    durations = {key: soundfile.info(path).duration for key, path in paths.items()}
    members: dict[str, list[str]] = {}
    for key, utterance in by_id.items():
        members.setdefault(utterance.speaker_id, []).append(key)
    people = {u.speaker.id: u.speaker.gender for u in utterances if u.speaker}
    topics = {key: u.sentences[0].topic for key, u in by_id.items() if spec.hard}
    tables = {
        "wav.scp": paths,
        "text": texts,
        "utt2spk": {key: u.speaker_id for key, u in by_id.items()},
        "spk2utt": {who: " ".join(ids) for who, ids in members.items()},
        "utt2dur": {key: f"{value:.4f}" for key, value in durations.items()},
        "utt2snr": {key: f"{u.snr:g}" for key, u in by_id.items()} if spec.audio else {},
        "utt2topic": {key: topic for key, topic in topics.items() if topic},
        "spk2gender": dict(sorted(people.items())),
        "utt2prompt": _prompts(members) if spec.prompts else {},
        "utt2keywords": {key: ";".join(u.keywords) for key, u in by_id.items() if u.keywords},
    }
    for name, rows in tables.items():
        if rows:
            write_table(root / spec.name / name, rows)
    words = [word for text in texts.values() for word in grammar.tokens(text)]
    seconds = sum(durations.values())
    levels = [u.snr for u in utterances if math.isfinite(u.snr)]
    return ROW.format(
        spec.name,
        len(by_id),
        len(members),
        f"{seconds / 60:.1f}" if spec.audio else "text",
        f"{seconds / len(by_id):.2f}" if spec.audio else "-",
        f"{min(levels):g}..{max(levels):g}" if levels else "-",
        len(words),
        len(set(words)),
    )


def _prompts(members: Mapping[str, list[str]]) -> dict[str, str]:
    """The utterance before each, of the same speaker; the last before the first."""
    found = {
        ids[i]: ids[i - 1] for ids in members.values() if len(ids) > 1 for i in range(len(ids))
    }
    return dict(sorted(found.items()))


def write_table(path: Path, rows: Mapping[str, str | Path]) -> None:
    """`key value` lines; the key alone where the value is an empty text."""
    with atomic_write(path) as stream:
        stream.writelines(
            f"{key} {value}\n" if value != "" else f"{key}\n" for key, value in rows.items()
        )
