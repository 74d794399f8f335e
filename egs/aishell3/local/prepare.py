"""Prepares AISHELL-3 (https://www.openslr.org/93) from its own layout, whole or in part.

`text` holds the characters of an utterance, `utt2pinyin` their pinyin with tones (`yi1 ge4`): a
config reads the one or the other (data.text_tag). Ids are the corpus's: utterance SSB00050001 of
speaker SSB0005. A quarter of the speakers for training are the judge's (judge_train) and in no
other set. Utterances of test, whose speakers nothing is trained on, each name a prompt. Sets that
are unchanged are left as they are.

examples:
  local/data.sh --corpus /data/data_aishell3 --out data
  local/data.sh --download true --corpus downloads
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.data.corpus import compare_counts, hold_out, join, write_changed, write_set
from audiorl.data.download import fetch, unpacked
from audiorl.data.judge_set import set_aside
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance
from audiorl.data.zero_shot import read_zero_shot
from audiorl.errors import UserError
from audiorl.runtime.files import progress

NAME = "data_aishell3"
MIRROR = "https://www.openslr.org/resources/93"
SIZE = 19057141777  # bytes of the archive; there is no published checksum
OFFICIAL = {"train": 63262, "test": 24773}
SYLLABLE = re.compile(r"[a-zü:]+[0-5]")


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder that holds train and test")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    options.add_argument("--download", choices=("true", "false"), default="false")
    options.add_argument("--mirror", default=MIRROR, help="where --download fetches it")
    options.add_argument("--zero_shot", default="", help="list of Seed-TTS-Eval: set zero_shot")
    args = options.parse_args()
    if args.download == "true":
        args.corpus = args.corpus or "downloads"
        download(Path(args.corpus), args.mirror)
    prepare(find_corpus(args.corpus), args.out)
    if args.zero_shot:
        write_changed(args.out / "zero_shot", read_zero_shot(Path(args.zero_shot)))


def download(folder: Path, mirror: str) -> None:
    """Fetches the corpus into `folder`, unless it is there; the archive goes away once unpacked."""
    if (folder / NAME).is_dir():
        print(f"{folder / NAME}: is there")
        return
    archive = folder / f"{NAME}.tgz"
    fetch(f"{mirror}/{archive.name}", archive, f"size:{SIZE}")
    with unpacked(archive) as content:
        # The archive has no folder of its own around train and test; a copy may have.
        os.replace(content / NAME if (content / NAME).is_dir() else content, folder / NAME)
    archive.unlink()
    print(f"{folder / NAME}: downloaded")


def find_corpus(given: str) -> Path:
    """The folder with train or test: the given one, or data_aishell3 in it."""
    if not given:
        raise UserError(
            f"--corpus is needed: the folder {NAME}, which holds train and test; --download true "
            "fetches it (19 GB)."
        )
    for folder in (Path(given), Path(given) / NAME):
        if any((folder / part / "content.txt").exists() for part in OFFICIAL):
            return folder
    raise UserError(
        f"{os.path.abspath(given)} has no train/content.txt; give the folder {NAME} that does, or "
        "--download true."
    )


def prepare(corpus: Path, out: Path) -> None:
    """Writes the sets of what is in `corpus`; what is missing or partial is said."""
    present = [part for part in OFFICIAL if (corpus / part / "content.txt").exists()]
    parts = {part: found for part in present if (found := read_part(corpus / part))}
    compare_counts(parts, OFFICIAL)
    judge, rest = set_aside(parts.get("train", []), lambda u: u.speaker, "speakers")
    held_out, train = hold_out(rest, ["dev", "test_seen"])
    learnt = {"train": train, "judge_train": judge or train}
    genders = read_genders(corpus / "spk-info.txt")
    for name, utterances in (parts | held_out | learnt).items():
        write_set(out / name, utterances, genders, prompts=name == "test")


def read_part(folder: Path) -> list[Utterance]:
    """The utterances of train or test: wav/<speaker>/<utterance>.wav, and content.txt."""
    speakers = progress(sorted(folder.glob("wav/*")), f"reading {folder.name}", unit="speaker")
    audio = {file.stem: file for speaker in speakers for file in speaker.glob("*.wav")}
    texts, pinyin = read_content(folder / "content.txt")
    found = join(folder.name, audio, texts, lambda name: audio[name].parent.name)
    return [replace(utterance, tags={"pinyin": pinyin[utterance.id]}) for utterance in found]


def read_content(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Utterance -> characters, and -> pinyin, from lines of `<utterance>.wav 而 er2 对 dui4 …`.

    Prints how many lines are anything else, and the first.
    """
    texts, pinyin, odd = {}, {}, []
    for file, line in read_table(path).items():
        characters, syllables = line.split()[::2], line.split()[1::2]
        if len(characters) != len(syllables) or not all(map(SYLLABLE.fullmatch, syllables)):
            odd.append(file)
            continue
        name = file.removesuffix(".wav")
        texts[name], pinyin[name] = "".join(characters), " ".join(syllables)
    if odd:
        print(f"{path}: {len(odd):,} lines without pinyin for each character left out: {odd[0]} …")
    return texts, pinyin


def read_genders(path: Path) -> dict[str, str]:
    """Speaker -> m or f, from the `SSB0005 B female north` lines of spk-info.txt."""
    if not path.exists():
        return {}
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {row[0]: row[2][0] for row in rows if len(row) > 2 and row[2] in ("male", "female")}


if __name__ == "__main__":
    run(main)
