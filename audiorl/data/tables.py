"""Text files of a Kaldi data directory: `<id> <value>` lines, sorted by id as in the C locale.

Utterance ids key `text`, `segments`, `utt2*` and, where there is no `segments`, `wav.scp`. With
`segments`, `wav.scp` and `reco2*` are keyed by recording. `spk2*` are keyed by speaker.
Kaldi separates fields by spaces and tabs alone: other Unicode spaces are part of a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from audiorl.errors import UserError
from audiorl.runtime.files import atomic_write

PATTERNS = ("text", "prompt_text", "segments", "*.scp", "utt2*", "spk2*", "reco2*")
# Computed from the audio: `format_data` writes them anew.
AUDIO_HASH = "reco2hash"  # digests of the recordings, by which a stamp knows them
DERIVED = frozenset({"utt2dur", "utt2num_frames", "reco2dur", AUDIO_HASH})
# Where they exist, these have every id; other utt2<name> and spk2<name> files need not.
COMPLETE = DERIVED | {
    *("utt2spk", "text", "wav.scp", "segments", "feats.scp", "vad.scp", "cmvn.scp"),
    *("spk2gender", "spk2warp", "utt2warp", "utt2lang", "utt2uniq", "reco2file_and_channel"),
}


@dataclass(frozen=True)
class Problem:
    """Problem in a data directory with its place and its fix."""

    file: Path
    line: int | None  # from 1; None: the whole file, or a line that is missing
    id: str  # utterance, recording or speaker; empty: the whole file
    kind: str  # a few constant words: problems of a kind are counted together
    message: str
    fix: str
    drops: str = ""  # whose utterances `fix` removes for it: utt, reco, spk; empty: none
    warning: bool = False  # worth a look, but the directory can be used

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{place}: {self.id + ': ' if self.id else ''}{self.message}; {self.fix}."


@dataclass
class ScannedTable:
    """File as id -> value in the order of its lines, and the problems of its lines."""

    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # id -> line number
    problems: list[Problem] = field(default_factory=list)


def scan_table(path: Path) -> ScannedTable:
    """Read the good lines of a file and list every broken one.

    Carriage returns are removed, the first of several lines with one id is kept, lines that are
    not UTF-8 are left out. Raises UserError when the file cannot be opened.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); run the data preparation again."
        ) from error
    table = ScannedTable()
    lost = lost_with(path.name, (path.parent / "segments").exists())

    def report(line: int | None, name: str, kind: str, message: str, fix: str, drops: str = ""):
        table.problems.append(Problem(path, line, name, kind, message, fix, drops))

    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
        report(1, "", "byte order mark", "begins with a byte order mark", "save without one")
    if content and not content.endswith(b"\n"):
        last = content.count(b"\n") + 1
        report(last, "", "no final newline", "the last line has no newline", "add one")
    previous = ""
    rows = content.removesuffix(b"\n").split(b"\n") if content else []
    for number, raw in enumerate(rows, start=1):
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            name = raw.split(maxsplit=1)[0].decode(errors="replace")
            message = "the line is not UTF-8"
            report(number, name, "not UTF-8", message, "convert the file with iconv", lost)
            continue
        if line.endswith("\r"):
            message = "the line ends in CR LF (Windows)"
            report(number, "", "CR LF line end", message, f"run `sed -i 's/\\r$//' {path}`")
        name, _, value = line.replace("\t", " ").strip(" \r").partition(" ")
        if not name:
            report(number, "", "empty line", "the line is empty", "remove it")
        elif name in table.values:
            message = f"the id stands on line {table.lines[name]} already"
            report(number, name, "duplicate id", message, "keep one of the lines")
        else:
            table.values[name] = value.strip(" ")
            table.lines[name] = number
            if name < previous:  # by code point, which is the C locale's order of UTF-8
                message = f"not sorted: the id comes after {previous}"
                report(number, name, "not sorted", message, f"run `LC_ALL=C sort -o {path} {path}`")
            previous = name
    return table


def read_table(path: Path) -> dict[str, str]:
    """Read a file as id -> value. Raises UserError when the file or an id is not readable."""
    table = scan_table(path)
    for problem in table.problems:
        if problem.kind in ("not UTF-8", "empty line", "duplicate id"):
            raise UserError(str(problem))
    return table.values


def write_table(path: Path, values: Mapping[str, str]) -> None:
    """Write `<id> <value>` lines, sorted; an empty value leaves the id alone on its line."""
    with atomic_write(path) as stream:
        stream.writelines(f"{name} {values[name]}".rstrip(" ") + "\n" for name in sorted(values))


def table_files(path: Path) -> list[Path]:
    """Return the files of a data directory that are tables, by name."""
    return sorted({file for pattern in PATTERNS for file in path.glob(pattern) if file.is_file()})


def set_files(path: Path) -> dict[str, Path]:
    """Return the tables of a set by `<set>/<file>`, as inputs of a stamp."""
    return {f"{path.name}/{file.name}": file for file in table_files(path)}


def keyed_by(file: str, has_segments: bool) -> str:
    """Return the kind of ids in a file: `utt`, `reco` or `spk`."""
    if file.startswith("spk2") or file == "cmvn.scp":
        return "spk"
    if has_segments and (file.startswith("reco2") or file == "wav.scp"):
        return "reco"
    return "utt"


def lost_with(file: str, has_segments: bool) -> str:
    """Return the kind of id whose utterances are lost with a line of a file; empty: none."""
    return keyed_by(file, has_segments) if file in COMPLETE - DERIVED else ""
