"""The utterance, and reading it from a Kaldi data directory or a JSON-lines list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from audiorl.data.audio import is_pipe
from audiorl.errors import UserError
from audiorl.files import atomic_write

# utt2<name> files with a meaning of their own; every other one becomes a tag.
NOT_TAGS = ("utt2spk", "utt2dur", "utt2keywords", "utt2num_frames")


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech by one speaker, and what was said."""

    id: str
    audio: str  # absolute path, `archive.ark:offset`, or `command |`
    text: str
    speaker: str
    start: float = 0.0  # s
    end: float | None = None  # s; None: the end of the recording
    duration: float | None = None  # s; None: not known without reading the audio
    keywords: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)  # from utt2<name> files


def read_utterances(path: str | Path, allow_pipes: bool = False) -> list[Utterance]:
    """Reads a data directory or a `.jsonl` file, sorted by id as in the C locale.

    Raises UserError when a file is missing or malformed, or when the ids of two files differ.
    """
    path = Path(path)
    if path.is_dir():
        return _read_data_dir(path, allow_pipes)
    if not path.exists():
        raise UserError(f"{path} does not exist; run the stage that writes it.")
    utterances = [utterance for utterance, _ in _read_jsonl(path)]
    _refuse_duplicates(path, (utterance.id for utterance in utterances))
    return sorted(utterances, key=lambda utterance: utterance.id)


def read_extras(path: str | Path) -> dict[str, dict]:
    """Keys beyond an Utterance's of each line of a `.jsonl` file, by id (subset, difficulty …)."""
    return {utterance.id: extras for utterance, extras in _read_jsonl(Path(path))}


def write_utterances_jsonl(
    path: str | Path, utterances: Iterable[Utterance], extras: dict[str, dict] | None = None
) -> None:
    """Writes one JSON object a line; `extras[id]` adds keys to an utterance's object."""
    with atomic_write(path) as stream:
        for utterance in utterances:
            item = asdict(utterance) | (extras or {}).get(utterance.id, {})
            stream.write(json.dumps(item, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields (line number, id, rest of the line) of a Kaldi text file.

    Kaldi separates fields by spaces and tabs alone: other Unicode spaces belong to the text.
    Raises UserError when the file is missing, not UTF-8, or has an empty line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); run the data preparation again."
        ) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line} is not UTF-8; convert the file with iconv.") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.replace("\t", " ").strip(" \r").partition(" ")
        if not name:
            raise UserError(f"{path}:{number} is empty; remove the line.")
        yield number, name, rest.strip(" ")


def read_table(path: Path) -> dict[str, str]:
    """Reads a Kaldi file as id -> rest of the line. Raises UserError for an id given twice."""
    table: dict[str, str] = {}
    for number, name, rest in read_lines(path):
        if name in table:
            raise UserError(f"{path}:{number} gives {name} a second time; keep one line.")
        table[name] = rest
    return table


def audio_base(wav_scp: Path, entries: Iterable[str]) -> Path:
    """Folder that the relative paths of a wav.scp start from.

    Kaldi reads them from the working directory, the recipe's folder. Called from elsewhere, the
    first relative path that does not exist there is looked up from the folder that holds data/.
    """
    recipe = Path(os.path.abspath(wav_scp)).parents[2]
    for entry in entries:
        if not entry.startswith("/") and not is_pipe(entry):
            name = entry.rpartition(":")[0] or entry
            here = any(Path(path).exists() for path in (entry, name))
            there = any((recipe / path).exists() for path in (entry, name))
            return recipe if there and not here else Path.cwd()
    return Path.cwd()


def read_wav_scp(path: Path, allow_pipes: bool = False) -> dict[str, str]:
    """Reads wav.scp with absolute paths. Raises UserError for a command unless `allow_pipes`."""
    table = read_table(path)
    base = audio_base(path, table.values())
    for name, audio in table.items():
        if is_pipe(audio):
            if not allow_pipes:
                raise UserError(
                    f"{path}: {name} is a command (`{audio}`), and commands of a data directory "
                    "are not run unless asked: pass --allow-pipes if you trust it."
                )
        elif not audio.startswith("/"):
            table[name] = os.path.normpath(base / audio)
    return table


