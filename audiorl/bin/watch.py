"""Shows how a run goes, in the terminal: numbers, their course, and what is wrong with them.

example:
  python -m audiorl.bin.watch exp/grpo

Where the output is a file or a pipe it is shown once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from audiorl.bin.cli import parser, run

CLEAR = "\x1b[H\x1b[2J\x1b[3J"  # the screen and what has scrolled off it


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("exp", type=Path, help="experiment that trains, or has trained")
    options.add_argument("--every", type=float, default=5, help="seconds; 0: once (default 5)")
    args = options.parse_args()
    from audiorl.report.live import follow

    terminal = sys.stdout.isatty() and args.every > 0
    clear = CLEAR if terminal else ""
    follow(args.exp, args.every if terminal else 0, lambda text: print(f"{clear}{text}"))


if __name__ == "__main__":
    run(main)
