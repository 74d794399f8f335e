"""Trains the supervised warm start, an audio LLM or a speech LM by the config's task (stage 3).

example:
  python -m audiorl.bin.train_sft --config conf/grpo.yaml --dump dump --out exp/sft
  python -m audiorl.bin.train_sft --config conf/both.yaml --dump dump --codec exp/codec \\
      --out exp/sft                                           # task: tts
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.runtime import ranks
from audiorl.runtime.locks import exclusive


def main() -> None:
    options = parser(__doc__, "dump", "out")
    options.add_argument("--codec", type=Path, help="experiment of the codec (task: tts)")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.tasks import make_task
    from audiorl.tasks.task import Folders
    from audiorl.train.sft import train_sft

    with ranks.joined(config.parallelism.timeout_seconds), exclusive(args.out):
        train_sft(make_task(config, Folders(args.dump, args.codec)), args.out)


if __name__ == "__main__":
    run(main)
