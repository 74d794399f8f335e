"""Starts a program as several processes that share its work, through torchrun's agent.

example:
  python -m audiorl.bin.launch --num_processes 2 -m audiorl.bin.train_rl --config conf/grpo.yaml \\
      --init exp/sft --data exp/rl/train.jsonl --dump dump --out exp/grpo

On several machines run it on each, with MAIN_ADDRESS=host:port of one of them. A signal is handed
on: trainings save at the end of their step. When one process fails, the others are ended, and its
message is shown. No process outlives this one.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from audiorl.bin.cli import run
from audiorl.errors import UserError
from audiorl.runtime.ranks import LOST
from audiorl.runtime.stopping import TERMINATED

SAVING_SECONDS = 120  # s that processes have to save and end after a signal
FIRST_STATUS = {signal.SIGINT: 130}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--num_processes", type=int, required=True, help="on this machine")
    options.add_argument("--num_nodes", type=int, default=1, help="machines")
    options.add_argument("-m", metavar="MODULE ...", help="the program, with its arguments")
    given = sys.argv[1:]
    place = given.index("-m") if "-m" in given else len(given)
    args, program = options.parse_args(given[:place]), given[place:]
    if len(program) < 2:
        raise UserError("-m MODULE names the program.")
    if min(args.num_processes, args.num_nodes) < 1:
        raise UserError("--num_processes and --num_nodes need at least 1.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else each process would take every core
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we say it once
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with _signals_handed_on() as received:
        try:
            elastic_launch(_config(args), sys.executable)(*program)
        except ChildFailedError as error:
            _leave(error.failures, received)


def _config(args: argparse.Namespace) -> Any:
    from torch.distributed.launcher.api import LaunchConfig

    address = os.environ.get("MAIN_ADDRESS", "localhost:0")
    if args.num_nodes > 1 and "MAIN_ADDRESS" not in os.environ:
        raise UserError("--num_nodes: set MAIN_ADDRESS=host:port of one of the machines on each.")
    return LaunchConfig(
        min_nodes=args.num_nodes,
        max_nodes=args.num_nodes,
        nproc_per_node=args.num_processes,
        run_id=os.environ.get("SLURM_JOB_ID", "audiorl"),
        rdzv_backend="c10d",
        rdzv_endpoint=address,
        max_restarts=0,
        local_addr="localhost" if args.num_nodes == 1 else None,
        signals_to_handle="SIGQUIT",  # the others are ours
    )


@contextlib.contextmanager
def _signals_handed_on() -> Iterator[list[int]]:
    """Ask all processes to save and end when a signal comes; end them when their time is over.

    Before they are started, it ends the program.
    """
    received: list[int] = []

    def hand_on(number: int, _: Any) -> None:
        received.append(number)
        if not _send(signal.SIGUSR1):
            sys.exit(_status(received))
        if len(received) == 1:
            signal.alarm(SAVING_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, hand_on)
    signal.signal(signal.SIGALRM, lambda *_: _send(signal.SIGKILL))
    yield received
    signal.alarm(0)


def _send(number: int) -> bool:
    """Send a signal to all processes; return whether there are any."""
    children = list(_children())
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
    return bool(children)


def _status(received: list[int]) -> int:
    return FIRST_STATUS.get(received[0], TERMINATED) if received else TERMINATED


def _children() -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                yield int(stat.parent.name)


def _leave(failures: dict[int, Any], received: list[int]) -> NoReturn:
    """End with the message and the status of the process that failed first by itself."""
    order = sorted(failures.items(), key=lambda item: (item[1].exitcode == LOST, item[1].timestamp))
    rank, failure = order[0]
    if failure.exitcode in (TERMINATED, -signal.SIGUSR1):  # the latter while it was starting
        sys.exit(_status(received))
    said = failure.message["message"] if isinstance(failure.message, dict) else failure.message
    if failure.exitcode < 0:
        said = f"it was ended by {failure.signal_name()}"
        if failure.exitcode == -signal.SIGKILL:
            late = f", {SAVING_SECONDS} s after it was asked to save"
            said += late if received else ", for want of memory as a rule"
        said += "; run the same command again to continue."
    print(f"error: rank {rank}: {said}", file=sys.stderr)
    sys.exit(128 - failure.exitcode if failure.exitcode < 0 else 1)


if __name__ == "__main__":
    run(main)
