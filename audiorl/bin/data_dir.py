"""Check, fix, and make Kaldi data directories.

Examples:
    python -m audiorl.bin.data_dir validate data/train data/dev --nj 4
    python -m audiorl.bin.data_dir fix data/train
    python -m audiorl.bin.data_dir subset data/train data/train_1k --random 1000 --seed 1
    python -m audiorl.bin.data_dir split data/train 8
    python -m audiorl.bin.data_dir combine data/all data/train_clean data/train_other
    python -m audiorl.bin.data_dir zero_shot seedtts_testset/en/meta.lst data/seed_en
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from audiorl.bin import cli
from audiorl.data.data_dir import DataDir, combine, split, subset
from audiorl.data.fix import fix, fixable
from audiorl.data.validate import Checks, examine, summary
from audiorl.data.zero_shot import read_zero_shot
from audiorl.errors import UserError


def add_audio_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that open the audio of a data directory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument(
        "--nj", type=_count, default=min(8, cores or 1), help="processes that open audio files"
    )
    parser.add_argument(
        "--allow-pipes",
        action="store_true",
        help="run the commands (`… |`) in wav.scp: only for data that you trust",
    )


def main() -> None:
    args = _parser().parse_args()
    args.run(args)


def _validate(args: argparse.Namespace) -> None:
    broken, fixed = [], []
    for path in args.dirs:
        report = examine(path, _checks(args))
        if report.problems:
            print(summary(report.problems, args.limit))
        if report.errors:
            broken.append(str(path))
            fixed += [str(path)] if any(map(fixable, report.errors)) else []
            print(f"{path}: {len(report.errors):,} errors")
        else:
            print(f"{path}: valid, {_size(report.directory)}")
    if broken:
        or_run = f", or run `python -m audiorl.bin.data_dir fix {' '.join(fixed)}`" if fixed else ""
        raise UserError(f"{', '.join(broken)} not valid; fix the preparation{or_run}.")


def _fix(args: argparse.Namespace) -> None:
    left = []
    for path in args.dirs:
        left += fix(path, _checks(args), args.force).errors
    if left:
        print(summary(left, args.limit))
        raise UserError(f"{len(left)} problems are left that need a hand (see above).")


def _subset(args: argparse.Namespace) -> None:
    made = subset(
        args.source,
        args.out,
        first=args.first,
        shortest=args.shortest,
        sample=args.random,
        speakers=args.speakers,
        ids=args.list,
        seed=args.seed,
    )
    print(f"{args.out}: kept {len(made.utterances)} of {len(DataDir.read(args.source).utterances)}")


def _split(args: argparse.Namespace) -> None:
    for shard in split(args.source, args.shards, args.per_utt):
        print(f"{shard.path}: {_size(shard)}")


def _combine(args: argparse.Namespace) -> None:
    print(f"{args.out}: {_size(combine(args.sources, args.out))}")


def _zero_shot(args: argparse.Namespace) -> None:
    print(f"{args.out}: {_size(read_zero_shot(args.source).write(args.out))}")


def _size(directory: DataDir) -> str:
    size = f"{len(directory.utterances):,} utterances, {len(directory.speakers()):,} speakers"
    hours = sum(directory.durations().values()) / 3600
    return f"{size}, {hours:.2f} hours" if hours else size


def _checks(args: argparse.Namespace) -> Checks:
    return Checks(
        audio=not args.no_audio,
        sample_rate=args.sample_rate,
        no_speech=args.no_speech,
        texts_alone=args.texts_alone,
        allow_pipes=args.allow_pipes,
        nj=args.nj,
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, config=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, run, doc in (
        ("validate", _validate, "report all problems; status 1 when there are errors"),
        ("fix", _fix, "sort, make the files agree, remove what cannot be used (with a backup)"),
    ):
        command = commands.add_parser(name, help=doc, description=doc)
        command.set_defaults(run=run, force=False)
        command.add_argument("dirs", nargs="+", type=Path, metavar="DIR")
        command.add_argument("--no-audio", action="store_true", help="do not open the audio files")
        command.add_argument("--no-speech", action="store_true", help="empty transcripts are right")
        command.add_argument("--texts-alone", action="store_true", help="no wav.scp is right")
        command.add_argument("--sample-rate", type=_count, help="Hz; name recordings at another")
        command.add_argument("--limit", type=_count, default=20, help="problems shown of a kind")
        add_audio_options(command)
        if run is _fix:
            command.add_argument("--force", action="store_true", help="remove more than half too")

    doc = "write a part of a directory"
    command = commands.add_parser("subset", help=doc, description=doc)
    command.set_defaults(run=_subset)
    command.add_argument("source", type=Path, metavar="DIR")
    command.add_argument("out", type=Path, metavar="OUT")
    ways = command.add_mutually_exclusive_group(required=True)
    ways.add_argument("--first", type=_count, metavar="N", help="the first N utterances")
    ways.add_argument("--shortest", type=_count, metavar="N", help="the N shortest utterances")
    ways.add_argument("--random", type=_count, metavar="N", help="N utterances at random")
    ways.add_argument("--speakers", type=_count, metavar="N", help="N speakers at random")
    ways.add_argument("--list", type=Path, metavar="FILE", help="ids that begin the lines of FILE")
    command.add_argument("--seed", type=int, default=0, help="of --random and --speakers")

    doc = "write DIR/split<N>/<1..N>, for jobs that run side by side"
    command = commands.add_parser("split", help=doc, description=doc)
    command.set_defaults(run=_split)
    command.add_argument("source", type=Path, metavar="DIR")
    command.add_argument("shards", type=_count, metavar="N")
    command.add_argument("--per-utt", action="store_true", help="a speaker may be in several")

    doc = "write several directories as one; an utterance may stand in one only"
    command = commands.add_parser("combine", help=doc, description=doc)
    command.set_defaults(run=_combine)
    command.add_argument("out", type=Path, metavar="OUT")
    command.add_argument("sources", nargs="+", type=Path, metavar="DIR")

    doc = "write a list of Seed-TTS-Eval, or a folder of CV3-Eval, as a directory with prompts"
    command = commands.add_parser("zero_shot", help=doc, description=doc)
    command.set_defaults(run=_zero_shot)
    command.add_argument("source", type=Path, metavar="LIST")
    command.add_argument("out", type=Path, metavar="OUT")
    return parser


def _count(value: str) -> int:
    if not value.isdigit() or int(value) == 0:
        raise argparse.ArgumentTypeError(f"{value} is not a whole number above 0")
    return int(value)


if __name__ == "__main__":
    cli.run(main)
