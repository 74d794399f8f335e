"""Make the data directories train, dev and test of a list of utterances, as it is.

--corpus is a manifest (.tsv, .csv, .jsonl; its columns are named in the first line: audio, text,
and perhaps speaker, id, start, end, split, keywords), cuts of lhotse, a folder of Kaldi or ESPnet
data directories, of a Hugging Face dataset, or of audio files beside .txt files, or the name of a
dataset on Hugging Face's hub. Sets that it does not name are taken out of train, by speaker.

Examples:
    python -m audiorl.bin.import_data --corpus manifest.tsv --out data
    python -m audiorl.bin.import_data --corpus cuts.jsonl.gz --out data --dev 200 --test 0.1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from audiorl.bin import cli
from audiorl.data.importing import WAYS, HeldOut, import_rows
from audiorl.data.sources import read_rows


def main() -> None:
    parser = cli.parser(__doc__, config=False)
    parser.add_argument("--corpus", default="", help="list, folder or hub name")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    size = "share of the utterances, or from 1 on their number (0.05, at most 500)"
    parser.add_argument(
        "--dev", type=_size, metavar="SIZE", help=f"of dev, if it is not there: {size}"
    )
    parser.add_argument("--test", type=_size, metavar="SIZE", help="of test, likewise")
    parser.add_argument(
        "--by",
        choices=WAYS,
        default="",
        help="take whole speakers out of train, or utterances of speakers that stay in it, which "
        "synthesis wants (default: speakers, if there are enough)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is taken")
    args = parser.parse_args()
    held_out = HeldOut(args.dev, args.test, args.by, args.seed)
    rows = read_rows(args.corpus, args.out / "audio")
    import_rows(rows, args.out, held_out, args.corpus)


def _size(value: str) -> float:
    try:
        size = float(value)
    except ValueError:
        size = 0.0
    if not (0 < size < 1 or (size >= 1 and size.is_integer())):
        raise argparse.ArgumentTypeError(f"{value} is neither a share below 1 nor a whole number")
    return size


if __name__ == "__main__":
    cli.run(main)
