"""Stage 2: from data/<set> to dump/<set>, validated, with absolute paths and durations.

Train and RL sets lose utterances that are too long or too short, which is printed; development and
test sets stay whole, so that results on them can be compared. In sets of `data.no_speech` a
transcript that is an annotation, [noise], is emptied; an empty one is written as the utterance id
alone, which Kaldi and ESPnet read as no words. From then on the transcript says who speaks.
RL, RL development and test sets of synthesis may be texts alone, without wav.scp.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audiorl.data.audio import audio_digests, is_pipe, read_samples
from audiorl.data.data_dir import DataDir, replace_dir
from audiorl.data.overlap import shared, unknown_speakers
from audiorl.data.tables import AUDIO_HASH, scan_table, set_files, table_files
from audiorl.data.utterance import PROMPT_WAVES, absolute_audio
from audiorl.data.validate import Checks, Report, clean_text, examine, summary
from audiorl.errors import UserError
from audiorl.runtime.files import atomic_write, progress
from audiorl.runtime.stamps import Stamp, digest
from audiorl.text.normalise import split_units
from audiorl.text.silence import is_silent

if TYPE_CHECKING:
    from audiorl.config.data import DataConfig
    from audiorl.config.schema import Config

STAMP = "format.json"  # what the set was made from, and its row of the table
COLUMNS = ("set", "utterances", "speakers", "hours", "mean s", "words", "most/s")


def format_sets(
    config: Config, data: Path, dump: Path, nj: int = 1, allow_pipes: bool = False
) -> None:
    """Write dump/<set> for every set that the config names, and print a table of them.

    A set whose files, audio and limits are those of its stamp is left as it is. Raises UserError
    when a set is missing or not valid, after the valid ones are written.
    """
    if data.resolve() == dump.resolve():
        raise UserError(f"--data and --dump are both {data}; give dump a folder of its own.")
    sets, judge = config.data, config.judge.train if config.speaks else ""
    trained = dict.fromkeys(filter(None, [sets.train, judge, sets.rl, *sets.extra]))
    held_out = dict.fromkeys(filter(None, [sets.dev, sets.rl_dev, *sets.test]))
    rows, broken = [], []
    for name in trained | held_out:
        checks = Checks(
            sample_rate=sets.sample_rate,
            no_speech=name in sets.no_speech,
            texts_alone=config.speaks and name not in (sets.train, judge, sets.dev),
            allow_pipes=allow_pipes,
            digests=True,
            nj=nj,
        )
        filtered = name not in held_out
        if row := _format_set(data / name, dump / name, sets, checks, filtered):
            rows.append(row)
        else:
            broken.append(str(data / name))
    if broken:
        raise UserError(
            f"{len(broken)} of {len(trained | held_out)} sets are not valid (see above); fix the "
            f"data preparation, or run `python -m audiorl.bin.data_dir fix {' '.join(broken)}`."
        )
    dev = list(filter(None, dict.fromkeys([sets.dev, sets.rl_dev])))
    print(*shared(dump, trained, dev, sets.test), _table(rows), sep="\n")
    if config.speaks and (config.speech.speakers != "none" or config.codec.type == "native"):
        spoken = filter(None, [*held_out, sets.rl])
        prompted = config.speech.speakers != "mark"
        if unknown := unknown_speakers(dump, sets.train, spoken, prompted):
            raise UserError(
                f"{dump}: voices are those of {sets.train}, which lacks speakers: "
                f"{', '.join(unknown)}; take sentences of its own speakers for these sets, name "
                "others in data.*, or give them prompts (speech.speakers: prompt)."
            )


def _format_set(
    source: Path, out: Path, config: DataConfig, checks: Checks, filtered: bool
) -> list | None:
    """Return the set's row of the table; None when the set is not valid."""
    if not source.is_dir():
        raise UserError(f"{source} does not exist; run stage 1, or fix the set's name in data.*.")
    tables = {name: digest(file) for name, file in set_files(source).items()}
    for left in (".tmp", ".old"):  # by a process that was killed
        shutil.rmtree(out.with_name(f".{out.name}{left}"), ignore_errors=True)
    prompts = _audio_digests(source, checks, PROMPT_WAVES)
    if (out / STAMP).exists():
        hashes = _audio_digests(source, checks)
        stamp = _stamp(out, config, checks, filtered, tables, hashes, prompts)
        if stamp.is_current(out):
            print(f"{out}: up to date.")
            return stamp.facts()["row"]
    report = examine(source, checks)
    stamp = _stamp(out, config, checks, filtered, tables, report.digests, prompts)
    if report.problems:
        print(summary(report.problems))
    if report.errors:
        return None
    if config.text_tag:
        report.directory.tables["text"] = _tagged(report.directory, config.text_tag)
    limits = _outside_limits(report, config)
    seconds, names = report.seconds(), report.directory.utterances
    kept = [name for name in names if not filtered or name not in limits]
    why = _why(limits)
    if not kept:
        raise UserError(f"{source}: no utterance is left ({why}); fix these limits (data.*).")
    if filtered:
        print(f"{out}: kept {len(kept)} of {len(names)}{': ' + why if why else ''}")
    elif limits:
        print(f"{out}: kept all {len(names)}; outside the limits of training: {why}")
    made = report.directory.select(kept)
    texts = {name: clean_text(text) for name, text in made.tables["text"].items()}
    if checks.no_speech:  # `validate` lets annotations pass: [noise] is no transcript
        if cleared := [name for name, text in texts.items() if not is_silent(text)]:
            print(f"{out}: emptied {len(cleared)} transcripts, {texts[cleared[0]]} for one")
        texts = dict.fromkeys(texts, "")
    made.tables["text"] = texts
    if seconds:
        made.tables["utt2dur"] = {name: f"{seconds[name]:.4f}" for name in kept}
    total = sum(seconds[name] for name in kept) if seconds else None
    words = {name: len(split_units(t, "mixed")) for name, t in made.tables["text"].items()}
    row = [
        out.name,
        len(kept),
        len(made.speakers()),
        "-" if total is None else round(total / 3600, 3),
        "-" if total is None else round(total / len(kept), 2),
        sum(words.values()),
        # Words a second of the fastest utterance: what `max_rate` of rewards has to be above.
        round(max(words[name] / seconds[name] for name in kept), 1) if seconds else "-",
    ]
    made.tables[AUDIO_HASH] = {n: report.digests[n] for n in made.tables.get("wav.scp", ())}
    _write(made, out, stamp, row, checks)
    return row


