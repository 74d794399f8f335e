"""Stage 1 of any list of utterances: rows -> the data directories train, dev and test.

Rows are sorted, joined and split by SQLite on the disk, so that memory does not grow with them.
Sets that the rows do not name are taken out of the training data: whole speakers where there are
enough of them, utterances of known speakers otherwise. What is left out is counted, and named by
its file and line.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from audiorl.data.audio import SUFFIXES, archive_entry, audio_info, is_pipe
from audiorl.data.data_dir import refuse_to_replace, replace_dir
from audiorl.data.tables import table_files
from audiorl.errors import UserError
from audiorl.runtime.files import atomic_write, progress
from audiorl.runtime.stamps import digest

SETS = ("train", "dev", "test")
SHARE, MOST = 0.05, 500  # of the utterances in dev and in test, where their size is not given
FOLDERS = 5  # parts of a path, at most, that tell files of one name apart
WAYS = ("speaker", "utterance")
UNFIT = re.compile(r"[\s!-,/\x00-\x1f\x7f]+")  # would end an id, sort before `-`, or is no name
SCHEMA = """
    CREATE TABLE rows (id TEXT PRIMARY KEY, audio TEXT, start REAL, end REAL, text TEXT,
        speaker TEXT, split TEXT, tags TEXT, draw INTEGER, voice INTEGER) WITHOUT ROWID;
    CREATE TABLE recordings (audio TEXT PRIMARY KEY, id TEXT UNIQUE) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Row:
    """Utterance as somebody's list has it."""

    place: str  # file and line, for messages
    audio: str  # path, `archive.ark:offset` or `command |`
    text: str
    speaker: str = ""  # empty: not known, the utterance is its own
    name: str = ""  # its id; empty: the name of its file
    kaldi: bool = False  # the id is kept as it is; others begin with their speaker
    start: float = 0.0  # s
    end: float | None = None  # s; None: the end of the recording
    split: str = ""  # one of SETS; empty: not stated
    tags: dict[str, str] = field(default_factory=dict)  # contents of files utt2<tag>


@dataclass(frozen=True)
class HeldOut:
    """Size and choice of the sets that the rows do not name, taken out of the training data."""

    dev: float | None = None  # a share of the utterances, or from 1 on their number
    test: float | None = None
    by: str = ""  # one of WAYS; empty: speakers where there are enough
    seed: int = 0


