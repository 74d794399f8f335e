"""Transcripts as recognisers write them, told apart by their content.

| format | line                                                                      |
| ------ | ------------------------------------------------------------------------- |
| lines  | a text; utterances are numbered                                           |
| kaldi  | `<id> <text>`, Kaldi's and ESPnet's `text`                                |
| trn    | `<text> (<id>)`, sclite's                                                 |
| jsonl  | an object with an id and a text; NeMo's manifests                         |
| tsv    | columns between tabs, named in a first line; without one, an id and a text |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audiorl.errors import UserError, reason
from audiorl.runtime.files import json_object

FORMATS = ("lines", "kaldi", "trn", "jsonl", "tsv")
ID_NAMES = "id utt_id utt uttid utterance_id utterance key name audio_filepath path file wav"
# Names of the text; a manifest with both has the hypothesis under one of the first.
HYPOTHESIS_NAMES = "hyp hypothesis pred_text pred prediction predicted output"
TEXT_NAMES = "text ref reference transcript transcription sentence target txt"
KEYWORD_NAMES = "keywords biasing_words"

TRN = re.compile(r"(?P<text>.*?)\s*\((?P<id>[^()]*[^()\s])\)\s*")
TRN_COMMENT = ";;"
# First words that are ids: utt_a, 1272-128104-0000, BAC009S0724W0121, 000123; not 7, 1995 or the.
ID = re.compile(r"(?=.*[-_/]|.*\d.*[^\W\d]|.*[^\W\d].*\d|\d{5})\S{3,}")


@dataclass(frozen=True)
class Transcripts:
    """Texts by id, in the order of the file, and the format in which they were found."""

    path: Path
    form: str  # one of FORMATS
    texts: dict[str, str]
    keywords: dict[str, tuple[str, ...]]  # of those utterances for which the file has some


def read_transcripts(path: Path, role: str, form: str = "") -> Transcripts:
    """Read the references or hypotheses of a file (`role`: ref or hyp).

    `form` is one of FORMATS; without it the content tells. Raises UserError when the file cannot be
    read or its format not be told, and for an id that stands twice.
    """
    lines = _lines(path)
    form = form or _find_format(path, lines)
    readers = {"lines": _numbered, "kaldi": _kaldi, "trn": _trn, "jsonl": _jsonl, "tsv": _tsv}
    texts: dict[str, str] = {}
    keywords: dict[str, tuple[str, ...]] = {}
    seen: dict[str, int] = {}
    for number, name, text, words in readers[form](path, lines, role):
        if name in texts:
            raise UserError(
                f"{path}:{number}: {name} stands on line {seen[name]} already; keep one of them"
                + ("." if form != "kaldi" else ", or say --format lines if it is no id.")
            )
        texts[name], seen[name] = text, number
        if words:
            keywords[name] = words
    if not texts:
        raise UserError(f"{path} has no utterances; name a file with transcripts.")
    return Transcripts(path, form, texts, keywords)


def read_keyword_lists(path: Path, ids: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the keywords of each utterance.

    A file has one list for all (a keyword a line), or a list for each utterance: Kaldi's
    `utt2keywords` (`<id> <keyword>; <keyword>`), objects or tables with a list (of strings).
    """
    lines = _lines(path)
    first = [line.split(maxsplit=1)[0] for line in lines if line.strip()]
    filled = [line for line in lines if line.strip()]
    if _is_jsonl(filled) or (filled and filled[0].count("\t") > (filled[0].split()[0] in ids)):
        keywords = read_transcripts(path, "keywords").keywords
    elif set(first) & set(ids):
        parts = (line.split(maxsplit=1) for line in filled)
        keywords = {
            n: tuple(filter(None, map(str.strip, "".join(w).split(";")))) for n, *w in parts
        }
    else:
        return dict.fromkeys(ids, tuple(filter(None, map(str.strip, lines))))
    if not keywords.keys() & set(ids):
        raise UserError(f"{path} has no keywords of these utterances; check its ids.")
    return {name: keywords.get(name, ()) for name in ids}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}); name a text file in UTF-8.") from error
    return text.removesuffix("\n").split("\n") if text else []


