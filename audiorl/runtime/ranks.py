"""Several processes that do one job together, started by `audiorl.bin.launch` or torchrun.

Without them there is one process, and every function here is the identity: nothing is imported,
copied or added. With them, every process runs the same program on the same inputs and does its
share of what is slow. What is decided is computed by all of them from the same gathered numbers.

This module and `sharding` are the only ones that know torch.distributed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from audiorl.errors import UserError, reason

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
LOST = 76  # status of a process that ends because it has lost another
OF_ANOTHER = ("gloo", "NCCL", "onnection closed", "onnection reset", "Broken pipe")


class LostRank(UserError):
    """Another process has ended; its own message tells why."""


class _Joined:
    """Place of this process among all."""

    rank, size, local_size = 0, 1, 1
    timeout = 0.0
    waits = 0  # how often this process has met the others
    aside: Any = None  # group of a thread that works beside


def launched() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ


@contextlib.contextmanager
def joined(timeout_seconds: float) -> Iterator[None]:
    """Meet the other processes of this job, if there are any, until the block ends well."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield
        return
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    wait = datetime.timedelta(seconds=timeout_seconds)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=wait)
    _Joined.rank, _Joined.size, _Joined.timeout = int(os.environ["RANK"]), size, timeout_seconds
    _Joined.local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    if _Joined.rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # one of them tells what is done
    yield
    wait_for_all()
    torch.distributed.destroy_process_group()
    _Joined.rank, _Joined.size, _Joined.local_size, _Joined.aside = 0, 1, 1, None


def rank() -> int:
    """Return the number of this process, from 0."""
    return _Joined.rank


def size() -> int:
    """Return how many processes there are."""
    return _Joined.size


def local_size() -> int:
    """Return how many of them run on this machine."""
    return _Joined.local_size


def is_main() -> bool:
    """Return whether this is the process that writes."""
    return _Joined.rank == 0


def share(items: Sequence[T]) -> list[T]:
    """Return the items in succession that are this process's."""
    n, r, w = len(items), _Joined.rank, _Joined.size
    return list(items[n * r // w : n * (r + 1) // w])


def dealt(items: Iterable[T]) -> Iterator[T]:
    """Yield the items that are this process's, which are dealt out in turn."""
    for number, item in enumerate(items):
        if number % _Joined.size == _Joined.rank:
            yield item


def gather(value: T) -> list[T]:
    """Return what each process has, in their order; tensors have to be on the host."""
    if _Joined.size == 1:
        return [value]
    import torch

    found: list[Any] = [None] * _Joined.size
    _meet(lambda: torch.distributed.all_gather_object(found, value))
    return found


def merged(found: dict[str, T]) -> dict[str, T]:
    """Return what all processes have found, by key."""
    return {key: value for part in gather(found) for key, value in part.items()}


def aside() -> Any:
    """Return a group of all processes for what a thread of theirs does beside them."""
    import torch

    if _Joined.aside is None:
        _Joined.aside = torch.distributed.new_group(backend="gloo")
    return _Joined.aside


def from_main(value: T) -> T:
    """Return what the process that writes has."""
    return gather(value)[0]


def wait_for_all() -> None:
    """Return when every process has come here."""
    gather(None)


def total(tensor: Tensor) -> Tensor:
    """Return the sum of what the processes have."""
    if _Joined.size == 1:
        return tensor
    import torch

    tensor = tensor.clone()
    _meet(lambda: torch.distributed.all_reduce(tensor))
    return tensor


def added(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums of all processes by name; one that had nothing to add has none."""
    if _Joined.size == 1:
        return sums
    import torch

    found = gather({name: value.item() for name, value in sums.items()})
    names = dict.fromkeys(name for part in found for name in part)
    return {n: torch.tensor(sum(part.get(n, 0.0) for part in found)) for n in names}


def translated(error: Exception) -> UserError | None:
    """Return what an error says about another process; None if it is about something else."""
    if _Joined.size == 1 or not isinstance(error, RuntimeError):
        return None
    if not any(word in str(error) for word in ("imed out", "timeout")):
        lost = any(word in str(error) for word in OF_ANOTHER)
        return LostRank(f"another process has ended ({reason(error)}).") if lost else None
    behind = []
    for other in range(_Joined.size):
        key, come = f"audiorl/{other}", 0
        with contextlib.suppress(Exception):  # the store may be gone, too
            come = int(_store().get(key)) if _store().check([key]) else 0
        if come < _Joined.waits:
            behind.append(str(other))
    who = f"rank {', '.join(behind)}" if behind else "another rank"
    return UserError(
        f"waited {_Joined.timeout:g} s for {who} in vain; look at what it does, or raise "
        "parallelism.timeout_seconds."
    )


def _store() -> Any:
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def _meet(collective: Callable[[], Any]) -> None:
    """Do what all processes do at the same time; the others see how far this one has come."""
    _Joined.waits += 1
    _store().set(f"audiorl/{_Joined.rank}", str(_Joined.waits))
    try:
        collective()
    except RuntimeError as error:
        raise translated(error) or error from error
