"""Validation of a data directory: all problems at once, each with its place and its fix.

The rules are those of Kaldi's validate_data_dir.sh and more: audio that is missing,
empty, cut short, unreadable, silent or damaged, sample rates, empty transcripts, segments beyond
their recording, durations that do not fit the audio, and ids that cannot be file names.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from audiorl.data.audio import OVERSHOOT, AudioError, AudioInfo, audio_digest
from audiorl.data.data_dir import DataDir, make_absolute
from audiorl.data.inspection import Fault, Spans, inspect
from audiorl.data.tables import (
    COMPLETE,
    Problem,
    ScannedTable,
    keyed_by,
    lost_with,
    scan_table,
    table_files,
)
from audiorl.data.utterance import PROMPT_TEXTS, PROMPT_WAVES, parse_seconds, parse_segment
from audiorl.errors import UserError
from audiorl.runtime.files import progress
from audiorl.runtime.processes import end_with
from audiorl.text.silence import is_annotation

REQUIRED = {
    "utt2spk": "run the data preparation again",
    "spk2utt": "run `fix`",
    "text": "run the data preparation again",
    "wav.scp": "run the data preparation again (texts alone: for RL and tests of synthesis)",
}
ILLEGAL_SYMBOL = re.compile(r"(?<!\w)(?:<s>|</s>|#0)(?!\w)")
LONGEST_ID = 200  # bytes; a file name may have 255
JOINERS = "\u200c\u200d"  # invisible, but Persian and Indic scripts are written with them
FILES_PER_PROCESS = 50  # fewer are read sooner than a process starts


@dataclass(frozen=True)
class Checks:
    """Optional checks beyond the text files."""

    audio: bool = True  # decode every recording
    digests: bool = False  # of the content of every recording
    sample_rate: int | None = None  # Hz; another rate is a warning
    no_speech: bool = False  # the set has no speech: empty transcripts are right
    texts_alone: bool = False  # a set without wav.scp is right: what is to be synthesised
    allow_pipes: bool = False  # run the commands in wav.scp
    nj: int = 1  # processes that decode recordings


@dataclass
class Report:
    """Result of `examine`."""

    directory: DataDir  # what could be read, audio paths absolute
    scans: dict[str, ScannedTable]  # by file name: values as they are written, and their lines
    problems: list[Problem] = field(default_factory=list)
    audio: dict[str, AudioInfo] = field(default_factory=dict)  # by recording, where checked
    digests: dict[str, str] = field(default_factory=dict)  # by recording, where asked for

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if not problem.warning]

    def add(self, file: str, name: str, *what: str, warning: bool = False) -> None:
        """Add (kind, message, fix[, drops]) of `name` in `file`, with its line if it has one."""
        line = self.scans[file].lines.get(name) if file in self.scans else None
        problem = Problem(self.directory.path / file, line, name, *what, warning=warning)
        self.problems.append(problem)

    def seconds(self) -> dict[str, float]:
        """Return the duration of every utterance whose recording could be opened."""
        if "segments" not in self.directory.tables:
            return {name: info.duration for name, info in self.audio.items()}
        seconds = {}
        for name, value in self.directory.tables["segments"].items():
            segment = parse_segment(value)
            if segment and segment[0] in self.audio:
                end = min(segment[2], self.audio[segment[0]].duration)
                seconds[name] = end - segment[1]
        return seconds


def validate(path: str | Path, checks: Checks = Checks()) -> list[Problem]:
    """Return every problem of a data directory. Raises UserError when there is no directory."""
    return examine(path, checks).problems


def summary(problems: Iterable[Problem], limit: int = 20) -> str:
    """Return one line for each problem: the first `limit` of a kind and file, then a count."""
    counts: Counter[tuple[Path, str]] = Counter()
    lines = []
    for problem in problems:
        counts[problem.file, problem.kind] += 1
        if counts[problem.file, problem.kind] <= limit:
            lines.append(f"{'warning' if problem.warning else 'error'}: {problem}")
    for (file, kind), count in counts.items():
        if count > limit:
            lines.append(f"{file}: {count - limit:,} more, {count:,} in all: {kind}")
    return "\n".join(lines)


def examine(path: str | Path, checks: Checks = Checks()) -> Report:
    """Validate a directory; return problems, tables and headers of the audio."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a directory; run the data preparation that writes it.")
    scans = {file.name: scan_table(file) for file in table_files(path)}
    tables = {file: scan.values for file, scan in scans.items()}
    make_absolute(path, tables)
    report = Report(DataDir(path, tables), scans)
    for scan in scans.values():
        report.problems += scan.problems
    alone = checks.texts_alone and tables.keys().isdisjoint({"wav.scp", "segments"})
    for file, fix in REQUIRED.items():
        if not tables.get(file) and not (alone and file == "wav.scp"):
            state = "is empty" if file in tables else "is missing"
            report.add(file, "", "no content", f"the file {state}", fix)
    if tables.get("utt2spk"):
        _check_ids(report)
        _check_values(report)
        _check_speakers(report)
        _check_texts(report, checks)
        if checks.audio and "wav.scp" in tables:
            _check_recordings(report, checks)
        if checks.audio:
            _check_prompts(report)
    return report


