"""Prepares a corpus of audio files and transcripts: the file to rewrite for a corpus of your own.

What it reads below --corpus, for each of the sets that conf/grpo.yaml names:

  train/<speaker>/<name>.wav and .txt    audio (wav, flac, ogg, mp3) beside its transcript
  train/<name>.wav and .txt              the same where speakers are not known
  train.tsv                              or instead a list of `audio<TAB>transcript[<TAB>speaker]`,
                                         audio as seen from --corpus

Ids become <speaker>-<name>, or <name> where it is its own speaker. A dev or test set that is not
there is taken out of train, which needs 20 utterances for that; of a recipe of synthesis, sentences
of speakers who stay in train. Sets that are unchanged are left as they are.

example:
  local/data.sh --corpus /data/mine --out data
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.data.audio import SUFFIXES
from audiorl.data.corpus import carve, hold_out, join, readable, write_set
from audiorl.data.judge_set import set_aside
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError

CONFIG = Path(__file__).resolve().parents[1] / "conf" / "grpo.yaml"


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder of the corpus")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    args = options.parse_args()
    config = load_config(CONFIG)
    data = config.data
    train, held_out = data.train, [data.dev, *data.test]
    names = dict.fromkeys([train, *held_out, data.rl, data.rl_dev, *data.extra])
    sets = {name: read_set(Path(args.corpus), name) for name in names if name}
    if not args.corpus or not sets[train]:
        raise UserError(
            f"--corpus {args.corpus or '(not given)'} has no {train} that is read; give the "
            "folder of the corpus (local/prepare.py says what it holds)."
        )
    missing = [name for name in held_out if not sets[name]]
    if config.speaks:  # of the same speakers; some recordings are the judge's alone
        whole = missing == held_out  # else dev or test may be of any speaker, who then has to stay
        part, parts = ("speaker", "speakers") if whole else ("id", "utterances")
        judge, rest = set_aside(sets[train], attrgetter(part), parts)
        carved, rest = hold_out(rest, missing)
        if config.judge.train:
            carved[config.judge.train] = judge or rest
        sets = readable(sets | {train: rest} | carved, train)
    else:
        carved, rest = carve(sets[train], missing)
        sets |= {train: rest} | carved
    for name, utterances in sets.items():
        if not utterances:
            raise UserError(f"{args.corpus} has no {name}, which conf/grpo.yaml names in data.*.")
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
