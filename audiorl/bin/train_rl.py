"""Improves a warm start by reinforcement learning, or by the supervised control (stage 5).

example:
  python -m audiorl.bin.train_rl --config conf/grpo.yaml --init exp/sft \\
      --data exp/rl/train.jsonl --dump dump --out exp/grpo
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--init", type=Path, required=True, help="experiment that is improved")
    options.add_argument("--data", type=Path, required=True, help="RL set (.jsonl)")
    options.add_argument("--dump", type=Path, required=True, help="folder of the formatted sets")
    options.add_argument(
        "--out", type=Path, required=True, help="experiment to write or go on with"
    )
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.train.rl import train_rl

    train_rl(config, args.init, args.data, args.dump, args.out)


if __name__ == "__main__":
    run(main)
