"""A function in a Python file of your own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiorl.config.field import key
from audiorl.errors import UserError, reason
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.rewards.core.waves import WaveOptions
from audiorl.runtime.processes import Helper


@dataclass
class Options(WaveOptions):
    """The file, and whether the samples come with waves."""

    reward_file: str = key(
        "", "Python file with reward(samples), a number or None for each; packed with the result"
    )

    timeout: float = key(600.0, "s to wait for the values of one call", gt=0)

    @property
    def files(self) -> tuple[Path, ...]:
        return (Path(self.reward_file),) if self.reward_file else ()

    def problems(self) -> Iterator[str]:
        path = Path(self.reward_file)
        if not self.reward_file:
            yield "file needs reward_file, your Python file with reward(samples); name it"
        elif path.suffix != ".py":
            yield f"reward_file is {path}, which is no Python file; name one that ends in .py"
        if path.is_absolute() or ".." in path.parts:
            yield (
                f"reward_file is {path}, outside the recipe's folder, and would not be packed with "
                "the result; copy it there"
            )


def build(options: Options, context: Context) -> Reward:
    """Return what the function `reward(samples)` of the user's Python file returns.

    It is given a list of `audiorl.rewards.Sample` (those of an utterance are consecutive) and
    returns a number or None (unscorable) for each. The file runs in a process of its own, which it
    may end or block, but not the training. UserError if it has no such function, or does so.
    """
    path = Path(options.reward_file)
    helper = Helper(f"the reward {path}", _load, path, timeout=options.timeout)

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        values = helper.call(list(samples))
        if len(values) != len(samples):
            raise UserError(
                f"{path}: reward() returned {len(values)} values for {len(samples)} samples; "
                "return a number or None for each."
            )
        return values

    return Reward(reward)


def _load(path: Path) -> Callable[[list[Sample]], list[float | None]]:
    spec = importlib.util.spec_from_file_location(f"reward_file_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise UserError(f"{path} cannot be loaded ({kind}: {reason(error)}); fix it.") from error
    if not callable(function := getattr(module, "reward", None)):
        raise UserError(
            f"{path} has no function reward(samples); add one that returns a number or None for "
            "each sample."
        )
    return lambda samples: _numbers(function(samples))


def _numbers(values: Any) -> list[float | None]:
    """Return plain numbers: the classes of the user's libraries need not be known elsewhere."""
    values = [values] if isinstance(values, str | Mapping | Set) else list(values)  # no number
    if any(isinstance(value, str | bytes) for value in values):
        raise TypeError("reward() returned texts, where it must return a number or None for each")
    return [None if value is None else float(value) for value in values]