def _check_ids(report: Report) -> None:
    """Check that files have the ids of utt2spk (or segments), and that ids can be file names."""
    directory = report.directory
    known = {
        "utt": directory.tables["utt2spk"].keys(),
        "spk": set(directory.tables["utt2spk"].values()),
        "reco": set(directory.recordings().values()),
    }
    for file, table in directory.tables.items():
        key = keyed_by(file, "segments" in directory.tables)
        defined_by = "segments" if key == "reco" else "utt2spk"
        drops = lost_with(file, "segments" in directory.tables)
        if file == "utt2spk" or not table:
            continue
        for name in sorted(table.keys() - known[key]):
            fix = f"remove the line, or add it to {defined_by}"
            report.add(file, name, f"not in {defined_by}", f"{defined_by} lacks it", fix, drops)
        for name in sorted(known[key] - table.keys()) if file in COMPLETE else ():
            message = f"{file} lacks it and {defined_by} has it"
            report.add(file, name, f"not in {file}", message, "add its line", drops)
    for file in ("utt2spk", "wav.scp"):
        for name in directory.tables.get(file, ()):
            if "/" in name or not name.isprintable() or len(name.encode()) > LONGEST_ID:
                message = f"the id has `/`, an odd character or over {LONGEST_ID} bytes"
                fix = "rename it: results are stored in files of that name"
                report.add(file, name, "id unfit for a file", message, fix)


def _in_range(low: float, high: float) -> Callable[[str], bool]:
    return lambda value: low < (parse_seconds(value) or 0) < high


# File -> (what a value must satisfy, in words). Every other file of COMPLETE needs a value.
VALUES: dict[str, tuple[Callable[[str], object], str]] = {
    "utt2spk": (lambda value: len(value.split()) == 1, "one speaker"),
    "segments": (parse_segment, "`<recording> <start> <end>` in seconds, start before end"),
    "utt2dur": (parse_seconds, "a number of seconds above 0"),
    "reco2dur": (parse_seconds, "a number of seconds above 0"),
    "utt2num_frames": (re.compile("[1-9][0-9]*").fullmatch, "a whole number above 0"),
    "spk2gender": (re.compile("[mf]").fullmatch, "m or f"),
    "utt2warp": (_in_range(0.5, 1.5), "a number between 0.5 and 1.5"),
    "spk2warp": (_in_range(0.5, 1.5), "a number between 0.5 and 1.5"),
    "reco2file_and_channel": (re.compile(r"\S+ +[AB]").fullmatch, "`<file> A` or `<file> B`"),
    "wav.scp": (lambda value: value and value[0] != "~", "an audio file, its path without ~"),
}


def _check_values(report: Report) -> None:
    for file in sorted((COMPLETE & report.scans.keys()) - {"text"}):
        accepts, wanted = VALUES.get(file, (str.strip, "a value"))
        drops = lost_with(file, "segments" in report.scans)
        for name, value in report.scans[file].values.items():
            if not accepts(value):
                message = f"`{value}` is not {wanted}" if value else f"has no value, not {wanted}"
                report.add(file, name, "bad value", message, "fix the line", drops)


