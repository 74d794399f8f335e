"""Fixing a data directory in place: sorted, equal utterances in all files, nothing unusable.

Unusable utterances are removed and counted by reason; the originals stay in `.backup`.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path

from audiorl.data.data_dir import DataDir
from audiorl.data.tables import DERIVED, Problem, table_files, write_table
from audiorl.data.validate import Checks, Report, clean_text, examine
from audiorl.errors import UserError

NEEDS_A_HAND = ("not sorted by speaker", "id unfit for a file", "command")
MOST_DROPPED = 0.5  # a larger share is a wrong path or a half-finished corpus, not bad luck


def fix(path: str | Path, checks: Checks, force: bool = False) -> Report:
    """Fix the directory, print `kept N of M` with reasons, and return the Report of the result.

    Utterances are removed when a file lacks them or their line, transcript or audio is unusable.
    Files that are computed from the audio (utt2dur …) are removed when they are wrong anywhere.
    Raises UserError when a required file is missing, when nothing would be left, or when more
    than half would be removed and `force` is off; then nothing is changed.
    """
    path = Path(path)
    report = examine(path, checks)
    for problem in report.errors:
        if problem.kind == "no content" and problem.file.name != "spk2utt":
            raise UserError(str(problem))
    if not any(map(fixable, report.problems)):
        print(f"{path}: nothing to fix, kept all {len(report.directory.utterances)} utterances.")
        return report
    reasons = _reasons(report)
    total = len(reasons.keys() | report.directory.tables["utt2spk"].keys())
    kept = [name for name in report.directory.utterances if name not in reasons]
    account = f"{path}: kept {len(kept)} of {total} utterances"
    for reason, count in Counter(reasons.values()).most_common():
        account += f"\n  {count} removed: {reason}"
    if not kept or (len(reasons) > MOST_DROPPED * total and not force):
        advice = "fix the data preparation" if not kept else "fix that, or pass --force"
        raise UserError(f"nothing was changed, as only few would be left; {advice}.\n{account}")
    _write(report, kept)
    print(account)
    return examine(path, checks)


def fixable(problem: Problem) -> bool:
    """Whether `fix` solves a problem, or removes the utterances that have it."""
    if problem.kind == "odd character":
        return True
    return not problem.warning and problem.kind not in NEEDS_A_HAND


def _reasons(report: Report) -> dict[str, str]:
    """Return utterance -> the first reason to remove it."""
    directory = report.directory
    members: dict[tuple[str, str], list[str]] = {}
    for name, speaker in directory.tables["utt2spk"].items():
        members.setdefault(("spk", speaker), []).append(name)
    for name, recording in directory.recordings().items():
        members.setdefault(("reco", recording), []).append(name)
    reasons: dict[str, str] = {}
    for problem in report.problems:
        key = (problem.drops, problem.id)
        for name in [problem.id] if problem.drops == "utt" else members.get(key, []):
            reasons.setdefault(name, f"{problem.kind} ({problem.file.name})")
    return reasons


def _write(report: Report, kept: list[str]) -> None:
    path = report.directory.path
    wrong = {problem.file.name: problem for problem in report.errors}
    tables = {file: dict(scan.values) for file, scan in report.scans.items()}
    tables["text"] = {name: clean_text(text) for name, text in tables["text"].items()}
    fixed = DataDir(path, tables).select(kept)
    fixed.tables["spk2utt"] = fixed.spk2utt()
    backup = _backup(path)
    for file, table in fixed.tables.items():
        if file in DERIVED and file in wrong:
            print(f"{path / file} removed ({wrong[file].kind}); format_data writes it again.")
            (path / file).unlink()
            continue
        write_table(path / file, table)
        lines = len(report.scans[file].lines) if file in report.scans else 0
        if len(table) < lines:
            print(f"{path / file}: {lines - len(table)} of {lines} ids removed.")
    for problem in report.errors:
        if problem.kind == "duplicate id":
            print(f"{problem.file}: line {problem.line} removed, the first of {problem.id} stays.")
    print(f"{path}: the originals are in {backup}.")


def _backup(path: Path) -> Path:
    """Copy the tables to `.backup`, or to `.backup.1` … if there are older ones."""
    names = itertools.chain([".backup"], (f".backup.{number}" for number in itertools.count(1)))
    backup = next(path / name for name in names if not (path / name).exists())
    backup.mkdir()
    for file in table_files(path):
        shutil.copy2(file, backup / file.name)
    return backup
