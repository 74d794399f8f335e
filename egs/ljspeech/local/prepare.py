"""Prepares LJSpeech 1.1 (https://keithito.com/LJ-Speech-Dataset) from its own layout.

Texts are the normalised ones. There is no official split: as in ESPnet's recipe the last 500 clips
are dev and test, 250 each. A quarter of the chapters before them are the judge's (judge_train).
Of a part of the corpus, clips with characters that training lacks are left out of dev and test,
and a set of which nothing is there is taken out of the training data. Sets that are unchanged are
left as they are.

examples:
  local/data.sh --corpus /data/LJSpeech-1.1 --out data
  local/data.sh --download true --corpus downloads
"""

from __future__ import annotations

import os
from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.data.corpus import compare_counts, hold_out, join, readable, write_changed, write_set
from audiorl.data.download import fetch, unpacked
from audiorl.data.judge_set import set_aside
from audiorl.data.zero_shot import read_zero_shot
from audiorl.errors import UserError

NAME = "LJSpeech-1.1"
MIRROR = "https://data.keithito.com/data/speech"
SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"
SPEAKER = "LJ"
# Set -> (its first clip, clips); it ends where the next begins.
SPLIT = {"train": ("LJ001-0001", 12600), "dev": ("LJ049-0008", 250), "test": ("LJ050-0029", 250)}


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder with metadata.csv and wavs")
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
    archive = folder / f"{NAME}.tar.bz2"
    fetch(f"{mirror}/{archive.name}", archive, f"sha256:{SHA256}")
    with unpacked(archive) as content:
        os.replace(content / NAME, folder / NAME)
    archive.unlink()
    print(f"{folder / NAME}: downloaded")


def find_corpus(given: str) -> Path:
    """The folder with metadata.csv: the given one, or LJSpeech-1.1 in it."""
    if not given:
        raise UserError(
            f"--corpus is needed: the folder {NAME}, which holds metadata.csv and wavs; "
            "--download true fetches it (2.8 GB)."
        )
    for folder in (Path(given), Path(given) / NAME):
        if (folder / "metadata.csv").exists():
            return folder
    raise UserError(
        f"{os.path.abspath(given)} has no metadata.csv; give the folder {NAME} that does, or "
        "--download true."
    )


def prepare(corpus: Path, out: Path) -> None:
    """Writes the sets of what is in `corpus`; what is missing or partial is said."""
    audio = {file.stem: file for file in corpus.glob("wavs/*.wav")}
    texts = read_metadata(corpus / "metadata.csv")
    utterances = join(NAME, audio, texts, lambda _: SPEAKER)
    sets = {name: [u for u in utterances if split_of(u.id) == name] for name in SPLIT}
    compare_counts(sets, {name: count for name, (_, count) in SPLIT.items()})
    judge, sets["train"] = set_aside(sets["train"], lambda u: u.id.partition("-")[0], "chapters")
    sets = readable(sets)
    missing = [name for name in SPLIT if name != "train" and not sets[name]]
    held_out, train = hold_out(sets["train"], missing)
    learnt = {"train": train, "judge_train": judge or train}
    for name, found in (sets | held_out | learnt).items():
        write_set(out / name, found, {SPEAKER: "f"})


def split_of(name: str) -> str:
    """The set that a clip is in."""
    return [part for part, (first, _) in SPLIT.items() if name >= first][-1]


def read_metadata(path: Path) -> dict[str, str]:
    """Clip -> normalised text, from lines of `clip|text|normalised text`."""
    texts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("|")
        if len(fields) != 3 or fields[0] < "LJ":
            raise UserError(f"{path}:{number} is not `LJ…|text|normalised text`; fix the line.")
        texts[fields[0]] = fields[2]
    return texts


if __name__ == "__main__":
    run(main)
