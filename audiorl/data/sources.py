"""Lists of utterances in the formats that people have, read as rows without code of their own.

| given                      | utterances                                                      |
| -------------------------- | --------------------------------------------------------------- |
| .tsv, .csv                 | lines: columns named in the first, or audio, text and speaker   |
| .jsonl, .json, also .gz    | objects, as in NeMo's manifests, or cuts of lhotse              |
| .parquet, .arrow           | rows of a dataset of Hugging Face, with audio inside them       |
| folder of such files       | each of a set, by the words of its name                         |
| folder of data directories | of Kaldi or ESPnet, each a set, by its name                     |
| any other folder           | audio beside .txt files, in folders of speakers                 |
| owner/name[/part]          | a dataset of Hugging Face's hub                                 |
"""

from __future__ import annotations

import csv
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from audiorl.data.audio import MP3_STARTS, SUFFIXES
from audiorl.data.importing import Row
from audiorl.data.utterance import is_number, is_text, read_utterances
from audiorl.errors import UserError, reason
from audiorl.runtime.files import atomic_write, read_json_lines

# What toolkits call a column, the first that is there.
NAMES_OF = {
    "audio": "audio audio_filepath audio_path audio_file file_name filename path file wav wav_path",
    "text": "text sentence transcript transcription normalized_text text_normalized raw_text",
    "speaker": "speaker speaker_id spk spk_id client_id",
    "id": "id utt_id utterance_id utt uttid segment_id",
    "start": "start offset begin start_time begin_time",
    "end": "end end_time",
    "duration": "duration",
    "split": "split subset set",
    "keywords": "keywords biasing_words",
}
WORDED = ("audio", "text", "speaker", "id", "split")
SPLITS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("dev", "valid", "validation", "val", "cv"), "dev"),
    **dict.fromkeys(("test", "tt"), "test"),
}
LISTS = ("tsv", "csv", "jsonl", "json", "jsonl.gz", "json.gz")
SAME = 1e-3  # s; a cut that lacks no more is the whole recording
TABLES = ("parquet", "arrow")
BESIDE = ("", "clips", "wavs", "wav", "audio")  # folders where a list's audio is, from its own
DATASET = re.compile(r"[\w.-]+/[\w.-]+(/[\w./-]+)?")
STARTS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg", **dict.fromkeys(MP3_STARTS, "mp3")}


def read_rows(corpus: str, out: Path) -> Iterator[Row]:
    """Yield the rows of a corpus, whose format is told by what is there.

    out: where audio that is inside tables is written. Raises UserError when nothing is found, and
    for a row that is broken, with its file and line.
    """
    path = Path(corpus)
    if not path.exists() and DATASET.fullmatch(corpus):
        path = _fetch(corpus)
    if path.is_file():
        return _read_file(path, "", out / path.stem)
    if not corpus or not path.is_dir():
        raise UserError(f"--corpus {corpus or '(not given)'} is neither a list nor a folder.")
    return _read_folder(path, out)


def _read_folder(folder: Path, out: Path) -> Iterator[Row]:
    """Yield the rows of the first kind of content that is found."""
    if sets := sorted(f.parent for f in [*folder.glob("utt2spk"), *folder.glob("*/utt2spk")]):
        for path in sets:
            yield from _kaldi(path, "" if path == folder else _split(path.name) or path.name)
        return
    files = [f for kind in TABLES for f in folder.rglob(f"*.{kind}")]
    files = [f for f in files if not f.name.startswith((".", "cache-"))]
    if not files:
        found = [
            f for kind in LISTS for depth in ("", "*/") for f in folder.glob(depth + f"*.{kind}")
        ]
        files = [f for f in found if _split(f.name) or f.name.startswith("metadata.")]
    for file in sorted(files):
        name = file.relative_to(folder)
        yield from _read_file(file, _split(str(name)), out / "-".join(name.with_suffix("").parts))
    if not files:
        yield from _pairs(folder)


