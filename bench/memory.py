"""Peak memory of log-probabilities and their gradient against the size of the vocabulary.

example:
  python bench/memory.py --vocab 8000,32000,150000 --json memory.json

Three ways, each in a process of its own: `ours` (audiorl/rl/logprobs.py), `completion` (logits of
the responses, log-softmax in fp32, gather) and `full` (the same of prefix and response).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpo_step import circumstances, numbers
from link import Child

from audiorl.bin.cli import parser, run
from audiorl.runtime.files import progress, write_json

HERE = Path(__file__).resolve().parent
WAYS = ("ours", "completion", "full")  # of logprob_pass.py


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--vocab", type=numbers, default=[8000, 32000, 150000], metavar="N,N")
    options.add_argument("--rows", type=int, default=32, help="responses")
    options.add_argument("--completion", type=int, default=64, help="tokens of each response")
    options.add_argument("--prefix", type=int, default=32, help="tokens of the one prefix of all")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    args = options.parse_args()
    lengths = {name: getattr(args, name) for name in ("rows", "completion", "prefix")}
    results = []
    print(f"{'vocabulary':>10}" + "".join(f"{way:>12} MB" for way in WAYS) + "  ours/completion")
    for vocab in progress(args.vocab, desc="vocabularies"):
        peaks = {way: growth({"way": way, "vocab": vocab, **lengths}) for way in WAYS}
        results.append({"vocab": vocab, **lengths, "bytes": peaks})
        shown = "".join(f"{size / 1e6:15.0f}" for size in peaks.values())
        print(f"{vocab:10}{shown}{peaks['ours'] / peaks['completion']:17.2f}", flush=True)
    if args.json:
        write_json(args.json, {**circumstances(), "results": results})


def growth(request: dict) -> int:
    """Bytes that a pass needs beyond the model and its inputs."""
    with tempfile.TemporaryDirectory() as folder:
        child = Child([sys.executable, HERE / "logprob_pass.py"], Path(folder, "log"), threads=1)
        try:
            return child.ask(request)["bytes"]
        finally:
            child.close()


if __name__ == "__main__":
    run(main)