def _tagged(directory: DataDir, tag: str) -> dict[str, str]:
    """Return the values of a tag; raise UserError if an utterance lacks it."""
    values = directory.tables.get(f"utt2{tag}", {})
    if lacking := [name for name in directory.utterances if not values.get(name)]:
        raise UserError(
            f"{directory.path / f'utt2{tag}'}: {len(lacking):,} utterances have no {tag}, "
            f"{lacking[0]} for one; add it, or fix data.text_tag."
        )
    return values


def _outside_limits(report: Report, config: DataConfig) -> dict[str, str]:
    """Return utterance -> reason why it is left out of training."""
    outside = {}
    seconds = report.seconds()
    for name, text in report.directory.tables["text"].items():
        if name in seconds and seconds[name] < config.min_duration:
            outside[name] = f"too short (under {config.min_duration:g} s)"
        elif name in seconds and seconds[name] > config.max_duration:
            outside[name] = f"too long (over {config.max_duration:g} s)"
        elif 0 < config.max_text_length < len(text):
            outside[name] = f"text too long (over {config.max_text_length} characters)"
    return outside


def _why(limits: dict[str, str]) -> str:
    reasons = list(limits.values())
    return ", ".join(f"{reasons.count(why)} {why}" for why in dict.fromkeys(reasons))


def _audio_digests(source: Path, checks: Checks, table: str = "wav.scp") -> dict[str, str]:
    """Return digests of the recordings, or prompts, by name; empty if there are none."""
    if not (source / table).exists():
        return {}
    audio = absolute_audio(source / table, scan_table(source / table).values)
    return audio_digests(audio, checks.nj, f"{source.name}: comparing audio")


def _stamp(
    out: Path,
    config: DataConfig,
    checks: Checks,
    filtered: bool,
    tables: dict[str, str],
    hashes: dict[str, str],
    prompts: dict[str, str],
) -> Stamp:
    """Return the stamp of a set: digests of its tables, limits, and digests of its audio."""
    limits = ("min_duration", "max_duration", "max_text_length")
    settings = {key: getattr(config, key) for key in limits if filtered}
    settings |= {key: getattr(config, key) for key in ("sample_rate", "text_tag")}
    settings |= {"no_speech": checks.no_speech, "columns": COLUMNS}
    inputs = {**tables, "audio": _hash(hashes)}
    if prompts:
        inputs["prompts"] = _hash(prompts)
    return Stamp(out / STAMP, settings, inputs, table_files(out))


def _hash(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _write(made: DataDir, out: Path, stamp: Stamp, row: list, checks: Checks) -> None:
    """Write the set beside its place and move it there when it is complete."""
    beside = out.with_name(f".{out.name}.tmp")
    recordings = made.tables.get("wav.scp", {})
    commands = {name: audio for name, audio in recordings.items() if is_pipe(audio)}
    for name, command in progress(commands.items(), f"{out.name}: running commands", len(commands)):
        recordings[name] = os.path.abspath(out / "wav" / f"{name}.wav")
        output = beside / "wav" / f"{name}.wav"
        _save_output(command, output, checks)
        made.tables[AUDIO_HASH][name] = digest(output)
    if not recordings:
        del made.tables[AUDIO_HASH]
    made.write_tables(beside)
    stamp.at(beside / STAMP, table_files(beside)).write(row=row)
    replace_dir(beside, out)


def _save_output(command: str, path: Path, checks: Checks) -> None:
    """Run a command of wav.scp once, so that no later stage has to."""
    import soundfile

    samples, rate = read_samples(command, allow_pipes=checks.allow_pipes)
    with atomic_write(path, "wb") as stream:
        soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")


def _table(rows: Sequence[Sequence]) -> str:
    """Return a table with aligned columns: names to the left, numbers to the right."""
    cells = [COLUMNS, *([f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows)]
    columns = []
    for column in zip(*cells, strict=True):
        width = max(map(len, column))
        columns.append([c.rjust(width) if columns else c.ljust(width) for c in column])
    return "\n".join("  ".join(row) for row in zip(*columns, strict=True))
