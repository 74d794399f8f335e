"""Improves a warm start by reinforcement learning, or by the supervised control (stage 5).

example:
  python -m audiorl.bin.train_rl --config conf/grpo.yaml --init exp/sft \\
      --data exp/rl/train.jsonl --dump dump --out exp/grpo
  python -m audiorl.bin.train_rl --config conf/both.yaml --init exp/sft \\
      --data exp/rl/train.jsonl --dump dump --out exp/both \\
      --codec exp/codec --reward_model exp/reward_model --judge exp/judge    # task: tts
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.runtime import ranks
from audiorl.runtime.locks import exclusive


def main() -> None:
    options = parser(__doc__, "dump", "out")
    options.add_argument("--init", type=Path, required=True, help="experiment that is improved")
    options.add_argument("--data", type=Path, required=True, help="RL set (.jsonl)")
    options.add_argument("--codec", type=Path, help="tts: experiment of the codec")
    options.add_argument("--reward_model", type=Path, help="tts: experiment of the reward model")
    options.add_argument("--judge", type=Path, help="tts: experiment of who watches over hacking")
    options.add_argument(
        "--histories", type=Path, help="tts: folder with tokens of the RL set, for fixed histories"
    )
    options.add_argument(
        "--ear",
        type=Path,
        help="tts: recogniser of waves whose transcripts are rewarded; without: the reward model's",
    )
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.tasks import make_task
    from audiorl.tasks.task import Folders
    from audiorl.train.rl import train_rl

    folders = Folders(
        args.dump, args.codec, args.reward_model, args.judge, args.histories, args.ear
    )
    with ranks.joined(config.parallelism.timeout_seconds), exclusive(args.out):
        train_rl(make_task(config, folders), args.init, args.data, args.out)


if __name__ == "__main__":
    run(main)