def _check_speakers(report: Report) -> None:
    """Check that spk2utt is the inverse of utt2spk, and utterances are sorted by speaker."""
    directory = report.directory
    inverse = directory.spk2utt()
    stated = directory.tables.get("spk2utt", {})
    for name, utterances in inverse.items() if stated else ():
        if stated.get(name) != utterances:
            message = "these are not the speaker's utterances in utt2spk, sorted"
            report.add("spk2utt", name, "not the inverse of utt2spk", message, "run `fix`")
    order = [(name, directory.tables["utt2spk"][name]) for name in directory.utterances]
    breaks = [(one, two) for one, two in itertools.pairwise(order) if one[1] > two[1]]
    if breaks:
        (_, before), (name, speaker) = breaks[0]
        message = (
            f"sorted by utterance the speakers are not sorted, at {len(breaks)} places: {speaker} "
            f"comes after {before}"
        )
        fix = "rename utterances so that they begin with their speaker: <speaker>-<utterance>"
        if all(name.startswith(speaker) for name, speaker in order):
            fix = "join speaker and utterance by `-`, since letters and digits sort before `_`"
        report.add("utt2spk", name, "not sorted by speaker", message, fix)
    if len(inverse) == 1:
        message = "all utterances have one speaker"
        fix = "give each its speaker, or its own id if speakers are unknown"
        report.add("utt2spk", "", "one speaker", message, fix, warning=True)


def _check_prompts(report: Report) -> None:
    tables = report.directory.tables
    for name, audio in tables.get(PROMPT_WAVES, {}).items():
        if not Path(audio).is_file() or not tables.get(PROMPT_TEXTS, {}).get(name):
            message = f"`{audio}` is no file with a text in {PROMPT_TEXTS}"
            report.add(PROMPT_WAVES, name, "no prompt", message, "fix its path or its text")


def clean_text(text: str) -> str:
    """Return a text with single spaces and without invisible characters, as `fix` writes it."""
    if text.isprintable():
        return text
    spaced = "".join(" " if character.isspace() else character for character in text)
    return "".join(c for c in spaced if c.isprintable() or c in JOINERS).strip()


def _check_texts(report: Report, checks: Checks) -> None:
    for name, text in report.directory.tables.get("text", {}).items():
        if ILLEGAL_SYMBOL.search(f"{name} {text}"):
            message, fix = "<s>, </s> and #0 are reserved by Kaldi", "remove them"
            report.add("text", name, "reserved symbol", message, fix, "utt")
        if text != (clean := clean_text(text)):
            odd = [c for c in text if not c.isprintable() and c not in JOINERS]
            # Kaldi refuses odd spaces and control characters, and lets the merely invisible pass.
            refused = [c for c in odd if unicodedata.category(c) != "Cf"]
            worst = (refused or odd)[0]
            message = f"has U+{ord(worst):04X} ({unicodedata.name(worst, 'control character')})"
            fix = "use plain spaces and visible characters, as `fix` writes them"
            report.add("text", name, "odd character", message, fix, warning=not refused)
        if not clean and not checks.no_speech:
            fix = "transcribe it or remove the utterance (a set without speech: --no-speech)"
            report.add("text", name, "empty transcript", "the transcript is empty", fix, "utt")
        if checks.no_speech and clean and not is_annotation(clean):
            message = "has a transcript, in a set without speech"
            fix = "empty it, or take the set out of data.no_speech"
            report.add("text", name, "transcript without speech", message, fix)


