"""Speaks the test sets with one or more experiments: tokens, then waves (stage 6).

example:
  python -m audiorl.bin.synthesise --config conf/both.yaml --dump dump --codec exp/codec \\
      exp/sft exp/grpo

Voices are the speakers' in the train set; of a system that was unpacked, those that it brought.
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, refuse_other_task, run
from audiorl.config import load_config
from audiorl.runtime import ranks


def main() -> None:
    options = parser(__doc__, "dump", "experiments")
    options.add_argument("--codec", type=Path, required=True, help="experiment of the codec")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.infer.decode import decode_sets
    from audiorl.runtime.device import setup_torch
    from audiorl.tasks import make_task
    from audiorl.tasks.task import Folders

    setup_torch(config.num_threads)
    for experiment in args.experiments:
        refuse_other_task(experiment, "tts")
    task = make_task(config, Folders(args.dump, args.codec))
    with ranks.joined(config.parallelism.timeout_seconds):
        decode_sets(task.decoder(), args.dump, args.experiments)


if __name__ == "__main__":
    run(main)
