"""Builds the RL set: probes how hard utterances are for the warm start, and chooses (stage 4).

Of synthesis: the texts, and beside them tokens/, which DiffRO learns along.

example:
  python -m audiorl.bin.build_rl_data --config conf/grpo.yaml --dump dump --init exp/sft \\
      --out exp/rl/train.jsonl
"""

from __future__ import annotations

import logging
from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.runtime import ranks
from audiorl.runtime.locks import exclusive


def main() -> None:
    options = parser(__doc__, "dump")
    options.add_argument(
        "--init", type=Path, required=True, help="experiment whose model is the policy"
    )
    options.add_argument("--out", type=Path, required=True, help="RL set to write (.jsonl)")
    options.add_argument("--codec", type=Path, help="tts: experiment that prompts are read with")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.runtime.device import setup_torch
    from audiorl.tasks import make_task
    from audiorl.tasks.task import Folders

    logging.basicConfig(format="%(message)s")  # reward workers have no other way to say why
    setup_torch(config.num_threads)
    with (
        ranks.joined(config.parallelism.timeout_seconds),
        exclusive(args.out.parent, args.out.name),
    ):
        make_task(config, Folders(args.dump, args.codec)).build_rl_set(args.init, args.out)


if __name__ == "__main__":
    run(main)