def _split(name: str) -> str:
    """Return the set that a file or folder belongs to, by the words of its name; empty: none."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "")


def _read_file(path: Path, split: str, audio: Path) -> Iterator[Row]:
    """Yield the rows of a list or table; `split` stands for those that state none."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    objects = functools.partial(read_json_lines, fix="fix the line")
    readers = {"tsv": _table, "csv": _table, "jsonl": objects, "json": objects}
    readers |= dict.fromkeys(TABLES, lambda path: _columns(path, audio))
    if kind not in readers:
        raise UserError(f"{path} is no list that is read; write one of {', '.join(readers)}.")
    find = _finder(path.parent)
    for number, item in readers[kind](path):
        place = f"{path}:{number}"
        if "supervisions" in item or "tracks" in item:
            yield from _cut(place, item, split, find)
        else:
            yield _row(place, item, split, find)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text; UserError if one is not UTF-8."""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number} is not UTF-8; convert it with iconv.") from error


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of a table, the first of which may name its columns."""
    tabs = path.suffix == ".tsv"
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    rows = csv.reader(_lines(path), delimiter="\t" if tabs else ",", quoting=quoting)
    names: list[str] = []
    try:
        for cells in rows:
            if not any(cells):
                continue
            if not names:
                names = [cell.strip().lower() for cell in cells]
                if set(names) & set(NAMES_OF["audio"].split()):
                    continue
                names = ["audio", "text", "speaker"][: max(len(cells), 2)]
            if len(cells) != len(names):
                raise UserError(
                    f"{path}:{rows.line_num} has {len(cells)} columns, not {len(names)} "
                    f"({', '.join(names)}); fix the line, or name the columns in a first line."
                )
            yield rows.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num} is no line of a table ({error}).") from error


def _finder(folder: Path) -> Callable[[str], str]:
    """Return a function from a path as a list has it to where the file is."""
    usual = list(BESIDE)

    def find(audio: str) -> str:
        if not audio or os.path.isabs(audio):
            return audio
        for place in usual:
            if os.path.isfile(path := os.path.join(folder, place, audio)):
                if place != usual[0]:
                    usual.remove(place)
                    usual.insert(0, place)
                return path
        return os.path.join(folder, audio)

    return find


def _row(place: str, item: Mapping[str, Any], split: str, find: Callable[[str], str]) -> Row:
    """Return the row of an object or line, whose columns have one of their usual names."""
    found: dict[str, Any] = {}
    for meaning, names in NAMES_OF.items():
        there = [item[name] for name in names.split() if name in item]
        if not there and meaning in ("audio", "text"):
            raise UserError(f"{place} has no {meaning}; name it {', '.join(names.split()[:3])}.")
        value = next((value for value in there if value not in (None, "")), "")
        found[meaning] = str(value) if type(value) is int else value
        if meaning in WORDED and not is_text(found[meaning]):
            raise UserError(f"{place}: its {meaning} is no text ({value!r}); fix it.")
    start, end, duration = (_seconds(place, n, found[n]) for n in ("start", "end", "duration"))
    if start is not None and end is None and duration is not None:
        end = start + duration
    if end is not None and end <= (start or 0.0):
        raise UserError(f"{place} ends at {end:g} s, not after its start; fix it.")
    keywords, stated = found["keywords"], found["split"].strip().lower()
    return Row(
        *(place, find(found["audio"]), found["text"], found["speaker"], found["id"]),
        start=start or 0.0,
        end=end,
        split=SPLITS.get(stated, stated) or split,
        tags={"keywords": keywords if is_text(keywords) else ";".join(map(str, keywords))},
    )


def _seconds(place: str, name: str, value: Any) -> float | None:
    """Return a number of seconds; None for none."""
    try:
        seconds = None if value == "" else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if seconds is not None and not (is_number(seconds) and seconds >= 0):
        raise UserError(f"{place}: its {name} is no number of seconds ({value!r}); fix it.")
    return seconds


