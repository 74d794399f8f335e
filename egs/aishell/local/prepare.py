"""Prepares AISHELL-1 (https://www.openslr.org/33) from its own layout, whole or in part.

Utterances and speakers have the ids of Kaldi's recipe: utterance BAC009S0002W0122 of speaker S0002.
Transcripts lose the spaces between words: Mandarin is written and scored without them. Sets that
are unchanged are left as they are.

examples:
  local/data.sh --corpus /data/data_aishell --out data
  local/data.sh --download true --corpus downloads
  local/data.sh --corpus /data/data_aishell --entities aishell1_dev.ner.tsv,entities.tsv
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.data.corpus import carve, compare_counts, join, write_set
from audiorl.data.download import fetch, unpacked
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runtime.files import progress

MIRROR = "https://www.openslr.org/resources/33"
MD5 = {
    "resource_aishell": "957d480a0fcac85fc18e550756f624e5",
    "data_aishell": "2f494334227864a8a8fec932999db9d8",
}
ENTITY = re.compile(r"<([^>]+)>|\(([^)]+)\)|\[([^]]+)\]")  # organisation, place, person
# Utterances with a transcript; 320 recordings of train and 5 of dev have none.
OFFICIAL = {"train": 120098, "dev": 14326, "test": 7176}
TRANSCRIPTS = Path("transcript", "aishell_transcript_v0.8.txt")


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder that holds wav and transcript")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    options.add_argument("--download", choices=("true", "false"), default="false")
    options.add_argument("--mirror", default=MIRROR, help="where --download fetches it")
    options.add_argument("--entities", default="", help="lists of named entities: keywords")
    args = options.parse_args()
    if args.download == "true":
        args.corpus = args.corpus or "downloads"
        download(Path(args.corpus), args.mirror)
    prepare(find_corpus(args.corpus), args.out, args.entities)


def download(folder: Path, mirror: str) -> None:
    """Fetches what `folder` lacks; archives, also those of the speakers, go away once unpacked."""
    for name, checksum in MD5.items():
        if (folder / name).is_dir():
            print(f"{folder / name}: is there")
            continue
        archive = folder / f"{name}.tgz"
        fetch(f"{mirror}/{name}.tgz", archive, f"md5:{checksum}")
        with unpacked(archive) as content:
            for speaker in sorted((content / name).glob("wav/*.tar.gz")):
                with unpacked(speaker) as recordings:
                    for made in recordings.glob("*/*"):  # train/S0002
                        (speaker.parent / made.parent.name).mkdir(exist_ok=True)
                        os.replace(made, speaker.parent / made.parent.name / made.name)
                speaker.unlink()
            os.replace(content / name, folder / name)
        archive.unlink()
        print(f"{folder / name}: downloaded")


def find_corpus(given: str) -> Path:
    """The folder with wav and transcript: the given one, or data_aishell in it."""
    if not given:
        raise UserError(
            "--corpus is needed: the folder data_aishell, which holds wav and transcript; "
            "--download true fetches it (16 GB)."
        )
    for folder in (Path(given), Path(given) / "data_aishell"):
        if not (folder / TRANSCRIPTS).exists():
            continue
        if packed := sorted(folder.glob("wav/*.tar.gz")):
            raise UserError(
                f"{packed[0]} and {len(packed) - 1} others are not unpacked; run "
                f"`cd {folder / 'wav'} && for f in *.tar.gz; do tar xzf $f && rm $f; done`."
            )
        return folder
    raise UserError(
        f"{os.path.abspath(given)} has no {TRANSCRIPTS}; give the folder data_aishell that does, "
        "or --download true."
    )


def prepare(corpus: Path, out: Path, entities: str = "") -> None:
    """Writes train, dev and test of what is in `corpus`; what is missing or partial is said."""
    texts = {name: text.replace(" ", "") for name, text in read_table(corpus / TRANSCRIPTS).items()}
    speakers = {}  # utterance -> speaker
    parts = {}
    for part in OFFICIAL:
        folders = progress(sorted(corpus.glob(f"wav/{part}/*")), f"reading {part}", unit="speaker")
        audio = {file.stem: file for folder in folders for file in folder.glob("*.wav")}
        speakers |= {name: file.parent.name for name, file in audio.items()}
        # The transcripts of all parts stand in one file: those of this part are its speakers'.
        present = {name[:-5] for name in audio}  # BAC009S0002W0122 without W0122
        wanted = {name: text for name, text in texts.items() if name[:-5] in present}
        if audio:
            parts[part] = join(part, audio, wanted, speakers.__getitem__)
    compare_counts(parts, OFFICIAL)
    carved, train = carve(parts.get("train", []), [part for part in OFFICIAL if part not in parts])
    genders = read_genders(corpus)
    keywords = read_entities(entities.split(",")) if entities else lambda utterance: ()
    for name, utterances in (parts | {"train": train} | carved).items():
        write_set(out / name, [replace(u, keywords=keywords(u)) for u in utterances], genders)


def read_entities(paths: list[str]) -> Callable[[Utterance], tuple[str, ...]]:
    """A function from an utterance to the named entities in it, from files of two kinds of lines.

    `<utterance><TAB>其中(越秀区)涨幅` marks those of its own; `(<TAB>越秀区<TAB>5` is an entity.
    All of both of two characters or more are looked for in the others, the longest first.
    """
    marked: dict[str, tuple[str, ...]] = {}
    known: set[str] = set()
    for path in paths:
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            first, tab, rest = line.partition("\t")
            if not tab:
                raise UserError(
                    f"{path}:{number} has no tab behind an utterance or a mark; fix it."
                )
            if len(first) == 1:
                known.add(rest.partition("\t")[0])
            else:
                marked[first] = tuple("".join(found) for found in ENTITY.findall(rest))
    known.update(entity for found in marked.values() for entity in found)
    known = {entity for entity in known if len(entity) > 1}  # 上, for Shanghai, is a common word
    lengths = sorted(set(map(len, known)), reverse=True)
    print(f"{', '.join(paths)}: {len(known):,} named entities, {len(marked):,} marked utterances")

    def keywords(utterance: Utterance) -> tuple[str, ...]:
        text, at, found = utterance.text, 0, list(marked.get(utterance.id, ()))
        while utterance.id not in marked and at < len(text):
            entity = next((text[at : at + n] for n in lengths if text[at : at + n] in known), "")
            found += [entity] if entity else []
            at += len(entity) or 1
        return tuple(dict.fromkeys(found))

    return keywords


def read_genders(corpus: Path) -> dict[str, str]:
    """Speaker -> m or f, from the `0002 F` lines of speaker.info, where resource_aishell is."""
    for path in (corpus.parent, corpus):
        info = path / "resource_aishell" / "speaker.info"
        if info.exists():
            rows = [line.split() for line in info.read_text(encoding="utf-8").splitlines()]
            return {f"S{row[0].lstrip('S')}": row[1].lower() for row in rows if len(row) > 1}
    return {}


if __name__ == "__main__":
    run(main)
