"""Trains every row of a table with every seed, on one warm start, and writes the table.

example:
  python -m audiorl.bin.run_table --matrix conf/table.yaml --init exp/sft --dump dump \\
      --out exp/table --jobs 2
  python -m audiorl.bin.run_table --matrix conf/table.yaml --init exp/sft --dump dump \\
      --out exp/table --check

A matrix (audiorl/config/matrix.py):
  config: grpo.yaml                # where every row begins; paths are relative to the matrix
  seeds: [1, 2, 3]
  baseline: grpo                   # a row, or warm_start
  columns: [test_clean.wer, pooled.wer, test_nospeech.words_per_minute]
  cells:
    grpo: {}
    control: {config: supervised.yaml}
    hot: {set: [rl.temperature=1.0]}

It may be stopped at any time: the same command continues there, and does nothing twice. A row
that fails stops no other. RESULTS.md and report.html in --out hold the results so far.
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin import cli
from audiorl.config.matrix import load_matrix


def main() -> None:
    parser = cli.parser(__doc__, "dump", config=False)
    parser.add_argument("--matrix", required=True, metavar="YAML", help="the table's rows")
    parser.add_argument(
        "--init",
        type=Path,
        required=True,
        help="experiment of the warm start; of synthesis, beside codec, reward_model and judge",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side")
    parser.add_argument("--check", action="store_true", help="checks the matrix, and runs nothing")
    cli.add_set(parser)
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error("--jobs needs at least 1")
    experiments = load_matrix(args.matrix, args.set)

    from audiorl.table.plan import make_plan
    from audiorl.table.run import describe, run_table

    plan = make_plan(experiments, args.init, args.dump, args.out)
    if args.check:
        print(describe(plan))
    else:
        run_table(plan, args.jobs)


if __name__ == "__main__":
    cli.run(main)
