"""Published lists of zero-shot synthesis as data directories: Seed-TTS-Eval and CV3-Eval.

    Seed-TTS-Eval   meta.lst      <id>|<text of the prompt>|<its audio>|<text>[|<recording>]
    CV3-Eval        a folder      text, prompt_text and prompt_wav.scp, by id

A prompt is a voice of its own: speakers of these lists have no names.
"""

from __future__ import annotations

from pathlib import Path

from audiorl.data.data_dir import DataDir
from audiorl.data.tables import read_table
from audiorl.data.utterance import PROMPT_TEXTS, PROMPT_WAVES
from audiorl.errors import UserError

FIELDS_OF_A_LIST = "<id>|<text of the prompt>|<its audio>|<text>"


def read_zero_shot(source: Path) -> DataDir:
    """Return the data directory of a list or a folder, to be written.

    Audio is looked for from where the list is, and from the folders above. Raises UserError for a
    line that is none, and for a list or audio that is not there.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; give a list, or a folder of CV3-Eval.")
    rows = _folder(source) if source.is_dir() else _list(source)
    names = sorted(rows)
    waves = {name: str(_found(rows[name][1], source, name)) for name in names}
    tables = {
        "text": {name: rows[name][2] for name in names},
        "utt2spk": {name: name for name in names},
        PROMPT_TEXTS: {name: rows[name][0] for name in names},
        PROMPT_WAVES: waves,
    }
    recordings = {name: rows[name][3] for name in names if len(rows[name]) > 3}
    if len(recordings) == len(names):
        tables["wav.scp"] = {n: str(_found(r, source, n)) for n, r in recordings.items()}
    return DataDir(source, tables)


def _list(path: Path) -> dict[str, list[str]]:
    """Text and audio of the prompt, text, and a recording if there is one, by id."""
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        name, *fields = map(str.strip, line.split("|"))
        if not line.strip():
            continue
        if len(fields) not in (3, 4) or not all([name, *fields]) or name in rows:
            raise UserError(f"{path}:{number}: is no new `{FIELDS_OF_A_LIST}`; fix the line.")
        rows[name.replace(" ", "_")] = fields
    return rows


def _folder(path: Path) -> dict[str, list[str]]:
    tables = [read_table(path / file) for file in (PROMPT_TEXTS, PROMPT_WAVES, "text")]
    odd = set.symmetric_difference(set(tables[1]), set(tables[2])) | set(tables[1]) - set(tables[0])
    if odd:
        raise UserError(f"{path}: {min(odd)} is not in all of its tables; fetch the set again.")
    return {name: [table[name] for table in tables] for name in tables[2]}


def _found(audio: str, source: Path, name: str) -> Path:
    start = source.absolute()
    places = [folder / audio for folder in (start, *start.parents)]
    for place in places:
        if place.is_file():
            return place
    raise UserError(
        f"{source}: {name}: there is no {audio}, neither beside the list nor above; fetch the "
        "audio of the list, too."
    )