def _check_recordings(report: Report, checks: Checks) -> None:
    """Open every recording, and compare it with segments, durations and sample rate."""
    directory = report.directory
    tasks = {
        name: (audio, {})
        for name, audio in directory.tables["wav.scp"].items()
        if report.scans["wav.scp"].values[name][:1] not in ("", "~")  # reported as a bad value
    }
    for name, (recording, span) in _spans(directory).items():
        spoken = clean_text(directory.tables.get("text", {}).get(name, ""))
        if recording in tasks and spoken and not checks.no_speech:
            tasks[recording][1][name] = span
    file = "segments" if "segments" in directory.tables else "wav.scp"
    for name, found in inspect_audio(tasks, checks, directory.path.name).items():
        report.digests[name] = found.digest
        if found.info:
            report.audio[name] = found.info
        for fault in found.faults:
            what = (fault.kind, fault.reason, fault.fix)
            if fault.utt:
                drops = "" if fault.warning else "utt"
                report.add(file, fault.utt, *what, drops, warning=fault.warning)
            else:
                drops = "" if fault.warning or fault.kind == "command" else "reco"
                report.add("wav.scp", name, *what, drops, warning=fault.warning)
    for name, value in directory.tables.get("segments", {}).items():
        segment = parse_segment(value)
        if segment and segment[0] in report.audio:
            over = segment[2] - report.audio[segment[0]].duration
            message = f"the segment ends {over:.2f} s after its recording {segment[0]}"
            if over > OVERSHOOT or segment[1] >= report.audio[segment[0]].duration:
                report.add("segments", name, "beyond the recording", message, "fix it", "utt")
            elif (segment[2] - segment[1]) * report.audio[segment[0]].sample_rate < 1:
                message = "the segment is shorter than a sample"
                report.add("segments", name, "empty segment", message, "fix it", "utt")
            elif over > 0.01:
                fix = "nothing to do, the audio ends it"
                report.add("segments", name, "end cut off", message, fix, warning=True)
    recordings = {name: info.duration for name, info in report.audio.items()}
    for file, measured in (("utt2dur", report.seconds()), ("reco2dur", recordings)):
        for name, value in directory.tables.get(file, {}).items():
            actual, stated = measured.get(name), parse_seconds(value)
            if actual and stated and abs(actual - stated) > max(0.05, 0.01 * actual):
                message = f"{file} says {stated:g} s and the audio lasts {actual:.2f} s"
                fix = "run `fix`, or copy the audio again if the duration is right"
                report.add(file, name, "wrong duration", message, fix)
    _check_sample_rates(report, checks)


def _spans(directory: DataDir) -> dict[str, tuple[str, tuple[float, float | None]]]:
    """Return (recording, (start, end) in s) by utterance, where they can be read."""
    if "segments" not in directory.tables:
        return {name: (name, (0.0, None)) for name in directory.utterances}
    parsed = {n: parse_segment(value) for n, value in directory.tables["segments"].items()}
    return {n: (segment[0], segment[1:]) for n, segment in parsed.items() if segment}


def _check_sample_rates(report: Report, checks: Checks) -> None:
    rates = defaultdict(list)
    for name, info in report.audio.items():
        rates[info.sample_rate].append(name)
    wanted = checks.sample_rate or max(rates, key=lambda rate: len(rates[rate]), default=0)
    for rate, names in sorted(rates.items()):
        if rate != wanted:
            message = f"{len(names)} of {len(report.audio)} recordings are at {rate} Hz"
            fix = f"nothing to do, they are resampled to {wanted} Hz when read"
            report.add("wav.scp", names[0], "sample rate", message, fix, warning=True)
    several = [name for name, info in report.audio.items() if info.channels > 1]
    if several:
        message = f"{len(several)} of {len(report.audio)} recordings have several channels"
        fix = "nothing to do, they are averaged when read"
        report.add("wav.scp", several[0], "channels", message, fix, warning=True)


@dataclass(frozen=True)
class Found:
    """Result of a look at one recording."""

    info: AudioInfo | None  # None: it cannot be used
    faults: list[Fault]
    digest: str = ""


def inspect_audio(
    recordings: dict[str, tuple[str, Spans]], checks: Checks, desc: str
) -> dict[str, Found]:
    """Return what is found in each recording, decoded in `nj` processes.

    `recordings`: the audio and the spans of its utterances with a transcript, by name.
    """
    look = partial(_look, checks=checks)
    bar = partial(progress, desc=f"{desc}: reading audio", total=len(recordings), unit="file")
    nj = min(checks.nj, len(recordings) // FILES_PER_PROCESS + 1)
    if nj == 1:
        return dict(zip(recordings, bar(map(look, recordings.values())), strict=True))
    pool = ProcessPoolExecutor(nj, get_context("spawn"), end_with, (os.getpid(),))
    try:
        results = pool.map(look, recordings.values(), chunksize=FILES_PER_PROCESS // 2)
        return dict(zip(recordings, bar(results), strict=True))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that read audio was killed, for want of memory as a rule; lower --nj."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _look(recording: tuple[str, Spans], checks: Checks) -> Found:
    audio, spans = recording
    digest = audio_digest(audio) if checks.digests else ""
    try:
        return Found(*inspect(audio, spans, checks.allow_pipes), digest)
    except AudioError as error:
        fault = Fault(error.kind, error.reason, error.fix, warning=False)
        return Found(None, [fault], digest)
