"""Trains the token-to-text reward model (stage 3).

example:
  python -m audiorl.bin.train_reward_model --config conf/grpo.yaml --dump dump \\
      --tokens exp/codec/tokens --out exp/reward_model
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.runtime import ranks
from audiorl.runtime.locks import exclusive


def main() -> None:
    options = parser(__doc__, "dump", "out")
    options.add_argument("--tokens", type=Path, required=True, help="folder of the sets' tokens")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.train.reward_model import train_reward_model

    with ranks.joined(config.parallelism.timeout_seconds), exclusive(args.out):
        train_reward_model(config, args.dump, args.tokens, args.out)


if __name__ == "__main__":
    run(main)
