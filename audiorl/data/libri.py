"""Layout of LibriSpeech and LibriTTS: parts like train-clean-100, readers, chapters, archives.

A corpus has folders <part>/<reader>/<chapter>/, and each part is one archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from audiorl.data.corpus import join
from audiorl.data.download import fetch, unpacked
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runtime.files import progress


def download_parts(
    name: str, checksums: Mapping[str, str], parts: Sequence[str], folder: Path, mirror: str
) -> None:
    """Download the parts that `folder`/`name` lacks; remove their archives after unpacking.

    checksums: part -> SHA-256 of its archive. Raises UserError for an unknown part.
    """
    if unknown := [part for part in parts if part not in checksums]:
        raise UserError(
            f"--parts: {unknown[0]} is no part of {name}; choose of {', '.join(checksums)}."
        )
    corpus = folder / name
    for part in parts:
        if (corpus / part).is_dir():
            print(f"{corpus / part}: is there")
            continue
        archive = folder / f"{part}.tar.gz"
        fetch(f"{mirror}/{part}.tar.gz", archive, f"sha256:{checksums[part]}")
        with unpacked(archive) as content:
            corpus.mkdir(parents=True, exist_ok=True)
            for file in (path for path in (content / name).iterdir() if path.is_file()):
                os.replace(file, corpus / file.name)
            os.replace(content / name / part, corpus / part)  # last: it marks the part
        archive.unlink()
        print(f"{corpus / part}: downloaded")


def find_parts(name: str, parts: Sequence[str], given: str, size: str) -> Path:
    """Return the folder that holds parts: the given one, or `name` in it.

    size: of the whole corpus, for the message. Raises UserError when there is no such folder.
    """
    if not given:
        raise UserError(
            f"--corpus is needed: the folder of {name} that holds train-clean-100 and others; "
            f"--download true fetches it ({size})."
        )
    for folder in (Path(given), Path(given) / name):
        if any((folder / part).is_dir() for part in parts):
            return folder
    raise UserError(
        f"{os.path.abspath(given)} holds no part of {name} ({', '.join(parts)}); give the "
        "folder that does, or --download true."
    )


def chapters(part: Path) -> Iterator[Path]:
    """Return the folders of a part's chapters, in order."""
    return progress(sorted(part.glob("*/*")), f"reading {part.name}", unit="chapter")


def read_part(part: Path) -> list[Utterance]:
    """Return the utterances of a part of LibriSpeech; prints what lacks audio or a transcript.

    A chapter holds <utterance>.flac and one .trans.txt; a speaker is a reader in a chapter.
    """
    audio, texts = {}, {}
    for chapter in chapters(part):
        audio |= {file.stem: file for file in chapter.glob("*.flac")}
        for file in chapter.glob("*.trans.txt"):
            texts |= read_table(file)
    return join(part.name, audio, texts, lambda name: name.rpartition("-")[0])


def read_genders(path: Path) -> dict[str, str]:
    """Return reader -> m or f, from the `reader | F | …` lines of SPEAKERS.TXT, if it exists."""
    if not path.exists():
        return {}
    rows = [line.split("|") for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        row[0].strip(): row[1].strip().lower() for row in rows if len(row) > 2 and row[0][0] != ";"
    }


def set_name(part: str) -> str:
    return part.replace("-", "_")
