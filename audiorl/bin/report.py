"""Writes RESULTS.md, report.html and pictures that compare systems with the first one.

example:
  python -m audiorl.bin.report --config conf/grpo.yaml --dump dump exp/sft exp/grpo --out exp/grpo

report.html is one file without outside parts: tables, curves, and utterances to listen to.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from audiorl.bin import cli


def main() -> None:
    parser = cli.parser(__doc__, "dump")
    parser.add_argument("exp", nargs="+", type=Path, help="experiment folders, the first = before")
    parser.add_argument("--out", type=Path, required=True, help="the system the report is about")
    args = parser.parse_args()

    from audiorl.config import load_config
    from audiorl.report.report import write_report
    from audiorl.score.metrics import measures_of

    cfg, exps = load_config(args.config, args.set), args.exp
    measures = measures_of(cfg.task)
    if measures.judged:
        from audiorl.score.tts import scored_together

        exps = scored_together(exps, args.dump, cfg)
    command = shlex.join(["python", "-m", "audiorl.bin.report", *sys.argv[1:]])
    changed = write_report(exps, args.dump, args.out, cfg, measures, command)
    print(f"{args.out / 'report.html'}: {'written' if changed else 'up to date'}")


if __name__ == "__main__":
    cli.run(main)
