"""Trains the judge of synthesis on natural recordings (stage 3).

example:
  python -m audiorl.bin.train_judge --config conf/both.yaml --dump dump --out exp/judge
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
    from audiorl.train.judge import train_judge

    with ranks.joined(config.parallelism.timeout_seconds), exclusive(args.out):
        train_judge(config, args.dump, args.out)


if __name__ == "__main__":
    run(main)
