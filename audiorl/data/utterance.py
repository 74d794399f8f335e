"""Utterances, read from a Kaldi data directory or a JSON-lines list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from audiorl.data.audio import is_pipe
from audiorl.data.tables import AUDIO_HASH, read_table
from audiorl.errors import UserError, shortened
from audiorl.runtime.files import atomic_write, read_json_lines
from audiorl.text.silence import is_silent

# utt2<name> files with a meaning of their own; every other one becomes a tag.
NOT_TAGS = ("utt2spk", "utt2dur", "utt2keywords", "utt2num_frames", "utt2prompt")
PROMPT_WAVES, PROMPT_TEXTS = "prompt_wav.scp", "prompt_text"
LARGEST = 1e15  # a number in a list of utterances
FIX = "python -m audiorl.bin.data_dir fix"  # named in messages


@dataclass(frozen=True)
class Utterance:
    """Stretch of speech by one speaker with its transcript; or a text to be spoken."""

    id: str
    audio: str  # absolute path, `archive.ark:offset`, or `command |`; empty: a text alone
    text: str
    speaker: str
    start: float = 0.0  # s
    end: float | None = None  # s; None: the end of the recording
    duration: float | None = None  # s; None: not known without reading the audio
    keywords: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)  # from utt2<name> files
    audio_hash: str = ""  # of the recording's content in stage 2; empty: not known
    prompt: Utterance | None = None  # in synthesis: a recording of the voice to speak in

    @property
    def has_speech(self) -> bool:
        """Whether somebody speaks: stage 2 leaves sets of `data.no_speech` no transcripts."""
        return not is_silent(self.text)


def read_utterances(
    path: str | Path, allow_pipes: bool = False, texts_alone: bool = False
) -> list[Utterance]:
    """Read a data directory or a `.jsonl` file, sorted by id as in the C locale.

    texts_alone: accept utterances without audio, to be synthesised. Raises UserError when there is
    none otherwise, when a file is missing or malformed, when the ids of two files differ,
    or when the audio is a command and `allow_pipes` is off.
    """
    path = Path(path)
    if not path.exists():
        stage = 4 if path.suffix == ".jsonl" else 2
        raise UserError(f"{path} does not exist; run stage {stage}, which writes it.")
    read = _read_data_dir(path, allow_pipes) if path.is_dir() else _read_jsonl(path)
    utterances = sorted(read, key=lambda utterance: utterance.id)
    if not texts_alone and (silent := next((u.id for u in utterances if not u.audio), None)):
        raise UserError(
            f"{path}: {silent} has no audio, and a text alone is not enough here; give the set "
            "its wav.scp, or name a set that has one."
        )
    return utterances


def write_utterances_jsonl(
    path: str | Path, utterances: Iterable[Utterance], extras: dict[str, dict] | None = None
) -> None:
    """Write one JSON object a line; `extras[id]` adds keys to an utterance's object."""
    with atomic_write(path) as stream:
        for utterance in utterances:
            item = facts(utterance) | (extras or {}).get(utterance.id, {})
            stream.write(json.dumps(item, ensure_ascii=False) + "\n")


def facts(utterance: Utterance) -> dict[str, Any]:
    """Return the fields of an utterance; `prompt` only where it has one."""
    return {k: value for k, value in asdict(utterance).items() if k != "prompt" or value}


def absolute_audio(wav_scp: Path, entries: dict[str, str]) -> dict[str, str]:
    """Return the entries of wav.scp with absolute paths; commands stay as they are.

    Kaldi reads relative paths from the working directory, which is the recipe's folder. When the
    first one does not exist there, they are looked up from the folders that wav.scp lies in.
    """
    base: Path | None = None
    absolute = {}
    for name, audio in entries.items():
        if audio and not audio.startswith("/") and not is_pipe(audio):
            base = base or _audio_base(wav_scp, audio)
            audio = os.path.normpath(base / audio)
        absolute[name] = audio
    return absolute


