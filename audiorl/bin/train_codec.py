"""Trains the speech codec, or measures a pretrained one (stage 3).

example:
  python -m audiorl.bin.train_codec --config conf/grpo.yaml --dump dump --out exp/codec
"""

from __future__ import annotations

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.runtime import ranks
from audiorl.runtime.locks import exclusive


def main() -> None:
    options = parser(__doc__, "dump", "out")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.train.codec import train_codec

    with ranks.joined(config.parallelism.timeout_seconds), exclusive(args.out):
        train_codec(config, args.dump, args.out)


if __name__ == "__main__":
    run(main)