def import_rows(rows: Iterable[Row], out: Path, held_out: HeldOut, what: str) -> None:
    """Write `out`/train, dev and test, each whole or not at all; print what is kept, and why not.

    Sets that have this content already are left as they are. what: the rows' origin, in messages.
    Raises UserError when no row is left, or too few to take a set from.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import.", suffix=".tmp", dir=out) as scratch:
        base = sqlite3.connect(Path(scratch) / "rows.sqlite", isolation_level=None)
        base.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;" + SCHEMA)
        _collect(base, rows, held_out.seed, what)
        base.execute("CREATE INDEX by_speaker ON rows (split, speaker)")
        _hold_out(base, held_out)
        for name in SETS:
            _write_set(base, name, out / name)
        base.close()


def _collect(base: sqlite3.Connection, rows: Iterable[Row], seed: int, what: str) -> None:
    """Insert the rows that can be used; print how many, and of the others the reasons."""
    lost: Counter[str] = Counter()
    first: dict[str, str] = {}
    total = 0
    base.execute("BEGIN")
    for row in progress(rows, "reading", unit="row"):
        total += 1
        if why := _unusable(row) or _insert(base, row, seed):
            lost[why] += 1
            first.setdefault(why, f"{row.place} ({row.audio or row.text or row.name})")
    base.execute("COMMIT")
    print(f"{what}: kept {total - lost.total():,} of {total:,} utterances")
    for why, count in lost.most_common():
        print(f"  {count:,} left out, {why}: {first[why]}{' for one' if count > 1 else ''}")
    if total == lost.total():
        raise UserError(f"{what}: no utterance is left; fix what is named above.")


def _unusable(row: Row) -> str:
    """Return why a row cannot be used; empty: it can."""
    if row.split not in ("", *SETS):
        return f"of a set {row.split}, which is none of {', '.join(SETS)}"
    if not row.text.strip():
        return "without a transcript"
    if not row.audio:
        return "without a recording"
    if is_pipe(row.audio):
        return ""
    entry = archive_entry(row.audio)
    if not os.path.isfile(entry[0] if entry else row.audio):
        return "whose recording does not exist"
    suffix = os.path.splitext(row.audio)[1].lower()
    return "" if entry or suffix[1:] in SUFFIXES else f"not of a format that is read ({suffix})"


def _insert(base: sqlite3.Connection, row: Row, seed: int) -> str:
    """Insert a row under an id of its own; return why not, if it is there already."""
    speaker, audio = _clean(row.speaker), row.audio
    audio = audio if is_pipe(audio) else os.path.abspath(audio)
    tags = {tag: " ".join(value.split()) for tag, value in row.tags.items() if value.strip()}
    for uid in _names(row, speaker):
        values = (
            *(uid, audio, row.start, row.end, " ".join(row.text.split()), speaker or uid),
            *(row.split or SETS[0], json.dumps(tags, ensure_ascii=False) if tags else None),
            *(_draw(seed, uid), _draw(seed, speaker or uid)),
        )
        insert = f"INSERT OR IGNORE INTO rows VALUES ({', '.join('?' * len(values))})"
        if base.execute(insert, values).rowcount:
            return ""
        there = "SELECT 1 FROM rows WHERE id = ? AND (audio, start, end) IS (?, ?, ?)"
        if base.execute(there, values[:4]).fetchone():
            return "listed before"
    raise UserError(f"{row.place}: {uid} is the id of another utterance; give it one of its own.")


def _names(row: Row, speaker: str) -> Iterator[str]:
    """Yield ids for a row: its name, or its file's; with folders of its path where that is taken.

    They begin with the speaker, so that what is sorted by id is sorted by speaker.
    """
    if row.kaldi:
        yield row.name
        return
    span = "" if row.end is None else f"-{1000 * row.start:07.0f}-{1000 * row.end:07.0f}"
    for path in _paths(row.audio, not row.name):
        name = _clean("-".join(filter(None, [row.name, path and path + span])))
        yield name if not speaker or f"{name}-".startswith(f"{speaker}-") else f"{speaker}-{name}"


def _paths(audio: str, first: bool) -> Iterator[str]:
    """Yield the name of a file, of it in its folder, and so on; from 0 of these parts on."""
    if is_pipe(audio):
        yield hashlib.blake2b(audio.encode(), digest_size=8).hexdigest()
        return
    parts = Path(audio.replace(".ark:", "-")).with_suffix("").parts
    for depth in range(first, FOLDERS):
        yield "-".join(parts[len(parts) - depth :])


def _clean(name: str) -> str:
    """Return a name without what cannot stand in an id, or would sort before `-`."""
    name = UNFIT.sub("_", name.strip())
    return "".join(c if c.isprintable() else "_" for c in name)


def _draw(seed: int, name: str) -> int:
    """Return a number that only depends on seed and name: others do not change who is drawn."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest())


def _hold_out(base: sqlite3.Connection, held_out: HeldOut) -> None:
    """Move utterances of train to the sets that no row names; print the choice."""
    missing = [name for name in SETS[1:] if not _count(base, name)]
    if not missing:
        return
    total = _count(base, SETS[0])
    wanted = {name: _size(getattr(held_out, name), total) for name in missing}
    sizes = " and ".join(f"{name} ({size})" for name, size in wanted.items())
    if sum(wanted.values()) >= total or not all(wanted.values()):
        raise UserError(
            f"{total} utterances for training are too few to take {sizes} from them; record more "
            "(20 at least), say --dev and --test, or state the set of each utterance."
        )
    voices = _count(base, SETS[0], "DISTINCT speaker")
    enough = voices * min(wanted.values()) >= total
    by = held_out.by or WAYS[0 if enough else 1]
    for name, size in wanted.items():
        (_move_speakers if by == "speaker" else _move_utterances)(base, name, size)
    if not _count(base, SETS[0]):
        raise UserError(
            f"{voices} speakers are too few for {sizes}; say --by utterance, or state the set of "
            "each utterance."
        )
    whole = "whole speakers" if by == "speaker" else "single utterances"
    if not (held_out.by or enough):
        whole += f" ({voices} speakers are too few to hold some out)"
    found = ", ".join(f"{name} {_count(base, name):,}" for name in missing)
    print(f"taken out of {total:,} utterances: {found}; {whole}, drawn by seed {held_out.seed}")


def _count(base: sqlite3.Connection, split: str, of: str = "*") -> int:
    return base.execute(f"SELECT COUNT({of}) FROM rows WHERE split = ?", (split,)).fetchone()[0]


def _size(given: float | None, total: int) -> int:
    """Return the utterances of a set from a share or a number."""
    if given is None:
        return min(MOST, int(SHARE * total))
    return int(given * total) if given < 1 else int(given)