def _cut(
    place: str, cut: Mapping[str, Any], split: str, find: Callable[[str], str]
) -> Iterator[Row]:
    """Yield the supervisions of a cut of lhotse."""
    try:
        recording = cut["recording"]
        (source,) = recording["sources"]
        if recording.get("transforms"):
            raise ValueError("it is transformed")
        if source["type"] != "file" or len(source["channels"]) > 1:
            raise ValueError(f"a {source['type']} of channels {source['channels']}")
        for said in cut["supervisions"]:
            start = max(cut["start"] + said["start"], 0.0)
            end = cut["start"] + min(said["start"] + said["duration"], cut["duration"])
            whole = start == 0 and end >= recording["duration"] - SAME
            yield Row(
                *(place, find(source["source"]), said.get("text") or ""),
                *(said.get("speaker") or "", said["id"]),
                start=start,
                end=None if whole else end,
                split=split,
            )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{place} is no cut of one plain file of one channel ({reason(error)}); save cuts of "
            "recordings, neither mixed nor perturbed."
        ) from error


def _kaldi(path: Path, split: str) -> Iterator[Row]:
    """Yield the utterances of a data directory, with their own ids."""
    for u in read_utterances(path, allow_pipes=True):
        tags = {**u.tags, "keywords": ";".join(u.keywords)}
        yield Row(
            *(f"{path}: {u.id}", u.audio, u.text, u.speaker, u.id, True),
            *(u.start, u.end, split, tags),
        )


def _pairs(folder: Path) -> Iterator[Row]:
    """Yield the audio files below a folder with the transcripts beside them."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        parts = Path(place).relative_to(folder).parts
        split = next((SPLITS[part.lower()] for part in parts if part.lower() in SPLITS), "")
        speaker = parts[-1] if parts and parts[-1].lower() not in SPLITS else ""
        texts = {file.removesuffix(".txt") for file in files if file.endswith(".txt")}
        kinds = {file: file.rpartition(".")[2].lower() for file in files if file[0] != "."}
        for file in sorted(file for file, kind in kinds.items() if kind in SUFFIXES):
            audio, stem = os.path.join(place, file), file.rpartition(".")[0]
            text = "".join(_lines(Path(place, f"{stem}.txt"))) if stem in texts else ""
            texts.discard(stem)
            yield Row(audio, audio, text, speaker, split=split)
        for stem in sorted(texts):
            yield Row(os.path.join(place, f"{stem}.txt"), "", stem, speaker, split=split)


def _columns(path: Path, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a table; audio that is inside it is written below `folder`."""
    for number, item in enumerate(_arrow_rows(path), start=1):
        for name, value in item.items():
            if isinstance(value, dict) and name in NAMES_OF["audio"].split():
                item[name] = _write_audio(value, folder / f"{number:07}")
                item.setdefault("id", Path(value.get("path") or f"{path.stem}-{number:07}").stem)
                break
        yield number, item


def _arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{path} is read by pyarrow, which is not installed; run `pip install pyarrow`."
        ) from error
    try:
        if path.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=32):
                    yield from batch.to_pylist()
        else:
            with pyarrow.memory_map(str(path)) as stream:
                for batch in pyarrow.ipc.open_stream(stream):
                    for at in range(0, batch.num_rows, 32):
                        yield from batch.slice(at, 32).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); copy it again.") from error


def _write_audio(audio: Mapping[str, Any], file: Path) -> str:
    """Return the file of a recording of a table, written unless it is there; empty: it has none."""
    content, path = audio.get("bytes"), audio.get("path") or ""
    if not content:
        return path
    known = (kind for start, kind in STARTS.items() if content.startswith(start))
    file = file.with_suffix(f".{next(known, Path(path).suffix[1:] or 'bin')}")
    if not file.exists() or file.read_bytes() != content:
        with atomic_write(file, "wb") as stream:
            stream.write(content)
    return str(file)


def _fetch(name: str) -> Path:
    """Return the folder of a dataset of the hub, or of one part of it, in the hub's cache."""
    import huggingface_hub

    owner, repository, *part = name.split("/", 2)
    wanted = [f"{part[0]}/*"] if part else None
    try:
        fetched = huggingface_hub.snapshot_download(
            f"{owner}/{repository}", repo_type="dataset", allow_patterns=wanted
        )
    except (OSError, ValueError) as error:  # HfHubHTTPError is one of OSError
        raise UserError(
            f"--corpus {name} is neither there nor a dataset that the hub gives "
            f"({reason(error)}); name a list or a folder."
        ) from error
    return Path(fetched)
