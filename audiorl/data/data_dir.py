"""Kaldi data directories as a whole: reading, writing, subset, split, combine.

Every directory written here is complete or absent, sorted as in the C locale, with `spk2utt` the
exact inverse of `utt2spk` and absolute paths in `wav.scp`. Commands in `wav.scp` are copied, never
run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from audiorl.data.tables import COMPLETE, keyed_by, read_table, table_files, write_table
from audiorl.data.utterance import PROMPT_WAVES, absolute_audio, parse_seconds, parse_segment
from audiorl.errors import UserError

Tables = dict[str, dict[str, str]]  # file name -> id -> value


def make_absolute(path: Path, tables: Tables) -> None:
    """Give the tables of recordings and of prompts absolute paths."""
    for file in tables.keys() & {"wav.scp", PROMPT_WAVES}:
        tables[file] = absolute_audio(path / file, tables[file])


@dataclass
class DataDir:
    """Tables of a data directory in memory."""

    path: Path
    tables: Tables

    @classmethod
    def read(cls, path: str | Path) -> DataDir:
        """Read all tables, with absolute audio paths. Raises UserError for a broken line."""
        path = Path(path)
        if not (path / "utt2spk").exists():
            raise UserError(f"{path} is not a data directory: it has no utt2spk; name another.")
        tables = {file.name: read_table(file) for file in table_files(path)}
        make_absolute(path, tables)
        return cls(path, tables)

    @property
    def utterances(self) -> list[str]:
        """Sorted utterance ids."""
        return sorted(self.tables["utt2spk"])

    def speakers(self) -> dict[str, list[str]]:
        """Speaker -> sorted utterance ids, speakers sorted."""
        speakers: dict[str, list[str]] = defaultdict(list)
        for name in self.utterances:
            speakers[self.tables["utt2spk"][name]].append(name)
        return dict(sorted(speakers.items()))

    def spk2utt(self) -> dict[str, str]:
        """Return the exact inverse of utt2spk."""
        return {name: " ".join(utterances) for name, utterances in self.speakers().items()}

    def recordings(self) -> dict[str, str]:
        """Utterance -> recording (itself where there is no segments file)."""
        segments = self.tables.get("segments")
        if segments is None:
            return {name: name for name in self.tables["utt2spk"]}
        return {name: value.split()[0] for name, value in segments.items() if value}

    def durations(self) -> dict[str, float]:
        """Seconds of each utterance, from utt2dur or segments, as far as they are known."""
        known = {name: parse_seconds(s) for name, s in self.tables.get("utt2dur", {}).items()}
        for name, value in self.tables.get("segments", {}).items():
            if known.get(name) is None and (segment := parse_segment(value)):
                known[name] = segment[2] - segment[1]
        return {name: seconds for name, seconds in known.items() if seconds is not None}

    def select(self, keep: Iterable[str]) -> DataDir:
        """Return a directory of these utterances alone, with their speakers and recordings."""
        utterances = set(keep) & self.tables["utt2spk"].keys()
        recordings = self.recordings()
        ids = {
            "utt": utterances,
            "spk": {self.tables["utt2spk"][name] for name in utterances},
            "reco": {recordings[name] for name in utterances if name in recordings},
        }
        tables = {
            file: {
                name: value
                for name, value in table.items()
                if name in ids[keyed_by(file, "segments" in self.tables)]
            }
            for file, table in self.tables.items()
        }
        return DataDir(self.path, tables)

    def write(self, out: str | Path) -> DataDir:
        """Write the directory; an older data directory at `out` is replaced at the end.

        Raises UserError when `out` is something else, the source itself, or cannot be written.
        """
        out = Path(out)
        refuse_to_replace(out, [self.path])
        beside = out.with_name(f".{out.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        self.write_tables(beside)
        replace_dir(beside, out)
        return DataDir(out, self.tables)

    def write_tables(self, out: Path) -> None:
        """Write the tables into a folder that is not in use yet."""
        for file, table in (self.tables | {"spk2utt": self.spk2utt()}).items():
            write_table(out / file, table)


def replace_dir(beside: Path, out: Path) -> None:
    """Move the finished folder `beside` to `out`; remove the old one last."""
    old = out.with_name(f".{out.name}.old")
    try:
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            os.rename(out, old)
        os.rename(beside, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); fix its access.") from error
    shutil.rmtree(old, ignore_errors=True)


def refuse_to_replace(out: Path, sources: list[Path]) -> None:
    """Raise UserError if `out` is there and no data directory, or one of its sources."""
    if not out.exists():
        return
    data_dir = (out / "utt2spk").exists() or (out.is_dir() and not any(out.iterdir()))
    if not data_dir or any(out.resolve() == source.resolve() for source in sources):
        raise UserError(f"{out} is in the way and is not replaced; name another directory.")


def subset(
    path: str | Path,
    out: str | Path,
    *,
    first: int | None = None,
    shortest: int | None = None,
    sample: int | None = None,
    speakers: int | None = None,
    ids: str | Path | None = None,
    seed: int = 0,
) -> DataDir:
    """Write a part of a directory, chosen in exactly one of these ways.

    first, shortest: number of utterances; sample: number of random utterances; speakers: number of
    random speakers, all utterances of each; ids: file whose lines begin with ids. Equal seeds
    choose equally. Raises UserError when there are fewer than asked for.
    """
    source = DataDir.read(path)
    utterances = source.utterances
    generator = random.Random(seed)
    if first is not None:
        keep = _take(utterances, first, "utterances", path)
    elif sample is not None:
        keep = _take(generator.sample(utterances, len(utterances)), sample, "utterances", path)
    elif shortest is not None:
        durations = source.durations()
        if unknown := [name for name in utterances if name not in durations]:
            raise UserError(
                f"{path}: the duration of {unknown[0]} is not known; give utt2dur (dump/ has it)."
            )
        by_length = sorted(utterances, key=lambda name: (durations[name], name))
        keep = _take(by_length, shortest, "utterances", path)
    elif speakers is not None:
        groups = list(source.speakers().values())
        chosen = _take(generator.sample(groups, len(groups)), speakers, "speakers", path)
        keep = [name for group in chosen for name in group]
    else:
        assert ids is not None
        keep = list(read_table(Path(ids)))
        if unknown := [name for name in keep if name not in source.tables["utt2spk"]]:
            raise UserError(
                f"{ids}: {path} lacks {len(unknown)} of its {len(keep)} utterances, {unknown[0]} "
                "for one; fix the list."
            )
    return source.select(keep).write(out)


def _take(items: list, count: int, what: str, path: str | Path) -> list:
    if not 1 <= count <= len(items):
        raise UserError(f"{path} has {len(items)} {what}, not {count}; ask for 1 to {len(items)}.")
    return items[:count]


def split(path: str | Path, shards: int, per_utt: bool = False) -> list[DataDir]:
    """Write `split<shards>/<1..shards>` (per_utt: `split<shards>utt/…`) below the directory.

    A speaker stays in one shard unless `per_utt`; the shards are as even as that allows.
    Raises UserError when there are fewer speakers (utterances) than shards.
    """
    source = DataDir.read(path)
    groups = [[name] for name in source.utterances] if per_utt else [*source.speakers().values()]
    if not 1 <= shards <= len(groups):
        what = "utterances" if per_utt else "speakers (--per-utt splits within a speaker)"
        raise UserError(f"{path} has {len(groups)} {what}, too few for {shards} shards.")
    parts: list[list[str]] = [[] for _ in range(shards)]
    for group in sorted(groups, key=len, reverse=True):  # the largest first keeps shards even
        min(parts, key=len).extend(group)
    folder = source.path / f"split{shards}{'utt' if per_utt else ''}"
    return [
        source.select(part).write(folder / str(number))
        for number, part in enumerate(parts, start=1)
    ]


def combine(paths: list[str | Path], out: str | Path) -> DataDir:
    """Write several directories as one.

    Files that only some of them have are left out and named on standard output. Raises UserError
    when an utterance stands in two of them, when two give one speaker or recording different
    values, or when only some have segments.
    """
    sources = [DataDir.read(path) for path in paths]
    refuse_to_replace(Path(out), [source.path for source in sources])
    if len({"segments" in source.tables for source in sources}) > 1:
        raise UserError("only some of the directories have segments; write segments for all.")
    files = {file for source in sources for file in source.tables} - {"spk2utt"}
    partial = {file for file in files if any(file not in source.tables for source in sources)}
    dropped = sorted(file for file in partial if file in COMPLETE)
    if dropped:
        print(f"{out}: {', '.join(dropped)} left out, as not every directory has it.")
    tables: Tables = {file: {} for file in sorted(files - set(dropped))}
    for source in sources:
        for file, table in tables.items():
            by_utterance = keyed_by(file, "segments" in source.tables) == "utt"
            for name, value in source.tables.get(file, {}).items():
                if name in table and (by_utterance or table[name] != value):
                    raise UserError(
                        f"{source.path / file}: {name} stands in another of the directories too; "
                        "rename it there or here."
                    )
                table[name] = value
    return DataDir(sources[0].path, tables).write(out)
