"""Decodes the test sets with one or more experiments (stage 6).

example:
  python -m audiorl.bin.decode --config conf/grpo.yaml --dump dump exp/sft exp/grpo
  python -m audiorl.bin.decode --config conf/grpo.yaml --set decode.name=beam \\
      --set decode.method=nbest --dump dump exp/grpo
"""

from __future__ import annotations

from audiorl.bin.cli import parser, refuse_other_task, run
from audiorl.config import load_config
from audiorl.runtime import ranks


def main() -> None:
    options = parser(__doc__, "dump", "experiments")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.infer.decode import decode_sets
    from audiorl.runtime.device import setup_torch
    from audiorl.tasks import make_task
    from audiorl.tasks.task import Folders

    setup_torch(config.num_threads)
    for experiment in args.experiments:
        refuse_other_task(experiment, "asr")
    with ranks.joined(config.parallelism.timeout_seconds):
        decode_sets(make_task(config, Folders(args.dump)).decoder(), args.dump, args.experiments)


if __name__ == "__main__":
    run(main)
