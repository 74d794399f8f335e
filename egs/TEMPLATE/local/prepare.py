"""Prepares a corpus of audio files and transcripts: the file to rewrite for a corpus of your own.

What it reads, for each of train, dev and test, below --corpus:

  train/<speaker>/<name>.wav and .txt    audio (wav, flac, ogg, mp3) beside its transcript
  train/<name>.wav and .txt              the same where speakers are not known
  train.tsv                              or instead a list of `audio<TAB>transcript[<TAB>speaker]`,
                                         audio as seen from --corpus

Ids become <speaker>-<name>, or <name> where it is its own speaker. If dev or test is absent, it is
taken out of train. Sets that are unchanged are left as they are.

example:
  local/data.sh --corpus /data/mine --out data
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.data.audio import SUFFIXES
from audiorl.data.corpus import carve, join, write_set
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError

SETS = ("train", "dev", "test")


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder with train, dev and test")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    args = options.parse_args()
    corpus = Path(args.corpus)
    if not args.corpus or not any((corpus / name).exists() for name in ("train", "train.tsv")):
        raise UserError(
            f"--corpus {args.corpus or '(not given)'} has no train and no train.tsv; give the "
            "folder of the corpus (local/prepare.py says what it holds)."
        )
    sets = {name: found for name in SETS if (found := read_set(corpus, name))}
    missing = [name for name in SETS[1:] if name not in sets]
    carved, train = carve(sets.get("train", []), missing)
    for name, utterances in (sets | {"train": train} | carved).items():
        write_set(args.out / name, utterances, genders={})


def read_set(corpus: Path, name: str) -> list[Utterance]:
    """The utterances of a set, from its list or its folder; empty if it has neither."""
    if (corpus / f"{name}.tsv").exists():
        return read_list(corpus / f"{name}.tsv")
    return read_folder(corpus / name) if (corpus / name).is_dir() else []


def read_list(path: Path) -> list[Utterance]:
    """`audio<TAB>transcript[<TAB>speaker]` lines. Raises UserError for any other line."""
    audio, texts, speakers = {}, {}, {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) not in (2, 3):
            raise UserError(
                f"{path}:{number} has {len(fields)} columns, not audio, transcript and perhaps "
                "speaker, with a tab between them; fix the line."
            )
        file = path.parent / fields[0]
        name, speaker = identify(file, fields[2] if len(fields) == 3 else "")
        if name in texts:
            raise UserError(f"{path}:{number}: {name} stands there twice; rename one of the files.")
        texts[name], speakers[name] = fields[1], speaker
        if file.is_file():
            audio[name] = file
    return join(path.stem, audio, texts, speakers.__getitem__)


def read_folder(folder: Path) -> list[Utterance]:
    """`<name>.wav` and `<name>.txt`, in the folder or in one folder for each speaker."""
    audio, texts, speakers, unread = {}, {}, {}, []
    for file in sorted([*folder.glob("[!.]*.*"), *folder.glob("[!.]*/[!.]*.*")]):
        name, speakers[name] = identify(file, "" if file.parent == folder else file.parent.name)
        if file.suffix == ".txt":
            texts[name] = read_text(file)
        elif file.suffix.lower()[1:] in SUFFIXES:
            if name in audio:
                raise UserError(f"{audio[name]} and {file} have one name; rename one of them.")
            audio[name] = file
        else:
            unread.append(file)
    if unread:
        kinds = ", ".join(sorted({file.suffix for file in unread}))
        print(
            f"{folder.name}: {len(unread):,} files are no .txt and no audio that is read: {kinds}"
        )
    return join(folder.name, audio, texts, speakers.__getitem__)


def identify(file: Path, speaker: str) -> tuple[str, str]:
    """(utterance id, speaker) without spaces; Kaldi wants the id to begin with the speaker."""
    name, speaker = "_".join(file.stem.split()), "_".join(speaker.split())
    return (f"{speaker}-{name}", speaker) if speaker else (name, name)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; convert it with iconv.") from error


if __name__ == "__main__":
    run(main)