def _read_data_dir(path: Path, allow_pipes: bool) -> list[Utterance]:
    speakers = read_table(path / "utt2spk")
    texts = _same_ids(path / "text", speakers)
    spans = _read_spans(path, speakers, allow_pipes)
    durations = _read_durations(path, speakers)
    keywords = read_table(path / "utt2keywords") if (path / "utt2keywords").exists() else {}
    tags = {
        file.name.removeprefix("utt2"): read_table(file)
        for file in sorted(path.glob("utt2*"))
        if file.name not in NOT_TAGS and file.is_file()
    }
    return [
        Utterance(
            id=name,
            audio=spans[name][0],
            text=texts[name],
            speaker=speakers[name],
            start=spans[name][1],
            end=spans[name][2],
            duration=durations.get(name, _length(*spans[name][1:])),
            keywords=split_keywords(keywords.get(name, "")),
            tags={tag: values[name] for tag, values in tags.items() if name in values},
        )
        for name in sorted(speakers)
    ]


def split_keywords(line: str) -> tuple[str, ...]:
    """`"New York;Oslo"` -> `("New York", "Oslo")`."""
    return tuple(word.strip() for word in line.split(";") if word.strip())


def _read_spans(
    path: Path, speakers: dict[str, str], allow_pipes: bool
) -> dict[str, tuple[str, float, float | None]]:
    """Utterance id -> (audio, start, end) from wav.scp and, where there is one, segments."""
    recordings = read_wav_scp(path / "wav.scp", allow_pipes)
    if not (path / "segments").exists():
        _compare_ids(path / "wav.scp", recordings, speakers)
        return {name: (audio, 0.0, None) for name, audio in recordings.items()}
    spans: dict[str, tuple[str, float, float | None]] = {}
    for name, line in _same_ids(path / "segments", speakers).items():
        fields = line.split()
        span = (_number(fields[1]), _number(fields[2])) if len(fields) == 3 else (None, None)
        if span[0] is None or span[1] is None or not 0 <= span[0] < span[1]:
            raise UserError(
                f"{path / 'segments'}: {name} needs `<recording> <start> <end>` in seconds with "
                f"start < end, not `{line}`."
            )
        if fields[0] not in recordings:
            raise UserError(
                f"{path / 'segments'}: {name} is cut from {fields[0]}, which wav.scp does not "
                "have; run `python -m audiorl.bin.data_dir fix`."
            )
        spans[name] = (recordings[fields[0]], span[0], span[1])
    return spans


def _read_durations(path: Path, speakers: dict[str, str]) -> dict[str, float]:
    if not (path / "utt2dur").exists():
        return {}
    durations = {}
    for name, value in _same_ids(path / "utt2dur", speakers).items():
        duration = _number(value)
        if duration is None or duration <= 0:
            raise UserError(
                f"{path / 'utt2dur'}: {name} lasts `{value}`, which is not a number of seconds "
                "above 0; delete utt2dur and format the set again."
            )
        durations[name] = duration
    return durations


def _same_ids(path: Path, speakers: dict[str, str]) -> dict[str, str]:
    table = read_table(path)
    _compare_ids(path, table, speakers)
    return table


def _compare_ids(path: Path, table: dict, speakers: dict[str, str]) -> None:
    """Raises UserError unless a file has exactly the utterances of utt2spk."""
    if table.keys() == speakers.keys():
        return
    missing = sorted(speakers.keys() - table.keys())
    surplus = sorted(table.keys() - speakers.keys())
    example = f"lacks {missing[0]}" if missing else f"has {surplus[0]}, unknown there"
    raise UserError(
        f"{path} and utt2spk differ in {len(missing) + len(surplus)} utterances: it {example}; "
        f"run `python -m audiorl.bin.data_dir fix {path.parent}`."
    )


def _read_jsonl(path: Path) -> Iterator[tuple[Utterance, dict]]:
    known = set(Utterance.__dataclass_fields__)
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                item = json.loads(line)
                fields = {name: value for name, value in item.items() if name in known}
                fields["keywords"] = tuple(fields.get("keywords", ()))
                utterance = Utterance(**fields)
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{path}:{number} is not an utterance with id, audio, text and speaker "
                    f"({error}); write the file again."
                ) from error
            yield utterance, {name: value for name, value in item.items() if name not in known}


def _refuse_duplicates(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if name in seen:
            raise UserError(f"{path}:{number} gives {name} a second time; keep one line.")
        seen.add(name)


def _length(start: float, end: float | None) -> float | None:
    return None if end is None else end - start


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
