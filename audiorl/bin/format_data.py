"""Validates the sets that a config names and writes them to dump/ with durations (stage 2).

Utterances outside the limits of data.* are dropped from train and RL sets only, and counted.
Sets that are up to date are left as they are.

Example:
    python -m audiorl.bin.format_data --config conf/grpo.yaml --data data --dump dump --nj 4
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin import cli
from audiorl.bin.data_dir import add_audio_options
from audiorl.config import load_config
from audiorl.data.format import format_sets


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the sets")
    parser.add_argument("--dump", type=Path, default=Path("dump"), help="folder to write")
    add_audio_options(parser)
    args = parser.parse_args()
    config = load_config(args.config, args.set)
    format_sets(config, args.data, args.dump, args.nj, args.allow_pipes)


if __name__ == "__main__":
    cli.run(main)