def _audio_base(wav_scp: Path, audio: str) -> Path:
    file = audio if Path(audio).exists() else audio.rpartition(":")[0] or audio
    places = [Path.cwd(), *Path(os.path.abspath(wav_scp)).parents]
    return next((place for place in places if (place / file).exists()), places[0])


def parse_segment(value: str) -> tuple[str, float, float] | None:
    """Return `<recording> <start> <end>` of a segments line in seconds; None if it is invalid."""
    try:
        recording, start, end = value.split()
        span = _seconds(start), _seconds(end)
    except ValueError:
        return None
    return (recording, *span) if 0 <= span[0] < span[1] < LARGEST else None


def parse_seconds(value: str) -> float | None:
    """Return a duration above 0 s; None for any other text."""
    try:
        seconds = _seconds(value)
    except ValueError:
        return None
    return seconds if 0 < seconds < LARGEST else None


def _seconds(text: str) -> float:
    """Return a number as every toolkit reads it: Python alone takes 1_0, and digits of others."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return float(text)


def _read_data_dir(path: Path, allow_pipes: bool) -> list[Utterance]:
    speakers = read_table(path / "utt2spk")
    texts = _read_same_ids(path / "text", speakers)
    spans = _read_spans(path, speakers, allow_pipes)
    has_durations = (path / "utt2dur").exists()
    durations = _read_same_ids(path / "utt2dur", speakers) if has_durations else {}
    keywords = read_table(path / "utt2keywords") if (path / "utt2keywords").exists() else {}
    tags = {
        file.name.removeprefix("utt2"): read_table(file)
        for file in sorted(path.glob("utt2*"))
        if file.name not in NOT_TAGS and file.is_file()
    }

    def utterance(name: str) -> Utterance:
        audio, start, end, audio_hash = spans[name]
        duration = None if end is None else end - start
        if has_durations and (duration := parse_seconds(durations[name])) is None:
            raise UserError(
                f"{path / 'utt2dur'}: {name} lasts `{durations[name]}`, not a number of seconds "
                "above 0; remove utt2dur and format the set again."
            )
        return Utterance(
            id=name,
            audio=audio,
            text=texts[name],
            speaker=speakers[name],
            start=start,
            end=end,
            duration=duration,
            keywords=tuple(filter(None, map(str.strip, keywords.get(name, "").split(";")))),
            tags={tag: values[name] for tag, values in tags.items() if name in values},
            audio_hash=audio_hash,
        )

    return _with_prompts(path, {name: utterance(name) for name in speakers})


def _with_prompts(path: Path, found: dict[str, Utterance]) -> list[Utterance]:
    """The utterances with their prompts: of prompt_wav.scp, or others of the set (utt2prompt)."""
    waves, names = path / PROMPT_WAVES, path / "utt2prompt"
    prompts: dict[str, Utterance] = {}
    if waves.exists():
        texts = read_table(path / PROMPT_TEXTS)
        for name, audio in absolute_audio(waves, read_table(waves)).items():
            if name not in found or not texts.get(name) or is_pipe(audio):
                raise UserError(
                    f"{waves}: {name} is no utterance of the set with a text in {PROMPT_TEXTS} and "
                    "an audio file; fix its line."
                )
            speaker = found[name].speaker
            prompts[name] = Utterance(f"{name}-prompt", audio, texts[name], speaker)
    elif names.exists():
        for name, other in read_table(names).items():
            if name not in found or other not in found or not found[other].audio or other == name:
                raise UserError(
                    f"{names}: {name} or its prompt `{other}` is no recording of the set, or they "
                    "are one; fix its line."
                )
            prompts[name] = found[other]
    return [replace(u, prompt=prompts.get(name)) for name, u in found.items()]


def _read_spans(
    path: Path, speakers: dict[str, str], allow_pipes: bool
) -> dict[str, tuple[str, float, float | None, str]]:
    """(audio, start, end, digest) by utterance id, from wav.scp, segments and AUDIO_HASH."""
    if not (path / "wav.scp").exists() and not (path / "segments").exists():
        return dict.fromkeys(speakers, ("", 0.0, None, ""))
    recordings = absolute_audio(path / "wav.scp", read_table(path / "wav.scp"))
    pipe = next((name for name, audio in recordings.items() if is_pipe(audio)), None)
    if pipe and not allow_pipes:
        raise UserError(
            f"{path / 'wav.scp'}: {pipe} is a command (`{recordings[pipe]}`), and commands of a "
            "data directory are not run unless asked: pass --allow-pipes if you trust it."
        )
    hashes = read_table(path / AUDIO_HASH) if (path / AUDIO_HASH).exists() else {}
    if not (path / "segments").exists():
        _compare_ids(path / "wav.scp", recordings, speakers)
        return {n: (audio, 0.0, None, hashes.get(n, "")) for n, audio in recordings.items()}
    spans: dict[str, tuple[str, float, float | None, str]] = {}
    for name, line in _read_same_ids(path / "segments", speakers).items():
        segment = parse_segment(line)
        if segment is None or segment[0] not in recordings:
            raise UserError(
                f"{path / 'segments'}: {name} is `{line}`, not `<recording of wav.scp> <start> "
                f"<end>` with start before end; run `{FIX} {path}`."
            )
        spans[name] = (recordings[segment[0]], *segment[1:], hashes.get(segment[0], ""))
    return spans


def _read_same_ids(path: Path, speakers: dict[str, str]) -> dict[str, str]:
    table = read_table(path)
    _compare_ids(path, table, speakers)
    return table


def _compare_ids(path: Path, table: dict, speakers: dict[str, str]) -> None:
    """Raise UserError unless a file has exactly the utterances of utt2spk."""
    if table.keys() == speakers.keys():
        return
    missing = sorted(speakers.keys() - table.keys())
    surplus = sorted(table.keys() - speakers.keys())
    example = f"lacks {missing[0]}" if missing else f"has {surplus[0]}, unknown there"
    raise UserError(
        f"{path} and utt2spk differ in {len(missing) + len(surplus)} utterances: it {example}; "
        f"run `{FIX} {path.parent}`."
    )


def _read_jsonl(path: Path) -> Iterator[Utterance]:
    """Read utterances from JSON lines; other keys than those of Utterance are ignored."""
    known, seen = set(Utterance.__dataclass_fields__), set()
    for number, item in read_json_lines(path, "write the file again"):
        fields = {name: value for name, value in item.items() if name in known}
        try:
            if wrong := [name for name, value in fields.items() if not _fits(name, value)]:
                raise ValueError(f"{wrong[0]} is {shortened(repr(fields[wrong[0]]), 40)}")
            utterance = _utterance(fields)
            if utterance.end is not None and utterance.end <= utterance.start:
                raise ValueError("end is not after start")
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}:{number} is not an utterance with id, audio, text and speaker "
                f"({error}); write the file again."
            ) from error
        if utterance.id in seen:
            raise UserError(f"{path}:{number}: {utterance.id} stands there twice; keep one line.")
        seen.add(utterance.id)
        yield utterance


def _utterance(fields: dict[str, Any]) -> Utterance:
    prompt = fields.get("prompt")
    lists = {"keywords": tuple(fields.get("keywords", ()))}
    return Utterance(**{**fields, **lists, "prompt": prompt and _utterance(prompt)})


def _fits(name: str, value: Any) -> bool:
    """Whether a value from JSON is one of this field of `Utterance`."""
    if name == "prompt":
        if not isinstance(value, dict):
            return value is None
        known = Utterance.__dataclass_fields__
        return all(part in known and _fits(part, of) for part, of in value.items())
    if name == "id":
        return is_text(value) and value.split() == [value]
    if name == "start":
        return is_number(value) and value >= 0
    if name in ("end", "duration"):
        return value is None or (is_number(value) and value > 0)
    if name == "keywords":
        return isinstance(value, list) and all(map(is_text, value))
    if name == "tags":
        return isinstance(value, dict) and all(map(is_text, [*value, *value.values()]))
    return is_text(value)


def is_text(value: Any) -> bool:
    """Whether a value from JSON is text that can be written: it may hold half a character."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number, neither NaN nor of absurd size."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST
