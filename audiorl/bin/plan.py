"""Estimates memory and time of an RL step (stage 5) on several GPUs, from a recipe's sizes alone.

example:
  python -m audiorl.bin.plan --config conf/grpo.yaml --gpu H100 --gpus 1 8 64

Seconds of each phase and of a step; gigabytes of a GPU where each has all that learns, and where
they share it (parallelism.data_parallel_shard_degree: -1). (!): more than a GPU has.

  python -m audiorl.bin.plan --config conf/grpo.yaml --stages 28539 5559

The stages that want a GPU, on one: hours, gigabytes and precision.
"""

from __future__ import annotations

from audiorl.bin.cli import parser, run
from audiorl.config import load_config


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--gpu", choices=("A100", "H100"), default="H100")
    options.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    options.add_argument("--seconds", type=float, default=10.0, help="of an utterance, on average")
    options.add_argument("--response", type=float, default=50.0, help="tokens, on average")
    options.add_argument(
        "--stages",
        type=int,
        nargs=2,
        metavar=("RL", "TESTS"),
        help="stages 3 to 6 of one GPU, for so many utterances of the RL set and of all test sets",
    )
    args = options.parse_args()
    config = load_config(args.config, args.set)
    if args.stages:
        from audiorl.rl.stage_plan import stages

        lines = stages(config, args.gpu, args.seconds, args.response, *args.stages)
    else:
        from audiorl.rl.plan import plan

        lines = plan(config, args.gpu, args.gpus, args.seconds, args.response)
    for line in lines:
        print(line)


if __name__ == "__main__":
    run(main)