def _find_format(path: Path, lines: list[str]) -> str:
    rows = [line for line in lines if line.strip()]
    if _is_jsonl(rows):
        return "jsonl"
    if _is_trn(rows):
        return "trn"
    if rows and all("\t" in row for row in rows) and len({row.count("\t") for row in rows}) == 1:
        return "tsv"
    like = [bool(ID.fullmatch(row.split(maxsplit=1)[0])) for row in rows]
    if rows and all(like):
        return "kaldi"
    if sum(like) * 2 > len(like):
        number = lines.index(rows[like.index(False)]) + 1
        raise UserError(
            f"{path}: most lines begin with an id, but line {number} does not; fix it, or say "
            "--format lines or --format kaldi."
        )
    return "lines"


def _is_trn(rows: list[str]) -> bool:
    """Return whether all rows end in an id; ids with spaces are some if all of them differ."""
    found = [TRN.fullmatch(row) for row in rows if not row.startswith(TRN_COMMENT)]
    if not found or not all(found):
        return False
    ids = [match["id"] for match in found]
    return len(set(ids)) == len(ids) or not any(" " in name for name in ids)


def _is_jsonl(rows: list[str]) -> bool:
    return bool(rows) and rows[0].lstrip().startswith("{") and rows[0].rstrip().endswith("}")


Rows = Iterator[tuple[int, str, str, tuple[str, ...]]]


def _numbered(path: Path, lines: list[str], role: str) -> Rows:
    for number, line in enumerate(lines, start=1):
        yield number, f"line {number}", line, ()


def _kaldi(path: Path, lines: list[str], role: str) -> Rows:
    for number, line in _filled(lines):
        name, *text = line.split(maxsplit=1)
        yield number, name, "".join(text), ()


def _trn(path: Path, lines: list[str], role: str) -> Rows:
    for number, line in _filled(lines):
        if line.startswith(TRN_COMMENT):
            continue
        found = TRN.fullmatch(line)
        if not found:
            raise UserError(f"{path}:{number}: the line does not end in (<id>); add it.")
        if re.search(r"\{.*/.*\}", found["text"]):
            raise UserError(f"{path}:{number}: has alternatives, {{ a / b }}; leave one of them.")
        yield number, found["id"], found["text"], ()


def _jsonl(path: Path, lines: list[str], role: str) -> Rows:
    for number, line in _filled(lines):
        try:
            item = json_object(line.encode())
        except (ValueError, RecursionError) as error:
            message = f"{path}:{number} is not a JSON object ({reason(error)}); fix the line."
            raise UserError(message) from error
        yield number, *_fields(path, number, item, role)


def _tsv(path: Path, lines: list[str], role: str) -> Rows:
    rows = [(number, line.split("\t")) for number, line in _filled(lines)]
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else ["id"]
    if set(header) & set(ID_NAMES.split()):
        rows = rows[1:]
    elif all(cell.startswith("[") for cell in rows[0][1][2:]):
        header = ["id", "text", "keywords"]  # of deep biasing: more lists follow
    else:
        raise UserError(
            f"{path} has {len(header)} columns; name them in a first line, id and text among them."
        )
    for number, cells in rows:
        yield number, *_fields(path, number, dict(zip(header, cells, strict=False)), role)


def _filled(lines: list[str]) -> Iterator[tuple[int, str]]:
    return ((n, line.strip("\r ")) for n, line in enumerate(lines, start=1) if line.strip())


def _fields(path: Path, number: int, item: dict, role: str) -> tuple[str, str, tuple[str, ...]]:
    """Return id, text and keywords of an object, under the names that toolkits give them."""
    names = [*TEXT_NAMES.split(), *HYPOTHESIS_NAMES.split()]
    if role == "hyp":
        names = [*HYPOTHESIS_NAMES.split(), *names]
    found = []
    for meaning, known in (("id", ID_NAMES.split()), ("text", names)):
        value = next((item[name] for name in known if name in item), None)
        if value is None and (meaning, role) == ("text", "keywords"):
            value = ""
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UserError(f"{path}:{number}: has no {meaning}; name it {', '.join(known[:3])}.")
        found.append(str(value))
    words = next((item[name] for name in KEYWORD_NAMES.split() if name in item), ())
    if isinstance(words, str):
        try:
            words = json.loads(words)
        except (ValueError, RecursionError):
            words = [part.strip() for part in words.split(";")]
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise UserError(f"{path}:{number}: its keywords are no list of texts; fix the line.")
    return found[0], found[1], tuple(filter(None, words))