def _move_speakers(base: sqlite3.Connection, name: str, size: int) -> None:
    """Move speakers, as they are drawn, until the set has `size` utterances.

    Those who say more than twice that are left in training; if all do, the most silent moves.
    """
    said = "SELECT speaker, COUNT(*) FROM rows WHERE split = 'train' GROUP BY speaker ORDER BY "
    chosen, taken = [], 0
    for speaker, count in base.execute(said + "MIN(voice), speaker"):
        if taken < size and taken + count <= 2 * size:
            chosen.append(speaker)
            taken += count
    chosen = chosen or [base.execute(said + "COUNT(*), speaker").fetchone()[0]]
    move = "UPDATE rows SET split = ? WHERE split = 'train' AND speaker = ?"
    base.executemany(move, [(name, speaker) for speaker in chosen])


def _move_utterances(base: sqlite3.Connection, name: str, size: int) -> None:
    """Move utterances, as they are drawn; each speaker keeps one, if there are others enough."""
    one_each = "SELECT MIN(id) FROM rows WHERE split = 'train' GROUP BY speaker"
    base.execute(
        "UPDATE rows SET split = ? WHERE id IN (SELECT id FROM rows WHERE split = 'train' "
        f"ORDER BY id IN ({one_each}), draw, id LIMIT ?)",
        (name, size),
    )


def _write_set(base: sqlite3.Connection, name: str, out: Path) -> None:
    """Write a set beside its place, and move it there unless it has this content already."""
    if not _count(base, name):
        raise UserError(
            f"{out} would have no utterances; state the set of some as {name}, or of none."
        )
    refuse_to_replace(out, [])
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    size = f"{_count(base, name):,} utterances, {_count(base, name, 'DISTINCT speaker'):,} speakers"
    _write_audio(base, name, beside)
    of_set = (name,)
    for file, column in (("text", "text"), ("utt2spk", "speaker")):
        select = f"SELECT id, {column} FROM rows WHERE split = ? ORDER BY id"
        _write(beside / file, base.execute(select, of_set))
    by_speaker = base.execute(
        "SELECT speaker, id FROM rows WHERE split = ? ORDER BY speaker, id", of_set
    )
    groups = itertools.groupby(by_speaker, key=lambda pair: pair[0])
    _write(beside / "spk2utt", ((s, " ".join(uid for _, uid in pairs)) for s, pairs in groups))
    tags = "FROM rows, json_each(rows.tags) AS tag WHERE split = ?"
    for (tag,) in base.execute(f"SELECT DISTINCT tag.key {tags}", of_set).fetchall():
        select = f"SELECT rows.id, tag.value {tags} AND tag.key = ? ORDER BY rows.id"
        _write(beside / f"utt2{tag}", base.execute(select, (name, tag)))
    if _digests(out) == _digests(beside):
        shutil.rmtree(beside)
        print(f"{out}: up to date, {size}")
        return
    replace_dir(beside, out)
    print(f"{out}: {size}")


def _write_audio(base: sqlite3.Connection, name: str, folder: Path) -> None:
    """Write wav.scp, and segments where an utterance is a part of its recording."""
    whole = "SELECT id, audio FROM rows WHERE split = ? AND end IS NULL ORDER BY id"
    parts = "SELECT 1 FROM rows WHERE split = ? AND (start > 0 OR end IS NOT NULL)"
    if not base.execute(parts, (name,)).fetchone():
        _write(folder / "wav.scp", base.execute(whole, (name,)))
        return
    for uid, audio in base.execute(whole, (name,)).fetchall():
        end = audio_info(audio).duration
        base.execute("UPDATE rows SET end = ? WHERE id = ?", (end, uid))
    recordings = "SELECT DISTINCT audio FROM rows WHERE split = ?"
    for (audio,) in base.execute(recordings, (name,)).fetchall():
        _name_recording(base, audio)
    select = f"SELECT id, audio FROM recordings WHERE audio IN ({recordings}) ORDER BY id"
    _write(folder / "wav.scp", base.execute(select, (name,)))
    select = (
        "SELECT rows.id, recordings.id, start, end FROM rows JOIN recordings USING (audio) "
        "WHERE split = ? ORDER BY rows.id"
    )
    found = base.execute(select, (name,))
    _write(folder / "segments", ((u, f"{r} {start:.4f} {end:.4f}") for u, r, start, end in found))


def _name_recording(base: sqlite3.Connection, audio: str) -> None:
    """Give a recording an id, unless it has one: its file's name, with folders if it is taken."""
    if base.execute("SELECT 1 FROM recordings WHERE audio = ?", (audio,)).fetchone():
        return
    for name in map(_clean, _paths(audio, True)):
        if base.execute("INSERT OR IGNORE INTO recordings VALUES (?, ?)", (audio, name)).rowcount:
            return
    raise UserError(f"{audio}: another recording is named {name}, too; rename one of them.")


def _write(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    with atomic_write(path) as stream:
        stream.writelines(f"{name} {value}\n" for name, value in pairs)


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: digest(file) for file in table_files(folder)}
