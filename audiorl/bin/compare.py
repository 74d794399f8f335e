"""Compares two scored systems: whether they differ, and which utterances changed, and how.

example:
  python -m audiorl.bin.compare exp/sft exp/grpo
  python -m audiorl.bin.compare exp/grpo exp_beta/grpo --out exp_beta/beta_or_not

Paired tests for each test set; errors by kind, loops and keywords; error rates by length, SNR
(utt2snr) and speaker; the utterances that changed most. It reads what stage 7 has scored.
"""

from __future__ import annotations

import re
from pathlib import Path

from audiorl.bin import cli


def main() -> None:
    parser = cli.parser(__doc__, config=False)
    parser.add_argument("first", type=Path, metavar="EXP_A", help="experiment, the one before")
    parser.add_argument("second", type=Path, metavar="EXP_B", help="experiment that is judged")
    parser.add_argument("--dump", type=Path, default=Path("dump"), help="folder of formatted sets")
    parser.add_argument("--decode", default="greedy", help="compares decode_<NAME>", metavar="NAME")
    parser.add_argument(
        "--out", type=Path, help="folder of the page; default: EXP_B/compare_<EXP_A>"
    )
    args = parser.parse_args()

    from audiorl.report.comparison import analyse, as_page, as_terminal
    from audiorl.runtime.files import atomic_write

    analysis = analyse(args.first, args.second, args.dump, args.decode)
    name = re.sub(r"[^\w.-]+", "_", analysis.first.label)
    out = args.out or args.second / f"compare_{name}"
    print(as_terminal(analysis))
    with atomic_write(out / "report.html") as stream:
        stream.write(as_page(analysis, out / "images"))
    print(f"\n{out / 'report.html'}: written")


if __name__ == "__main__":
    cli.run(main)
