"""Times a whole GRPO step (generate, reward, update), alone or against another trainer.

examples:
  python bench/grpo_step.py --shape asr --peer trl --json asr.json
  python bench/grpo_step.py --shape asr --group 2,4,8,16 --repeats 3

Both sides run in processes of their own that take turns, on the same architecture, lengths and
counts; the peer's environment (tools/venv_bench_trl) is made when it is first needed.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median

from link import Child
from peers import PEERS, Peer
from shapes import SHAPES, Shape, flops

from audiorl.bin.cli import parser, run
from audiorl.errors import UserError
from audiorl.runtime.files import progress, write_json

HERE = Path(__file__).resolve().parent


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--shape", choices=SHAPES, default="asr", help="lengths and counts")
    options.add_argument("--peer", choices=PEERS, help="what to compare with; default: nothing")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    options.add_argument("--repeats", type=int, default=5, help="timed steps, after one to warm up")
    options.add_argument("--threads", type=int, default=1, help="threads of each side")
    options.add_argument("--group", type=numbers, metavar="N,N", help="group sizes to go through")
    options.add_argument("--prefix", type=numbers, metavar="N,N", help="prefixes to go through")
    options.add_argument(
        "--micro-batch-tokens", type=int, default=1024, help="our rl.micro_batch_tokens"
    )
    options.add_argument(
        "--peer-sequences", type=int, default=8, help="the peer's sequences in a forward pass"
    )
    args = options.parse_args()
    shape = SHAPES[args.shape]
    shapes = [
        shape.with_(group=group, prefix=prefix)
        for group in args.group or [shape.group]
        for prefix in args.prefix or [shape.prefix]
    ]
    peer = PEERS[args.peer] if args.peer else None
    if peer:
        peer.install()
    results = [measure(shape, peer, args) for shape in shapes]
    for result in results:
        print("\n".join(lines(result, args.peer)))
    if args.json:
        settings = {
            "peer": peer.requirement if peer else None,
            "threads": args.threads,
            "micro_batch_tokens": args.micro_batch_tokens,
            "peer_sequences": args.peer_sequences,
        }
        write_json(args.json, {**circumstances(), **settings, "results": results})


def numbers(text: str) -> list[int]:
    """The positive integers of `2,4,8`."""
    found = [int(word) for word in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text} has a number below 1")
    return found


def measure(shape: Shape, peer: Peer | None, args: argparse.Namespace) -> dict:
    """Steps of both sides in turn; medians, ratios and the floor of one shape."""
    common = {"shape": shape.as_dict(), "threads": args.threads}
    with tempfile.TemporaryDirectory() as logs:
        command = [sys.executable, HERE / "ours.py"]
        sides = {"ours": Child(command, Path(logs, "ours.log"), args.threads)}
        if peer:
            sides["peer"] = Child(peer.command, Path(logs, "peer.log"), args.threads)
        try:
            built = {
                "ours": sides["ours"].ask({**common, "micro_batch_tokens": args.micro_batch_tokens})
            }
            if peer:
                built["peer"] = sides["peer"].ask({**common, "sequences": args.peer_sequences})
            runs = take_turns(sides, shape, args.repeats)
            rate = sides["ours"].ask({"do": "rate"})["flop_rate"]
        finally:
            for side in sides.values():
                side.close()
    result = {"shape": shape.as_dict()}
    for name, steps in runs.items():
        result[name] = {**built[name], **summary(steps)}
    if peer:
        result["ratio"] = {clock: ratio(runs, clock) for clock in ("cpu", "wall")}
    work = flops(shape)
    seconds = sum(work.values()) / rate
    result["floor"] = {
        "flops": work,
        "flop_rate": rate,
        "seconds": seconds,
        "ours_over_floor": result["ours"]["cpu"]["median"] / args.threads / seconds,
    }
    return result


def take_turns(sides: dict[str, Child], shape: Shape, repeats: int) -> dict[str, list[dict]]:
    """`repeats` steps of each side, alternating, after one of each that is not counted."""
    runs: dict[str, list[dict]] = {name: [] for name in sides}
    for turn in progress(range(repeats + 1), desc=f"prefix {shape.prefix}, group {shape.group}"):
        for name, side in sides.items():
            step = side.ask({"do": "step"})
            done = {"tokens": step["tokens"], "prefix": step["prefix"]}
            if done != {"tokens": shape.rows * shape.completion, "prefix": shape.prefix}:
                raise UserError(
                    f"{name} did other work than asked ({done} for {shape}): its times mean "
                    "nothing; look at how it makes its prompts."
                )
            if turn > 0:
                runs[name].append(step)
    return runs


def summary(steps: list[dict]) -> dict:
    """Medians of the steps of one side, and its memory."""
    found: dict = {clock: spread([step[clock] for step in steps]) for clock in ("cpu", "wall")}
    found["peak_bytes"] = max(step["peak"] for step in steps)
    found["start_bytes"] = steps[0]["start"]
    if "phases" in steps[0]:
        names = steps[0]["phases"]
        found["phases"] = {name: median(step["phases"][name] for step in steps) for name in names}
    return found


def spread(values: list[float]) -> dict:
    return {"median": median(values), "min": min(values), "max": max(values), "runs": values}


def ratio(runs: dict[str, list[dict]], clock: str) -> dict[str, float]:
    """How many times faster we are: of the medians, and the extremes of neighbouring steps."""
    ours, peer = ([step[clock] for step in runs[name]] for name in ("ours", "peer"))
    pairs = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    return {"median": median(peer) / median(ours), "min": min(pairs), "max": max(pairs)}


def circumstances() -> dict[str, str]:
    """What the numbers hold for."""
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    )
    return {
        "date": datetime.date.today().isoformat(),
        "machine": processor(),
        "revision": revision.stdout.strip(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def processor() -> str:
    """The processor's name: Linux has it in /proc only."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def lines(result: dict, peer: str | None) -> list[str]:
    """One shape's result for people."""
    shape, floor = Shape(**result["shape"]), result["floor"]
    shown = [
        f"prefix {shape.prefix}, completion {shape.completion}, group {shape.group}, "
        f"prompts {shape.prompts}, {result['ours']['parameters'] / 1e6:.1f} M parameters"
    ]
    for name, title in {"ours": "audiorl", "peer": peer}.items():
        if name in result:
            side = result[name]
            cpu, wall = side["cpu"], side["wall"]
            growth = side["peak_bytes"] - side["start_bytes"]
            shown.append(
                f"  {title:8} {cpu['median']:7.2f} s of processor [{cpu['min']:.2f}, "
                f"{cpu['max']:.2f}], {wall['median']:7.2f} s; peak memory "
                f"{side['peak_bytes'] / 1e9:.2f} GB, {growth / 1e9:.2f} GB of it by steps"
            )
    for clock, found in result.get("ratio", {}).items():
        shown.append(
            f"  ratio    {found['median']:7.2f} [{found['min']:.2f}, {found['max']:.2f}] ({clock})"
        )
    total = sum(result["ours"]["phases"].values())
    phases = [f"{name} {100 * s / total:.0f} %" for name, s in result["ours"]["phases"].items()]
    shown.append("  phases   " + ", ".join(phases))
    shown.append(
        f"  floor    {floor['seconds']:7.2f} s ({sum(floor['flops'].values()) / 1e9:.0f} GFLOP at "
        f"{floor['flop_rate'] / 1e9:.0f} GFLOP/s); we take {floor['ours_over_floor']:.2f} times it"
    )
    return shown


if __name__ == "__main__":
    run(main)
